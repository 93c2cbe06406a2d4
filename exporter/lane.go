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
	// DeadLetters keeps what the backend refuses.
	DeadLetters *DeadLetters
	Metrics     *Metrics
	Logger      *slog.Logger
	Now         func() time.Time
	// StopGrace is how long requests in flight may take to end when the lane is
	// stopped.
	StopGrace time.Duration
}

// Lane delivers the journal to one backend. It owns the backend's cursor; it does not
// close it, nor the backend.
type Lane struct {
	o        Options
	appended [3]atomic.Uint64 // routed since start, by kind
	base     series.Counts    // routed before

	board     *scoreboard
	pace      *pace
	separator Separator // nil where the backend does not care

	mu       sync.Mutex
	changed  sync.Cond // whenever a slot, the number of shards or the target of giving up changes
	progress progress
	slots    [maxShards]*flight // in flight
	busy     int
	peak     int // most busy since the last look
	shards   int
	idle     int // looks in a row at which half of the shards would have done
	giveUp   giveUp
	newest   int64 // largest acknowledged timestamp, ms
	newestAt time.Time
	stopping bool
	readPos  journal.Position

	commitMu  sync.Mutex // serialises commits
	committed journal.State
	sent      journal.Position // end of the last record handed to a sender
	maybe     journal.Position // records before it may have been sent before the start

	started chan struct{} // closed when the books are open
}

// giveUp is up to where the lane is to abandon what it has not delivered.
type giveUp struct {
	to     journal.Position
	reason string
}

// New returns a lane that does nothing before Run.
func New(o Options) *Lane {
	l := &Lane{
		o:       o,
		board:   newScoreboard(),
		shards:  o.Config.MinShards,
		started: make(chan struct{}),
	}
	l.changed.L = &l.mu
	l.pace = newPace(o)
	l.separator, _ = o.Backend.(Separator)
	st := o.Cursor.Committed()
	l.committed = st
	l.progress = progress{live: cloneTotals(st.Totals), prefix: cloneTotals(st.Totals), position: st.Position}
	l.maybe, l.readPos = st.Horizon, st.Position
	l.base = settledCounts(&st.Totals)
	l.base.Add(o.Cursor.Lag().Counts)
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
// returns an error only when it cannot go on at all.
func (l *Lane) Run(ctx context.Context) error {
	if err := l.recount(ctx); err != nil {
		return err
	}
	// Senders outlive ctx by the grace that requests in flight get.
	sending, stopSending := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopSending(nil)
	wake := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		l.stopping = true
		l.mu.Unlock()
		l.changed.Broadcast()
		l.pace.stop()
	})
	defer wake()

	var wg sync.WaitGroup
	wg.Go(func() { l.keep(ctx) })
	err := l.read(ctx, sending, &wg)

	grace := time.AfterFunc(l.o.StopGrace, func() { stopSending(errStopped) })
	wg.Wait()
	grace.Stop()
	if cerr := l.commit(); cerr != nil {
		err = errors.Join(err, cerr)
	}
	l.o.Metrics.forget(l.o.Name)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// recount makes the books of the backlog right where the backend's selectors changed
// since it was appended.
func (l *Lane) recount(ctx context.Context) error {
	before := l.o.Cursor.Lag().Counts
	if err := l.o.Cursor.Recount(ctx, l.o.Picker.Count); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("backend %s: counting what is in the journal: %w", l.o.Name, err)
	}
	after := l.o.Cursor.Lag().Counts
	l.mu.Lock()
	// What was appended meanwhile was counted in both, and in Routed.
	l.base.Add(after)
	l.base.Sub(before)
	l.mu.Unlock()
	close(l.started)
	return nil
}

// read is the reader: it takes records from the cursor, gathers them into parcels and
// starts a sender for each.
func (l *Lane) read(ctx, sending context.Context, wg *sync.WaitGroup) error {
	var next *pending
	for {
		slot, err := l.acquire(ctx, next)
		if err != nil {
			l.discard(next)
			return err
		}
		f := &flight{slot: slot}
		next, err = l.collect(ctx, f, next)
		if err != nil || len(f.recs) == 0 {
			l.release(f, false)
			if err != nil {
				l.discard(next)
				return err
			}
			continue
		}
		if err := l.announce(ctx, f); err != nil {
			l.discard(next)
			l.release(f, false)
			return err
		}
		f.ctx, f.cancel = context.WithCancelCause(sending)
		l.mu.Lock()
		l.slots[slot] = f
		l.mu.Unlock()
		l.o.Metrics.inFlight.WithLabelValues(l.o.Name).Inc()
		wg.Go(func() {
			l.deliver(f)
			l.o.Metrics.inFlight.WithLabelValues(l.o.Name).Dec()
			l.release(f, true)
		})
	}
}

