package exporter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// Sampling decides what a lane sends now of what its backend takes, and keeps account of
// what it withholds. What it decides is a function of the journal and of what it wrote
// down, so that a restart decides the same.
//
// The lane's reader calls Thin, Pass and Lend, in journal order; its committer calls Settle;
// Observe is called once a second. FreshFirst, MaxInFlight and Kept may be called at any time.
type Sampling interface {
	// Thin returns what is to be sent of a record of which the backend takes take; nil
	// is all. The caller keeps its reference of the record's batch, and gets one of the
	// batch returned. An error means that the record cannot be read.
	Thin(rec *journal.Record, take series.Set) (Thinned, error)
	// Pass is told, before it happens, that the lane passes the records of a stretch
	// without sending them: to give them back later where lent is set, else for good.
	// Where lent is set and it returns an error, the lane does not pass them.
	Pass(from, to journal.Position, lent bool) error
	// Lend is told what a part of a stretch holds that was passed to be given back.
	Lend(from, to journal.Position, lag journal.Lag)
	// Settle is told the state that is about to be committed, before it is, and the one
	// that is. It returns what of the withheld will never be given back, and why; the
	// lane enters it as given up.
	Settle(next, committed journal.State) (givenUp series.Counts, reason string, err error)
	// Observe is told how the lane is doing.
	Observe(Signals)
	// FreshFirst is the outage of the backend after which the lane passes its backlog, to
	// be given back later, and goes on with the newest; 0 is never.
	FreshFirst() time.Duration
	// MaxInFlight is how many samples are to be in flight at most; 0 is as many as the
	// lane's configuration lets. One request may always be.
	MaxInFlight() int
	// Kept is the share of the samples that is sent at present, 0 to 1.
	Kept() float64
}

// Thinned is what is sent in place of a record. What the backend takes of the record is
// what the batch, or its part, holds, and Withheld, less Restored.
type Thinned struct {
	Batch *series.Batch // nil: nothing
	Take  series.Set    // of it; nil: all
	// Counts is what is taken of Batch.
	Counts series.Counts
	// Withheld is what the record holds and Batch does not, Restored what Batch holds
	// and was withheld of records before.
	Withheld, Restored series.Counts
}

// thin gives the record to the sampling, and returns it as it is to be sent; nil where
// nothing is.
func (l *Lane) thin(rec *journal.Record, set series.Set, r *openRecord) (*pending, error) {
	if l.o.Sampling == nil {
		return &pending{part: Part{Batch: rec.Batch, Take: set}, rec: r, counts: rec.Counts}, nil
	}
	t, err := l.o.Sampling.Thin(rec, set)
	if err != nil {
		return nil, err
	}
	rec.Batch.Release()
	r.loan = loan{withheld: t.Withheld, restored: t.Restored}
	if t.Batch == nil {
		return nil, nil
	}
	return &pending{part: Part{Batch: t.Batch, Take: t.Take}, rec: r, counts: t.Counts}, nil
}

// loan is what sampling does to the books of a record.
type loan struct{ withheld, restored series.Counts }

func (o *loan) addTo(t *journal.Totals) {
	t.Withheld.Add(o.withheld)
	t.Restored.Add(o.restored)
}

// freshBackoff bounds the pauses between attempts where the newest goes first after an
// outage: it is to be there seconds after the backend is back.
const freshBackoff = 2 * time.Second

// freshen goes to the present where the backend is back after a long outage, and leaves
// what lies between to be given back. The present is what came in since the backend may
// have been back: for as long as the longest pause, and what an attempt takes.
func (l *Lane) freshen() {
	if l.o.Sampling == nil {
		return
	}
	limit := l.o.Sampling.FreshFirst()
	if outage := l.pace.watch.takeOutage(); limit <= 0 || outage < limit {
		return
	}
	from, to := l.o.Cursor.Read(), l.o.Cursor.PositionAt(0, l.o.Now().Add(-2*freshBackoff))
	if !from.Before(to) {
		return
	}
	if err := l.o.Sampling.Pass(from, to, true); err != nil {
		l.o.Logger.Error("The newest data cannot go first, since it cannot be written down what is left for later", "from", from, "to", to, "err", err)
		return
	}
	var all series.Counts
	for l.readPos.Before(to) {
		r, lag, err := l.step(to)
		if err != nil {
			l.o.Logger.Error("Cannot step over what is left for later", "from", l.readPos, "to", to, "err", err)
			break // what is read of it, Thin withholds
		}
		if r == nil {
			continue
		}
		r.loan.withheld = lag.Counts
		l.o.Sampling.Lend(r.start, r.end, lag)
		all.Add(lag.Counts)
		l.mu.Lock()
		l.progress.add(r)
		l.progress.settle(r)
		l.mu.Unlock()
	}
	l.o.Logger.Info("The newest data goes first; what waited is given back behind it", "samples", all.Samples, "histograms", all.Histograms, "from", from, "to", to)
}

