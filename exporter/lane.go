package exporter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// Picker tells what the lane's backend takes of a batch. See router.Picker.
type Picker interface {
	Pick(b *series.Batch) (set series.Set, n int, err error)
	Count(b *series.Batch) (series.Counts, error)
}

// Options is what a Lane is made of.
type Options struct {
	Name    string
	Config  LaneConfig
	Backlog Backlog
	Backend Backend
	Cursor  journal.Cursor
	Picker  Picker
	// Sampling may withhold part of what the backend takes; nil: nothing is withheld.
	Sampling Sampling
	// DeadLetters keeps what the backend refuses.
	DeadLetters *DeadLetters
	// Tap sees what the backend has taken; nil: nobody looks.
	Tap     Tap
	Metrics *Metrics
	Logger  *slog.Logger
	Now     func() time.Time
	// Durable asks for commits that hold after a loss of power.
	Durable bool
	// StopGrace is how long requests in flight may take to end when the lane is
	// stopped.
	StopGrace time.Duration
}

// Lane delivers the journal to one backend. It owns the backend's cursor; it does not
// close it, nor the backend.
type Lane struct {
	o        Options
	appended [3]atomic.Uint64 // routed since New, by kind
	backlog  series.Counts    // in the journal at New

	board     *scoreboard
	pace      *pace
	separator Separator // nil where the backend does not care

	// The reader alone uses these.
	readPos journal.Position // end of the last record read
	unread  unread           // where the journal could not be read at the last try
	behind  time.Time        // since when all shards were busy, without the tail reached since; zero: not

	mu       sync.Mutex
	changed  sync.Cond     // whenever a slot, the number of shards, or what is open changes
	base     series.Counts // routed before New
	progress progress
	slots    [maxShards]*flight // in flight
	busy     int
	flying   int // samples in flight
	peak     int // most busy since the last look
	shards   int
	idle     int // looks in a row at which half of the shards would have done
	giveUp   giveUp
	newest   int64 // largest acknowledged timestamp, ms
	newestAt time.Time
	stopping bool

	commitMu  sync.Mutex       // serialises commits
	committed checkpoint       // guarded by mu too
	sent      journal.Position // end of the last record handed to a sender
	maybe     journal.Position // records before it may have been sent before the start; fixed

	restore      journal.Restore  // how far what was withheld is given back; guarded by mu
	restoreMaybe journal.Position // what is given back before it may have been before; used by Restore alone
	restoreSent  journal.Position // end of what was given back last, in part at least; guarded by commitMu
	// restoreAhead is how far the horizon of that looked ahead last, and restoreCovered when;
	// guarded by commitMu.
	restoreAhead   int64
	restoreCovered time.Time
	aside          sync.WaitGroup // calls of Restore and Insert
	restoring      []returned     // given back, and not in the books before their place is reached; used by Restore alone
	givenBack      series.Counts  // delivered by Restore since New; guarded by mu

	abandoned, skipped, skipFailed, unwritten, refused, lettersLost notice
}

// giveUp is up to where the lane is to abandon what it has not delivered.
type giveUp struct {
	to     journal.Position
	reason string
}

// New returns a lane that does nothing before Run. No append may be between the journal
// and Routed while it is called.
func New(o Options) *Lane {
	l := &Lane{
		o:      o,
		board:  newScoreboard(),
		shards: o.Config.MinShards,
	}
	l.changed.L = &l.mu
	l.pace = newPace(o)
	l.separator, _ = o.Backend.(Separator)
	st := o.Cursor.Committed()
	l.committed.State = st
	l.progress = progress{live: st.Totals.Clone(), prefix: st.Totals.Clone(), position: st.Position}
	l.maybe, l.readPos = st.Horizon, st.Position
	l.restore, l.restoreMaybe = st.Restore, st.Restore.Horizon
	lag := o.Cursor.Lag()
	l.backlog = lag.Counts
	l.base = st.Totals.Settled()
	l.base.Add(lag.Counts)
	o.Metrics.shards.WithLabelValues(o.Name).Set(float64(l.shards))
	return l
}

