package sampler

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestOutputIsAnOrderedSubset(t *testing.T) {
	for _, change := range []func(*Options){nil, shed} {
		rapid.Check(t, func(t *rapid.T) {
			stories(t, 900, change, func(_ *world, s story) {
				next := 0
				for i, o := range s.out {
					for next < len(s.in) && !same(s.in[next], o) {
						next++
					}
					require.Less(t, next, len(s.in), "%s: output %d was not put in, or not in this order", s, i)
					next++
				}
			})
		})
	}
}

func TestEventsAreSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stories(t, 900, nil, func(_ *world, s story) {
			for i, in := range s.in {
				first := i == 0 || s.in[i-1].stale()
				switch {
				case in.stale():
					require.True(t, s.sent[in.Time], "%s: marker", s)
					if i > 0 && s.held() {
						require.True(t, s.sent[s.in[i-1].Time], "%s: last before a marker", s)
					}
				case first:
					require.True(t, s.sent[in.Time], "%s: first", s)
				case in.Reset, !in.Histogram && s.info.Kind.Integral() && in.Value() < s.in[i-1].Value():
					require.True(t, s.sent[in.Time], "%s: after a reset", s)
					if s.held() {
						require.True(t, s.sent[s.in[i-1].Time], "%s: before a reset", s)
					}
				case s.info.Kind == KindState && in.Bits != s.in[i-1].Bits:
					require.True(t, s.sent[in.Time] && s.sent[s.in[i-1].Time], "%s: both sides of a change", s)
				}
			}
		})
	})
}

func TestNoLiveSeriesIsForgotten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stories(t, 1500, nil, func(w *world, s story) {
			cadence := w.scrape[w.actors[slices.IndexFunc(w.actors, func(a *actor) bool { return a.info == s.info })].target]
			gap := int64(float64(w.config.Classes[s.info.Class].MaxGap)/1e6) + cadence*3/2
			for i := 1; i < len(s.out); i++ {
				if s.out[i-1].stale() {
					continue
				}
				// What the target did not say, for lost scrapes, cannot be sent.
				lost := longestLoss(s.in, s.out[i-1].Time, s.out[i].Time) - cadence
				require.LessOrEqual(t, s.out[i].Time-s.out[i-1].Time, gap+max(0, lost)+3, "%s", s)
			}
		})
	})
}

func longestLoss(in []Sample, from, to int64) int64 {
	var longest int64
	for i := 1; i < len(in); i++ {
		if in[i].Time > from && in[i].Time <= to {
			longest = max(longest, in[i].Time-in[i-1].Time)
		}
	}
	return longest
}

func TestFullRateSendsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Uint64().Draw(t, "seed"))
		film := w.film(120)
		film = append(film, film[len(film)/2:]...) // some of it again
		s := w.sampler(t, shed)
		for _, r := range film {
			s.Tick(r.at)
			for _, x := range r.samples {
				require.Equal(t, []Sample{x.in}, s.Sample(x.id, x.in, nil))
			}
		}
	})
}

// At a frame each part of a histogram was last sent with the value it has there, so that
// the parts belong together.
func TestHistogramsAreWholeAtFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Uint64().Draw(t, "seed"))
		for _, a := range w.actors {
			a.info.Kind = KindHistogram
		}
		film := w.film(600)
		s := w.sampler(t, nil)
		rate := rapid.Float64Range(0.05, 0.9).Draw(t, "rate")
		last := map[uint32]uint64{}
		for _, r := range film {
			s.Tick(r.at)
			if r.at > someTime+60_000 {
				s.SetRate(rate)
			}
			for _, x := range r.samples {
				for _, o := range s.Sample(x.id, x.in, nil) {
					last[x.id] = o.Bits
				}
				e := s.entry(x.id)
				at, _ := s.offset(r.at)
				if s.decide(&s.units[e.unit-1], at).frame {
					require.Equal(t, x.in.Bits, last[x.id])
				}
			}
		}
	})
}

func TestARequestThatComesTwiceChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		w := newWorld(seed)
		film := w.film(600)
		once, twice := w.sampler(t, nil), w.sampler(t, nil)
		rng := rand.New(rand.NewPCG(seed, 1))
		stored := func(s *Sampler, repeat bool) map[uint32]map[int64]uint64 {
			points := map[uint32]map[int64]uint64{}
			feed := func(r request) {
				for _, x := range r.samples {
					for _, o := range s.Sample(x.id, x.in, nil) {
						if points[x.id] == nil {
							points[x.id] = map[int64]uint64{}
						}
						points[x.id][o.Time] = o.Bits
					}
				}
			}
			for i, r := range film {
				if i%200 == 100 {
					s.Set(Step{Rate: 0.25, Pressure: float64(i%7) / 8})
				}
				feed(r)
				if repeat && rng.IntN(5) == 0 {
					feed(film[max(0, i-rng.IntN(3))])
				}
			}
			return points
		}
		require.Equal(t, stored(once, false), stored(twice, true))
	})
}