// step passes what lies before to in one segment; r stands for it, and is nil where there
// was nothing.
func (l *Lane) step(to journal.Position) (r *openRecord, lag journal.Lag, err error) {
	from := l.o.Cursor.Read()
	if next := (journal.Position{Segment: from.Segment + 1}); next.Before(to) {
		to = next
	}
	if lag, err = l.o.Cursor.Skip(to); err != nil {
		return nil, lag, err
	}
	end := l.o.Cursor.Read()
	l.readPos = end.Later(to)
	if end == from {
		return nil, lag, nil
	}
	return &openRecord{start: from, end: end, received: l.o.Now().UnixMilli(), records: lag.Records}, lag, nil
}

// ErrBusy is returned by Restore when the backend has to be left alone.
var ErrBusy = errors.New("the backend does not take everything at once")

// Return is a batch of what was withheld before, which the backend is to get after all.
type Return struct {
	// Batch stays the caller's. Nil moves the place alone.
	Batch *series.Batch
	// UpTo is where in the journal the giving back stands when it is done. It is committed
	// with the cursor.
	UpTo journal.Position
	// More says that further batches for the same place follow: the place stays where it is
	// until the last of them.
	More bool
	// Owed is the part of the batch that was withheld. The rest comes a second time: it is
	// in the books already, and counted as redelivered.
	Owed series.Counts
}

// Restore sends a Return, outside of the order of the journal. It is called for one after
// the other. It returns the counts that the backend refused; an error means that the batch,
// or part of it, is to be given again.
func (l *Lane) Restore(ctx context.Context, give Return) (refused series.Counts, err error) {
	if !l.enterBeside() {
		return refused, errStopped
	}
	defer l.aside.Done()
	upTo := give.UpTo
	if give.Batch == nil {
		l.reachPlace(upTo)
		return refused, nil
	}
	if !l.pace.healthy() {
		return refused, ErrBusy
	}
	maybe := l.restoreFrom().Before(l.restoreMaybe)
	if err := l.coverRestore(upTo); err != nil {
		return refused, fmt.Errorf("write down what is about to be given back: %w", err)
	}
	r, err := l.beside(ctx, give.Batch, maybe)
	if err != nil {
		l.restoreMaybe = l.restoreMaybe.Later(upTo)
		return refused, err
	}
	for _, c := range r.out.rejected {
		refused.Add(c)
	}
	l.restoring = append(l.restoring, returned{r, give})
	if !give.More {
		l.reachPlace(upTo)
	}
	return refused, nil
}

// Forgo says that the batches whose place was not reached, since no last one followed, are
// going to be given again. It is called between calls of Restore.
func (l *Lane) Forgo() {
	if !l.enterBeside() {
		return // nothing is given in this run any more
	}
	defer l.aside.Done()
	for _, r := range l.restoring {
		l.restoreMaybe = l.restoreMaybe.Later(r.UpTo)
	}
	l.restoring = nil
}

// returned is a Return with what became of it.
type returned struct {
	*openRecord
	Return
}

// book makes of the outcome what goes into the books: what was owed of it, and is still
// outstanding in both of the totals. What is more was there before, and is in the books: of
// it only is told that it was delivered again.
func (r *returned) book(live, prefix *journal.Totals) {
	owed := r.Owed.Within(live.Withheld.Without(live.Restored)).Within(prefix.Withheld.Without(prefix.Restored))
	again := r.out.settled().Without(owed)
	repeated := again.Within(r.out.delivered)
	rest := again.Without(repeated)
	r.out.delivered = r.out.delivered.Without(repeated)
	r.out.redelivered = r.out.redelivered.Without(repeated)
	r.out.redelivered.Add(repeated)
	for _, reason := range slices.Sorted(maps.Keys(r.out.rejected)) {
		c := r.out.rejected[reason]
		r.out.rejected[reason] = c.Without(rest)
		rest = rest.Without(c)
	}
	r.loan.restored = r.out.settled()
}

