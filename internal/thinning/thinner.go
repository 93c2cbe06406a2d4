package thinning

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/control"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

const (
	// rebuildOver is how much of the journal, by time of receipt, the sampler's state is
	// built from when the rate falls. Before, everything was sent, so that the last two
	// samples of each series and the cadence of its target are all there is to know:
	// three scrapes of the longest usual interval.
	rebuildOver = 3 * time.Minute
	// resumeOver is how long a session may last that is gone on with after a restart:
	// all of it is read again for that. A longer one ends, and another one begins.
	resumeOver = 15 * time.Minute
)

// Journal is what a Thinner needs of the journal.
type Journal interface {
	OpenReader(backend string, from journal.Position) (journal.Reader, error)
	Retain(owner string, from journal.Position)
	PositionAt(oldest time.Time) journal.Position
	// Gone is where the newest record ends that the journal has no more.
	Gone() journal.Position
}

// Picker tells what the backend takes of a batch.
type Picker interface {
	Pick(b *series.Batch) (set series.Set, n int, err error)
}

// Options are what a Thinner is made of.
type Options struct {
	Backend   string
	Config    sampler.Config // valid
	Describer *sampler.Describer
	// Digest identifies everything that decisions depend on beside the journal and the
	// steps: the configuration, and what was read out of rules and dashboards.
	Digest string
	// Text is what Digest stands for.
	Text    []byte
	Ledger  *ledger.Ledger
	Journal Journal
	// Picker returns a new Picker of the backend, for readers beside the lane.
	Picker func() Picker
	// Window is how far behind the newest sample the backend takes samples; 0 is strict
	// order, in which nothing is given back and the newest never goes first.
	Window time.Duration
	// Earlier are the Decisions of Thinners of the backend before, with its present
	// selectors: what was withheld by them is given back by them.
	Earlier []Decisions
	// Steering is what the Thinner knew that this one takes the place of.
	Steering Steering
	// Restored is how far the giving back was at the last commit.
	Restored journal.Position
	// ReplicaLag is how far the replicas of the backend's database lag; nil where the
	// backend names no cluster.
	ReplicaLag func() (seconds float64, known bool)
	// Memory is the used share of the gateway's memory limit; nil where there is none.
	Memory func() (share float64, known bool)
	// Shelf is where the lane's batches are found opened; nil: nowhere.
	Shelf   *remotewrite.Shelf
	Metrics *Metrics
	Logger  *slog.Logger
	Now     func() time.Time
}

// Thinner is the exporter.Sampling of one backend, for one run of its lane. While the rate is 1 it costs nothing and
// knows nothing. When the controller lowers the rate, the state of the sampler is built
// from the last minutes of the journal, in the background, and a session begins: every
// batch goes through the sampler, every step is in the ledger before it is in force. The
// session ends a while after the rate is back.
type Thinner struct {
	o       Options
	own     Decisions
	control control.Config
	shadow  bool

	// running ends with the lane: its reader reads no more of the journal then for the state
	// of a session.
	running context.Context
	stop    context.CancelFunc

	kept        atomic.Uint64 // bits of the share that is sent
	maxInFlight atomic.Int64  // samples; 0 is any number
	kick        chan struct{} // wakes Run

	// mu is held by the lane's reader for a batch at a time, and shortly by the others.
	// It is not held while the journal is read.
	mu      sync.Mutex
	session *session
	ready   *session         // built by Run, to be taken over by the reader
	taking  bool             // the reader takes it over
	retry   time.Time        // before it no session is built, since the last attempt failed
	stood   journal.Position // where the reader stands: the end of the last record it gave
	stoodAt int64            // when that was received, Unix ms; 0 before the first
	readAt  time.Time        // when it was given
	loans   []loan           // of records that are not settled
	returns []loan           // what was given back and is not settled
	lost    loss             // what is not given back and is not settled
	// ending is where the session has ended that the ledger still has as open, since that
	// could not be written down; nil: nowhere.
	ending *journal.Position
	steer  steering
	tempo  tempo
	marked ledger.Mark // settled last
	// restored is how far the giving back is, and owes the entry at which it is; nil when
	// it rests.
	restored  journal.Position
	owes      *ledger.Entry
	given     given            // what was given back last
	retained  journal.Position // see retain
	cut       cut              // see goneFrom
	reserved  journal.Position // a session is built from here on; zero: none is
	perSample float64          // bytes of the journal
	newest    int64            // time of the newest sample that was read, Unix ms
	counts    totals
	events    []Event
	told      told // see keepTold

	// The reader alone uses these. anew says that a session has ended that another one is to
	// follow at once: the backend lags.
	resumed bool
	anew    bool
	// ahead are stretches in which it was decided already, by a run before or by Pass, what
	// is sent.
	ahead []ledger.Entry
}