// maxOpen is how many records may be read ahead of the oldest one that is not settled:
// one parcel that is retried for ever must not make the lane's memory grow.
const maxOpen = 1 << 14

// pending is a record that was read and is not in a parcel yet.
type pending struct {
	part Part
	rec  *openRecord
	n    int // series taken
	// counts is what the record's header says that the backend takes.
	counts series.Counts
}

// discard gives back a record that will not be sent by this run.
func (l *Lane) discard(p *pending) {
	if p != nil {
		p.part.Batch.Release()
	}
}

// errStopped is the cause when a sender is cancelled because the lane ends: its parcel
// stays in the journal.
var errStopped = errors.New("lane is stopping")

// acquire waits for a free slot, and for the end of the parcel in flight that next shares
// a series with. It gives up what is to be given up meanwhile.
func (l *Lane) acquire(ctx context.Context, next *pending) (slot int, err error) {
	waited := l.o.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if l.stopping {
			return 0, context.Cause(ctx)
		}
		if l.busy < l.shards && len(l.progress.open) < maxOpen {
			if next == nil {
				break
			}
			if _, found := l.board.conflict(&next.part, l.idleSlot()); !found {
				break
			}
		} else if l.o.Now().Sub(waited) >= growAfter && l.grow() {
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
// another parcel in flight. It returns the record that did not go in.
func (l *Lane) collect(ctx context.Context, f *flight, next *pending) (*pending, error) {
	for {
		if l.skip(next) {
			next = nil
		}
		if next == nil {
			rec, ok, err := l.o.Cursor.Next(ctx, len(f.recs) == 0)
			l.damaged()
			if err != nil {
				return nil, err
			}
			if !ok {
				return nil, nil
			}
			if next = l.open(rec); next == nil {
				continue
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

// fits reports whether the parcel may take the record too. What may have been sent
// before the start and what was not go apart, since they are judged apart.
func (l *Lane) fits(f *flight, p *pending) bool {
	if f.recs[0].start.Before(l.maybe) != p.rec.start.Before(l.maybe) {
		return false
	}
	if l.separator != nil && (l.separator.Apart(&f.parcel.Parts[0]) || l.separator.Apart(&p.part)) {
		return false
	}
	return f.samples+p.samples() <= l.o.Config.MaxSamplesPerSend && f.bytes+p.part.Batch.Decoded <= l.maxBytes()
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
	r := &openRecord{start: rec.Start, end: rec.End, received: rec.Batch.Received}
	l.mu.Lock()
	l.progress.add(r)
	l.readPos = rec.End
	l.mu.Unlock()
	set, n, err := l.o.Picker.Pick(rec.Batch)
	switch {
	case err != nil:
		l.o.Logger.Error("A journal record cannot be read and is lost for this backend", "position", rec.Start, "samples", rec.Counts.Samples, "err", err)
		r.out.reject(ReasonUnreadable, rec.Counts)
	case n > 0 || set == nil:
		return &pending{part: Part{Batch: rec.Batch, Take: set}, rec: r, n: n, counts: rec.Counts}
	}
	rec.Batch.Release()
	l.mu.Lock()
	l.progress.settle(r)
	l.mu.Unlock()
	return nil
}

// damaged puts into the books what the cursor had to step over.
func (l *Lane) damaged() {
	c := l.o.Cursor.Damaged()
	if c.Zero() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.o.Cursor.Read()
	r := &openRecord{start: at, end: at, received: l.o.Now().UnixMilli()}
	r.out.reject(ReasonUnreadable, c)
	l.progress.add(r)
	l.progress.settle(r)
}

// release ends a slot, and with settled the parcel's claim on its series.
func (l *Lane) release(f *flight, started bool) {
	l.mu.Lock()
	l.slots[f.slot] = nil
	l.busy--
	l.board.free(f.slot)
	l.mu.Unlock()
	l.changed.Broadcast()
	if !started {
		for _, p := range f.parcel.Parts {
			p.Batch.Release()
		}
	}
}

// Oldest is the time of receipt, in Unix ms, of the oldest batch that the lane holds; ok
// is false when it holds none.
func (l *Lane) Oldest() (ms int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.progress.oldest()
}

// Draining reports whether something waits in the journal and the backend takes it.
func (l *Lane) Draining() bool { return l.pace.healthy() && l.Balance().Batches > 0 }

// State is the state that the lane is in: ok, failing, throttled or denied.
func (l *Lane) State() string {
	l.pace.mu.Lock()
	defer l.pace.mu.Unlock()
	return l.pace.state
}
