package thinning

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// Reasons for which what was withheld is never given back. They are values of the label
// "reason" of sluice_given_up_total.
const (
	// ReasonTooOld: it is older than what the backend takes out of order.
	ReasonTooOld = "too_old"
	// ReasonJournalFull: the journal's max_disk did not leave room for it.
	ReasonJournalFull = "journal_full"
	// ReasonLedgerFull: the ledger had no room for what it takes to find it.
	ReasonLedgerFull = "ledger_full"
	// ReasonNotReturned: it was not found when it was to be given back: exemplars, native
	// histograms whose encoding was not kept, and what the backend's selectors take no more.
	// Also the second copy of a sample that its sender sent twice, of which both were withheld: that
	// one is there.
	ReasonNotReturned = "not_returned"
	// ReasonUnknown: the ledger lost its record of what was withheld.
	ReasonUnknown = "ledger_damaged"
)

const (
	// clearAfterGap is how long nothing lags at most before a gap is given back.
	clearAfterGap = 10 * time.Second
	// windowMargin is what giving back keeps away from the end of the window in which the
	// backend takes samples out of order.
	windowMargin = time.Minute
)

// Lane is what the Thinner needs of its lane.
type Lane interface {
	Restore(ctx context.Context, give exporter.Return) (refused series.Counts, err error)
	Forgo()
	Insert(ctx context.Context, b *series.Batch) error
}

// errStop ends the giving back of an entry for the time being.
var errStop = errors.New("the backend lags, or the ledger has little room, or is about to settle what was given back before")

// giveBack gives back what the ledger owes, one entry after the other, as long as nothing
// lags.
func (t *Thinner) giveBack(ctx context.Context, lane Lane) {
	for ctx.Err() == nil {
		e, ok := t.owed()
		if !ok || !t.clear(&e) {
			return
		}
		if e.From.Before(t.o.Journal.Gone()) {
			t.forgetCut() // of a session that has just ended there is more to give up
			t.giveUpGone(ctx, lane)
		}
		if err := t.giveBackEntry(ctx, lane, &e); err != nil {
			if ctx.Err() == nil && !errors.Is(err, errStop) {
				t.o.Logger.Warn("Giving back what was withheld stops for a while", "err", err)
			}
			return
		}
	}
}

// owed is the oldest entry of which something is to be given back and which has ended.
func (t *Thinner) owed() (ledger.Entry, bool) {
	t.mu.Lock()
	from := t.restored
	t.mu.Unlock()
	for _, e := range t.o.Ledger.Timeline(from) {
		if e.Closed == 0 {
			return e, e.To != journal.Position{}
		}
	}
	return ledger.Entry{}, false
}