// Routed adds what was appended for this backend to its books. It is called for each
// append, after it, from any goroutine.
func (l *Lane) Routed(c series.Counts) {
	for i, n := range [...]uint64{c.Samples, c.Histograms, c.Exemplars} {
		if n != 0 {
			l.appended[i].Add(n)
		}
	}
}

// Run delivers until ctx ends, then waits for what is in flight, commits and returns. It
// returns an error only when it cannot go on at all, or cannot commit at the end: what it
// delivered since the last commit is sent again then. It is called once.
func (l *Lane) Run(ctx context.Context) error {
	running, end := context.WithCancel(ctx)
	defer end()
	err := l.recount(running)
	if err == nil {
		// Senders outlive ctx by the grace that requests in flight get.
		sending, stopSending := context.WithCancelCause(context.WithoutCancel(ctx))
		defer stopSending(nil)
		var wg sync.WaitGroup
		wg.Go(func() { l.keep(running) })
		wg.Go(func() {
			<-running.Done()
			l.halt()
		})
		err = l.read(running, sending, &wg)
		end()
		grace := time.AfterFunc(l.o.StopGrace, func() { stopSending(errStopped) })
		wg.Wait()
		grace.Stop()
		l.aside.Wait()
	}
	if ctx.Err() != nil {
		err = nil
	}
	if cerr := l.commit(true); cerr != nil {
		err = errors.Join(err, fmt.Errorf("backend %s: last commit: %w", l.o.Name, cerr))
	}
	l.o.Metrics.forget(l.o.Name)
	return err
}

// halt keeps new parcels from being sent and ends the waiting of all senders.
func (l *Lane) halt() {
	l.mu.Lock()
	l.stopping = true
	l.mu.Unlock()
	l.changed.Broadcast()
	l.pace.stop()
}

// read is the reader: it takes records from the cursor, gathers them into parcels and
// starts a sender for each.
func (l *Lane) read(ctx, sending context.Context, wg *sync.WaitGroup) error {
	var next *pending
	defer func() {
		if next != nil {
			next.part.Batch.Release() // it stays in the journal
		}
	}()
	for {
		slot, err := l.acquire(ctx, next)
		if err != nil {
			return err
		}
		f := &flight{slot: slot}
		next, err = l.collect(ctx, f, next)
		if err == nil && len(f.recs) > 0 {
			err = l.announce(ctx, f)
		}
		if err != nil || len(f.recs) == 0 {
			for _, p := range f.parcel.Parts {
				p.Batch.Release()
			}
			l.release(f)
			if err != nil {
				return err
			}
			continue
		}
		f.parent = sending
		f.parcel.Kept = 1
		if l.o.Sampling != nil {
			f.parcel.Kept = l.o.Sampling.Kept()
		}
		f.renew()
		l.mu.Lock()
		l.slots[slot] = f
		l.flying += f.samples
		l.mu.Unlock()
		l.o.Metrics.inFlight.WithLabelValues(l.o.Name).Inc()
		wg.Go(func() {
			l.deliver(f)
			l.o.Metrics.inFlight.WithLabelValues(l.o.Name).Dec()
			l.release(f)
		})
	}
}

// pending is a record that was read and is not in a parcel yet.
type pending struct {
	part Part
	rec  *openRecord
	// counts is what the record's header says that the backend takes.
	counts series.Counts
}

// errStopped is the cause when a sender is cancelled because the lane ends: its parcel
// stays in the journal.
var errStopped = errors.New("lane is stopping")

