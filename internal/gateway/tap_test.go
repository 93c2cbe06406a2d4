package gateway

import (
	"bufio"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/exporter/exportertest"
	"github.com/sluice-metrics/sluice/internal/series"
)

// tapping serves the taps of a gateway with the backends main and archive.
func tapping(t *testing.T) (*Gateway, string) {
	t.Helper()
	g := selecting(t, "backends: [{name: main, tsdb: {}}, {name: archive, tsdb: {}}]").gateway
	g.taps = newTaps()
	s := httptest.NewServer(http.HandlerFunc(g.watchTap))
	t.Cleanup(s.Close)
	return g, s.URL
}

// sends gives the tap a parcel again and again until the test has ended, as a lane does.
func sends(t *testing.T, to *tap, p *exporter.Parcel) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				to.Sent(p)
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

func tapped(t *testing.T, body io.Reader) (list []Tapped) {
	t.Helper()
	for lines := bufio.NewScanner(body); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			require.Empty(t, lines.Text())
			continue
		}
		var s Tapped
		require.NoError(t, json.Unmarshal([]byte(data), &s))
		list = append(list, s)
	}
	return list
}

func TestTapShowsWhatIsSent(t *testing.T) {
	g, address := tapping(t)
	at := int64(1_700_000_000_000)
	list := append(exportertest.EveryKind(at), exportertest.Series{
		Labels: exportertest.Named("ended", "job", "a"), Samples: []exportertest.Sample{{Time: at, Value: math.Float64frombits(value.StaleNaN)}},
	})
	for _, v := range []series.Version{series.V1, series.V2} {
		b := exportertest.Batch(t, v, exportertest.Message(t, v, list...), nil)
		defer b.Release()
		p := exportertest.Whole(b)
		p.Parts[0].Take = exportertest.Take(b, 0, 1, 3, 6)
		sends(t, g.taps.of("main"), p)

		see := func(match string, limit string) []Tapped {
			resp, err := http.Get(address + "?" + url.Values{"backend": {"main"}, "match": {match}, "limit": {limit}}.Encode())
			require.NoError(t, err)
			defer resp.Body.Close()
			require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
			return tapped(t, resp.Body)
		}
		require.ElementsMatch(t, []Tapped{
			{"main", `{__name__="plain", job="a"}`, at, "1.5"},
			{"main", `{__name__="long", job="a"}`, at + 2, "+Inf"},
			{"main", `{__name__="native"}`, at, "histogram"},
			{"main", `{__name__="ended", job="a"}`, at, "stale"},
		}, see("", "4"))
		require.Equal(t, []Tapped{{"main", `{__name__="native"}`, at, "histogram"}}, see(`{__name__=~"nat.*|last"}`, "1"))
	}
	require.Nil(t, g.taps.of("main").listeners.Load(), "nobody looks any more")
}

func TestTapBounds(t *testing.T) {
	g, address := tapping(t)
	get := func(query string) (int, string) {
		resp, err := http.Get(address + "?" + query)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}
	for query, want := range map[string]string{
		"":                          `no backend \"\"; there are [\"main\" \"archive\"]`,
		"backend=x":                 `no backend \"x\"`,
		"backend=main&match=up{":    "match: not a series selector",
		"backend=main&limit=0":      "limit: must be a whole number from 1 to 1000000",
		"backend=main&limit=1e9999": "limit: must be",
	} {
		status, text := get(query)
		require.Equal(t, http.StatusBadRequest, status, query)
		require.Contains(t, text, want)
	}
	for range maxTaps {
		resp, err := http.Get(address + "?backend=archive")
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, http.StatusOK, resp.StatusCode)
	}
	status, text := get("backend=main")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, text, "4 look already")
	close(g.taps.ends)
	require.Eventually(t, func() bool {
		g.taps.mu.Lock()
		defer g.taps.mu.Unlock()
		return g.taps.open == 0
	}, 10*time.Second, time.Millisecond, "all end with the gateway")
}

// A lane hands over at most one batch at a time, and goes on when nobody takes it.
func TestTapDoesNotHoldALaneUp(t *testing.T) {
	b := exportertest.Batch(t, series.V1, exportertest.Message(t, series.V1, exportertest.EveryKind(1)...), nil)
	defer b.Release()
	tap := newTaps().of("main")
	tap.Sent(exportertest.Whole(b))
	l := &tapListener{next: make(chan exporter.Part, 1)}
	tap.add(l)
	for range 1000 {
		tap.Sent(exportertest.Whole(b))
		l.due.Store(0)
	}
	require.Len(t, l.next, 1)
	(<-l.next).Batch.Release()
	tap.Sent(exportertest.Whole(b))
	tap.Sent(exportertest.Whole(b))
	require.Len(t, l.next, 1)
	(<-l.next).Batch.Release()
	tap.Sent(exportertest.Whole(b))
	require.Empty(t, l.next, "the next is not due yet")
	tap.remove(l)
	require.NotEmpty(t, b.Body, "the test has the last reference")
}
