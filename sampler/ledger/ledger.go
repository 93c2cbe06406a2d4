package ledger

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

var (
	// ErrOrder is returned for a position before one that was recorded or settled.
	ErrOrder = errors.New("out of the order of the journal")
	// ErrFull is returned when the ledger has no room for another step, though Excess had
	// been asking for some time to give something up. The settings stay as they are.
	ErrFull = errors.New("ledger is full")
	// ErrNotResumed is returned before Resume was called.
	ErrNotResumed = errors.New("ledger was not told where the cursor is")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("ledger is closed")
)

// Bounds by default.
const (
	DefaultMaxBytes = 32 << 20
	DefaultMaxSteps = 1 << 16
	DefaultHistory  = 24 * time.Hour
)

// Options are the inputs of Open.
type Options struct {
	// Dir is the directory of the ledgers of all backends, slash-separated. It is made
	// when there is something to write.
	Dir string
	// Backend is whose ledger it is.
	Backend string
	// FS is where Dir is; vfs.OS but in tests.
	FS vfs.FS
	// Sync makes records survive a power loss, not just the death of the process.
	Sync bool
	// Backfill says that what is withheld is to be given back. Without it entries are
	// history as soon as the cursor has passed them.
	Backfill bool
	// History is for how long entries of which nothing is owed are remembered; 0 is
	// DefaultHistory.
	History time.Duration
	// MaxBytes bounds the file; 0 is DefaultMaxBytes. The double is on the disk while it
	// is rewritten.
	MaxBytes int64
	// MaxSteps bounds the steps of entries that are owed; 0 is DefaultMaxSteps.
	MaxSteps int
	Logger   *slog.Logger
	// Now is the clock; time.Now but in tests.
	Now func() time.Time
	// Metrics takes the measurements; nil for none.
	Metrics *Metrics
}

