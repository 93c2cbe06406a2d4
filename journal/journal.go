// Package journal says what the gateway asks of its durable, full-resolution log.
// journal/disk keeps it in segment files.
package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Position is a place between two records: where the next record starts.
// Positions are ordered; the zero Position is before everything.
type Position struct {
	Segment uint64 `json:"segment"`
	Offset  int64  `json:"offset"`
}

// Before reports whether p is before o.
func (p Position) Before(o Position) bool {
	return p.Segment < o.Segment || p.Segment == o.Segment && p.Offset < o.Offset
}

// Later is the later one of p and o.
func (p Position) Later(o Position) Position {
	if p.Before(o) {
		return o
	}
	return p
}

func (p Position) String() string { return fmt.Sprintf("%d/%d", p.Segment, p.Offset) }

var (
	// ErrFull is returned by Append when the disk budget is used up and on_full is
	// refuse. Nothing of the batch was kept; the sender is to try again later.
	ErrFull = errors.New("journal is full")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("journal is closed")
)

// Backend names a destination whose counts each record carries. Digest identifies
// the selectors by which they were counted.
type Backend struct {
	Name   string
	Digest string
}

// Journal is the durable log. All methods may be called from several goroutines.
type Journal interface {
	// Append keeps the batch and returns when it is as durable as configured. The
	// journal retains the batch for its in-memory tail as long as it needs it; the
	// caller keeps its own reference. An error means that the batch will not be
	// delivered, unless ctx ended first: then the outcome is unknown.
	Append(ctx context.Context, b *series.Batch) error

	// SetBackends starts a new segment whose records carry Routed counts in the
	// order of this list. It returns the position from which the list holds.
	// Batches appended later must have been counted by the new list: the caller
	// keeps appends out while it changes the list and the router together.
	SetBackends(list []Backend) (Position, error)

	// OpenCursor returns the cursor of the named backend: at its committed
	// position, or at the tail when the name is new. One cursor a name at a time.
	// A new cursor is stored before OpenCursor returns.
	OpenCursor(name string) (Cursor, error)

	// Cursors lists the names with a stored cursor.
	Cursors() []string
	// DropCursor forgets a stored cursor that is not open, and returns its last
	// state and what it had not delivered.
	DropCursor(name string) (State, Lag, error)

	// OpenReader returns a reader for the named backend, which stands at the first
	// record at or behind from; the zero Position is the oldest record. The backend
	// need not have a cursor. Any number of readers may be open for one backend.
	OpenReader(backend string, from Position) (Reader, error)
	// Retain keeps what lies at or behind from, although all cursors have passed it,
	// until the owner moves it on or ends it with the zero Position. It is kept as
	// long as there is room: when the disk budget is used up, the oldest that no
	// cursor needs goes first, retained or not. It is not kept across restarts.
	Retain(owner string, from Position)

	// Oldest is where the oldest record starts that is present; Tail when there is
	// none.
	Oldest() Position
	// Gone is where the newest record ends that was removed: of what lies behind an
	// earlier position, some is gone, and nothing of what lies behind this one.
	Gone() Position
	// PositionAt is the start of the oldest record received at or after oldest; Tail
	// when there is none. The zero time asks for the oldest record.
	PositionAt(oldest time.Time) Position
	// Tail is where the next record goes.
	Tail() Position
	Close() error
}

// Record is one batch with its place.
type Record struct {
	Batch  *series.Batch // retained for the caller; IDs may be nil
	Start  Position
	End    Position      // Start of the record after it, in the same segment
	Counts series.Counts // what the cursor's backend takes of it
}

// State is what a cursor keeps across restarts: everything before Position is
// settled, with these totals. It is written as one piece.
type State struct {
	Position Position `json:"position"`
	// Horizon is the end of the last record that may have been sent. Records
	// between Position and Horizon may reach the backend a second time after a
	// crash. A record is not sent before a State with a Horizon at or behind its end
	// is stored.
	Horizon Position `json:"horizon"`
	Totals  Totals   `json:"totals"`
	// Restore is how far what was withheld has been given back; zero where nothing
	// ever was.
	Restore Restore `json:"restore,omitzero"`
}

// Clone returns a State that shares no memory with s.
func (s State) Clone() State {
	s.Totals = s.Totals.Clone()
	return s
}

// Restore is how far what was withheld has been given back. Everything withheld before
// Position is settled; what was withheld between Position and Horizon may have been
// sent, and may reach the backend a second time after a crash.
type Restore struct {
	Position Position `json:"position"`
	Horizon  Position `json:"horizon"`
}

// Totals are the settled parts of the accounting equation, since the cursor was
// first opened.
type Totals struct {
	Delivered series.Counts            `json:"delivered"`
	Rejected  map[string]series.Counts `json:"rejected,omitempty"` // by reason
	GivenUp   map[string]series.Counts `json:"given_up,omitempty"` // by reason
	// Redelivered is the part of Delivered that was sent after a restart and may have been
	// there, and what was given back beyond what was withheld, which is not in Delivered.
	Redelivered series.Counts `json:"redelivered"`

	// Withheld is what sampling kept back, whatever became of it later.
	Withheld series.Counts `json:"withheld,omitzero"`
	// Restored is the part of Withheld that was settled after all. It is counted in
	// Delivered, Rejected or GivenUp too.
	Restored series.Counts `json:"restored,omitzero"`
}

