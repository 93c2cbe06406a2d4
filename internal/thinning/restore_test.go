package thinning_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/sampler"
)

// store is what a backend holds: how often it got each sample and exemplar.
type store map[string]int

func (s store) add(list []message) {
	for _, m := range list {
		for _, p := range m.points {
			s[fmt.Sprint(m.labels, p)]++
		}
		for _, e := range m.exemplars {
			s[m.labels+"exemplar "+e]++
		}
	}
}

// takeBatch adds a batch, and lets it go.
func (s store) takeBatch(t require.TestingT, b *series.Batch) {
	if b != nil {
		s.add(decode(t, b))
		b.Release()
	}
}

// selected are the messages of a batch with the ordinals in set.
func selected(t require.TestingT, b *series.Batch, set series.Set) (list []message) {
	for i, m := range decode(t, b) {
		if set.Has(i) {
			list = append(list, m)
		}
	}
	return list
}

func newRestorer(t require.TestingT, change func(*sampler.Config)) (*thinning.Restorer, *sampler.Sampler) {
	s, d := newSampler(t, change)
	return thinning.NewRestorer(thinning.RestorerOptions{Sampler: s, Describer: d, BatchSamples: 100}), s
}

// What a Splicer sends and what a Restorer finds missing are together what came in.
func TestRestorer_IsTheComplement(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := anyWorld(t, false)
		config := anyConfig(t)
		modulus := rapid.SampledFrom([]int{0, 2, 5}).Draw(t, "modulus")
		batches := w.batches(40)
		before := rapid.IntRange(0, 15).Draw(t, "before") // batches from before the part
		at := steps(t, len(batches))
		splicer, sent := newSplicer(t, config)
		restorer, replay := newRestorer(t, config)
		var out thinning.Out
		var withheld series.Counts
		want, got := store{}, store{}
		for n, b := range batches {
			set := takes(b, modulus)
			if step, ok := at[n]; ok {
				sent.Set(step)
				replay.Set(step)
			}
			r, err := splicer.Splice(b, set)
			require.NoError(t, err)
			if n < before {
				require.NoError(t, restorer.Observe(b, set))
				if r.Batch != nil {
					r.Batch.Release()
				}
				continue
			}
			withheld.Add(r.Withheld)
			withheld.Sub(r.Restored)
			got.takeBatch(t, r.Batch)
			want.add(selected(t, b, set))
			require.NoError(t, restorer.Add(b, set, &out))
		}
		for _, b := range batches[before:] {
			require.NoError(t, restorer.Rest(b, takes(b, modulus), &out))
		}
		require.Zero(t, restorer.Pending())
		restorer.Flush(&out)
		var restored series.Counts
		for _, b := range out.Batches {
			list := decode(t, b)
			last := uint64(len(list[len(list)-1].points))
			require.Less(t, b.Counts.Samples+b.Counts.Histograms-last, uint64(100), "it was finished with the message that filled it")
			require.Equal(t, uint32(7), b.Epoch)
			restored.Add(b.Counts)
			got.takeBatch(t, b)
		}
		require.Equal(t, restored, out.Restored)
		require.Zero(t, out.Lost.Samples+out.Lost.Histograms)
		missing := 0
		for what, n := range want {
			if got[what] != n {
				missing++
				require.True(t, strings.Contains(what, "exemplar"), "%s: got %d of %d", what, got[what], n)
			}
		}
		require.Equal(t, int(out.Lost.Exemplars), missing)
		if w.o.version == series.V1 {
			require.Zero(t, missing)
		}
		for what := range got {
			// Held samples of before the part were sent within it.
			if before == 0 {
				require.Positive(t, want[what], what)
			}
		}
		if before == 0 {
			out.Restored.Add(out.Lost)
			require.Equal(t, withheld, out.Restored, "every withheld sample is accounted for")
		}
	})
}

// Batches and samples that come again, late or out of order are given back at least once.
func TestRestorer_MissesNothingThatRepeats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := anyWorld(t, true)
		w.o.exemplars = false
		batches := w.batches(40)
		at := steps(t, len(batches))
		splicer, sent := newSplicer(t, nil)
		restorer, replay := newRestorer(t, nil)
		var out thinning.Out
		want, got := store{}, store{}
		for n, b := range batches {
			if step, ok := at[n]; ok {
				sent.Set(step)
				replay.Set(step)
			}
			r, err := splicer.Splice(b, nil)
			require.NoError(t, err)
			got.takeBatch(t, r.Batch)
			want.add(decode(t, b))
			require.NoError(t, restorer.Add(b, nil, &out))
		}
		for _, b := range batches {
			require.NoError(t, restorer.Rest(b, nil, &out))
		}
		restorer.Flush(&out)
		for _, b := range out.Batches {
			got.takeBatch(t, b)
		}
		require.Zero(t, out.Lost)
		for what := range want {
			require.Positive(t, got[what], what)
		}
		for what := range got {
			require.Positive(t, want[what], what)
		}
	})
}

func TestRestorer_AddAll(t *testing.T) {
	for _, v := range []series.Version{series.V1, series.V2} {
		for _, modulus := range []int{0, 3} {
			w := newWorld(5, worldOptions{version: v})
			restorer, _ := newRestorer(t, nil)
			var out thinning.Out
			want, got := store{}, store{}
			var counts series.Counts
			for _, b := range w.batches(20) {
				set := takes(b, modulus)
				want.add(selected(t, b, set))
				require.NoError(t, restorer.AddAll(b, set, &out))
				if set == nil {
					require.Same(t, b, out.Batches[len(out.Batches)-1])
				}
			}
			restorer.Flush(&out)
			for _, b := range out.Batches {
				counts.Add(b.Counts)
				got.takeBatch(t, b)
			}
			require.Equal(t, want, got)
			require.Equal(t, counts, out.Restored)
			require.Zero(t, out.Lost)
		}
	}
}

// Batches made under different tables of routes are not mixed.
func TestRestorer_KeepsEpochsApart(t *testing.T) {
	w := newWorld(6, worldOptions{version: series.V1, few: true})
	batches := w.batches(2)
	batches[1].Epoch++
	restorer, _ := newRestorer(t, nil)
	var out thinning.Out
	for _, b := range batches {
		require.NoError(t, restorer.AddAll(b, takes(b, 5), &out))
	}
	restorer.Flush(&out)
	require.Len(t, out.Batches, 2)
	require.Equal(t, batches[0].Epoch, out.Batches[0].Epoch)
	require.Equal(t, batches[1].Epoch, out.Batches[1].Epoch)
}

func TestRestorer_ForgetLosesWhatWaits(t *testing.T) {
	w := newWorld(8, worldOptions{version: series.V1, few: true})
	batches := w.batches(10)
	restorer, s := newRestorer(t, nil)
	s.Set(sampler.Step{Rate: 0.05, Pressure: 1})
	var out thinning.Out
	for _, b := range batches {
		require.NoError(t, restorer.Add(b, nil, &out))
	}
	require.Positive(t, restorer.Pending())
	for _, b := range batches {
		restorer.Forget(b.IDs, &out)
	}
	require.Zero(t, restorer.Pending())
	require.Positive(t, out.Lost.Samples)
}