var _ exporter.Sampling = (*Thinner)(nil)

// New returns a Thinner that goes on from what the ledger says; Run does what takes time.
func New(o Options) (*Thinner, error) {
	t := &Thinner{
		o:      o,
		shadow: o.Config.Mode == sampler.ModeShadow,
		kick:   make(chan struct{}, 1),
		control: control.Config{
			BaseRate:  o.Config.BaseRate,
			MinRate:   o.Config.MinRate,
			OnUnknown: control.OnUnknown(o.Config.Thresholds.OnUnknown),
		},
	}
	if err := t.control.Validate(); err != nil {
		return nil, err
	}
	if o.Window <= 0 {
		t.o.Digest += " strict" // the sampler decides otherwise about late samples
	}
	t.own = Decisions{Digest: t.o.Digest, Config: o.Config, Describer: o.Describer, OutOfOrder: o.Window > 0}
	t.running, t.stop = context.WithCancel(context.Background())
	t.takeOver(o.Steering)
	t.restored = o.Restored
	t.marked = o.Ledger.View().Settled
	o.Metrics.begin(o.Backend)
	t.setKept(1)
	return t, nil
}

// Kept implements exporter.Sampling.
func (t *Thinner) Kept() float64 { return math.Float64frombits(t.kept.Load()) }

func (t *Thinner) setKept(share float64) { t.kept.Store(math.Float64bits(share)) }

// MaxInFlight implements exporter.Sampling.
func (t *Thinner) MaxInFlight() int {
	if t.shadow {
		return 0
	}
	return int(t.maxInFlight.Load())
}

// FreshFirst implements exporter.Sampling.
func (t *Thinner) FreshFirst() time.Duration {
	if t.o.Window <= 0 || t.shadow || !t.o.Config.Backfill {
		return 0
	}
	return time.Duration(t.o.Config.FreshFirstAfter)
}