// clear reports whether the backend has been well for long enough.
func (t *Thinner) clear(e *ledger.Entry) bool {
	wait := t.settling()
	if e.Kind == ledger.KindGap {
		wait = min(wait, clearAfterGap)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	// Everything before the end of the entry has to be settled: its samples come after
	// those which the lane has sent.
	return !t.steer.clear.IsZero() && t.o.Now().Sub(t.steer.clear) >= wait && !t.marked.Position.Before(e.To)
}

// giver gives back one entry.
type giver struct {
	how  manner
	t    *Thinner
	lane Lane
	e    *ledger.Entry
	replay
	restorer *Restorer
	out      Out
	sent     uint64
	ahead    float64          // samples that the pace had not let be sent yet at the last look
	paced    time.Time        // when that was
	upTo     journal.Position // how far the restoring is
	done     journal.Position // end of the last record of which nothing was passed over
	lost     string           // why some of it is not given back; empty: all is
	// from is where to begin again, where others than those before upTo were found before:
	// the place stays at upTo until it is reached once more. Zero: there is no need.
	from journal.Position
	// left is what is still owed of each step. What is sent beyond that of a step and those
	// before it comes a second time. Where the ledger does not know what is owed, inexact,
	// nothing does.
	left    []series.Counts
	inexact bool
	// unread is what the records of each step hold that are still to come, where all of a
	// step is sent and not just what was withheld: of what is sent no more is taken for
	// withheld than cannot lie there. Nil where it is known what was withheld.
	unread []series.Counts
	// back is what was sent of what was owed since upTo moved, by the steps that withheld it,
	// and waiting says that something was.
	back    []Origin
	waiting bool
}

// manner is how it is found what to give back of a stretch.
type manner uint8

const (
	// exactly: just what was withheld, by the decisions of then.
	exactly manner = iota
	// butKeyFrames: all but the key frames that any rate has. What was sent beside them
	// comes a second time.
	butKeyFrames
	// everything: also what was sent comes a second time, or nothing was.
	everything
)

// mannerOf is how an entry is given back.
func (t *Thinner) mannerOf(e *ledger.Entry) manner {
	switch {
	case e.Kind != ledger.KindSampled:
		return everything
	case t.decisions(e) == nil:
		// What it was decided by is no more, so that it is not known either which key frames
		// were sent. Samples that come twice are the smaller harm.
		t.o.Logger.Warn("The configuration of sampling is another one now than when this was withheld: all of the stretch is sent again", "from", e.From, "to", e.To)
		return everything
	case e.Rebuild.Before(t.o.Journal.Gone()):
		t.o.Logger.Warn("The journal has no more what decisions were made from: all of the rest of the stretch is sent again", "from", e.From, "to", e.To)
		return everything
	case t.o.Config.BackfillMethod == sampler.BackfillFloor && !slices.ContainsFunc(e.Steps, func(s ledger.Step) bool { return s.Pressure > keyFramesOnly }):
		return butKeyFrames
	}
	return exactly
}

// keyFramesOnly is the pressure up to which every key frame is sent.
const keyFramesOnly = 1

func (t *Thinner) giveBackEntry(ctx context.Context, lane Lane, e *ledger.Entry) (err error) {
	how := t.mannerOf(e)
	d := t.decisions(e)
	if d == nil {
		d = &t.own // nothing is decided by them
	}
	smp, err := newGiver(d, e, how)
	if err != nil {
		return err
	}
	g := &giver{how: how, t: t, lane: lane, e: e}
	if err := g.begin(); err != nil {
		return err
	}
	g.restorer = NewRestorer(RestorerOptions{Sampler: smp, Describer: d.Describer, BatchSamples: samplesPerBatch(t.pace())})
	g.replay = replay{sampler: smp, force: smp.Step(), observe: g.restorer.Observe}
	t.giving(e)
	defer t.giving(nil)
	defer func() {
		g.drop()
		if g.waiting && !g.bookCut(ctx) {
			lane.Forgo()
		}
		if g.from != (journal.Position{}) && (g.waiting || g.done.Before(g.upTo)) {
			t.again() // what lies before the place was not found once more
		}
		if g.feed != nil {
			t.closing(g.feed.close())
		}
	}()
	switch {
	case e.Kind == ledger.KindUnknown:
		return g.close(ctx, ReasonUnknown)
	case how == everything && e.Kind == ledger.KindSampled:
		g.feed, err = t.open(e.Steps[stepOfEntry(e, g.start())].At) // for what was read of the step
	case how == everything:
		g.feed, err = t.open(g.start())
	default:
		err = t.rebuild(ctx, &g.replay, e)
	}
	if how == butKeyFrames {
		g.recorded = nil // one step for all
	}
	if err == nil {
		err = g.stretch(ctx)
	}
	if _, ok := gone(err); ok {
		return errStop // what is gone is given up, and the rest found in another manner
	}
	if err != nil {
		return err
	}
	return g.finish(ctx)
}

// begin finds out what the entry owes, and how far it was given back.
func (g *giver) begin() error {
	t := g.t
	t.mu.Lock()
	defer t.mu.Unlock()
	v := t.o.Ledger.View()
	i := slices.IndexFunc(v.Entries, func(e ledger.Entry) bool { return e.ID == g.e.ID })
	if i < 0 || v.Settled != t.marked {
		return errStop // what is about to be settled would count twice here
	}
	e := &v.Entries[i]
	for _, r := range t.returns {
		if e.Holds(r.delta.At) {
			e.Steps[stepOfEntry(e, r.delta.At)].Add(r.delta.Tally)
		}
	}
	if t.lost.reason != "" {
		e.GivenUp.Add(e.Lost(t.lost.upTo, t.marked.Position))
	}
	g.left, g.inexact = e.Owed(), e.Inexact
	if g.how == everything && e.Kind == ledger.KindSampled {
		for i := range e.Steps {
			g.unread = append(g.unread, e.Steps[i].Taken)
		}
	}
	g.upTo = t.restored
	gone := t.o.Journal.Gone()
	if e.From.Before(gone) && !e.GivenUp.Zero() {
		g.lost = e.Reason
	}
	if now := (given{e.ID, g.how}); t.given != now {
		// What was found exactly, before a restart perhaps, leaves samples behind that wait
		// for a later place than that of their record. Others than those are found now.
		from, ok := e.Unreturned(e.Behind(gone))
		if g.how != exactly && e.Kind == ledger.KindSampled && ok && from.Before(g.upTo) {
			g.from = from
		}
		t.given = now
	}
	return nil
}

// again has the next giver look once more where to begin.
func (t *Thinner) again() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.given = given{}
}

