package ledger_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// What is lost before a place says nothing about what lies behind it, even if the giving back
// is further on by then.
func TestSettle_LostBeforeAPlace(t *testing.T) {
	l := start(t, vfs.NewMem(), mark(0, 0))
	begin(t, l, 0, 0.5)
	settle(t, l, mark(5, 0), withheld(1, 10, 5))
	require.NoError(t, l.End(at(5)))
	begin(t, l, 10, 0.5)
	for n := 20; n <= 60; n += 10 {
		require.NoError(t, l.Step(setting(n, 0.4)))
	}
	settle(t, l, mark(61, 0), withheld(11, 10, 4), withheld(21, 10, 4))
	require.NoError(t, l.End(at(61)))
	lost := ledger.Settlement{Mark: mark(61, 0), Reason: "journal_full", Lost: at(5)}
	s, err := l.Settle(lost) // nothing moves: it waits
	require.NoError(t, err)
	require.Zero(t, s.GivenUp)
	s, err = l.Settle(ledger.Settlement{Mark: mark(62, 45), Deltas: []ledger.Delta{givenBack(21, 3)}})
	require.NoError(t, err)
	require.Equal(t, samples(5), s.GivenUp)
	list := l.Entries()
	require.Equal(t, []any{samples(5), "journal_full"}, []any{list[0].GivenUp, list[0].Reason})
	require.Equal(t, []any{samples(0), "", ledger.StateGivingBack}, []any{list[1].GivenUp, list[1].Reason, list[1].State})
	s, err = l.Settle(ledger.Settlement{Mark: mark(63, 61), Reason: "too_old", Lost: at(5)})
	require.NoError(t, err)
	require.Equal(t, samples(9), s.GivenUp)
	require.Equal(t, ledger.ReasonNotFound, l.Entries()[1].Reason)
}

// Of an entry that is given up in part, the oldest is: a range of time that has the rest says
// nothing of it.
func TestMissing_GivenUpInPart(t *testing.T) {
	l := start(t, vfs.NewMem(), mark(0, 0))
	begin(t, l, 0, 0.5)
	require.NoError(t, l.Step(setting(10, 0.4)))
	require.NoError(t, l.Step(setting(20, 0.3)))
	settle(t, l, mark(30, 0), withheld(1, 10, 5), withheld(11, 10, 4), withheld(21, 10, 3))
	require.NoError(t, l.End(at(30)))
	e := l.Entries()[0]
	require.Equal(t, []series.Counts{samples(5), samples(6), samples(7)}, e.Owed())
	require.Equal(t, at(10), e.Behind(at(5)))
	require.Equal(t, at(10), e.Behind(at(10)))
	require.Equal(t, at(30), e.Behind(at(25)))
	require.Equal(t, samples(5), e.Lost(at(15), at(30)), "whole steps")
	require.Equal(t, samples(18), e.Lost(at(30), at(30)))
	require.Zero(t, e.Lost(at(15), at(29)), "it is moving")
	_, err := l.Settle(ledger.Settlement{Mark: mark(31, 20), Reason: "journal_full", Lost: at(20), Deltas: []ledger.Delta{givenBack(21, 2)}})
	require.NoError(t, err)
	for _, c := range []struct {
		from, to          int
		outstanding, lost uint64
	}{{0, 60, 16, 11}, {0, 9, 5, 5}, {11, 12, 6, 6}, {21, 22, 5, 0}} {
		m := l.Missing(minute(c.from).Time(), minute(c.to).Time())
		require.Len(t, m, 1)
		require.Equal(t, []uint64{c.outstanding, c.lost}, []uint64{m[0].Outstanding.Samples, m[0].GivenUp.Samples}, "%+v", c)
	}
	e = l.Entries()[0]
	from, ok := e.Unreturned(at(20))
	require.Equal(t, []any{at(20), true}, []any{from, ok})
	settle(t, l, mark(32, 25), givenBack(21, 5))
	e = l.Entries()[0]
	_, ok = e.Unreturned(at(20))
	require.False(t, ok)
}
