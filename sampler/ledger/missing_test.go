package ledger_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// What is missing between two times: record n was received in minute n, with samples of
// that minute.
func TestMissing(t *testing.T) {
	l := start(t, vfs.NewMem(), mark(0, 0))
	begin(t, l, 0, 0.5) // to be given up
	settle(t, l, mark(3, 0), withheld(1, 10, 5), withheld(2, 10, 5))
	require.NoError(t, l.End(at(3)))
	_, err := l.Settle(ledger.Settlement{Mark: mark(4, 3), Reason: "journal_full", Deltas: []ledger.Delta{givenBack(1, 4)}})
	require.NoError(t, err)
	begin(t, l, 5, 0.5) // to be given back
	settle(t, l, mark(8, 3), withheld(6, 10, 5))
	require.NoError(t, l.End(at(8)))
	settle(t, l, mark(9, 8), givenBack(6, 5))
	// To be given back in part.
	require.NoError(t, l.Gap(ledger.Gap{From: at(10), To: at(14), Cause: "fresh_first", Pieces: []ledger.Piece{
		{At: at(10), Tally: ledger.Tally{Taken: samples(20), First: minute(10), Last: minute(11)}},
		{At: at(12), Tally: ledger.Tally{Taken: samples(20), First: minute(12), Last: minute(13)}},
	}}))
	settle(t, l, mark(14, 10))
	settle(t, l, mark(14, 12), givenBack(10, 20))
	begin(t, l, 20, 0.8) // goes on
	require.NoError(t, l.Step(setting(25, 0.2)))
	require.NoError(t, l.Step(setting(30, 1)))
	late := withheld(26, 10, 2)
	late.Min = minute(22)
	settle(t, l, mark(40, 12), withheld(21, 10, 8), late, withheld(31, 10, 10))

	type answer struct {
		kind             ledger.Kind
		state            ledger.State
		from, to         int
		minRate, maxRate float64
		withheld, open   uint64
		givenUp          uint64
		reason           string
	}
	givenUp := answer{ledger.KindSampled, ledger.StateGivenUp, 1, 2, 0.5, 0.5, 10, 6, 6, "journal_full"}
	givenBack := answer{ledger.KindSampled, ledger.StateGivenBack, 6, 6, 0.5, 0.5, 5, 0, 0, ""}
	for _, c := range []struct {
		name     string
		from, to int
		want     []answer
	}{
		{"before all", -10, 0, []answer{}},
		{"the first minute of the first", 0, 1, []answer{givenUp}},
		{"between the first", 3, 5, []answer{}},
		{"two", 2, 6, []answer{givenUp, givenBack}},
		{"a piece that is back", 10, 11, []answer{{ledger.KindGap, ledger.StateGivingBack, 10, 11, 0, 0, 20, 0, 0, ""}}},
		{"a piece that is not", 13, 19, []answer{{ledger.KindGap, ledger.StateGivingBack, 12, 13, 0, 0, 20, 20, 0, ""}}},
		{"both pieces", 11, 12, []answer{{ledger.KindGap, ledger.StateGivingBack, 10, 13, 0, 0, 40, 20, 0, ""}}},
		{"the first step", 20, 21, []answer{{ledger.KindSampled, ledger.StateOpen, 21, 21, 0.8, 0.8, 2, 2, 0, ""}}},
		{"late samples of the second step", 22, 23, []answer{{ledger.KindSampled, ledger.StateOpen, 22, 26, 0.2, 0.2, 8, 8, 0, ""}}},
		{"both steps", 21, 22, []answer{{ledger.KindSampled, ledger.StateOpen, 21, 26, 0.2, 0.8, 10, 10, 0, ""}}},
		{"nothing was withheld at rate 1", 27, 60, []answer{}},
		{"all", 0, 60, []answer{
			givenUp, givenBack,
			{ledger.KindGap, ledger.StateGivingBack, 10, 13, 0, 0, 40, 20, 0, ""},
			{ledger.KindSampled, ledger.StateOpen, 21, 26, 0.2, 0.8, 10, 10, 0, ""},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := []answer{}
			list := l.Missing(minute(c.from).Time(), minute(c.to).Time())
			for _, m := range list {
				require.False(t, m.Inexact)
				got = append(got, answer{
					m.Kind, m.State, minutes(m.From), minutes(m.To), m.MinRate, m.MaxRate,
					m.Withheld.Samples, m.Outstanding.Samples, m.GivenUp.Samples, m.Reason,
				})
			}
			require.Equal(t, c.want, got)
			view := l.View()
			require.Equal(t, list, view.Missing(minute(c.from).Time(), minute(c.to).Time()))
		})
	}
	require.Equal(t, ledger.Debt{Counts: samples(30), Entries: 2, Oldest: minute(21), Received: minute(10)}, l.Debt())
}

