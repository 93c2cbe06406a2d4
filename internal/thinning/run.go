package thinning

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// Run does what takes time beside the lane, until ctx ends: it builds sessions when the
// rate falls, gives back what was withheld when the backend is well, and tells readers
// how far apart samples are. ctx ends with the one of the lane, or before. It is called once.
func (t *Thinner) Run(ctx context.Context, lane Lane) {
	context.AfterFunc(ctx, t.stop)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { t.keepReady(ctx) })
	wg.Go(func() { t.keepTold(ctx, lane) })
	every(ctx, time.Second, func() {
		t.trim(ctx, lane)
		t.giveUpGone(ctx, lane)
		t.endIdle()
		if t.o.Config.Backfill && t.o.Window > 0 {
			t.giveBack(ctx, lane)
		}
	})
}

func every(ctx context.Context, d time.Duration, do func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do()
		}
	}
}

func (t *Thinner) keepReady(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			t.mu.Lock()
			defer t.mu.Unlock()
			t.drop()
			return
		case <-t.kick:
			t.prepare(ctx)
		}
	}
}

// trim keeps the ledger within its bounds.
func (t *Thinner) trim(ctx context.Context, lane Lane) {
	upTo, over := t.o.Ledger.Excess()
	if !over {
		return
	}
	t.mu.Lock()
	if t.session != nil && !upTo.Before(t.session.from) {
		t.session.full = true // the reader ends it; the next one begins with no steps
		t.mu.Unlock()
		return
	}
	t.mu.Unlock()
	t.o.Logger.Warn("The ledger is full: the oldest that was withheld is never given back", "up_to", upTo)
	if err := t.giveUp(ctx, lane, loss{upTo, ReasonLedgerFull}); err != nil && ctx.Err() == nil {
		t.o.Logger.Warn("Giving up what was withheld is tried again", "err", err)
	}
}

// endIdle ends a session at full rate whose records come no more: none would end it.
func (t *Thinner) endIdle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.session
	if s == nil || t.steer.wanted < 1 || t.o.Now().Sub(t.readAt) < t.settling() || s.until != (journal.Position{}) || len(s.recorded) > 0 {
		return
	}
	_ = t.end(t.stood) // it is tried again
}

// giving notes at which entry the giving back is.
func (t *Thinner) giving(e *ledger.Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.owes = e
}

// Event is something that happened to the sampling.
type Event struct {
	Time time.Time `json:"time"`
	What string    `json:"what"`
	Why  string    `json:"why,omitempty"`
}

// maxEvents is how many events are kept.
const maxEvents = 50

// note keeps an event; t.mu is held.
func (t *Thinner) note(what, why string) {
	if len(t.events) == maxEvents {
		t.events = append(t.events[:0], t.events[1:]...)
	}
	t.events = append(t.events, Event{t.o.Now(), what, why})
}

func (t *Thinner) event(what, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.note(what, why)
}

// totals are counted over all sessions.
type totals struct {
	classes   map[string]sampler.ClassStats
	seen      uint64
	sent      uint64
	givenBack uint64 // samples and histograms that the backfill sent
	refused   uint64 // of these
}

// close takes over what a session has counted.
func (c *totals) close(s *session) { c.add(s.sampler.Stats(), s.base) }

// add adds what lies between two readings of one sampler.
func (c *totals) add(now, base sampler.Stats) {
	if c.classes == nil {
		c.classes = map[string]sampler.ClassStats{}
	}
	c.seen += now.Seen() - base.Seen()
	c.sent += now.Sent() - base.Sent()
	for i, n := range now.Classes {
		sum, b := c.classes[n.Class], base.Classes[i]
		sum.Class = n.Class
		sum.Seen += n.Seen - b.Seen
		sum.Kept += n.Kept - b.Kept
		sum.Replayed += n.Replayed - b.Replayed
		for r := range n.Withheld {
			sum.Withheld[r] += n.Withheld[r] - b.Withheld[r]
		}
		c.classes[n.Class] = sum
	}
}

// totals are the counts of all sessions, with those of the session that is open; t.mu is held.
func (t *Thinner) totals() totals {
	sum := t.counts
	sum.classes = map[string]sampler.ClassStats{}
	for k, v := range t.counts.classes {
		sum.classes[k] = v
	}
	if s := t.session; s != nil {
		sum.add(s.sampler.Stats(), s.base)
	}
	return sum
}
