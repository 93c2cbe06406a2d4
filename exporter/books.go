package exporter

import (
	"context"
	"fmt"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// commitInterval is how often a lane writes down how far it is.
const commitInterval = time.Second

// commitSoon is how soon it does so when the journal asked it to move on.
const commitSoon = 50 * time.Millisecond

// horizonStep is how far ahead of what is sent the horizon is written down, so that it
// is not written for every parcel: after a crash, at most so much more counts as
// possibly redelivered.
const horizonStep = 8 << 20

// Balance is one side-by-side view of a backend's books.
type Balance struct {
	Routed    series.Counts  // appended for this backend
	Totals    journal.Totals // settled
	InJournal series.Counts  // by the journal's own counting
	Batches   int64          // records that are not settled
	Bytes     int64          // of records behind the committed position; 0 when all are settled
	Oldest    time.Time      // receipt of the oldest record that is not settled; zero when there is none
}

// checkpoint is a state of the cursor, and how many records were settled since New
// before its position.
type checkpoint struct {
	journal.State
	passed int64
}

// recount makes the books of the backlog right where the backend's selectors changed
// since it was appended.
func (l *Lane) recount(ctx context.Context) error {
	changed := false
	err := l.o.Cursor.Recount(ctx, func(b *series.Batch) (series.Counts, error) {
		changed = true
		c, err := l.o.Picker.Count(b)
		if err != nil {
			// What cannot be read is lost for this backend when its turn comes; until then
			// all of it is in the journal. It must not keep the rest from being delivered.
			return b.Counts, nil
		}
		return c, nil
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("backend %s: counting what is in the journal: %w", l.o.Name, err)
	case !changed:
		return nil
	}
	backlog, err := l.measureBacklog(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.base.Sub(l.backlog)
	l.base.Add(backlog)
	l.backlog = backlog
	return nil
}

// measureBacklog returns what was in the journal at New, as it is counted now. Appends
// go on meanwhile; each shows in the journal a moment before Routed is told. So one look
// may count a batch too much, never one too little, and the least of several is right.
func (l *Lane) measureBacklog(ctx context.Context) (least series.Counts, err error) {
	const looks = 10
	for n := 0; n < looks; {
		before := l.routed()
		c := l.o.Cursor.Lag().Counts
		if l.routed() == before {
			c.Sub(before)
			if n == 0 {
				least = c
			}
			least = series.Counts{
				Samples:    min(least.Samples, c.Samples),
				Histograms: min(least.Histograms, c.Histograms),
				Exemplars:  min(least.Exemplars, c.Exemplars),
			}
			n++
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return least, err
		}
	}
	return least, nil
}

// routed is what was appended since New.
func (l *Lane) routed() series.Counts {
	return series.Counts{Samples: l.appended[0].Load(), Histograms: l.appended[1].Load(), Exemplars: l.appended[2].Load()}
}

// Balance returns the books as they stand. What is in the journal is counted by the
// journal, everything else by the lane, so that an error of either shows. It does not
// wait for the disk, unless it comes in the last moment of a commit.
func (l *Lane) Balance() (b Balance) {
	for range 5 {
		consistent := false
		if b, consistent = l.balance(); !consistent {
			l.commitMu.Lock()
			b, _ = l.balance()
			l.commitMu.Unlock()
		}
		sum := b.Totals.Settled()
		sum.Add(b.InJournal)
		if sum == b.Routed {
			break // else a batch is between the journal and the books: look again
		}
	}
	return b
}

// balance is one look at the books. It is not consistent when the journal has a state
// that the lane does not know of yet.
func (l *Lane) balance() (b Balance, consistent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// What is settled holds still from here on, so that the lag, which is read later,
	// has all of it that is behind the committed position.
	b.Totals = l.progress.live.Clone()
	before := l.o.Cursor.Committed().Position
	lag := l.o.Cursor.Lag()
	consistent = before == l.committed.Position && before == l.o.Cursor.Committed().Position
	b.Routed = l.base
	b.Routed.Add(l.routed())
	settled := b.Totals.Settled()
	settled.Sub(l.committed.Totals.Settled())
	b.InJournal = lag.Counts.Without(settled)
	if b.Batches = lag.Records - (l.progress.settled - l.committed.passed); b.Batches <= 0 {
		b.Batches = 0
		return b, consistent
	}
	b.Bytes, b.Oldest = lag.Bytes, lag.Oldest
	if r := l.progress.first(); r != nil {
		b.Oldest = time.UnixMilli(r.received)
	}
	return b, consistent
}

// commit writes down how far the lane is, if that changed. last is set when nothing will
// be sent any more.
func (l *Lane) commit(last bool) error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	c := l.reached()
	// A horizon that looked ahead comes back when the lane stands still: nothing behind
	// sent was handed to a sender.
	if l.sent.Before(c.Horizon) && (last || c.Position == l.committed.Position) {
		c.Horizon = l.sent.Later(l.maybe)
	}
	if back := l.restoreSent.Later(c.Restore.Position); last && back.Before(c.Restore.Horizon) && !back.Before(l.restoreMaybe) {
		c.Restore.Horizon = back
	}
	if c.Position == l.committed.Position && c.Horizon == l.committed.Horizon && c.Restore == l.committed.Restore {
		return nil
	}
	return l.store(c)
}

// reached is how far the lane is, with the horizon that was committed last. commitMu is
// held.
func (l *Lane) reached() checkpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return checkpoint{
		State: journal.State{
			Position: l.progress.position,
			Horizon:  l.committed.Horizon,
			Totals:   l.progress.prefix.Clone(),
			Restore:  journal.Restore{Position: l.restore.Position, Horizon: l.committed.Restore.Horizon},
		},
		passed: l.progress.passed,
	}
}

// announce makes sure that the horizon covers the parcel before it is sent. It goes on
// trying until ctx ends.
func (l *Lane) announce(ctx context.Context, f *flight) error {
	end := f.recs[len(f.recs)-1].end
	f.maybe = f.recs[0].start.Before(l.maybe)
	failing := false
	for {
		err := l.cover(end)
		if err == nil {
			if failing {
				l.o.Logger.Info("The backend's cursor can be written again")
			}
			return nil
		}
		if !failing {
			failing = true
			l.o.Logger.Error("Nothing is sent before it is written down that it may have been; the backend's cursor cannot be written", "err", err)
		}
		if err := sleep(ctx, commitInterval); err != nil {
			return err
		}
	}
}

// cover stores a horizon at or behind end.
func (l *Lane) cover(end journal.Position) error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	l.sent = l.sent.Later(end)
	if !l.committed.Horizon.Before(end) {
		return nil
	}
	c := l.reached()
	c.Horizon = journal.Position{Segment: end.Segment, Offset: end.Offset + horizonStep}
	return l.store(c)
}

