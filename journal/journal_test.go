package journal_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

func counts(t *rapid.T, name string) series.Counts {
	n := rapid.Uint64Range(0, 1<<40)
	return series.Counts{Samples: n.Draw(t, name), Histograms: n.Draw(t, name), Exemplars: n.Draw(t, name)}
}

// Each sample that was routed is settled once, whatever became of it, and what was not
// routed is not settled.
func TestSettled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var totals journal.Totals
		var want series.Counts
		for range rapid.IntRange(0, 20).Draw(t, "events") {
			c := counts(t, "counts")
			end := func() {
				switch rapid.IntRange(0, 2).Draw(t, "end") {
				case 0:
					totals.Delivered.Add(c)
				case 1:
					totals.Rejected = added(totals.Rejected, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "reason"), c)
				case 2:
					totals.GivenUp = added(totals.GivenUp, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "reason"), c)
				}
			}
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				end()
				want.Add(c)
			case 1:
				totals.Withheld.Add(c)
				want.Add(c)
			case 2:
				totals.Withheld.Add(c)
				want.Add(c)
				totals.Restored.Add(c)
				end()
			}
		}
		require.Equal(t, want, totals.Settled())
		before := totals.Clone()
		totals.Rejected = added(totals.Rejected, "a", series.Counts{Samples: 1})
		totals.GivenUp = added(totals.GivenUp, "c", series.Counts{Samples: 1})
		require.Equal(t, want, before.Settled(), "a clone shares nothing")
	})
}

func added(m map[string]series.Counts, reason string, c series.Counts) map[string]series.Counts {
	if m == nil {
		m = map[string]series.Counts{}
	}
	sum := m[reason]
	sum.Add(c)
	m[reason] = sum
	return m
}

// A sum that passes below zero on its way is right in the end.
func TestSettledWraps(t *testing.T) {
	totals := journal.Totals{
		Delivered: series.Counts{Samples: 1},
		GivenUp:   map[string]series.Counts{"x": {Samples: 9}},
		Withheld:  series.Counts{Samples: math.MaxUint64},
		Restored:  series.Counts{Samples: 8},
	}
	require.Equal(t, series.Counts{Samples: 1}, totals.Settled())
}

// A state that was stored before there was sampling is read, and one of a backend that
// is not sampled is stored as it was then.
func TestStateOfBefore(t *testing.T) {
	const old = `{"position":{"segment":3,"offset":70},"horizon":{"segment":4,"offset":80},` +
		`"totals":{"delivered":{"samples":5,"histograms":1,"exemplars":0},"rejected":{"r":{"samples":1,"histograms":0,"exemplars":0}},` +
		`"redelivered":{"samples":0,"histograms":0,"exemplars":0}}}`
	var st journal.State
	require.NoError(t, json.Unmarshal([]byte(old), &st))
	require.Equal(t, journal.State{
		Position: journal.Position{Segment: 3, Offset: 70},
		Horizon:  journal.Position{Segment: 4, Offset: 80},
		Totals: journal.Totals{
			Delivered: series.Counts{Samples: 5, Histograms: 1},
			Rejected:  map[string]series.Counts{"r": {Samples: 1}},
		},
	}, st)
	text, err := json.Marshal(st)
	require.NoError(t, err)
	require.Equal(t, old, string(text))

	st.Restore = journal.Restore{Position: journal.Position{Segment: 1}, Horizon: journal.Position{Segment: 2, Offset: 3}}
	st.Totals.Withheld, st.Totals.Restored = series.Counts{Samples: 7}, series.Counts{Samples: 3}
	text, err = json.Marshal(st)
	require.NoError(t, err)
	var again journal.State
	require.NoError(t, json.Unmarshal(text, &again))
	require.Equal(t, st, again)
}

func TestStateClone(t *testing.T) {
	st := journal.State{Totals: journal.Totals{
		Rejected: map[string]series.Counts{"r": {Samples: 1}},
		GivenUp:  map[string]series.Counts{"g": {Samples: 2}},
	}}
	c := st.Clone()
	st.Totals.Rejected["r"], st.Totals.GivenUp["g"] = series.Counts{}, series.Counts{}
	require.Equal(t, series.Counts{Samples: 3}, c.Totals.Settled())
}
