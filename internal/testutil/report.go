package testutil

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Report compares what a load knows with what a sink got.
type Report struct {
	Acknowledged int // points
	Arrived      int // different ones of the load's series
	Lost         int // acknowledged, did not arrive
	Repeated     int // arrived more than once
	Changed      int // arrived with other bits than were sent
	Disordered   int // arrived after something newer of their series
	Unknown      int // arrived, were never sent
	Examples     []string
}

func (r Report) String() string {
	return fmt.Sprintf("acknowledged %d, arrived %d, lost %d, repeated %d, changed %d, disordered %d, unknown %d %s",
		r.Acknowledged, r.Arrived, r.Lost, r.Repeated, r.Changed, r.Disordered, r.Unknown, strings.Join(r.Examples, "; "))
}

func (r *Report) example(what, key, kind string, time int64) {
	if len(r.Examples) < 8 {
		r.Examples = append(r.Examples, fmt.Sprintf("%s: %s of %s at %d", what, kind, key, time))
	}
}

// CheckOptions narrow a comparison.
type CheckOptions struct {
	// Series selects the load's series that should be in the sink; nil is all. The
	// others must not be there.
	Series func(key string) bool
	// NoStart leaves start timestamps out: they do not survive RW 1.0.
	NoStart bool
	// OutOfOrder allows points to come after something newer of their series.
	OutOfOrder bool
	// Partial does not count what is missing or never came in full: rounds of this
	// load that were refused or given up are allowed to be missing.
	Partial bool
}

// Check compares the load with what arrived. The load should be stopped.
func (l *Load) Check(a *Arrivals, opts CheckOptions) Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	var r Report
	mine := map[string]bool{}
	for i := range l.gen.series {
		s := &l.gen.series[i]
		if opts.Series == nil || opts.Series(s.key) {
			mine[s.key] = true
			l.checkSeries(&r, a, i, opts)
		} else if n := len(a.Points(s.key, "samples")) + len(a.Points(s.key, "histograms")); n > 0 {
			r.Unknown += n
			r.example("not selected", s.key, "points", 0)
		}
	}
	for _, d := range a.Disordered() {
		if opts.OutOfOrder {
			break
		}
		if mine[d.Key] {
			r.Disordered++
			r.example(d.What, d.Key, d.Kind, d.Time)
		}
	}
	for _, c := range a.Changed() {
		if mine[c.Key] {
			r.Changed++
			r.example(c.What, c.Key, c.Kind, c.Time)
		}
	}
	return r
}

func (l *Load) checkSeries(r *Report, a *Arrivals, i int, opts CheckOptions) {
	s := &l.gen.series[i]
	a.mu.Lock()
	defer a.mu.Unlock()
	expected := map[Point]bool{}
	for round := range l.tried[i] {
		acked := round < l.acked[i] && !l.refused[refusal{i, round}]
		for _, want := range l.gen.points(s, round) {
			if opts.NoStart {
				want.Start = 0
			}
			expected[Point{Kind: want.Kind, Time: want.Time}] = true
			got, times := a.find(s.key, want.Kind, want.Time)
			if opts.NoStart {
				got.Start = 0
			}
			if acked {
				r.Acknowledged++
			}
			switch {
			case times == 0 && acked && !opts.Partial:
				r.Lost++
				r.example("lost", s.key, want.Kind, want.Time)
			case times == 0:
			case got != want:
				r.Changed++
				r.example(fmt.Sprintf("changed (got %+v, want %+v)", got, want), s.key, want.Kind, want.Time)
			}
			if times > 1 {
				r.Repeated++
			}
		}
	}
	have := a.series[s.key]
	if have == nil {
		return
	}
	for k := range have.tracks {
		for _, p := range have.tracks[k].points {
			r.Arrived++
			if !expected[Point{Kind: p.Kind, Time: p.Time}] {
				r.Unknown++
				r.example("never sent", s.key, p.Kind, p.Time)
			}
		}
	}
}

// RequireDelivered waits until everything acknowledged has arrived, and then fails
// the test if anything is lost, changed, out of order or made up. Repetition is
// allowed: delivery is at least once.
func (l *Load) RequireDelivered(t testing.TB, s *Sink, limit time.Duration, opts CheckOptions) Report {
	t.Helper()
	r := l.Check(s.Arrivals(), opts)
	for deadline := time.Now().Add(limit); r.Lost > 0 && time.Now().Before(deadline); r = l.Check(s.Arrivals(), opts) {
		time.Sleep(100 * time.Millisecond) // the sink is filled by another process
	}
	require.NotZero(t, r.Acknowledged, "nothing was acknowledged; answers: %v, last problem: %s", l.Answers(), l.lastProblem())
	require.Empty(t, s.Stats().Bad, "the sink got requests that it could not read")
	require.Zero(t, r.Lost, "acknowledged and lost: %v", r)
	require.Zero(t, r.Changed+r.Disordered+r.Unknown, "delivered wrongly: %v", r)
	return r
}

// Await polls until the condition is "" and fails the test with the last answer
// after the limit. It is for what only another process knows.
func Await(t testing.TB, limit time.Duration, what string, unmet func() string) {
	t.Helper()
	var last string
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		if last = unmet(); last == "" {
			return
		}
		if time.Now().After(deadline) {
			require.FailNow(t, "waited in vain", "for %v: %s: %s", limit, what, last)
		}
	}
}

// Selected makes a CheckOptions.Series of a list of keys.
func Selected(keys []string) func(string) bool {
	return func(key string) bool { return slices.Contains(keys, key) }
}