// Settled is how much of what was routed to the backend is no longer waiting for its
// cursor: delivered, rejected, given up or withheld, each of it once.
//
// Restored is counted twice before it is taken away, so that the result is never less than
// zero. A step on the way there may be more than a Counts can hold: they wrap around, and
// additions that wrap give the right sum in any order.
func (t *Totals) Settled() series.Counts {
	c := t.Delivered
	for _, r := range t.Rejected {
		c.Add(r)
	}
	for _, g := range t.GivenUp {
		c.Add(g)
	}
	c.Add(t.Withheld)
	c.Sub(t.Restored)
	return c
}

// Clone returns Totals that share no map with t.
func (t *Totals) Clone() Totals {
	c := *t
	c.Rejected = maps.Clone(t.Rejected)
	c.GivenUp = maps.Clone(t.GivenUp)
	return c
}

// Lag is what lies between a position and the tail.
type Lag struct {
	Records int64
	Bytes   int64
	Counts  series.Counts
	// Oldest is when the oldest of it was received; the zero time when there is
	// nothing.
	Oldest time.Time
}

// Cursor reads the journal for one backend. Next, StepOver, Skip and Recount are called by one
// goroutine at a time; all other methods by any, also while Next waits.
type Cursor interface {
	// Next returns the record at the read position and moves behind it. It waits at
	// the tail for ctx. With wait false it returns ok false at the tail at once.
	// A damaged record is stepped over, counted by the journal and logged; what
	// its header said is reported by Damaged.
	Next(ctx context.Context, wait bool) (rec Record, ok bool, err error)
	// Skip moves the read position forward to the first record boundary at or
	// behind to, and returns what lies between by the headers.
	Skip(to Position) (Lag, error)
	// StepOver moves the read position over what Next fails to read for an error of the
	// file system: the record where its header can be read, otherwise the rest of its
	// segment. It is counted, logged and reported by Damaged as damage is. It does
	// nothing where Next can go on. It is called by the goroutine that calls Next, when
	// trying again has not helped for long.
	StepOver() error
	// Damaged returns and resets the counts of records that Next and StepOver stepped
	// over because they could not be read.
	Damaged() series.Counts
	// Read is the read position.
	Read() Position
	// Commit stores the state. When it returns, the state is as durable as the
	// journal's configuration says, and segments before it may go.
	Commit(State) error
	// Committed is the last stored state.
	Committed() State
	// Lag is what lies behind the committed position.
	Lag() Lag
	// Recount makes the counts of the records between Read and the tail hold for the
	// backend's present selectors, where their headers were written for others: it
	// gives each such record to count, now for the sum and again when Next or Skip
	// passes it. It does nothing where all headers fit. Called once, before the
	// first Next.
	Recount(ctx context.Context, count func(*series.Batch) (series.Counts, error)) error
	// Floor is the position up to which the journal needs the cursor to move on,
	// because its disk budget is used up and on_full is drop_oldest; zero when it
	// does not.
	Floor() Position
	// FloorRaised has a value when Floor may have become greater since the channel was
	// read last. It is never closed; one goroutine reads it.
	FloorRaised() <-chan struct{}
	// PositionAt is the start of the oldest record that is inside of the given
	// bounds, seen from the tail: at most maxBytes behind it and received at or
	// after oldest. Zero values do not bound.
	PositionAt(maxBytes int64, oldest time.Time) Position
	Close() error
}

// Reader reads a stretch of the journal for the named backend beside its cursor: to
// rebuild state, or to send later what was withheld. Next and StepOver are called by
// one goroutine at a time; all other methods by any. It keeps nothing from going; see
// Journal.Retain.
type Reader interface {
	// Next returns the record at the position and moves behind it. It does not wait:
	// ok is false at the tail. Counts are what the backend takes of the record by the
	// list it was written with. Damaged records are stepped over as by Cursor.Next.
	// When records at the position went for the disk budget, it returns a *GoneError
	// once and goes on behind them. After any other error it stands where it was.
	Next() (rec Record, ok bool, err error)
	// Position is where the next record is looked for.
	Position() Position
	// Done says that the caller uses no series ids of records that start before upTo
	// any more. Until then the ids of every record that was read stay those of their
	// series, be they from the journal or looked up by the caller: series that went
	// idle since are not forgotten. Close is Done with everything.
	Done(upTo Position)
	// StepOver is as Cursor.StepOver. It may return a *GoneError as Next does.
	StepOver() error
	// Damaged returns and resets the counts of records that Next and StepOver stepped
	// over because they could not be read.
	Damaged() series.Counts
	Close() error
}

// GoneError is returned by Reader.Next when the records between From and To were
// removed, or before the reader was opened.
type GoneError struct{ From, To Position }

func (e *GoneError) Error() string {
	return fmt.Sprintf("the records from position %s to %s are gone from the journal", e.From, e.To)
}
