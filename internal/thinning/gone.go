package thinning

import (
	"context"
	"time"

	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// cut is what was found at the last look for what the journal has lost.
type cut struct {
	gone   journal.Position
	looked time.Time
	upTo   journal.Position
	found  bool
}

// lookAgain is after how long it is looked again though the journal begins where it did: of
// a session that goes on, samples may be sent after all for some minutes.
const lookAgain = 10 * time.Second

// goneFrom reports up to where what is owed cannot be given back any more, since the
// journal had no room for it. That is the end of the step with the newest record that is gone,
// for the rest of the step cannot be told from what was sent.
func (t *Thinner) goneFrom() (upTo journal.Position, found bool) {
	if !t.o.Config.Backfill || t.o.Window <= 0 {
		return upTo, false
	}
	gone := t.o.Journal.Gone()
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.o.Now()
	if t.cut.gone == gone && now.Sub(t.cut.looked) < lookAgain {
		return t.cut.upTo, t.cut.found
	}
	t.cut = cut{gone: gone, looked: now}
	for _, e := range t.o.Ledger.Timeline(t.restored) {
		if e.Closed != 0 || e.Kind == ledger.KindUnknown {
			continue
		}
		if !e.From.Before(gone) {
			break
		}
		upTo := e.Behind(gone)
		if upTo.Before(t.restored) {
			break
		}
		if e.From.Later(t.restored).Before(upTo) || !e.Lost(upTo, t.marked.Position).Zero() {
			t.cut.upTo, t.cut.found = upTo, true
		}
		break
	}
	return t.cut.upTo, t.cut.found
}

// giveUpGone gives up what the journal has no more.
func (t *Thinner) giveUpGone(ctx context.Context, lane Lane) {
	upTo, found := t.goneFrom()
	if !found {
		return
	}
	if t.isRestored(upTo) {
		t.o.Logger.Debug("More of what was withheld cannot be given back", "gone_to", upTo)
	} else {
		t.o.Logger.Warn("What was withheld cannot be given back: the journal had no room for it", "gone_to", upTo)
	}
	if err := t.giveUp(ctx, lane, loss{upTo, ReasonJournalFull}); err != nil {
		if ctx.Err() == nil {
			t.o.Logger.Warn("Giving up what was withheld is tried again", "err", err)
		}
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut.found = false
}

// forgetCut has the next call of goneFrom look again.
func (t *Thinner) forgetCut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut.looked = time.Time{}
}

// isRestored reports whether the restoring is at a place, or behind it.
func (t *Thinner) isRestored(at journal.Position) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.restored.Before(at)
}