// store commits a checkpoint; commitMu is held.
func (l *Lane) store(c checkpoint) error {
	err := l.sync(&c)
	if err == nil && l.o.Sampling != nil {
		err = l.settleLoans(&c)
	}
	if err == nil {
		err = l.o.Cursor.Commit(c.State)
	}
	if err != nil {
		l.o.Metrics.commits.WithLabelValues(l.o.Name, "failed").Inc()
		return err
	}
	l.o.Metrics.commits.WithLabelValues(l.o.Name, "ok").Inc()
	l.mu.Lock()
	l.committed = c
	l.mu.Unlock()
	return nil
}

// sync makes sure that the backend does not lose in a power failure what is about to be
// committed as delivered.
func (l *Lane) sync(c *checkpoint) error {
	s, ok := l.o.Backend.(Syncer)
	if !ok || !l.o.Durable || c.Position == l.committed.Position && c.Restore.Position == l.committed.Restore.Position {
		return nil
	}
	return s.Sync()
}

// keep does what has to be done regularly: commit, hold the bounds of the backlog, and
// fit the number of shards.
func (l *Lane) keep(ctx context.Context) {
	t := time.NewTicker(commitInterval)
	defer t.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.o.Cursor.FloorRaised():
			// The journal has little room until the lane has moved on and has said so.
			l.bound()
			t.Reset(commitSoon)
			continue
		case <-t.C:
			t.Reset(commitInterval)
		}
		if err := l.commit(false); err != nil {
			if !failing {
				l.o.Logger.Error("The backend's cursor cannot be committed; what is delivered meanwhile is sent again after a restart", "err", err)
			}
			failing = true
		} else if failing {
			failing = false
			l.o.Logger.Info("The backend's cursor is committed again")
		}
		l.bound()
		l.fit()
		if l.o.Sampling != nil {
			l.o.Sampling.Observe(l.signals(l.o.Now()))
		}
	}
}

