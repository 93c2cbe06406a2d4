package web

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"
)

// hostile is a name that would be a script where it is not escaped.
const hostile = `</td><script>alert("x")</script>' onload="y`

// nodes calls f with all elements of the page.
func nodes(t *testing.T, page string, f func(n *html.Node)) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	require.NoError(t, err)
	for n := range root.Descendants() {
		if n.Type == html.ElementNode {
			f(n)
		}
	}
}

// Names come from configurations, databases and senders: none becomes an element.
func TestHostileNamesAreText(t *testing.T) {
	w := newWorld(t, hostile)
	w.site.SetRoutes(http.NewServeMux())
	w.hour()
	w.change(func(st *Status) { st.Lanes[0].State, st.NotReady = "failing"+hostile, hostile })
	w.pass(historyEvery, 100, 0.5)
	w.site.watch.picture = nil
	pages := []string{do(w.site, http.MethodGet, "/?series=up").Body.String()}
	for _, p := range w.site.parts() {
		pages = append(pages, p.html)
	}
	require.Len(t, pages, 1+len(partNames))
	for _, page := range pages {
		nodes(t, page, func(n *html.Node) {
			for _, a := range n.Attr {
				require.False(t, strings.HasPrefix(a.Key, "on"), "%s has %s", n.Data, a.Key)
				require.NotEqual(t, "style", a.Key, "the policy of the page forbids it")
			}
			if n.Data == "script" {
				require.Nil(t, n.FirstChild, "a script with text")
			}
		})
	}
	require.Contains(t, pages[0], "&lt;/td&gt;&lt;script&gt;alert")
}

func TestPageSaysWhatIs(t *testing.T) {
	w := newWorld(t, "")
	w.site.SetRoutes(http.NewServeMux())
	do(w.site, http.MethodGet, "/")
	w.pass(10*time.Second, 300, 0.25)
	w.site.watch.picture = nil // a second has passed
	r := do(w.site, http.MethodGet, "/?series=up&refresh=10")
	require.Equal(t, http.StatusOK, r.Code)
	require.Equal(t, policy, r.Header().Get("Content-Security-Policy"))
	page := r.Body.String()
	for _, want := range []string{
		"Ready, but not everything is sent to main; database db3:5432 of orders is down: connection refused.",
		"300/s <span>samples</span>",
		"3 GiB <span>of 10 GiB</span>",
		`<dd class="delivered">75/s, <b>750</b> in all`,
		`<dd class="withheld">25 %, withheld 225/s`,
		"queue_age is 14.2 of 10; the rate goes from 0.4 to 0.25: the backlog grows",
		"2\u202f250 samples, in about 3.8 s",
		"42\u202f000, at most 1\u202f200 in flight",
		"The backend fails; everything stays in the journal and is tried again",
		"<code>/backends/archive/api/v1/</code>",
		`db1:5432: 3 sessions wait, the longest for 12 s`,
		`<li>session 3990 blocks<ul><li>session 4101</li><li>session 4102 blocks<ul><li>session 4110</li></ul></li></ul></li>`,
		`<th scope="row">probe/orders<td>this gateway<td class="n">42<td class="n">7.5 s`,
		"http://gate.example:9201/api/v1/write",
		`<td>normal <span class="details">everything else</span>`,
		`<noscript><meta http-equiv="refresh" content="10"></noscript>`,
	} {
		require.Contains(t, page, want)
	}
	nodes(t, page, func(n *html.Node) {
		for _, a := range n.Attr {
			if a.Key == "src" || a.Key == "href" && n.Data == "link" {
				require.True(t, strings.HasPrefix(a.Val, "assets/") || a.Val == "data:,", "%s %s", n.Data, a.Val)
			}
		}
	})
}

func TestQuietPage(t *testing.T) {
	w := newWorld(t, "")
	w.change(func(st *Status) {
		*st = Status{At: noon, Lanes: []Lane{{Name: "local", Kind: "tsdb", State: "ok"}}}
	})
	w.site.SetRoutes(http.NewServeMux())
	page := do(w.site, http.MethodGet, "/").Body.String()
	for _, want := range []string{
		"Ready. Every backend takes what it is sent; nothing is withheld.", "Nobody has sent anything yet", "None is watched.",
		`<details id="send" open>`, "everything (adaptive_sampling is off)",
	} {
		require.Contains(t, page, want)
	}
}