func (o *Options) complete() error {
	if o.Dir == "" || o.Backend == "" || o.FS == nil || o.Logger == nil || o.Now == nil {
		return errors.New("BUG: ledger opened without directory, backend, file system, logger or clock")
	}
	if o.History == 0 {
		o.History = DefaultHistory
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxSteps == 0 {
		o.MaxSteps = DefaultMaxSteps
	}
	return nil
}

// Ledger is the account of one backend. All methods may be called from several
// goroutines; those that record something do so one after the other.
type Ledger struct {
	o Options

	// writing is held by who records something.
	writing sync.Mutex
	store   store
	resumed bool
	closed  bool
	noted   time.Time  // when the position was last written though nothing was owed
	waiting Settlement // Deltas, Reason and Lost of settlements that moved nothing

	mu    sync.RWMutex // guards state; never held during file operations
	state *state
}

// Mark is a state of the cursor: everything before Position is settled, and everything
// that was withheld before Restore is given back or given up.
type Mark struct {
	Position journal.Position `json:"position"`
	Restore  journal.Position `json:"restore"`
}

// reaches reports whether m is at or behind o in both.
func (m Mark) reaches(o Mark) bool {
	return !m.Position.Before(o.Position) && !m.Restore.Before(o.Restore)
}

// Resumption says where the cursor is.
type Resumption struct {
	Mark
	// Withheld is what the cursor's totals say was ever withheld. With it the ledger
	// finds out whether it lost something. Nil when that is not known.
	Withheld *series.Counts
}

// Resumed says what Resume found.
type Resumed struct {
	// Unknown are the stretches of which the ledger lost its record. They are entries from
	// now on.
	Unknown []Entry
	// Inexact says that the cursor is at an older state than the ledger can go back to.
	Inexact bool
}

// Session begins a sampled entry.
type Session struct {
	// From, Rebuild and Digest are those of the Entry.
	From    journal.Position
	Rebuild journal.Position
	Digest  string
	// Config is what the digest stands for. It is stored once for each digest.
	Config []byte
	// Setting holds from From on; its At is ignored.
	Setting Setting
}

// Gap is a stretch of which nothing is sent.
type Gap struct {
	From, To journal.Position
	Cause    string
	// Pieces divide the gap, in order: when the journal loses a part of it, the rest can
	// still be told from it. The first is at From. One piece may do. What they count is
	// settled when the cursor has passed the gap; pieces without counts get theirs by Deltas.
	Pieces []Piece
}

// Piece is a part of a gap, up to the next one. Of Tally only Taken and the times have to
// be set: all of it is withheld.
type Piece struct {
	At journal.Position
	Tally
}

// Delta is what was settled of one step.
type Delta struct {
	// At is any position of the step.
	At journal.Position
	Tally
	// Classes is how many of the withheld samples were of which class.
	Classes map[string]uint64
}

// Settlement is what a state of the cursor is about to settle.
type Settlement struct {
	// Mark is that state. Neither position goes backwards.
	Mark
	// Committed is the newest state that is known to be stored. Counts that it settles
	// cannot be taken back any more.
	Committed Mark
	// Deltas are the counts since the last Settlement. While neither position moves, Deltas
	// and Reason wait for the next Settlement that moves one: a restart could not tell the
	// two states apart.
	Deltas []Delta
	// Reason, when it is set, says why all that was withheld before Lost, and is not
	// in Deltas, is given up. The zero Lost, and one behind Restore, is Restore.
	Reason string
	Lost   journal.Position
}

// Settled is what came of a Settlement.
type Settled struct {
	// GivenUp is what is never given back, as of this settlement: it goes into the
	// totals of the same state of the cursor.
	GivenUp series.Counts
	// Closed are the entries of which nothing is owed any more, without their steps.
	Closed []Entry
}

// Open reads the ledger of a backend. It writes nothing. Before anything can be recorded
// Resume has to be called. It fails when the files cannot be read or are of a newer
// format; damage is logged and dealt with by Resume.
func Open(o Options) (*Ledger, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	l := &Ledger{o: o, store: store{fs: o.FS, dir: o.Dir, backend: o.Backend, sync: o.Sync, reserve: min(maxReserve, o.MaxBytes/4)}}
	found, err := load(o.FS, o.Dir, o.Backend)
	if err != nil {
		return nil, fmt.Errorf("open the ledger of backend %s in %s: %w", o.Backend, o.Dir, err)
	}
	l.state = found.state
	l.store.generation = found.generation
	l.store.old, l.store.litter = found.path, found.litter
	l.store.behind = found.damaged
	if found.damaged {
		o.Logger.Error("The ledger is damaged. What follows the damage is lost; where it mattered is found by comparing with the cursor.",
			"file", found.path, "offset", found.damagedAt, "bytes", found.size-found.damagedAt)
	}
	l.measure()
	return l, nil
}

// Resume tells where the cursor is after a start and takes the counts back to there. It
// is called before anything is recorded, and by each new user of the ledger. Steps that were
// recorded behind the cursor still hold: see Timeline. It writes nothing: what it found is
// written with the next record.
func (l *Ledger) Resume(r Resumption) (Resumed, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.closed {
		return Resumed{}, ErrClosed
	}
	l.mu.Lock()
	l.waiting = Settlement{} // it comes again
	res, changed := l.state.resume(r, l.now())
	l.mu.Unlock()
	l.store.behind = l.store.behind || changed
	l.resumed = true
	l.measure()
	if res.Inexact {
		l.o.Logger.Warn("The cursor is at an older state than the ledger has counts for: what is sent again is counted again in the ledger.",
			"position", r.Position, "restore", r.Restore)
	}
	for _, e := range res.Unknown {
		l.o.Logger.Error("The ledger does not know what was withheld in a stretch of the journal.",
			"from", e.From, "to", e.To, "cause", e.Cause, "samples", e.Totals.Withheld.Samples, "histograms", e.Totals.Withheld.Histograms)
	}
	return res, nil
}

// Begin records that records from s.From on are thinned. When it returns an error they
// must not be. It fails while another session is open, and with ErrOrder where s.From is
// before the end of the last entry or was settled before.
func (l *Ledger) Begin(s Session) error {
	if err := s.Setting.validate(); err != nil {
		return err
	}
	s.Setting.At = s.From
	return l.change(func(st *state) (*record, error) {
		if st.stepCount >= l.hardLimit() {
			return nil, l.full(st)
		}
		b := &beginRecord{ID: st.nextID, From: wirePosition(s.From), Rebuild: wirePosition(s.Rebuild), Digest: s.Digest, Step: toWire(Step{Setting: s.Setting})}
		if st.configs[s.Digest] == nil {
			b.Config = append([]byte{}, s.Config...)
		}
		return &record{Begin: b}, nil
	})
}

// Step records what the sampler is set to from s.At on. When it returns an error the
// setting must not be used. A step at the position of the last one takes its place. It
// fails when no session is open, and with ErrOrder when s.At is before the last step.
func (l *Ledger) Step(s Setting) error {
	if err := s.validate(); err != nil {
		return err
	}
	return l.change(func(st *state) (*record, error) {
		if st.stepCount >= l.hardLimit() {
			return nil, l.full(st)
		}
		step := toWire(Step{Setting: s})
		return &record{Step: &step}, nil
	})
}

func (s *Setting) validate() error {
	if !(s.Rate >= 0 && s.Rate <= 1) || math.IsNaN(s.Pressure) || math.IsInf(s.Pressure, 0) {
		return fmt.Errorf("BUG: a step with rate %v and pressure %v cannot be recorded", s.Rate, s.Pressure)
	}
	return nil
}

// End records that everything is sent from at on. When it returns an error the session
// goes on. Steps at or behind at are taken back, and with at not behind its start the
// whole session: the caller must not have sent by them, or sends again what it sent. It
// fails with ErrOrder when at was settled before.
func (l *Ledger) End(at journal.Position) error {
	return l.change(func(*state) (*record, error) {
		end := wirePosition(at)
		return &record{End: &end}, nil
	})
}

// Gap records that nothing is sent of a stretch. When it returns an error it must not be
// passed over. It fails while a session is open, and with ErrOrder where the stretch begins
// before the end of the last entry or was settled before.
func (l *Ledger) Gap(g Gap) error {
	return l.change(func(st *state) (*record, error) {
		if st.stepCount+len(g.Pieces) > l.hardLimit() {
			return nil, l.full(st)
		}
		r := &gapRecord{ID: st.nextID, From: wirePosition(g.From), To: wirePosition(g.To), Cause: g.Cause}
		for _, p := range g.Pieces {
			p.Withheld, p.Sent, p.GivenBack = p.Taken, series.Counts{}, series.Counts{}
			r.Pieces = append(r.Pieces, toWire(Step{Setting: Setting{At: p.At}, Tally: p.Tally}))
		}
		return &record{Gap: r}, nil
	})
}

// Settle writes what a state of the cursor is about to settle. It is called before each
// Commit of the cursor, also when nothing is withheld: it costs nothing then. When it
// returns an error the state must not be stored. The caller adds Settled.GivenUp to the
// totals of the state.
func (l *Ledger) Settle(s Settlement) (Settled, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.usable(); err != nil {
		return Settled{}, err
	}
	moves := s.Mark != l.state.settled
	if err := l.wait(&s, moves); err != nil {
		return Settled{}, err
	}
	r, err := l.state.settlement(s, l.o.Backfill)
	if err != nil {
		return Settled{}, l.wrap(err)
	}
	if l.idle(r, moves) {
		l.mu.Lock()
		l.state.pass(s.Mark, s.Committed)
		l.state.forget(l.now() - Time(l.o.History.Milliseconds()))
		l.mu.Unlock()
		return Settled{}, nil
	}
	if err := l.write(&record{Settle: r}); err != nil {
		return Settled{}, err
	}
	if moves {
		l.waiting = Settlement{}
	}
	return l.settled(r), nil
}

// wait keeps what a settlement that moves nothing says for one that does, and adds to that
// what has waited.
func (l *Ledger) wait(s *Settlement, moves bool) error {
	if moves {
		s.Deltas = slices.Concat(l.waiting.Deltas, s.Deltas)
		if s.Reason == "" {
			s.Reason, s.Lost = l.waiting.Reason, l.waiting.Lost
		}
		return nil
	}
	if _, err := l.state.attribute(s.Deltas); err != nil {
		return l.wrap(err)
	}
	l.waiting.Deltas = append(l.waiting.Deltas, s.Deltas...)
	if s.Reason != "" {
		l.waiting.Reason, l.waiting.Lost = s.Reason, s.Lost
	}
	s.Deltas, s.Reason = nil, ""
	return nil
}

// noteEvery is how often the position is written while nothing is owed: it bounds the
// stretch that is not known when the ledger is lost.
const noteEvery = time.Minute

// idle reports whether a settlement can do without being written.
func (l *Ledger) idle(r *settleRecord, moves bool) bool {
	if l.store.behind || !r.empty() || moves && l.state.busy() {
		return false
	}
	if l.store.generation == 0 {
		return true // there never was anything to write
	}
	if !moves {
		return true
	}
	now := l.o.Now()
	if now.Sub(l.noted) < noteEvery && !now.Before(l.noted) {
		return true
	}
	l.noted = now
	return false
}

// settled tells the caller what a record that was applied did.
func (l *Ledger) settled(r *settleRecord) Settled {
	var s Settled
	for _, b := range r.Books {
		s.GivenUp.Add(series.Counts(b.GivenUp))
		if b.Close {
			if e := l.state.entry(b.Entry); e != nil {
				c := e.view()
				c.Steps = nil
				s.Closed = append(s.Closed, c)
			}
		}
	}
	return s
}

// Excess reports whether the ledger is beyond its bounds, and what to do: settle with
// Restore at or behind upTo and a Reason, or else the next steps are refused. When all is
// in the session that is open, upTo is where it began: End it and Begin another one.
func (l *Ledger) Excess() (upTo journal.Position, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.state.stepCount <= l.o.MaxSteps && l.state.bytes() <= l.o.MaxBytes/2 {
		return upTo, false
	}
	for _, e := range l.state.entries {
		switch {
		case e.Closed != 0:
		case e.isOpen():
			return e.From, true
		default:
			return e.To, true
		}
	}
	return upTo, false
}

// hardLimit is the number of steps at which no more are taken.
func (l *Ledger) hardLimit() int { return l.o.MaxSteps + l.o.MaxSteps/8 + 1 }

func (l *Ledger) full(st *state) error {
	return fmt.Errorf("%w: %d steps, of %d at most: give the oldest entry up", ErrFull, st.stepCount, l.o.MaxSteps)
}

// change writes and applies the record that make makes.
func (l *Ledger) change(make func(*state) (*record, error)) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	r, err := make(l.state)
	if err != nil {
		return l.wrap(err)
	}
	return l.write(r)
}