// reachPlace enters into the books what was given back up to a place, together with the
// place: a state in between would count again what is given again after a crash.
func (l *Lane) reachPlace(upTo journal.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.restoring {
		r := &l.restoring[i]
		r.book(&l.progress.live, &l.progress.prefix)
		r.addTo(&l.progress.live)
		r.addTo(&l.progress.prefix)
		l.givenBack.Add(r.out.delivered)
	}
	l.restoring = nil
	l.restore.Position = l.restore.Position.Later(upTo)
}

// enterBeside begins what the lane waits for when it is stopped, unless it is.
func (l *Lane) enterBeside() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopping {
		return false
	}
	l.aside.Add(1)
	return true
}

// Insert sends what is not out of the journal: series that the gateway makes itself. They
// are not in the books. The batch stays the caller's, who calls it for one batch after the
// other.
func (l *Lane) Insert(ctx context.Context, b *series.Batch) error {
	if !l.enterBeside() {
		return errStopped
	}
	defer l.aside.Done()
	if !l.pace.healthy() {
		return ErrBusy
	}
	_, err := l.beside(ctx, b, false)
	return err
}

// beside sends a batch that is no record of the journal. At the end of ctx it gets as much
// time as other requests in flight.
func (l *Lane) beside(ctx context.Context, b *series.Batch, maybe bool) (*openRecord, error) {
	sending, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	defer context.AfterFunc(ctx, func() {
		_ = sleep(sending, l.o.StopGrace)
		stop(errStopped)
	})()
	b.Retain()
	f := &flight{parent: sending, samples: int(b.Counts.Samples + b.Counts.Histograms), bytes: b.Decoded, maybe: maybe, beside: true}
	f.parcel = Parcel{Parts: []Part{{Batch: b}}, Kept: 1}
	f.recs, f.counts = []*openRecord{{}}, []series.Counts{b.Counts}
	f.renew()
	defer f.end()
	out := make([]outcome, 1)
	if _, err := l.bring(f, &load{parcel: f.parcel, bytes: f.bytes, maybe: maybe}, out); err != nil {
		return nil, err
	}
	f.recs[0].out = out[0]
	return f.recs[0], nil
}

func (l *Lane) restoreFrom() journal.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.restore.Position
}

// coverRestore stores a horizon of the giving back at or behind end.
func (l *Lane) coverRestore(end journal.Position) error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	l.restoreSent = l.restoreSent.Later(end)
	if !l.committed.Restore.Horizon.Before(end) {
		return nil
	}
	c := l.reached()
	c.Restore.Horizon = journal.Position{Segment: end.Segment, Offset: end.Offset + l.lookAhead()}
	return l.store(c)
}

// coverEvery is how often the horizon of the giving back is to be stored at most. It looks no
// further ahead than that takes: what lies before it may have been there after a crash.
const coverEvery = 250 * time.Millisecond

// lookAhead is how far ahead of what is given back its horizon is stored. commitMu is held.
func (l *Lane) lookAhead() int64 {
	const least = 4 << 10
	now := l.o.Now()
	if now.Sub(l.restoreCovered) < coverEvery {
		l.restoreAhead = min(max(2*l.restoreAhead, least), horizonStep)
	} else if l.restoreAhead /= 2; l.restoreAhead < least {
		l.restoreAhead = 0
	}
	l.restoreCovered = now
	return l.restoreAhead
}

// settleLoans has what is withheld written down, before the checkpoint is stored that
// says that it is settled.
func (l *Lane) settleLoans(c *checkpoint) error {
	lost, reason, err := l.o.Sampling.Settle(c.State, l.committed.State)
	if err != nil || lost.Zero() {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// Where the ledger was damaged it may take more for lost than is outstanding.
	totals := []*journal.Totals{&l.progress.live, &l.progress.prefix, &c.Totals}
	for _, t := range totals {
		lost = lost.Within(t.Withheld.Without(t.Restored))
	}
	for _, t := range totals {
		note(&t.GivenUp, reason, lost)
		t.Restored.Add(lost)
	}
	return nil
}