// Thin implements exporter.Sampling.
func (t *Thinner) Thin(rec *journal.Record, take series.Set) (exporter.Thinned, error) {
	if !t.resumed {
		t.resumed = true
		t.resume(rec.Start)
	}
	gap := t.decided(rec)
	var next *session
	switch {
	case t.anew:
		t.anew = false
		next = t.prepareHere(rec)
	case len(t.ahead) == 0:
		next = t.takeReady(rec)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.stoodAt == 0
	t.stood, t.stoodAt, t.readAt = rec.End, rec.Batch.Received, t.o.Now()
	t.newest = max(t.newest, rec.Batch.MaxTime)
	t.measureBytes(rec.Batch)
	if gap != nil {
		t.lend(rec, rec.Start, ledger.Tally{Taken: rec.Counts, Withheld: rec.Counts})
		return exporter.Thinned{Withheld: rec.Counts}, nil
	}
	t.turn(rec, next)
	if t.session == nil {
		if first {
			t.rouse()
		}
		return whole(rec, take), nil
	}
	return t.thin(rec, take)
}

// whole is everything that is taken of a record.
func whole(rec *journal.Record, take series.Set) exporter.Thinned {
	rec.Batch.Retain()
	return exporter.Thinned{Batch: rec.Batch, Take: take, Counts: rec.Counts}
}

// thin puts a batch through the sampler.
func (t *Thinner) thin(rec *journal.Record, take series.Set) (exporter.Thinned, error) {
	s := t.session
	if t.shadow {
		r, err := s.splicer.Observe(rec.Batch, take)
		t.account(rec, &r)
		if err != nil {
			t.o.Logger.Debug("A journal record cannot be read for what would be withheld of it", "position", rec.Start, "err", err)
		}
		return whole(rec, take), nil
	}
	s.splicer.Enter(s.stepAt)
	r, err := s.splicer.Splice(rec.Batch, take)
	if err != nil {
		return exporter.Thinned{}, err
	}
	t.account(rec, &r)
	t.keptNow()
	out := exporter.Thinned{Batch: r.Batch, Withheld: r.Withheld, Restored: r.Restored}
	if r.Batch != nil {
		out.Counts = r.Batch.Counts
		if r.Batch == rec.Batch {
			out.Take, out.Counts = take, r.Taken
		}
	}
	tally := ledger.Tally{Taken: r.Taken, Withheld: r.Withheld}
	if r.MinTime <= r.MaxTime {
		tally.Min, tally.Max = ledger.Time(r.MinTime), ledger.Time(r.MaxTime)
	}
	t.lend(rec, s.stepAt, tally)
	for _, o := range r.Origins {
		t.loans = append(t.loans, loan{rec.End, ledger.Delta{At: o.Step, Tally: ledger.Tally{Sent: o.Counts}}})
	}
	return out, nil
}

// account notes what became of a record.
func (t *Thinner) account(rec *journal.Record, r *Result) {
	t.o.Metrics.read(t.o.Backend, r.Found)
	sent := r.Kept
	sent.Add(r.Restored)
	t.session.lately.add(rec.Batch.Received, r.Taken, sent)
}

// decided returns the gap in which the record is, and nil where it is in none. Where it
// is in a session of a run before, it makes that the present one.
func (t *Thinner) decided(rec *journal.Record) *ledger.Entry {
	for len(t.ahead) > 0 && !t.ahead[0].Holds(rec.Start) && !rec.Start.Before(t.ahead[0].From) {
		t.ahead = t.ahead[1:]
	}
	if len(t.ahead) == 0 || rec.Start.Before(t.ahead[0].From) {
		return nil
	}
	e := &t.ahead[0]
	if e.Kind == ledger.KindGap {
		return e
	}
	if t.resumeSession(e, rec) {
		t.ahead = t.ahead[1:]
		return nil
	}
	if t.running.Err() != nil {
		return nil // the lane does not send the record any more; the next run goes on with the session
	}
	t.ahead = t.ahead[1:]
	if e.To == (journal.Position{}) {
		t.mu.Lock()
		defer t.mu.Unlock()
		_ = t.endRecorded(rec.Start) // it is tried again, and meanwhile everything is sent
		t.anew = t.steer.wanted < 1 && t.ending == nil
	}
	return nil
}

// turn begins, steers and ends sessions before the record is thinned. next is the one to
// begin, or nil.
func (t *Thinner) turn(rec *journal.Record, next *session) {
	if next != nil {
		t.taking = false
		t.begin(rec, next)
	}
	s := t.session
	if s == nil {
		return
	}
	closed := s.until != journal.Position{}
	if closed && !rec.Start.Before(s.until) {
		t.leave()
		return
	}
	if closed || len(s.recorded) > 0 {
		s.follow(rec)
		if closed || len(s.recorded) > 0 {
			return // it is decided already
		}
	}
	t.step(rec)
	if t.over(rec) {
		_ = t.end(rec.Start) // it is tried again
	}
}

// step brings the sampler to the rate that is wanted, and its pressure to what the share
// that is kept asks for. Each step is in the ledger before it is in force.
func (t *Thinner) step(rec *journal.Record) {
	s := t.session
	before := s.sampler.Step()
	next, changed := s.sampler.Tick(rec.Batch.Received)
	if t.steer.wanted != before.Rate {
		next, changed = s.sampler.SetRate(t.steer.wanted), true
	}
	t.keptNow()
	changed = changed && next != before
	if !changed && rec.Batch.Received-s.stepTime < longestStep.Milliseconds() || t.shadow {
		return
	}
	if err := t.o.Ledger.Step(settingOf(next, rec)); err != nil {
		s.sampler.Set(before)
		t.failed("A step of the sampling cannot be written down; the rate stays as it is", err)
		return
	}
	s.stepAt, s.stepTime = rec.Start, rec.Batch.Received
}

// longestStep is how long a step lasts at most: the ledger counts by steps, and what the
// journal has lost of one is all of it.
const longestStep = 5 * time.Minute

func settingOf(s sampler.Step, rec *journal.Record) ledger.Setting {
	return ledger.Setting{At: rec.Start, Time: ledger.Time(rec.Batch.Received), Rate: s.Rate, Pressure: s.Pressure}
}

func stepOf(s ledger.Setting) sampler.Step { return sampler.Step{Rate: s.Rate, Pressure: s.Pressure} }

// keptNow makes known which share is sent.
func (t *Thinner) keptNow() {
	share := 1.0
	if t.session != nil && !t.shadow {
		share = t.session.lately.share()
	}
	t.setKept(share)
}

// over reports whether the session is to end.
func (t *Thinner) over(rec *journal.Record) bool {
	s := t.session
	if s.full {
		return true
	}
	if s.sampler.Step().Rate < 1 || t.steer.wanted < 1 {
		s.fullAt = time.Time{}
		return false
	}
	now := time.UnixMilli(rec.Batch.Received)
	if s.fullAt.IsZero() {
		s.fullAt = now
	}
	return now.Sub(s.fullAt) >= t.settling()
}

// settling is how long all is well and everything is sent before a session ends, and before
// what was withheld is given back: series that were withheld are sent once more meanwhile,
// so that none is left with an old value.
func (t *Thinner) settling() time.Duration { return time.Duration(t.o.Config.BackfillAfter) }

// takeReady returns the session that Run built, if there is one, brought to the reader's
// place: what was read since. The reader is to hand it to turn, its feed still open.
func (t *Thinner) takeReady(rec *journal.Record) *session {
	t.mu.Lock()
	s := t.ready
	if s == nil || t.session != nil || t.ending != nil {
		t.mu.Unlock()
		return nil
	}
	t.ready, t.taking = nil, true
	t.mu.Unlock()
	err := s.build(t.running, rec.Start)
	if err == nil {
		return s
	}
	t.closing(s.feed.close())
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taking = false
	if t.running.Err() == nil {
		t.attemptFailed(notBuilt, err)
	}
	return nil
}

// prepareHere builds a session while the lane waits, as it does for one that is gone on with.
func (t *Thinner) prepareHere(rec *journal.Record) *session {
	t.mu.Lock()
	t.drop()
	t.mu.Unlock()
	from := t.reserve(rec.Batch.Received)
	s, err := t.newSession(&t.own, rec.Batch.Received)
	if err == nil {
		s.feed, err = t.open(from)
	}
	if err == nil {
		if err = s.build(t.running, rec.Start); err == nil {
			return s
		}
		t.closing(s.feed.close())
	}
	if t.running.Err() == nil {
		t.prepareFailed(err)
	}
	return nil
}

// begin begins a session that stands at the record.
func (t *Thinner) begin(rec *journal.Record, s *session) {
	rebuild := s.feed.from
	t.release(s)
	t.reserved = journal.Position{}
	defer t.retain()
	if t.steer.wanted >= 1 {
		return // it passed meanwhile
	}
	if t.touches(rebuild, rec.Start) {
		// Not everything was sent of what the state was built from.
		s.sampler.Renew()
	}
	s.sampler.Tick(rec.Batch.Received)
	first := s.sampler.SetRate(t.steer.wanted)
	if !t.shadow {
		err := t.o.Ledger.Begin(ledger.Session{
			From: rec.Start, Rebuild: rebuild, Digest: t.o.Digest, Config: t.o.Text,
			Setting: settingOf(first, rec),
		})
		if err != nil {
			t.attemptFailed("The beginning of sampling cannot be written down; everything is sent until the next attempt", err)
			return
		}
	}
	s.from, s.stepAt, s.stepTime = rec.Start, rec.Start, rec.Batch.Received
	t.enter(s)
}

// release ends the use of the ids that s was built from. Forget, which waits for t.mu, finds
// the session then if it is in force; before, it could miss it.
func (t *Thinner) release(s *session) {
	t.closing(s.feed.close())
	s.feed = nil
}

func (t *Thinner) enter(s *session) {
	if t.session != nil {
		t.counts.close(t.session)
	}
	s.base = s.sampler.Stats()
	s.since = t.o.Now()
	t.session = s
	t.note("sampling began", "")
}

// end closes the session: everything is sent from the position on, also when that cannot
// be written down yet. Then nothing behind it is settled before it is.
func (t *Thinner) end(at journal.Position) error {
	if t.shadow {
		t.leave()
		return nil
	}
	return t.endRecorded(at)
}

// endRecorded is end of a session that the ledger has.
func (t *Thinner) endRecorded(at journal.Position) error {
	t.ending = &at
	err := t.writeEnd()
	if err != nil {
		t.o.Logger.Error("The end of sampling cannot be written down; everything is sent, and nothing is committed before it can", "err", err)
	}
	t.leave()
	return err
}

// writeEnd writes down the end of a session where that is still to be done.
func (t *Thinner) writeEnd() error {
	if t.ending == nil {
		return nil
	}
	if err := t.o.Ledger.End(*t.ending); err != nil {
		t.o.Metrics.failures.WithLabelValues(t.o.Backend).Inc()
		return err
	}
	t.ending = nil
	return nil
}

func (t *Thinner) leave() {
	if t.session != nil {
		t.counts.close(t.session)
		t.note("sampling ended", "")
	}
	t.session = nil
	t.setKept(1)
	t.retain()
}

// failed logs an error of the ledger.
func (t *Thinner) failed(text string, err error) {
	t.o.Metrics.failures.WithLabelValues(t.o.Backend).Inc()
	t.o.Logger.Error(text, "err", err)
}

// attemptFailed logs why no session begins, and leaves it alone for a while: an attempt
// reads minutes of the journal. t.mu is held.
func (t *Thinner) attemptFailed(text string, err error) {
	t.failed(text, err)
	t.retry = t.o.Now().Add(retryAfter)
	t.reserved = journal.Position{}
	t.retain()
}

const (
	retryAfter = 10 * time.Second
	notBuilt   = "The state of the sampler cannot be built from the journal; everything is sent until the next attempt"
)

// Forget drops what is known of series that are no more.
func (t *Thinner) Forget(ids []series.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range []*session{t.session, t.ready} {
		if s != nil {
			s.splicer.Forget(ids)
		}
	}
}

// Owner is the name under which the journal retains what is owed to a backend.
func Owner(backend string) string { return "ledger of " + backend }

// retain keeps in the journal what the ledger needs, and a session in the making; t.mu is
// held.
func (t *Thinner) retain() {
	none := journal.Position{}
	from, ok := t.o.Ledger.Needed()
	if !ok {
		// Nothing is given back. What was sent and not committed must be decided again as it
		// was, or what was withheld of it would come behind newer samples of its series.
		from, _ = t.o.Ledger.Resumable(t.o.Now().Add(-resumeOver).UnixMilli())
	}
	if from == none || t.reserved != none && t.reserved.Before(from) {
		from = t.reserved
	}
	if from != t.retained {
		t.o.Journal.Retain(Owner(t.o.Backend), from)
		t.retained = from
	}
}

// touches reports whether less than everything was sent of some of a stretch.
func (t *Thinner) touches(from, to journal.Position) bool {
	for _, e := range t.o.Ledger.Entries() {
		if e.From.Before(to) && (e.To == journal.Position{} || from.Before(e.To)) {
			return true
		}
	}
	return false
}