// Feeding the same samples and steps again, as a restart or a backfill does, gives the
// same output, whatever the times were counted from.
func TestOutputIsAFunctionOfSamplesAndSteps(t *testing.T) {
	for _, change := range []func(*Options){nil, shed} {
		rapid.Check(t, func(t *rapid.T) {
			seed := rapid.Uint64().Draw(t, "seed")
			w := newWorld(seed)
			film := w.film(600)
			a := w.sampler(t, change)
			steps := map[int]Step{}
			move := wander(a, film, seed)
			want := run(a, film, func(i int) { move(i); steps[i] = a.Step() })
			b := w.sampler(t, change)
			jump := rapid.IntRange(0, len(film)-1).Draw(t, "base moves before")
			got := run(b, film, func(i int) {
				b.Set(steps[i])
				if i == jump {
					b.Advance(someTime + rapid.Int64Range(-1e9, 1e9).Draw(t, "by"))
				}
			})
			require.Equal(t, want, got)
		})
	}
}

// State rebuilt from the last gap before a restart decides as the one that was lost. A
// series that the rebuilding did not reach is new to it.
func TestRebuiltStateDecidesAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Uint64().Draw(t, "seed"))
		film := w.film(1200)
		step := Step{Rate: 0.25, Pressure: rapid.Float64Range(0.1, 1).Draw(t, "pressure")}
		const cut, back = someTime + 900_000, 300_000
		whole, rebuilt := w.sampler(t, nil), w.sampler(t, nil)
		whole.Set(step)
		rebuilt.Set(step)
		differ, total := 0, 0
		for _, r := range film {
			for _, x := range r.samples {
				want := whole.Sample(x.id, x.in, nil)
				if r.at < cut-back {
					continue
				}
				got := rebuilt.Sample(x.id, x.in, nil)
				if r.at < cut {
					continue
				}
				total++
				if len(want) != len(got) {
					differ++
				}
			}
		}
		require.LessOrEqual(t, differ, total/200)
	})
}

// Gateways that see different series of a target, with rates of their own, agree on the
// frames of the lower one, for series of one need.
func TestAlignedGatewaysAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Uint64().Draw(t, "seed"))
		w.config.Affinity = AffinityNone
		for _, a := range w.actors {
			a.info.Class = 2
		}
		film := w.film(600)
		low := rapid.Float64Range(0, 1).Draw(t, "pressure")
		high := rapid.Float64Range(low, 1).Draw(t, "higher pressure")
		a, b := w.sampler(t, nil), w.sampler(t, nil)
		a.Set(Step{0.5, low})
		b.Set(Step{0.25, high})
		times := func(s *Sampler, part uint32) map[[3]int64]bool {
			sent := map[[3]int64]bool{}
			for _, r := range film {
				for _, x := range r.samples {
					if x.id/3%2 == part && !x.in.stale() {
						frame := len(s.Sample(x.id, x.in, nil)) > 0
						key := [3]int64{int64(w.actors[x.id-5000].target), r.at, int64(w.info(x.id).Need)}
						before, known := sent[key]
						require.True(t, !known || before == frame, "members of a scrape differ")
						sent[key] = frame
					}
				}
			}
			return sent
		}
		fewer := times(b, 1)
		for key, frame := range times(a, 0) {
			if key[1] > someTime+120_000 {
				seen, known := fewer[key]
				require.False(t, known && seen && !frame)
			}
		}
	})
}

func TestHigherPressureNeverKeepsMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Uint64().Draw(t, "seed"))
		w.config.Method = MethodAligned
		w.config.Floor = FloorShed
		film := w.film(600)
		low := rapid.Float64Range(0.01, 4.9).Draw(t, "pressure")
		high := rapid.Float64Range(low, 5).Draw(t, "higher pressure")
		a, b := w.sampler(t, nil), w.sampler(t, nil)
		a.Set(Step{0.5, low})
		b.Set(Step{0.5, high})
		more := run(a, film, nil)
		for id, out := range run(b, film, nil) {
			for _, o := range out {
				require.True(t, slices.Contains(more[id], o))
			}
		}
	})
}

// Two minutes after a change of the rate the share is kept, up to what key frames allow.
func TestKeptShareIsHeld(t *testing.T) {
	const targets, each = 30, 12
	for _, rate := range []float64{0.5, 0.25, 0.1} {
		s, err := New(Options{Config: DefaultConfig(), Start: someTime})
		require.NoError(t, err)
		rng := rand.New(rand.NewPCG(3, 4))
		values := make([]float64, targets*each)
		for i := range values {
			require.NoError(t, s.Know(uint32(i), Info{
				Target: mix(uint64(i / each)), Family: uint64(i % each), Kind: []Kind{KindCounter, KindGauge, KindHistogram}[i%3], Class: 2,
			}))
		}
		var seen, kept int
		for at := int64(0); at < 900_000; at += 5000 {
			s.Tick(someTime + at)
			if at == 300_000 {
				s.SetRate(rate)
			}
			for i := range values {
				if i%4 < 2 || i%4 == 2 && rng.IntN(4) == 0 { // a quarter never moves
					values[i]++
				}
				n := len(s.Sample(uint32(i), Float(someTime+at, values[i]), nil))
				if at >= 420_000 {
					seen, kept = seen+1, kept+n
				}
			}
		}
		require.InEpsilon(t, rate, float64(kept)/float64(seen), 0.1, "rate %v", rate)
		require.InEpsilon(t, rate, s.Stats().Share, 0.15, "rate %v", rate)
	}
}
