package web

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// listener reads the events of one page.
type listener struct {
	t    *testing.T
	resp *http.Response
	scan *bufio.Scanner
}

func listen(t *testing.T, base string) *listener {
	t.Helper()
	resp, err := http.Get(base + "/events")
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	return &listener{t: t, resp: resp, scan: bufio.NewScanner(resp.Body)}
}

// next is the next event; the name is empty at the end.
func (l *listener) next() (name, data string) {
	for l.scan.Scan() {
		line := l.scan.Text()
		switch {
		case line == "" && name != "":
			return name, data
		case strings.HasPrefix(line, "event: "):
			name = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			data += line[len("data: "):] + "\n"
		}
	}
	return "", ""
}

func TestStreamTellsWhatChanged(t *testing.T) {
	w := newWorld(t, "")
	base := show(t, w)
	l := listen(t, base)
	require.Equal(t, "text/event-stream", l.resp.Header.Get("Content-Type"))
	for _, id := range partNames {
		name, data := l.next()
		require.Equal(t, id, name)
		require.NotEmpty(t, data)
	}
	// Of all parts only the one comes again that has changed; the first point of the plots
	// comes with the second look.
	w.change(func(st *Status) { st.Leases[0].Token = 4711 })
	name, data := l.next()
	if name == "plots" {
		name, data = l.next()
	}
	require.Equal(t, "leases", name)
	require.Contains(t, data, "4711")
}

func TestStreamIsBounded(t *testing.T) {
	w := newWorld(t, "")
	base := show(t, w)
	for range maxListeners {
		l := listen(t, base)
		require.Equal(t, http.StatusOK, l.resp.StatusCode)
	}
	l := listen(t, base)
	require.Equal(t, http.StatusServiceUnavailable, l.resp.StatusCode)
	require.Equal(t, "10", l.resp.Header.Get("Retry-After"))
}

func TestStreamEndsWithRun(t *testing.T) {
	w := newWorld(t, "")
	require.Equal(t, http.StatusServiceUnavailable, do(w.site, http.MethodGet, "/events").Code, "before Run")
	base, stop := serve(t, w)
	l := listen(t, base)
	l.next()
	stop()
	for name := "?"; name != ""; {
		name, _ = l.next()
	}
	require.NoError(t, l.scan.Err(), "the stream ends in order")
	require.Equal(t, http.StatusServiceUnavailable, listen(t, base).resp.StatusCode, "after Run")
	resp, err := http.Get(base + "/")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode, "the page is there while the gateway drains")
}

// Many who look at the same second cost one look.
func TestLooksAreShared(t *testing.T) {
	w := newWorld(t, "")
	looks := 0
	w.site.watch.status = func() Status { looks++; return w.status() }
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { w.site.parts() })
	}
	wg.Wait()
	require.Equal(t, 1, looks)
}

func TestHistoryIsBounded(t *testing.T) {
	h := newHistory()
	at := noon
	for i := range 1000 {
		st := &Status{At: at, Received: Intake{PerSecond: float64(i)}}
		for k := range 100 {
			st.Lanes = append(st.Lanes, Lane{Name: fmt.Sprint("backend", k), LagSeconds: float64(i)})
		}
		require.True(t, h.due(at))
		h.add(st)
		require.False(t, h.due(at.Add(historyEvery-1)))
		at = at.Add(historyEvery)
	}
	require.Len(t, h.times, historyPoints)
	require.Len(t, h.received, historyPoints)
	require.Equal(t, 999.0, h.received[historyPoints-1])
	require.Len(t, h.tracks, historyBackends)
	require.Len(t, h.names, historyBackends)
	for _, tr := range h.tracks {
		require.Len(t, tr.lag, historyPoints)
		require.LessOrEqual(t, cap(tr.lag), 2*historyPoints)
	}
}

// A backend that comes, goes and comes back has gaps, and is forgotten an hour after its
// last point.
func TestHistoryOfABackendThatGoes(t *testing.T) {
	h := newHistory()
	at := noon
	add := func(names ...string) {
		st := &Status{At: at}
		for _, n := range names {
			st.Lanes = append(st.Lanes, Lane{Name: n, LagSeconds: 2})
		}
		h.add(st)
		at = at.Add(historyEvery)
	}
	add("a")
	add("a", "b")
	add("b")
	add("a", "b")
	two := 2.0
	v := h.view()
	require.Equal(t, []*float64{&two, &two, nil, &two}, v.Backends[0].Lag)
	require.Equal(t, []*float64{nil, &two, &two, &two}, v.Backends[1].Lag)
	require.Contains(t, path(h.times, h.tracks["a"].lag, 2), "M300.0 0.0h0", "a gap is not drawn over")
	require.True(t, math.IsNaN(h.tracks["b"].lag[0]))
	for range historyPoints {
		add("b")
	}
	require.Equal(t, []string{"b"}, h.names)
}