// SetBacklog changes the bounds of the backlog. Any goroutine may call it.
func (l *Lane) SetBacklog(b Backlog) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.o.Backlog = b
}

// backlogBound is the bounds of the backlog that are in force.
func (l *Lane) backlogBound() Backlog {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.o.Backlog
}

// bound gives up the oldest of the backlog where a bound is exceeded.
func (l *Lane) bound() {
	b := l.backlogBound()
	age, bytes := time.Duration(b.Age), int64(b.Bytes)
	to, reason := l.o.Cursor.Floor(), ReasonJournalFull
	if age > 0 || bytes > 0 {
		var oldest time.Time
		if age > 0 {
			oldest = l.o.Now().Add(-age)
		}
		if p := l.o.Cursor.PositionAt(bytes, oldest); to.Before(p) {
			to, reason = p, ReasonMaxBacklog
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.progress.position.Before(to) {
		return
	}
	if l.giveUp.to.Before(to) {
		l.giveUp = giveUp{to: to, reason: reason}
	}
	// Parcels that were gathered at the last look are met at this one.
	for _, f := range l.slots {
		if f != nil && f != reserved && len(f.recs) > 0 && f.recs[0].start.Before(to) {
			f.cancel(errAbandoned)
		}
	}
}

// skip steps over what is to be given up, the record in hand included; it reports whether
// that was given up.
func (l *Lane) skip(next *pending) bool {
	l.mu.Lock()
	g := l.giveUp
	l.mu.Unlock()
	gone := false
	if next != nil && next.rec.start.Before(g.to) {
		next.rec.out.giveUp(g.reason, next.counts)
		next.part.Batch.Release()
		l.mu.Lock()
		l.progress.settle(next.rec)
		l.mu.Unlock()
		gone = true
	}
	if l.readPos.Before(g.to) && l.o.Sampling != nil {
		if err := l.o.Sampling.Pass(l.readPos, g.to, false); err != nil {
			l.o.Logger.Error("It cannot be written down what is given up", "from", l.readPos, "to", g.to, "err", err)
		}
	}
	for l.readPos.Before(g.to) {
		if !l.skipSegment(g) {
			break
		}
	}
	return gone
}

// skipSegment steps over what is to be given up in one segment. It reports whether there
// may be more.
func (l *Lane) skipSegment(g giveUp) bool {
	r, lag, err := l.step(g.to)
	if err != nil {
		if _, times, ok := l.skipFailed.add(l.o.Now(), series.Counts{}); ok {
			l.o.Logger.Error("Cannot step over what is to be given up", "from", l.readPos, "to", g.to, "times", times, "err", err)
		}
		return false
	}
	if r == nil {
		return true
	}
	r.out.giveUp(g.reason, lag.Counts)
	l.mu.Lock()
	l.progress.add(r)
	l.progress.settle(r)
	l.mu.Unlock()
	if c, times, ok := l.skipped.add(l.o.Now(), lag.Counts); ok {
		l.o.Logger.Warn("Gave up the oldest data in the journal for this backend", "reason", g.reason, "times", times,
			"samples", c.Samples, "histograms", c.Histograms, "exemplars", c.Exemplars, "to", r.end)
	}
	return true
}