// given is an entry with how it is given back.
type given struct {
	entry uint64
	how   manner
}

// start is where what is to be given back begins.
func (g *giver) start() journal.Position {
	if g.from != (journal.Position{}) {
		return g.from
	}
	return g.e.From.Later(g.upTo)
}

// newGiver is the sampler that decides again what was decided in the entry.
func newGiver(d *Decisions, e *ledger.Entry, how manner) (*sampler.Sampler, error) {
	start := int64(e.Totals.First)
	if len(e.Steps) > 0 && e.Steps[0].Time != 0 {
		start = int64(e.Steps[0].Time)
	}
	if how != butKeyFrames {
		return d.newSampler(start)
	}
	c := d.Config
	c.Method = sampler.MethodAligned
	s, err := sampler.New(sampler.Options{Config: c, Start: start, OutOfOrder: true})
	if err == nil {
		s.Set(sampler.Step{Rate: c.MinRate, Pressure: keyFramesOnly})
	}
	return s, err
}

// stretch gives back what lies in the entry. What the journal has no more of a gap is left
// out; of a session nothing can be told then, and the error is a *journal.GoneError.
func (g *giver) stretch(ctx context.Context) error {
	for {
		err := g.feed.until(ctx, g.e.To, func(rec *journal.Record, set series.Set) error { return g.record(ctx, rec, set) })
		if _, ok := gone(err); !ok || g.how != everything {
			return err
		}
		g.lost = ReasonJournalFull
	}
}

// record finds what was not sent of a record, and sends it, unless that was done in a run
// before.
func (g *giver) record(ctx context.Context, rec *journal.Record, set series.Set) error {
	if !g.t.mayGiveBack(g.e) {
		return errStop
	}
	old := rec.Batch.MaxTime < g.t.oldestTaken()
	g.restorer.most = samplesPerBatch(g.t.pace())
	skip := old || !g.start().Before(rec.End)
	k := stepOfEntry(g.e, rec.Start)
	g.restorer.Enter(g.e.Steps[k].At)
	if skip {
		// What was found before it is not passed over with it.
		g.restorer.Flush(&g.out)
		if err := g.send(ctx, g.done, g.held(g.done)); err != nil {
			return err
		}
	}
	var err error
	switch {
	case g.how != everything:
		g.follow(rec)
		err = g.restorer.Add(rec.Batch, set, &g.out)
	case !skip:
		err = g.restorer.AddAll(rec.Batch, set, &g.out)
	}
	if err != nil {
		g.feed.logger.Warn("A journal record cannot be read", "position", rec.Start, "err", err)
	}
	passed := old && g.start().Before(rec.End)
	if g.unread != nil && err == nil && !passed {
		g.unread[k] = g.unread[k].Without(rec.Counts)
	}
	if skip {
		if passed {
			g.lost = ReasonTooOld
		}
		g.restorer.Flush(&g.out)
		g.drop()
		return nil
	}
	g.done = rec.End
	if len(g.out.Batches) == 0 {
		return nil
	}
	g.restorer.Flush(&g.out) // what comes of this record is sent as a whole
	return g.send(ctx, rec.End, g.held(rec.End))
}

