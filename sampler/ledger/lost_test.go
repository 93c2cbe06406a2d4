package ledger_test

import (
	"testing"

	"github.com/stretchr/testify/require"

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
