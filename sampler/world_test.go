package sampler

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// scraped is a sample on its way to a Sampler.
type scraped struct {
	id uint32
	in Sample
}

// request is what arrives at a time.
type request struct {
	at      int64
	samples []scraped
}

// actor is a series that is scraped.
type actor struct {
	id     uint32
	info   Info
	target int
	alive  bool
	v      float64
	idle   int // scrapes for which the value stays
}

// world makes up what a few targets would send: counters that reset, gauges that rest and
// jump, states, native histograms, series that come and go, scrapes that are lost.
type world struct {
	rng    *rand.Rand
	config Config
	scrape [3]int64 // cadence of each target, ms
	actors []*actor
	steady bool // no scrape is lost and none comes late
}

func newWorld(seed uint64) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 7)), config: DefaultConfig()}
	cadences := []int64{1000, 5000, 15_000}
	for i := range w.scrape {
		w.scrape[i] = cadences[w.rng.IntN(len(cadences))]
	}
	for i := range 24 {
		target := i % len(w.scrape)
		w.actors = append(w.actors, &actor{
			id:     uint32(5000 + i),
			target: target,
			alive:  true,
			info: Info{
				Key:    mix(uint64(i) + seed),
				Target: mix(uint64(target)),
				Family: uint64(i / 2),
				Kind:   Kind(w.rng.IntN(int(kinds))),
				Class:  uint8(w.rng.IntN(3)),
				Need:   []Need{0, needOf(time.Minute), 0, needOf(5 * time.Minute)}[i/2%4],
			},
		})
	}
	return w
}

func (w *world) info(id uint32) Info { return w.actors[id-5000].info }

// step moves the actor on and returns what a scrape at the time finds.
func (w *world) step(a *actor, at int64) (Sample, bool) {
	switch {
	case !a.alive:
		if w.rng.IntN(40) > 0 {
			return Sample{}, false
		}
		a.alive, a.v = true, 0
	case w.rng.IntN(200) == 0:
		a.alive = false
		if a.info.Kind == KindNative {
			return Sample{Time: at, Bits: 1, Histogram: true, Stale: true}, true
		}
		return Float(at, math.Float64frombits(value.StaleNaN)), true
	}
	reset := false
	switch {
	case a.idle > 0:
		a.idle--
	case w.rng.IntN(20) == 0:
		a.idle = w.rng.IntN(120)
	case a.info.Kind.Integral():
		a.v += float64(w.rng.IntN(4))
		if reset = w.rng.IntN(50) == 0 && a.v > 0; reset {
			a.v = 0
		}
	case a.info.Kind == KindState:
		a.v = float64(w.rng.IntN(2))
	default:
		a.v += w.rng.NormFloat64()
	}
	in := Float(at, a.v)
	if a.info.Kind == KindNative {
		in = Sample{Time: at, Bits: mix(in.Bits), Histogram: true, Reset: reset}
	}
	return in, true
}

// film returns what arrives in so many seconds. A scrape comes in two requests, its
// members in any order; the second may come after requests of later scrapes, but each
// series comes in order.
func (w *world) film(seconds int64) []request {
	var film []request
	arrives := map[int]int64{} // by index in film, ms
	for i, cadence := range w.scrape {
		phase := w.rng.Int64N(cadence)
		var lag, last int64
		for at := phase; at < seconds*1000; at += cadence {
			if !w.steady && w.rng.IntN(60) == 0 {
				continue // lost
			}
			halves := [2]request{{at: someTime + at + w.rng.Int64N(3)}, {}}
			halves[1].at = halves[0].at
			for _, a := range w.actors {
				if a.target != i {
					continue
				}
				if in, ok := w.step(a, halves[0].at); ok {
					half := &halves[a.id/3%2]
					half.samples = append(half.samples, scraped{a.id, in})
				}
			}
			if !w.steady && w.rng.IntN(10) == 0 {
				lag = w.rng.Int64N(3 * cadence)
			}
			last = max(last, at+lag)
			for h, r := range halves {
				w.rng.Shuffle(len(r.samples), func(i, j int) { r.samples[i], r.samples[j] = r.samples[j], r.samples[i] })
				arrives[len(film)] = []int64{at, last}[h]
				film = append(film, r)
			}
		}
	}
	order := make([]int, len(film))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(arrives[a] - arrives[b]) })
	sorted := make([]request, len(film))
	for i, k := range order {
		sorted[i] = film[k]
	}
	return sorted
}

func (w *world) sampler(t require.TestingT, change func(*Options)) *Sampler {
	o := Options{Config: w.config, Start: someTime}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	require.NoError(t, err)
	for _, a := range w.actors {
		require.NoError(t, s.Know(a.id, a.info))
	}
	return s
}

// run feeds a film and returns what comes out of each series.
func run(s *Sampler, film []request, before func(i int)) map[uint32][]Sample {
	out := map[uint32][]Sample{}
	for i, r := range film {
		if before != nil {
			before(i)
		}
		for _, x := range r.samples {
			out[x.id] = s.Sample(x.id, x.in, out[x.id])
		}
	}
	return out
}

// bySeries is all that came in.
func bySeries(film []request) map[uint32][]Sample {
	all := map[uint32][]Sample{}
	for _, r := range film {
		for _, x := range r.samples {
			all[x.id] = append(all[x.id], x.in)
		}
	}
	return all
}

// wander changes the rate now and then, and lets the pressure follow.
func wander(s *Sampler, film []request, seed uint64) func(i int) {
	rng := rand.New(rand.NewPCG(seed, 9))
	rates := []float64{1, 0.7, 0.5, 0.25, 0.1, 0.05, 0.01}
	return func(i int) {
		s.Tick(film[i].at)
		if rng.IntN(120) == 0 {
			s.SetRate(rates[rng.IntN(len(rates))])
		}
	}
}

// story is what became of one series of a film.
type story struct {
	info Info
	in   []Sample
	out  []Sample
	sent map[int64]bool
}

// stories runs a film with a rate that wanders and hands out each series.
func stories(t *rapid.T, seconds int64, change func(*Options), check func(w *world, s story)) {
	seed := rapid.Uint64().Draw(t, "seed")
	w := newWorld(seed)
	film := w.film(seconds)
	s := w.sampler(t, change)
	out := run(s, film, wander(s, film, seed))
	for id, in := range bySeries(film) {
		st := story{info: w.info(id), in: in, out: out[id], sent: map[int64]bool{}}
		for _, o := range st.out {
			st.sent[o.Time] = true
		}
		check(w, st)
	}
	stats := s.Stats()
	for _, c := range stats.Classes {
		require.Equal(t, c.Seen, c.Kept+c.Withheld[0]+c.Withheld[1]+c.Withheld[2]+c.Withheld[3], c.Class)
	}
	sent := 0
	for _, o := range out {
		sent += len(o)
	}
	require.EqualValues(t, sent, stats.Sent())
}

func shed(o *Options) { o.Config.Floor = FloorShed }

// held reports whether the Sampler may send older samples of the series.
func (s story) held() bool { return s.info.Kind != KindNative || s.info.Class == 0 }

func (s story) String() string { return fmt.Sprintf("%s of class %d", s.info.Kind, s.info.Class) }

func same(a, b Sample) bool {
	return a.Time == b.Time && a.Bits == b.Bits && a.Histogram == b.Histogram
}