func (l *Ledger) usable() error {
	switch {
	case l.closed:
		return ErrClosed
	case !l.resumed:
		return l.wrap(ErrNotResumed)
	}
	return nil
}

func (l *Ledger) wrap(err error) error {
	return fmt.Errorf("ledger of backend %s: %w", l.o.Backend, err)
}

func (l *Ledger) now() Time { return TimeOf(l.o.Now()) }

// write writes the record and then applies it.
func (l *Ledger) write(r *record) error {
	r.Time = int64(l.now())
	if err := l.state.check(r); err != nil {
		return l.wrap(err)
	}
	if err := l.append(r); err != nil {
		l.o.Metrics.failed(l.o.Backend)
		return l.wrap(err)
	}
	l.mu.Lock()
	l.state.apply(r)
	l.state.forget(Time(r.Time) - Time(l.o.History.Milliseconds()))
	l.mu.Unlock()
	l.measure()
	return nil
}

// append makes the record durable, in a new file where the present one will not do.
func (l *Ledger) append(r *record) error {
	payload, err := r.encode()
	if err != nil {
		return err
	}
	if l.store.usable() && l.store.size() > l.store.live+l.o.MaxBytes/2 {
		if err := l.store.rewrite(l.state); err != nil {
			l.o.Metrics.failed(l.o.Backend)
			l.o.Logger.Warn("The ledger could not be rewritten to make it smaller.", "error", err)
		}
	}
	if !l.store.usable() {
		if err := l.store.rewrite(l.state); err != nil {
			return err
		}
	}
	return l.store.append(payload)
}

// measure brings the metrics up to date.
func (l *Ledger) measure() {
	l.o.Metrics.set(l.o.Backend, l.state.owed(), l.store.size())
}

// Close ends the use of the ledger. Nothing needs to be written.
func (l *Ledger) Close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.o.Metrics.drop(l.o.Backend)
	return l.store.close()
}
