// Package exporter delivers the journal to one backend: a Lane reads its cursor, takes
// what is routed to the backend, collects it into parcels, sends them with as much
// parallelism as order and the backend allow, retries, divides what is refused, and
// commits what is settled. The kinds of backends are its sub-packages.
package exporter

import (
	"context"
	"fmt"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Backend is one storage. Its methods may be called from several goroutines.
type Backend interface {
	// Prepare puts a parcel into the form in which it will be sent. It does not
	// block on the network. The parcel and its batches stay valid until
	// Delivery.Close.
	Prepare(p *Parcel) (Delivery, error)
	// Probe makes a harmless attempt that tells whether a backend that denied
	// everything (see Denied) would accept again; nil when it would, or when only a
	// real request can tell.
	Probe(ctx context.Context) error
	Close() error
}

// Delivery is a prepared parcel. It is used by one goroutine.
type Delivery interface {
	// Send makes one attempt. attempt counts from 0. It returns nil when the
	// backend has everything that Tally says was sent, or a *Error; every error
	// that is not one counts as Retry with Unknown set.
	Send(ctx context.Context, attempt int) (Receipt, error)
	// Tally says what of the parcel's part is in what is sent and what could not be
	// expressed for this backend. Fixed when Prepare returns.
	Tally(part int) Tally
	Close()
}

// Refuser is implemented by deliveries to backends that say of each sample whether they
// took it, so that nothing has to be divided to find out.
type Refuser interface {
	// Refused is what the backend refused of the parcel's part, by reason. It holds
	// once Send has returned nil, and is a part of Tally.Sent: what was sent and not
	// refused is delivered. The Receipt tells nothing then.
	Refused(part int) []Drop
}

// Syncer is implemented by backends that keep what they take on this machine. With
// durability: fsync the lane calls Sync before it commits that they have it.
type Syncer interface {
	// Sync returns when everything that Send has taken survives a loss of power.
	Sync() error
}

// Separator is implemented by backends to which some parts are better sent in requests of
// their own than together with others.
type Separator interface {
	Apart(*Part) bool
}

// Tally is what the encoding of one part holds. Sent and Dropped together are what
// the part's selection holds.
type Tally struct {
	Sent    series.Counts
	Dropped []Drop
}

// Drop is what an encoding left out, by reason; see the list in metrics.go.
type Drop struct {
	Reason string
	Counts series.Counts
}

// Receipt is what a backend said about a successful attempt.
type Receipt struct {
	// Written is what the backend says it wrote. Told is false when it says
	// nothing.
	Written series.Counts
	Told    bool
}

// Parcel is a run of batches, or of parts of them, that goes to a backend as one
// request. No two parcels in flight in a lane hold samples of one series, but for
// the halves of a divided one, which are sent one after the other.
type Parcel struct {
	Parts []Part
	// Kept is the share of the samples that is sent at present, 0 to 1; the rest is
	// withheld by sampling.
	Kept float64
}

// Part is what a backend gets of one batch.
type Part struct {
	Batch *series.Batch // IDs are set
	// Take is the ordinals of the series in it; nil takes the batch as it is, with
	// all that the body holds beside series.
	Take series.Set
}

// Class says what a lane does about a failed attempt.
type Class uint8

const (
	// Retry: try the same again after a pause (5xx, network errors).
	Retry Class = iota
	// Throttled: as Retry, but the backend asks for less (429, or Retry-After).
	Throttled
	// Rejected: the backend will never take this content; divide it (400, 413, 422).
	Rejected
	// Denied: the backend takes nothing from us as things are; hold all and probe
	// (401, 403, 404, 405, 407).
	Denied
	// Renegotiate: the backend wants another encoding; Prepare again and send at
	// once (415 and its kin). A Backend returns it a bounded number of times.
	Renegotiate
)

func (c Class) String() string {
	switch c {
	case Retry:
		return "retry"
	case Throttled:
		return "throttled"
	case Rejected:
		return "rejected"
	case Denied:
		return "denied"
	case Renegotiate:
		return "renegotiate"
	}
	return "unknown"
}

// Error is a failed attempt.
type Error struct {
	Class    Class
	Status   int           // HTTP status, 0 where there was none
	After    time.Duration // how long the backend asks to wait; 0 when it does not say
	Unknown  bool          // part of the attempt's content may have been written
	TooLarge bool          // Rejected because of its size (413)
	Message  string        // the backend's own words, at most 1 KiB, control characters escaped
	Err      error         // the cause, where it is not the backend's answer
}

func (e *Error) Error() string {
	s := e.Class.String()
	if e.Status != 0 {
		s = fmt.Sprintf("%s: status %d", s, e.Status)
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }
