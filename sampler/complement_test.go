package sampler

import (
	"cmp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// fates is what became of the samples of one series.
type fates struct{ in, sent, missed []Sample }

// split runs a film through a Complement of s, with what is pending in the end as missed.
func split(s *Sampler, film []request, before func(i int)) map[uint32]*fates {
	c := NewComplement(s)
	all := map[uint32]*fates{}
	for i, r := range film {
		before(i)
		for _, x := range r.samples {
			f := all[x.id]
			if f == nil {
				f = &fates{}
				all[x.id] = f
			}
			f.in = append(f.in, x.in)
			f.sent, f.missed = c.Sample(x.id, x.in, f.sent, f.missed)
		}
	}
	for id := range c.All() {
		all[id].missed = c.Rest(id, all[id].missed)
	}
	return all
}

// points orders samples by time, without what is known of them besides their value.
func points(lists ...[]Sample) []Sample {
	var all []Sample
	for _, in := range slices.Concat(lists...) {
		all = append(all, Sample{Time: in.Time, Bits: in.Bits, Histogram: in.Histogram})
	}
	slices.SortFunc(all, func(a, b Sample) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Bits, b.Bits))
	})
	return all
}

func TestComplementIsExact(t *testing.T) {
	methods := []Method{MethodFrames, MethodAligned, MethodRandom}
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		floor := rapid.SampledFrom([]Floor{FloorHold, FloorShed}).Draw(t, "floor")
		method := rapid.SampledFrom(methods).Draw(t, "method")
		affinity := rapid.SampledFrom([]Affinity{AffinitySeries, AffinityNone}).Draw(t, "affinity")
		late := rapid.Bool().Draw(t, "out of order")
		change := func(o *Options) {
			o.Config.Floor, o.Config.Method, o.Config.Affinity = floor, method, affinity
			o.OutOfOrder = late
		}
		w := newWorld(seed)
		film := w.film(900)
		plain, fed := w.sampler(t, change), w.sampler(t, change)
		want := run(plain, film, wander(plain, film, seed))
		for id, f := range split(fed, film, wander(fed, film, seed)) {
			require.Equal(t, want[id], f.sent)
			require.Equal(t, points(f.in), points(f.sent, f.missed), "series %d, %s of class %d", id, w.info(id).Kind, w.info(id).Class)
		}
	})
}

// What a request that comes twice brings is neither lost nor, while the first is pending,
// missed twice.
func TestComplementOfRepeatedRequests(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		w := newWorld(seed)
		var film []request
		for i, r := range w.film(600) {
			film = append(film, r)
			if i%5 == 0 {
				film = append(film, r)
			}
		}
		s := w.sampler(t, nil)
		for id, f := range split(s, film, wander(s, film, seed)) {
			distinct := func(list []Sample) []Sample { return slices.Compact(points(list)) }
			require.Equal(t, distinct(f.in), distinct(slices.Concat(f.sent, f.missed)), "series %d", id)
			missed := points(f.missed)
			if w.info(id).Kind != KindNative {
				require.Equal(t, slices.Compact(slices.Clone(missed)), missed, "series %d", id)
			}
		}
	})
}

func TestComplementForgetsWithRest(t *testing.T) {
	s, err := New(Options{Config: DefaultConfig(), Start: someTime})
	require.NoError(t, err)
	require.NoError(t, s.Know(7, Info{Target: 1, Kind: KindGauge, Class: 2}))
	s.Set(Step{Rate: 0.1, Pressure: 0.9})
	c := NewComplement(s)
	var sent, missed []Sample
	at := someTime
	for range 100 {
		at += 5000
		sent, missed = c.Sample(7, Float(at, float64(at)), sent, missed)
	}
	require.Len(t, slices.Collect(c.All()), 1)
	missed = c.Rest(7, missed)
	require.Len(t, slices.Concat(sent, missed), 100)
	require.Equal(t, at, missed[len(missed)-1].Time)
	require.Empty(t, slices.Collect(c.All()))
	require.Empty(t, c.Rest(7, nil))
	require.Empty(t, c.Rest(1<<20, nil))
	s.Forget([]uint32{7})
	sent, missed = c.Sample(7, Float(at+5000, 1), nil, nil) // not known: not thinned
	require.Len(t, sent, 1)
	require.Empty(t, missed)
}
