package thinning

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// Series come in groups, and some each in its own time; steps begin between groups, and at
// times in the midst of one. Each sample of the last minutes has its step. Where that would be
// too much to remember, or it is older, a sample has never an earlier step than its own.
func TestOrigins(t *testing.T) {
	t.Run("few on their own", func(t *testing.T) { testOrigins(t, 20, true) })
	t.Run("too many on their own", func(t *testing.T) { testOrigins(t, 2, false) })
}

// testOrigins has each nth group of series whose times differ.
func testOrigins(t *testing.T, nth int, exact bool) {
	const groups, members, rounds, every = 40, 50, 800, 15_000
	rng := rand.New(rand.NewPCG(1, 2))
	type seen struct{ at, step int64 }
	var o origins
	known := map[series.ID][]seen{}
	require.Zero(t, o.step())
	o.enter(journal.Position{})
	o.note(series.Overflow, 1, false)
	require.Zero(t, o.of(series.Overflow, 1), "before the first step")
	step, compacted, longest := int64(0), 0, 0
	for round := range rounds {
		at := int64(round+1) * every
		for g := range groups {
			if rng.IntN(8) == 0 || step == 0 {
				step++
				o.enter(journal.Position{Segment: uint64(step)})
			}
			for m := range members {
				if rng.IntN(50_000) == 0 {
					step++
					o.enter(journal.Position{Segment: uint64(step)})
				}
				id, at := series.Overflow+series.ID(1000*g+m), at
				if g%nth == 0 {
					at += int64(rng.IntN(every)) // in its own time
				}
				sent := rng.IntN(10) == 0
				before := len(o.past)
				o.note(id, at, sent)
				if len(o.past) < before {
					compacted++
				}
				if !sent || len(known[id]) > 0 {
					known[id] = append(known[id], seen{at, step})
				}
			}
		}
		longest = max(longest, len(o.past))
		if round%400 != 399 {
			continue
		}
		for id, list := range known {
			newest := list[len(list)-1].at
			for _, x := range list {
				got := o.of(id, x.at)
				want := journal.Position{Segment: uint64(x.step)}
				if exact && newest-x.at <= (originsHorizon-time.Minute).Milliseconds() {
					require.Equal(t, want, got, "%d at %d", id, x.at)
				}
				require.False(t, got.Before(want), "%d at %d", id, x.at)
			}
		}
	}
	require.Positive(t, compacted)
	require.LessOrEqual(t, longest, 2*(fewPast+pastPerHistory*groups*(members+2*neighbourly))+1)
	if exact {
		require.Less(t, o.histories, len(known)/2, "most share theirs")
	}
}

// An id that is given to another series says nothing of it, and its neighbours keep theirs.
func TestOrigins_Forget(t *testing.T) {
	step := func(n int) journal.Position { return journal.Position{Segment: uint64(n)} }
	for name, apart := range map[string]bool{"one history": false, "each its own": true} {
		t.Run(name, func(t *testing.T) {
			const first, second = series.Overflow, series.Overflow + 1
			var o origins
			o.enter(step(1))
			o.note(first, 100, false)
			o.note(second, 100, false)
			o.enter(step(2))
			o.note(first, 200, false)
			if apart {
				o.enter(step(3))
			}
			o.note(second, 200, false)
			require.Equal(t, map[bool]int{false: 1, true: neighbourly}[apart], o.histories)
			o.forget(first)
			o.enter(step(4))
			o.note(first, 50, false) // of another series
			require.Equal(t, step(4), o.of(first, 50))
			require.Equal(t, step(1), o.of(second, 100))
			require.Equal(t, o.start(map[bool]uint32{false: 2, true: 3}[apart]), o.of(second, 200))
		})
	}
}
