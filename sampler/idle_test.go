package sampler

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// To forget what was silent for twice the lookback, or not to, gives the same output: a
// replay need not forget where the first run did.
func TestForgettingIdleSeriesChangesNothing(t *testing.T) {
	for _, method := range []Method{MethodFrames, MethodAligned, MethodRandom} {
		forgotten := 0
		rapid.Check(t, func(t *rapid.T) {
			seed := rapid.Uint64().Draw(t, "seed")
			rng := rand.New(rand.NewPCG(seed, 3))
			w := newWorld(seed)
			w.config.Lookback = model.Duration(2 * time.Minute)
			w.config.Method = method
			for i := range w.config.Classes {
				w.config.Classes[i].MaxGap = model.Duration([]time.Duration{30, 60, 45}[i] * time.Second)
			}
			film := silence(rng, w, w.film(2400))
			keeps, forgets := w.sampler(t, nil), w.sampler(t, nil)
			steps := map[int]Step{}
			move := wander(keeps, film, seed)
			want := run(keeps, film, func(i int) { move(i); steps[i] = keeps.Step() })
			got := run(forgets, film, func(i int) {
				forgets.Set(steps[i])
				for _, a := range w.actors {
					// Requests come up to a minute late.
					if rng.IntN(8) == 0 && forgets.Idle(a.id, film[i].at-60_000) {
						forgets.Forget([]uint32{a.id})
						require.False(t, forgets.Idle(a.id, film[i].at))
						forgotten++
					}
				}
				for _, x := range film[i].samples {
					if !forgets.Knows(x.id) {
						require.NoError(t, forgets.Know(x.id, w.info(x.id)))
					}
				}
			})
			require.Equal(t, want, got)
		})
		require.Positive(t, forgotten)
	}
}

// silence takes out of a film long stretches of single series, of targets, and of all.
func silence(rng *rand.Rand, w *world, film []request) []request {
	type stretch struct{ from, to int64 }
	draw := func() stretch {
		from := someTime + rng.Int64N(1_500_000)
		return stretch{from, from + 200_000 + rng.Int64N(600_000)}
	}
	within := func(s stretch, at int64) bool { return at >= s.from && at < s.to }
	everything := draw()
	targets := map[int]stretch{0: draw(), 1: draw()}
	series := map[uint32]stretch{}
	for _, a := range w.actors {
		series[a.id] = draw()
	}
	for i := range film {
		film[i].samples = slices.DeleteFunc(film[i].samples, func(x scraped) bool {
			return within(everything, x.in.Time) || within(targets[w.actors[x.id-5000].target], x.in.Time) || within(series[x.id], x.in.Time)
		})
	}
	return film
}

func TestDescribedUntilRedescribe(t *testing.T) {
	s, err := New(Options{Config: DefaultConfig(), Start: someTime})
	require.NoError(t, err)
	info := Info{Target: 1, Kind: KindCounter, Class: 2}
	require.False(t, s.Described(3))
	require.NoError(t, s.Know(3, info))
	require.NoError(t, s.Know(4, info))
	require.True(t, s.Described(3))
	s.Set(Step{Rate: 0.1, Pressure: 0.9})
	for i := range int64(5) {
		s.Sample(3, Float(someTime+5000*i, float64(i)), nil)
	}
	require.True(t, s.Described(3), "whatever comes")
	s.Sample(3, Sample{Time: someTime + 40_000, Stale: true}, nil)
	s.Sample(3, Float(someTime+10_000_000, 1), nil)
	require.True(t, s.Described(3), "though it began anew")
	before := *s.entry(3)
	s.Redescribe()
	require.False(t, s.Described(3))
	require.False(t, s.Described(4))
	require.True(t, s.Knows(3))
	require.NoError(t, s.Know(3, info))
	require.True(t, s.Described(3))
	require.False(t, s.Described(4))
	require.Equal(t, before, *s.entry(3), "what was sent stays known")
	s.Forget([]uint32{3})
	require.False(t, s.Described(3))
}
