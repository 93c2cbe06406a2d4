package thinning

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// session is a stretch of the journal in which batches go through a sampler.
type session struct {
	replay
	splicer *Splicer
	since   time.Time
	fullAt  time.Time        // since when everything is sent, by receipt; zero: it is not
	until   journal.Position // where the run before ended it; zero where it did not
	base    sampler.Stats    // before its first batch
	from    journal.Position // its first record
	full    bool             // it is to end, since the ledger has no room for more steps
	// stepTime is when the record of stepAt was received, Unix ms; 0 in a session that is
	// gone on with before its first step.
	stepTime int64
	lately   lately
}

// lately is the share that was sent lately of what came in since a session began. What its
// state was built from, of which everything was sent, is no part of it.
type lately struct {
	at         int64 // Unix ms
	seen, sent float64
}

// latelyOver is about how long lately is.
const latelyOver = 10 * time.Second

// add adds what was received at a time, Unix ms.
func (l *lately) add(at int64, seen, sent series.Counts) {
	if age := time.Duration(at-l.at) * time.Millisecond; age > 0 && l.at != 0 {
		fades := math.Exp(-age.Seconds() / latelyOver.Seconds())
		l.seen, l.sent = l.seen*fades, l.sent*fades
	}
	l.at = max(l.at, at)
	l.seen += float64(seen.Samples + seen.Histograms)
	l.sent += float64(sent.Samples + sent.Histograms)
}

// share is 1 where nothing came in.
func (l *lately) share() float64 {
	const all = 0.9999
	if l.seen == 0 || l.sent >= all*l.seen {
		return 1
	}
	return l.sent / l.seen
}

// replay is a sampler that comes to the state which it had, or has to have, at some place
// of the journal: by reading what lies before.
type replay struct {
	sampler *sampler.Sampler
	// observe shows the sampler a batch.
	observe func(b *series.Batch, set series.Set) error
	feed    *feed // nil when it is done
	// recorded are settings in force from their positions on, and force is the one at hand,
	// since stepAt.
	recorded []ledger.Setting
	force    sampler.Step
	stepAt   journal.Position
}

// newSession returns a session that has seen nothing, of samples at about a time.
func (t *Thinner) newSession(d *Decisions, start int64) (*session, error) {
	s, err := d.newSampler(start)
	if err != nil {
		return nil, err
	}
	n := &session{splicer: NewSplicer(SplicerOptions{Sampler: s, Describer: d.Describer, Shelf: t.o.Shelf})}
	n.splicer.targets = newTargets(d.Config.TargetLabels)
	n.replay = replay{sampler: s, force: s.Step(), observe: func(b *series.Batch, set series.Set) error {
		n.splicer.Enter(n.stepAt)
		_, err := n.splicer.Observe(b, set)
		return err
	}}
	return n, nil
}

// see shows the sampler a record of which everything was sent, or which is to be decided
// by the settings that were in force then.
func (r *replay) see(rec *journal.Record, set series.Set) error {
	r.follow(rec)
	if err := r.observe(rec.Batch, set); err != nil {
		r.feed.logger.Warn("A journal record cannot be read", "position", rec.Start, "err", err)
	}
	return nil
}

// follow brings the settings into force that hold for the record. The sampler counts on
// the way what it counted when they were decided, so that it can be steered from there.
func (r *replay) follow(rec *journal.Record) {
	r.sampler.Tick(rec.Batch.Received)
	for len(r.recorded) > 0 && !rec.Start.Before(r.recorded[0].At) {
		r.force = stepOf(r.recorded[0])
		if r.force.Rate != r.sampler.Step().Rate {
			r.sampler.SetRate(r.force.Rate)
		}
		r.stepAt = r.recorded[0].At
		r.recorded = r.recorded[1:]
	}
	if r.sampler.Step() != r.force {
		r.sampler.Set(r.force)
	}
}

// build shows the sampler what the lane has been given up to limit.
func (r *replay) build(ctx context.Context, limit journal.Position) error {
	return r.feed.until(ctx, limit, r.see)
}

