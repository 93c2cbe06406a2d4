package thinning

import (
	"context"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// take takes what is sent, of the given origins, from what is left to be given back, and
// returns what of it was.
func (g *giver) take(sent series.Counts, origins []Origin) (owed series.Counts) {
	for _, o := range origins {
		n := o.Counts.Within(sent.Without(owed))
		k := stepOfEntry(g.e, o.Step)
		if g.inexact {
			g.back = addOrigin(g.back, g.e.Steps[k].At, n)
			owed.Add(n)
			continue
		}
		for ; k >= 0 && !n.Zero(); k-- {
			part := n.Within(g.read(k))
			if part.Zero() {
				continue
			}
			g.left[k].Sub(part)
			n.Sub(part)
			g.back = addOrigin(g.back, g.e.Steps[k].At, part)
			owed.Add(part)
		}
	}
	return owed
}

// read is what of a step is left that was read by now. Where it is not known what of a record
// was withheld, that is the least that it can be: what is given up meanwhile must not be less
// than what is missing.
func (g *giver) read(k int) series.Counts {
	if g.unread == nil {
		return g.left[k]
	}
	return g.left[k].Without(g.unread[k])
}

// stepOfEntry is the place of the step of an entry that holds for a position: the first for
// one before it.
func stepOfEntry(e *ledger.Entry, at journal.Position) int {
	k := len(e.Steps) - 1
	for k > 0 && at.Before(e.Steps[k].At) {
		k--
	}
	return k
}

// bookCut enters what was sent of a place into the books, where the rest of it is not going to be:
// the journal has lost what lies there. It reports whether it did.
func (g *giver) bookCut(ctx context.Context) bool {
	upTo, found := g.t.goneFrom()
	if !found || !g.upTo.Before(upTo) {
		return false
	}
	g.t.arriving(upTo, g.back)
	if err := g.t.giveUp(ctx, g.lane, loss{upTo, ReasonJournalFull}); err != nil {
		g.t.notArrived(g.back)
		return false
	}
	g.waiting = false
	return true
}

// arriving notes what will have been given back when the restoring is at a place. It is
// called before the place is moved there, so that no commit can come in between.
func (t *Thinner) arriving(upTo journal.Position, back []Origin) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range back {
		t.returns = append(t.returns, loan{upTo, ledger.Delta{At: o.Step, Tally: ledger.Tally{GivenBack: o.Counts}}})
	}
}

// notArrived takes the last arriving of the same back.
func (t *Thinner) notArrived(back []Origin) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.returns = t.returns[:len(t.returns)-len(back)]
}
