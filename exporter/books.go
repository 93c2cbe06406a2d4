package exporter

import (
	"context"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// commitInterval is how often a lane writes down how far it is.
const commitInterval = time.Second

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
	Bytes     int64          // of records behind the committed position
	Oldest    time.Time      // receipt of the oldest record behind it; zero when there is none
}

// Balance returns the books as they stand. What is in the journal is counted by the
// journal, everything else by the lane, so that an error of either shows.
func (l *Lane) Balance() Balance {
	var b Balance
	for range 5 {
		b = l.balance()
		sum := settledCounts(&b.Totals)
		sum.Add(b.InJournal)
		if sum == b.Routed {
			break // else a batch is between the journal and the books: look again
		}
	}
	return b
}

func (l *Lane) balance() Balance {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := Balance{Routed: l.base, Totals: cloneTotals(l.progress.live)}
	b.Routed.Add(series.Counts{Samples: l.appended[0].Load(), Histograms: l.appended[1].Load(), Exemplars: l.appended[2].Load()})
	lag := l.o.Cursor.Lag()
	// The journal counts from the committed position on; what was settled behind it is
	// not in the journal any more.
	settled := settledCounts(&l.progress.live)
	settled.Sub(settledCounts(&l.committed.Totals))
	b.InJournal = lag.Counts
	b.InJournal.Sub(settled)
	b.Bytes, b.Oldest, b.Batches = lag.Bytes, lag.Oldest, lag.Records
	for _, r := range l.progress.open {
		if r.settled {
			b.Batches--
		}
	}
	if b.Batches <= 0 {
		b.Batches, b.Bytes, b.Oldest = 0, 0, time.Time{}
	}
	return b
}

// commit writes down how far the lane is, if that changed.
func (l *Lane) commit() error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	l.mu.Lock()
	st := journal.State{Position: l.progress.position, Totals: cloneTotals(l.progress.prefix)}
	l.mu.Unlock()
	// Nothing behind sent was handed to a sender: a horizon that looked ahead comes
	// back when the lane stands still.
	st.Horizon = l.committed.Horizon
	if l.sent.Before(st.Horizon) && st.Position == l.committed.Position {
		st.Horizon = later(l.sent, l.maybe)
	}
	if st.Position == l.committed.Position && st.Horizon == l.committed.Horizon {
		return nil
	}
	return l.store(st)
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
	l.sent = later(l.sent, end)
	if !l.committed.Horizon.Before(end) {
		return nil
	}
	l.mu.Lock()
	st := journal.State{Position: l.progress.position, Totals: cloneTotals(l.progress.prefix)}
	l.mu.Unlock()
	st.Horizon = journal.Position{Segment: end.Segment, Offset: end.Offset + horizonStep}
	return l.store(st)
}

// store commits a state; commitMu is held.
func (l *Lane) store(st journal.State) error {
	if err := l.o.Cursor.Commit(st); err != nil {
		l.o.Metrics.commits.WithLabelValues(l.o.Name, "failed").Inc()
		return err
	}
	l.o.Metrics.commits.WithLabelValues(l.o.Name, "ok").Inc()
	l.mu.Lock()
	l.committed = st
	l.mu.Unlock()
	return nil
}

func later(a, b journal.Position) journal.Position {
	if a.Before(b) {
		return b
	}
	return a
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
		case <-t.C:
		}
		if err := l.commit(); err != nil {
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
	}
}

// bound gives up the oldest of the backlog where a bound is exceeded.
func (l *Lane) bound() {
	to, reason := l.o.Cursor.Floor(), ReasonJournalFull
	if age, bytes := time.Duration(l.o.Backlog.Age), int64(l.o.Backlog.Bytes); age > 0 || bytes > 0 {
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
	if !l.progress.position.Before(to) || !l.giveUp.to.Before(to) {
		return
	}
	l.giveUp = giveUp{to: to, reason: reason}
	for _, f := range l.slots {
		if f != nil && f != reserved && f.recs[0].start.Before(to) {
			f.cancel(errAbandoned)
		}
	}
	l.changed.Broadcast()
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
	from := l.o.Cursor.Read()
	if !from.Before(g.to) {
		return gone
	}
	lag, err := l.o.Cursor.Skip(g.to)
	if err != nil {
		l.o.Logger.Error("Cannot step over what is to be given up", "from", from, "to", g.to, "err", err)
		return gone
	}
	r := &openRecord{start: from, end: l.o.Cursor.Read(), received: l.o.Now().UnixMilli()}
	r.out.giveUp(g.reason, lag.Counts)
	l.mu.Lock()
	l.progress.add(r)
	l.progress.settle(r)
	l.readPos = r.end
	l.mu.Unlock()
	l.o.Logger.Warn("Gave up the oldest data in the journal for this backend", "reason", g.reason, "batches", lag.Records, "samples", lag.Counts.Samples, "histograms", lag.Counts.Histograms, "bytes", lag.Bytes)
	return gone
}