// acquire waits for a free slot, for room in what is open, and for the end of the parcel
// in flight that next shares a series with.
func (l *Lane) acquire(ctx context.Context, next *pending) (slot int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if l.stopping {
			return 0, context.Cause(ctx)
		}
		if l.busy < l.shards && !l.progress.full() && l.room() {
			if next == nil {
				break
			}
			if _, found := l.board.conflict(&next.part, l.idleSlot()); !found {
				break
			}
		} else if l.busy >= l.shards && l.late() {
			continue
		}
		stop := time.AfterFunc(growAfter, l.changed.Broadcast)
		l.changed.Wait()
		stop.Stop()
	}
	slot = l.idleSlot()
	l.slots[slot] = reserved
	l.busy++
	l.peak = max(l.peak, l.busy)
	return slot, nil
}

// reserved holds a slot whose parcel is being gathered.
var reserved = &flight{}

func (l *Lane) idleSlot() int {
	for i, f := range l.slots {
		if f == nil {
			return i
		}
	}
	panic("BUG: more parcels in flight than slots")
}

// collect fills a parcel with what is there: at least one record, for which it waits,
// and further ones as long as they come without waiting, fit, and share no series with
// another parcel in flight. It returns the record that did not go in. The parcel stays
// empty where there is something else to wait for first.
func (l *Lane) collect(ctx context.Context, f *flight, next *pending) (*pending, error) {
	for {
		if l.skip(next) {
			next = nil
		}
		if next == nil {
			l.freshen()
			rec, ok, err := l.next(ctx, len(f.recs) == 0)
			if err != nil || !ok {
				return nil, err
			}
			if next = l.open(rec); next == nil {
				continue
			}
			if ctx.Err() != nil {
				return next, context.Cause(ctx) // what it is to be was perhaps not decided to the end
			}
		}
		if len(f.recs) > 0 && !l.fits(f, next) {
			return next, nil
		}
		if _, found := l.board.conflict(&next.part, f.slot); found {
			return next, nil
		}
		l.board.enter(&next.part, f.slot)
		f.add(next)
		next = nil
	}
}

// next reads a record. Where the journal cannot be read it returns ok false after a
// while: what is behind the place may be given up, or the disk come back.
func (l *Lane) next(ctx context.Context, wait bool) (rec journal.Record, ok bool, err error) {
	l.mu.Lock()
	full := l.progress.full()
	l.mu.Unlock()
	if full {
		return rec, false, nil
	}
	rec, ok, err = l.o.Cursor.Next(ctx, false)
	if err == nil && !ok {
		l.behind = time.Time{}
		if wait {
			rec, ok, err = l.o.Cursor.Next(ctx, true)
		}
	}
	at := rec.Start
	if !ok {
		at = l.o.Cursor.Read()
	}
	l.damaged(at)
	switch {
	case err == nil:
		if l.unread.tries > 0 {
			l.unread = unread{}
			l.o.Logger.Info("The journal can be read again")
		}
		return rec, ok, nil
	case ctx.Err() != nil || errors.Is(err, journal.ErrClosed):
		return rec, false, err
	}
	l.cannotRead(at, err)
	if !wait {
		return rec, false, nil // what was gathered is sent first
	}
	return rec, false, sleep(ctx, commitInterval)
}

// unread is a place at which the journal cannot be read.
type unread struct {
	at    journal.Position
	since time.Time
	tries int
}

const (
	// unreadTries and unreadFor are how often, and for how long, a place is tried before
	// the lane steps over it: what is behind it must not wait for ever.
	unreadTries = 10
	unreadFor   = time.Minute
)

// cannotRead notes that the journal cannot be read at a place, and steps over it when that
// lasts.
func (l *Lane) cannotRead(at journal.Position, err error) {
	u := &l.unread
	if u.tries == 0 || u.at != at {
		*u = unread{at: at, since: l.o.Now()}
		l.o.Logger.Error("The journal cannot be read; this backend waits for it", "position", at, "for", unreadFor, "err", err)
	}
	if u.tries++; u.tries < unreadTries || l.o.Now().Sub(u.since) < unreadFor {
		return
	}
	if err := l.o.Cursor.StepOver(); err != nil {
		l.o.Logger.Error("The journal cannot be read, nor stepped over what cannot be read", "position", at, "err", err)
	}
}

