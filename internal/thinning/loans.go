package thinning

import (
	"cmp"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// loan is what a record adds to the ledger once the cursor, or for what is given back the
// restoring, is at or behind its end.
type loan struct {
	end   journal.Position
	delta ledger.Delta // at the start of a step
}

// loss says why what was withheld before a position, and not given back, never will be.
type loss struct {
	upTo   journal.Position
	reason string // empty: nothing is lost
}

// lend notes what a record adds to the ledger once it is settled, in the step that begins
// at a position.
func (t *Thinner) lend(rec *journal.Record, step journal.Position, d ledger.Tally) {
	if d.Min == 0 && d.Max == 0 && rec.Batch.MinTime <= rec.Batch.MaxTime && d.Taken == d.Withheld {
		d.Min, d.Max = ledger.Time(rec.Batch.MinTime), ledger.Time(rec.Batch.MaxTime)
	}
	d.First, d.Last = ledger.Time(rec.Batch.Received), ledger.Time(rec.Batch.Received)
	t.loans = append(t.loans, loan{rec.End, ledger.Delta{At: step, Tally: d}})
}

// Lend implements exporter.Sampling.
func (t *Thinner) Lend(from, to journal.Position, lag journal.Lag) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := ledger.Tally{Taken: lag.Counts, Withheld: lag.Counts, First: ledger.TimeOf(lag.Oldest)}
	d.Last = ledger.TimeOf(t.o.Now())
	// Samples are about as old as what brought them.
	d.Min, d.Max = d.First, d.Last
	t.loans = append(t.loans, loan{to, ledger.Delta{At: from, Tally: d}})
}

// Settle implements exporter.Sampling.
func (t *Thinner) Settle(next, committed journal.State) (givenUp series.Counts, reason string, err error) {
	s := ledger.Settlement{
		Mark:      ledger.Mark{Position: next.Position, Restore: next.Restore.Position},
		Committed: ledger.Mark{Position: committed.Position, Restore: committed.Restore.Position},
	}
	t.mu.Lock()
	if err := t.writeEnd(); err != nil {
		t.mu.Unlock()
		return givenUp, "", err
	}
	lent, returned, lost := 0, 0, t.lost
	if s.Mark != t.marked { // else nothing is due
		lent = due(t.loans, next.Position, &s.Deltas)
		returned = due(t.returns, next.Restore.Position, &s.Deltas)
		if !next.Restore.Position.Before(t.lost.upTo) {
			s.Reason, s.Lost = t.lost.reason, t.lost.upTo
		}
	}
	t.mu.Unlock()
	settled, err := t.o.Ledger.Settle(s)
	if err != nil {
		return givenUp, "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.marked = s.Mark
	t.loans = append(t.loans[:0], t.loans[lent:]...)
	t.returns = append(t.returns[:0], t.returns[returned:]...)
	if s.Reason != "" && t.lost == lost {
		t.lost = loss{}
	}
	t.retain()
	return settled.GivenUp, cmp.Or(s.Reason, ReasonNotReturned), nil
}

// due appends the deltas of the loans that a position has reached, those of one step
// together, and returns the number of these loans.
func due(loans []loan, at journal.Position, deltas *[]ledger.Delta) (n int) {
	first := len(*deltas)
	for ; n < len(loans) && !at.Before(loans[n].end); n++ {
		d := loans[n].delta
		if k := stepIn((*deltas)[first:], d.At); k >= 0 {
			(*deltas)[first+k].Add(d.Tally)
		} else {
			*deltas = append(*deltas, d)
		}
	}
	return n
}

// stepIn is the place of a step in a list, of which the newest are asked for most; -1 where it
// is not there.
func stepIn(deltas []ledger.Delta, at journal.Position) int {
	for k := len(deltas) - 1; k >= 0; k-- {
		if deltas[k].At == at {
			return k
		}
	}
	return -1
}