// What comes is counted in the step where it is found to come, which may have withheld
// nothing itself. It is missing no more in the steps before that did.
func TestMissing_WhatCameInALaterStep(t *testing.T) {
	l := start(t, vfs.NewMem(), mark(0, 0))
	begin(t, l, 0, 0.5)
	require.NoError(t, l.Step(setting(10, 0.2)))
	require.NoError(t, l.Step(setting(20, 1)))
	sent := withheld(21, 10, 10)
	sent.Sent = samples(2)
	settle(t, l, mark(30, 0), withheld(1, 10, 5), withheld(11, 10, 2), sent)
	require.NoError(t, l.End(at(30)))
	check := func(from, to int, held, open uint64, estimated bool) {
		t.Helper()
		list := l.Missing(minute(from).Time(), minute(to).Time())
		require.Len(t, list, 1)
		m := list[0]
		require.Equal(t, []any{held, open, estimated}, []any{m.Withheld.Samples, m.Outstanding.Samples, m.Estimated}, "%+v", m)
		require.Equal(t, m.Withheld.Samples, m.Outstanding.Samples+m.Sent.Samples+m.GivenBack.Samples)
		view := l.View()
		require.Equal(t, list, view.Missing(minute(from).Time(), minute(to).Time()))
	}
	check(0, 60, 13, 11, false)
	check(0, 5, 5, 5, true)
	check(11, 12, 8, 6, true)
	settle(t, l, mark(31, 12), givenBack(1, 3), givenBack(11, 4))
	check(0, 60, 13, 4, false)
	check(0, 5, 5, 2, true)
	check(11, 12, 8, 2, true)
	settle(t, l, mark(32, 30), givenBack(21, 4)) // they waited for the end
	check(0, 60, 13, 0, false)
	check(0, 5, 5, 0, false)
	check(11, 12, 8, 0, false)
	require.Equal(t, ledger.StateGivenBack, l.Entries()[0].State)
}

func minutes(at ledger.Time) int { return int(at.Time().Sub(epoch) / time.Minute) }

func TestTally(t *testing.T) {
	var sum ledger.Tally
	sum.Add(ledger.Tally{Taken: samples(5)})
	require.Equal(t, ledger.Tally{Taken: samples(5)}, sum)
	sum.Add(ledger.Tally{Withheld: samples(5), First: 10, Last: 20, Min: -3, Max: 0})
	sum.Add(ledger.Tally{Sent: samples(2), GivenBack: samples(1), First: 5, Last: 7, Min: -9, Max: -8})
	require.Equal(t, ledger.Tally{
		Taken: samples(5), Withheld: samples(5), Sent: samples(2), GivenBack: samples(1), First: 5, Last: 20, Min: -9, Max: 0,
	}, sum)
	require.Equal(t, samples(2), sum.Outstanding())
	sum.Add(ledger.Tally{Sent: series.Counts{Samples: 100, Histograms: 1}})
	require.Equal(t, series.Counts{}, sum.Outstanding(), "sent in this step, withheld in another one")
}
