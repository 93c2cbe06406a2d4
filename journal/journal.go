// Package journal says what the gateway asks of its durable, full-resolution log.
// journal/disk keeps it in segment files.
package journal

import (
	"context"
	"errors"
	"fmt"
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
}

// Totals are the settled parts of the accounting equation, since the cursor was
// first opened.
type Totals struct {
	Delivered   series.Counts            `json:"delivered"`
	Rejected    map[string]series.Counts `json:"rejected,omitempty"` // by reason
	GivenUp     map[string]series.Counts `json:"given_up,omitempty"` // by reason
	Redelivered series.Counts            `json:"redelivered"`        // part of Delivered that was sent after a restart and may have been there
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

// Cursor reads the journal for one backend. Next, Skip and Recount are called by one
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
	// Damaged returns and resets the counts of records that Next stepped over
	// because they could not be read.
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
	// PositionAt is the start of the oldest record that is inside of the given
	// bounds, seen from the tail: at most maxBytes behind it and received at or
	// after oldest. Zero values do not bound.
	PositionAt(maxBytes int64, oldest time.Time) Position
	Close() error
}