func TestStatusAPI(t *testing.T) {
	w := newWorld(t, "")
	do(w.site, http.MethodGet, "/api/v1/status")
	w.pass(10*time.Second, 300, 0.25)
	w.site.watch.picture = nil
	r := do(w.site, http.MethodGet, "/api/v1/status")
	require.Equal(t, "application/json", r.Header().Get("Content-Type"))
	var got Picture
	require.NoError(t, json.Unmarshal(r.Body.Bytes(), &got))
	require.Equal(t, 300.0, got.Received.PerSecond)
	require.Equal(t, LaneRates{Routed: 300, Delivered: 75, Withheld: 225}, got.Lanes[0].PerSecond)
	require.Equal(t, 0.25, got.Lanes[0].Sampling.Classes[2].Share)
	require.Equal(t, 1.0, got.Lanes[0].Sampling.Classes[0].Share)
	require.Equal(t, uint64(3990), got.Clusters[0].Targets[0].Blocking.Roots[0].Session)
	require.Len(t, got.Events, 2)
	require.Equal(t, "main", got.Lanes[0].LastError.About)
	require.Len(t, got.History.Times, 1)
	require.Equal(t, 300.0, *got.History.Received[0])
}

func TestExplainAPI(t *testing.T) {
	w := newWorld(t, "")
	do(w.site, http.MethodGet, "/api/v1/status")
	w.pass(10*time.Second, 300, 0.25)
	w.site.watch.picture = nil
	r := do(w.site, http.MethodGet, "/api/v1/explain?series=up")
	require.Equal(t, http.StatusOK, r.Code)
	var e Explanation
	require.NoError(t, json.Unmarshal(r.Body.Bytes(), &e))
	require.Equal(t, Route{
		Backend: "main", Takes: true, Sampling: true, Class: "normal", Rule: "everything else",
		Rate: 0.25, Why: "queue_age is 14.2 of 10; the rate goes from 0.4 to 0.25: the backlog grows",
	}, e.Routes[0])
	require.Equal(t, Route{Backend: "archive"}, e.Routes[1])
	require.Equal(t, "10.1.0.7 for 10.9.0.3 (Prometheus/3.1.0, rw2)", e.LastSent.By())
	page := do(w.site, http.MethodGet, "/?series=up").Body.String()
	require.Regexp(t, `Last sent at \S+ by 10\.1\.0\.7 for 10\.9\.0\.3 \(Prometheus/3\.1\.0, rw2\)`, page)

	r = do(w.site, http.MethodGet, "/api/v1/explain")
	require.Equal(t, http.StatusBadRequest, r.Code)
	require.JSONEq(t, `{"error": "which series? Add the parameter series, such as up{job=\"x\"}"}`, r.Body.String())
}

func TestRates(t *testing.T) {
	tests := map[string]struct {
		dt          float64
		now, before uint64
		want        float64
	}{
		"steady":            {10, 2000, 1000, 100},
		"no time passed":    {0, 2000, 1000, 0},
		"a total that fell": {10, 10, 1000, 0},
		"time went back":    {-1, 2000, 1000, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, perSecond(test.dt)(test.now, test.before))
		})
	}
}

// The journal is full when what it grows by has filled what is left.
func TestFullIn(t *testing.T) {
	w := newWorld(t, "")
	w.change(func(st *Status) { st.Journal = Disk{Limit: 1000} })
	var last *Picture
	for range 20 {
		w.pass(10*time.Second, 1, 1)
		w.change(func(st *Status) { st.Journal.Bytes += 10 })
		last = w.site.watch.take()
	}
	require.InDelta(t, 800.0, *last.Journal.FullInSeconds, 1)
	w.change(func(st *Status) { st.Journal.Bytes = 5 })
	require.Nil(t, w.site.watch.take().Journal.FullInSeconds)
}