// held reports whether the place cannot be moved to a position yet: not before where it is
// already, and to the end of the entry only with what waits for that.
func (g *giver) held(at journal.Position) bool {
	return !g.upTo.Before(at) || !at.Before(g.e.To)
}

// noteLost takes note of what was found and cannot be given back.
func (g *giver) noteLost() {
	if !g.out.Lost.Zero() {
		g.lost = cmp.Or(g.lost, ReasonNotReturned)
		g.out.Lost = series.Counts{}
	}
}

// drop releases what was made and is not sent.
func (g *giver) drop() {
	g.noteLost()
	for _, b := range g.out.Batches {
		b.Release()
	}
	g.out = Out{}
}

// send sends what is finished, and no faster than is allowed. With the last of it the
// restoring is at upTo, unless more is to follow for that place.
func (g *giver) send(ctx context.Context, upTo journal.Position, more bool) error {
	g.noteLost()
	for len(g.out.Batches) > 0 {
		b, origins := g.out.Batches[0], g.out.Origins[0]
		if err := g.pace(ctx, b); err != nil {
			return err
		}
		r := exporter.Return{Batch: b, UpTo: upTo, More: more || len(g.out.Batches) > 1}
		if err := g.sendBatch(ctx, r, origins); err != nil {
			return err
		}
		g.out.Batches, g.out.Origins = g.out.Batches[1:], g.out.Origins[1:]
		g.sent += b.Counts.Samples + b.Counts.Histograms
		b.Release()
	}
	return nil
}

// sendBatch tries until the batch is sent: to begin again with the place would send other
// batches of it twice.
func (g *giver) sendBatch(ctx context.Context, r exporter.Return, origins []Origin) error {
	r.Owed = g.take(r.Batch.Counts, origins)
	for told := false; ; {
		if !r.More {
			g.t.arriving(r.UpTo, g.back)
		}
		refused, err := g.lane.Restore(ctx, r)
		if err == nil {
			g.t.returned(r.Batch.Counts, refused)
			g.waiting = r.More
			if !r.More {
				g.upTo, g.back = r.UpTo, g.back[:0]
				g.t.moved(r.UpTo)
			}
			return nil
		}
		if !r.More {
			g.t.notArrived(g.back)
		}
		if !told && ctx.Err() == nil {
			told = true
			g.t.o.Logger.Warn("Giving back what was withheld waits", "err", err)
		}
		if err := g.wait(ctx, tryAgain); err != nil {
			return err
		}
	}
}

// tryAgain is the pause before what could not be given back is tried again.
const tryAgain = time.Second

// wait waits, and as much longer as the backend lags.
func (g *giver) wait(ctx context.Context, d time.Duration) error {
	for {
		_, over := g.t.o.Ledger.Excess()
		if _, gone := g.t.goneFrom(); over || gone {
			return errStop
		}
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		if g.t.clear(g.e) {
			return nil
		}
		d = tryAgain
	}
}

// pace waits until a batch may be sent: until what was sent before it is made up for, at the
// pace that is allowed meanwhile.
func (g *giver) pace(ctx context.Context, b *series.Batch) error {
	for {
		now, pace := g.t.o.Now(), g.t.pace()
		g.ahead = max(0, g.ahead-pace*now.Sub(g.paced).Seconds())
		g.paced = now
		if g.ahead == 0 {
			break
		}
		d := time.Duration(min(g.ahead/pace, tryAgain.Seconds()) * float64(time.Second))
		if err := g.wait(ctx, max(d, time.Millisecond)); err != nil {
			return err
		}
	}
	g.ahead = float64(b.Counts.Samples + b.Counts.Histograms)
	return nil
}