// rebuild comes to the state in which the session of an entry began. Every record that led to it
// has to be there.
func (t *Thinner) rebuild(ctx context.Context, r *replay, e *ledger.Entry) (err error) {
	if r.feed, err = t.open(e.Rebuild); err != nil {
		return err
	}
	if err := r.feed.until(ctx, e.From, r.see); err != nil {
		return fmt.Errorf("build the state before it began: %w", err)
	}
	if t.touches(e.Rebuild, e.From) {
		r.sampler.Renew()
	}
	for i := range e.Steps {
		r.recorded = append(r.recorded, e.Steps[i].Setting)
	}
	return nil
}

// prepare builds a session up to where the lane's reader stands, and leaves it to the
// reader.
func (t *Thinner) prepare(ctx context.Context) {
	t.mu.Lock()
	stood, at := t.stood, t.stoodAt
	idle := t.session != nil || t.ready != nil || t.taking || t.steer.wanted >= 1 || at == 0 || t.o.Now().Before(t.retry)
	t.mu.Unlock()
	if idle {
		return
	}
	from := t.reserve(at)
	s, err := t.newSession(&t.own, at)
	if err == nil {
		s.feed, err = t.open(from)
	}
	if err != nil {
		t.prepareFailed(err)
		return
	}
	// The reader goes on meanwhile; what it gets in the last round it sees by itself.
	const rounds = 4
	for n := 1; ; n++ {
		if err := s.build(ctx, stood); err != nil {
			t.closing(s.feed.close())
			if ctx.Err() == nil {
				t.prepareFailed(err)
			}
			return
		}
		t.mu.Lock()
		if stood == t.stood || n == rounds {
			t.ready = s
			t.mu.Unlock()
			return
		}
		stood = t.stood
		t.mu.Unlock()
	}
}

// reserve keeps in the journal what a session is built from, of which the reader stands at
// records that were received at a time, Unix ms.
func (t *Thinner) reserve(at int64) (from journal.Position) {
	from = t.o.Journal.PositionAt(time.UnixMilli(at).Add(-rebuildOver))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reserved = from
	t.retain()
	return from
}

func (t *Thinner) prepareFailed(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attemptFailed(notBuilt, err)
}

func (t *Thinner) closing(err error) {
	if err != nil {
		t.o.Logger.Warn("Closing a reader of the journal", "err", err)
	}
}

// resume finds what was decided already of what lies behind a position, where the lane's
// reader stands.
func (t *Thinner) resume(at journal.Position) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.retain()
	for _, e := range t.o.Ledger.Timeline(at) {
		if e.Kind != ledger.KindUnknown {
			t.ahead = append(t.ahead, e)
		}
	}
}

// resumeSession brings back the state in which the run before was at the record. It reports
// whether it could; it cannot once the lane ends.
func (t *Thinner) resumeSession(e *ledger.Entry, rec *journal.Record) bool {
	first, last := e.Steps[0].Setting, e.Steps[len(e.Steps)-1].Setting
	open := e.To == journal.Position{}
	d := t.decisions(e)
	switch {
	case t.shadow:
		return false
	case d == nil || open && d != &t.own:
		t.o.Logger.Info("The configuration of sampling has changed; it begins anew")
		return false
	case open && time.Duration(rec.Batch.Received-int64(first.Time))*time.Millisecond > resumeOver:
		t.o.Logger.Info("Sampling began too long ago to go on with it as it was; it begins anew")
		return false
	}
	s, err := t.newSession(d, int64(first.Time))
	if err == nil {
		err = t.rebuild(t.running, &s.replay, e)
	}
	if err == nil {
		err = s.feed.until(t.running, rec.Start, s.see)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s != nil && s.feed != nil {
		t.release(s)
	}
	if t.running.Err() != nil {
		return false
	}
	if err != nil {
		t.o.Logger.Warn("The state of sampling cannot be had again; it begins anew", "err", err)
		return false
	}
	s.until, s.from = e.To, e.From
	t.enter(s)
	t.o.Logger.Info("Sampling goes on where it was", "rate", last.Rate)
	return true
}