func TestEventsKeepTheLastLines(t *testing.T) {
	e := NewEvents()
	logger := slog.New(e.Handler(slog.DiscardHandler))
	for i := range 3 * maxEvents {
		logger.Info("line", "n", i)
	}
	logger.Debug("not of interest")
	list := e.last(2)
	require.Equal(t, "n=599", list[0].Details)
	require.Equal(t, "n=598", list[1].Details)
	require.Len(t, e.last(10_000), maxEvents)

	logger.With("component", "probe", "cluster", "orders").WithGroup("g").Warn("role changed", "to", "a b", "long", strings.Repeat("x", 1000))
	got := e.last(1)[0]
	require.Equal(t, "warning", got.Level)
	require.Equal(t, "orders", got.About)
	require.Equal(t, `g.to="a b" g.long=`+strings.Repeat("x", maxDetail)+"…", got.Details)
	require.Nil(t, e.lastFailed("orders"), "of backends alone")
	for i := range 2 * maxFailed {
		logger.With("backend", fmt.Sprint("b", i)).Error("gone")
	}
	require.Len(t, e.failed, maxFailed)
	require.Equal(t, "gone", e.lastFailed("b0").Text)
}

func TestForest(t *testing.T) {
	var wide []Wait
	for i := range 500 {
		wide = append(wide, Wait{Session: uint64(1000 + i), Blockers: []uint64{1}})
	}
	var deep []Wait
	for i := range 500 {
		deep = append(deep, Wait{Session: uint64(2 + i), Blockers: []uint64{uint64(1 + i)}})
	}
	tests := map[string]struct {
		waits []Wait
		want  Forest
	}{
		"nobody waits": {},
		"a tree": {
			[]Wait{{2, []uint64{1}}, {3, []uint64{2}}, {4, []uint64{1}}},
			Forest{Roots: []Blocker{{1, []Blocker{{2, []Blocker{{3, nil}}}, {4, nil}}}}},
		},
		"behind two": {
			[]Wait{{3, []uint64{1, 2}}},
			Forest{Roots: []Blocker{{1, []Blocker{{3, nil}}}, {2, nil}}},
		},
		"a circle":                 {[]Wait{{1, []uint64{2}}, {2, []uint64{1}}}, Forest{Circle: []uint64{1, 2}}},
		"nobody asked for whom":    {[]Wait{{1, nil}, {2, nil}}, Forest{Left: 2}},
		"waits for itself, behind": {[]Wait{{1, []uint64{1}}}, Forest{Circle: []uint64{1}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, forest(test.waits)) })
	}
	f := forest(wide)
	require.Len(t, f.Roots[0].Blocks, maxForest-1)
	require.Equal(t, 500-(maxForest-1), f.Left)
	f = forest(deep)
	require.Equal(t, 500-maxDepth, f.Left)
}

func TestTexts(t *testing.T) {
	tests := []struct{ got, want string }{
		{countText(999), "999"},
		{countText(12_345), "12\u202f345"},
		{countText(1_234_567), "1.23 M"},
		{rateText(0), "0/s"},
		{rateText(0.5), "0.5/s"},
		{rateText(999.96), "1 k/s"},
		{rateText(15_250), "15.2 k/s"},
		{bytesText(512), "512 B"},
		{bytesText(10 << 30), "10 GiB"},
		{secondsText(0), "0 s"},
		{secondsText(0.2), "200 ms"},
		{secondsText(7.5), "7.5 s"},
		{secondsText(75), "1 min 15 s"},
		{secondsText(7200), "2 h"},
		{secondsText(90_000), "1 d 1 h"},
		{secondsText(math.Inf(1)), "11574 d 1 h"},
		{shareText(1), "100 %"},
		{shareText(0.9999), "99.9 %"},
		{shareText(0.25), "25 %"},
		{shareText(0.0004), "< 0.1 %"},
		{clockText(noon, noon.Add(time.Hour)), "12:00:00"},
		{clockText(noon, noon.Add(24*time.Hour)), "Nov 22 12:00"},
	}
	for _, test := range tests {
		require.Equal(t, test.want, test.got)
	}
}

// Looks go on once a second while nobody has the page open, so that the history is whole.
func TestRunLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		looks := 0
		w.site.watch.status = func() Status {
			looks++
			return w.status()
		}
		ctx, stop := context.WithTimeout(t.Context(), 10*lookEvery+lookEvery/2)
		defer stop()
		w.site.Run(ctx)
		require.Equal(t, 11, looks)
	})
}