// finish sends what waited for the end of the entry, and closes it.
func (g *giver) finish(ctx context.Context) error {
	g.restorer.Flush(&g.out)
	if g.e.Kind == ledger.KindSampled && g.restorer.Pending() > 0 {
		if err := g.rest(ctx); err != nil {
			return err
		}
	}
	g.restorer.Flush(&g.out)
	if err := g.send(ctx, g.e.To, true); err != nil {
		return err
	}
	if err := g.close(ctx, g.lost); err != nil {
		return err
	}
	g.t.o.Logger.Info("What was withheld is given back", "from", g.e.From, "to", g.e.To, "samples", g.sent)
	g.t.event("given back", "")
	return nil
}

// rest reads the entry once more for the labels of the series with samples that waited.
func (g *giver) rest(ctx context.Context) error {
	again, err := g.t.open(g.e.From)
	if err != nil {
		return err
	}
	defer func() { g.t.closing(again.close()) }()
	for {
		err = again.until(ctx, g.e.To, func(rec *journal.Record, set series.Set) error {
			if err := g.restorer.Rest(rec.Batch, set, &g.out); err != nil {
				return nil // it was not readable before either
			}
			return g.send(ctx, g.e.To, true)
		})
		if _, ok := gone(err); !ok {
			return err
		}
		g.lost = ReasonJournalFull // what waited of series that are in what is gone alone
	}
}

// close brings the restoring to the end of the entry, and gives up what of it is
// outstanding, for a reason where there is one.
func (g *giver) close(ctx context.Context, reason string) error {
	g.t.arriving(g.e.To, g.back)
	err := g.t.giveUp(ctx, g.lane, loss{g.e.To, reason})
	if err != nil {
		g.t.notArrived(g.back)
		return err
	}
	g.waiting = false
	return nil
}

// giveUp moves the restoring to where the loss ends.
func (t *Thinner) giveUp(ctx context.Context, lane Lane, l loss) error {
	t.mu.Lock()
	before := t.lost
	t.lost = loss{l.upTo, cmp.Or(l.reason, before.reason)}
	t.mu.Unlock()
	if _, err := lane.Restore(ctx, exporter.Return{UpTo: l.upTo}); err != nil {
		t.mu.Lock()
		t.lost = before
		t.mu.Unlock()
		return err
	}
	t.moved(l.upTo)
	return nil
}

// moved notes how far the restoring is.
func (t *Thinner) moved(to journal.Position) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.restored = t.restored.Later(to)
}

// returned counts what was given back, and what of it the backend refused.
func (t *Thinner) returned(sent, refused series.Counts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.givenBack += sent.Samples + sent.Histograms
	t.counts.refused += refused.Samples + refused.Histograms
	t.tempo.gave = t.o.Now()
}

// mayGiveBack reports whether the giving back of the entry may go on.
func (t *Thinner) mayGiveBack(e *ledger.Entry) bool {
	_, over := t.o.Ledger.Excess()
	return !over && t.clear(e)
}

// reach is how far behind its newest sample the backend is relied on to take samples.
func (t *Thinner) reach() time.Duration { return max(t.o.Window-windowMargin, t.o.Window/2) }

// mostAhead is how far ahead of the clock samples may be that a backend takes for its
// newest ones: Prometheus refuses what is further ahead.
const mostAhead = 10 * time.Minute

// oldestTaken is the time, Unix ms, of the oldest samples that the backend takes.
func (t *Thinner) oldestTaken() int64 {
	if t.o.Window <= 0 {
		return math.MaxInt64
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.o.Now()
	newest := min(t.newest, now.Add(mostAhead).UnixMilli())
	if newest == 0 {
		newest = now.UnixMilli()
	}
	return newest - t.reach().Milliseconds()
}