// fits reports whether the parcel may take the record too. What may have been sent
// before the start and what was not go apart, since they are judged apart.
func (l *Lane) fits(f *flight, p *pending) bool {
	if f.recs[0].start.Before(l.maybe) != p.rec.start.Before(l.maybe) {
		return false
	}
	if l.separator != nil && (l.separator.Apart(&f.parcel.Parts[0]) || l.separator.Apart(&p.part)) {
		return false
	}
	return f.samples+p.samples() <= l.maxSamples() && f.bytes+p.part.Batch.Decoded <= l.maxBytes()
}

// maxSamples is how many samples a parcel holds at most, if that is more than one record.
func (l *Lane) maxSamples() int {
	if bound := l.maxInFlight(); bound > 0 {
		return min(bound, l.o.Config.MaxSamplesPerSend)
	}
	return l.o.Config.MaxSamplesPerSend
}

// maxInFlight is how many samples may be in flight; 0: any number.
func (l *Lane) maxInFlight() int {
	if l.o.Sampling == nil {
		return 0
	}
	return l.o.Sampling.MaxInFlight()
}

// room reports whether one more parcel may be in flight.
func (l *Lane) room() bool {
	bound := l.maxInFlight()
	return bound == 0 || l.busy == 0 || l.flying < bound
}

func (l *Lane) maxBytes() int {
	return int(l.pace.limitBytes(int64(l.o.Config.MaxBytesPerSend)))
}

// samples is how much the record counts towards the size of a parcel.
func (p *pending) samples() int {
	return int(p.counts.Samples + p.counts.Histograms)
}

// open puts a record into the books and picks what the backend takes. It returns nil
// where that is nothing.
func (l *Lane) open(rec journal.Record) *pending {
	r := &openRecord{start: rec.Start, end: rec.End, received: rec.Batch.Received, records: 1}
	l.readPos = rec.End
	l.mu.Lock()
	l.progress.add(r)
	l.mu.Unlock()
	set, n, err := l.o.Picker.Pick(rec.Batch)
	switch {
	case err != nil:
		l.unreadable(&rec, r, err)
	case n > 0 || set == nil:
		p, terr := l.thin(&rec, set, r)
		switch {
		case terr != nil:
			l.unreadable(&rec, r, terr)
		case p != nil:
			return p
		default:
			l.settled(r)
			return nil
		}
	}
	rec.Batch.Release()
	l.settled(r)
	return nil
}

// settled enters a record into the books of which nothing is sent.
func (l *Lane) settled(r *openRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress.settle(r)
}

func (l *Lane) unreadable(rec *journal.Record, r *openRecord, err error) {
	l.o.Logger.Error("A journal record cannot be read and is lost for this backend", "position", rec.Start,
		"samples", rec.Counts.Samples, "histograms", rec.Counts.Histograms, "exemplars", rec.Counts.Exemplars, "err", err)
	r.out.reject(ReasonUnreadable, rec.Counts)
}

// damaged puts into the books what the cursor had to step over before it came to at.
func (l *Lane) damaged(at journal.Position) {
	c := l.o.Cursor.Damaged()
	if c.Zero() {
		return
	}
	r := &openRecord{start: at, end: at, received: l.o.Now().UnixMilli()}
	r.out.reject(ReasonUnreadable, c)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress.add(r)
	l.progress.settle(r)
}

// release ends a slot, and the parcel's claim on its series.
func (l *Lane) release(f *flight) {
	l.mu.Lock()
	if l.slots[f.slot] == f {
		l.flying -= f.samples
	}
	l.slots[f.slot] = nil
	l.busy--
	l.board.free(f.slot)
	l.mu.Unlock()
	l.changed.Broadcast()
}

// Draining reports whether something waits in the journal and the backend takes it.
func (l *Lane) Draining() bool { return l.pace.healthy() && l.Balance().Batches > 0 }

// State is the state that the lane is in: ok, failing, throttled or denied.
func (l *Lane) State() string { return l.pace.current() }
