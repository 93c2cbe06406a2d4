package lock

import (
	"context"
	"errors"
	"strings"
	"time"
)

// ErrNotHeld is what Store.Find returns when the claim did not come into force.
var ErrNotHeld = errors.New("lock is not held by this claim")

// ErrWithdrawn marks an error of Store.Grant after which the claim is not to be used any
// more: the store has begun to take back what came into force, and calls for that may
// still be under way.
var ErrWithdrawn = errors.New("claim was withdrawn")

// Why an error of Store.Grant leaves no doubt that the claim did not come into force: the
// Engine neither reads it back nor withdraws it.
var (
	// ErrRefused marks an answer that another attempt soon will get again: wrong
	// credentials, a missing privilege, a server that does not take writes.
	ErrRefused = errors.New("refused by the backend")
	// ErrUnsent marks an error that came before anything was sent: no connection.
	ErrUnsent = errors.New("the backend was not reached")
)

// Marked is err, marked with one of the errors of this package, and with the text of err
// alone.
func Marked(mark, err error) error { return &marked{mark, err} }

type marked struct{ mark, err error }

func (m *marked) Error() string   { return m.err.Error() }
func (m *marked) Unwrap() []error { return []error{m.mark, m.err} }

// void reports whether nothing came of a Grant with this error, nor will.
func void(err error) bool { return errors.Is(err, ErrRefused) || errors.Is(err, ErrUnsent) }

// Store is a backend as an Engine uses it: single calls, each bounded by its context,
// without retries and without deadlines. Its methods are called from several goroutines.
//
// A claim is identified by its Holder, which no other claim has. All calls are to be
// conditional on it (or on the token), so that a call that is late by any time changes
// nothing of another's lease.
type Store interface {
	// Kind is the kind's key in the configuration, and the label kind of the metrics.
	Kind() string
	// Grant makes one attempt to take the name. An error that is ErrHeld says that
	// another has it; a *HeldError also says who. One that is ErrRefused or ErrUnsent says
	// that nothing came of this attempt. Any other error leaves the outcome unknown. A
	// claim that holds the name already is granted again.
	Grant(ctx context.Context, c Claim) (Grant, error)
	// Find reads back what became of a Grant with an unknown outcome: the grant, or an
	// error that is ErrNotHeld, or another one when that is not known either.
	Find(ctx context.Context, c Claim) (Grant, error)
	// Renew extends the lease and returns the grant with a new TTL. An error that is
	// ErrLost says that the backend does not have this lease any more; with any other one
	// the lease may have been extended or not.
	Renew(ctx context.Context, g Grant) (Grant, error)
	// Release gives the name back if this claim holds it; that it does not is no error. The
	// grant may have come from a claim with an unknown outcome: it has the token 0 then.
	Release(ctx context.Context, g Grant) error
	// Holder is Locker.Holder.
	Holder(ctx context.Context, name string) (HolderInfo, error)
	// Close frees what the store holds. No call is under way or comes after it.
	Close() error
}

// Awaiter is a Store that can tell when a name becomes free. The names of others are
// polled.
type Awaiter interface {
	// Await returns when the name may be free, or with an error when the context ends
	// or the backend cannot tell.
	Await(ctx context.Context, name string) error
}

// Recorder is a Store that keeps small records beside its locks, which do not expire. Its
// methods may be called from several goroutines, like those of Store.
type Recorder interface {
	// ReadRecord returns a record and its revision. The revision of one that is not there
	// is 0.
	ReadRecord(ctx context.Context, name string) (value []byte, revision uint64, err error)
	// SwapRecord writes a record if it still has the revision, and returns the new one.
	// swapped is false when it has another. After an error the record may have been
	// written or not.
	SwapRecord(ctx context.Context, name string, revision uint64, value []byte) (written uint64, swapped bool, err error)
}

// Claim is a request for a lease.
type Claim struct {
	// Name is the name of the lock, not empty.
	Name string
	// Holder is different for every acquisition. It begins with the instance, see
	// InstanceOf.
	Holder string
	// TTL is what is asked for.
	TTL time.Duration
	// Unsure is set when an earlier attempt with the same Holder got no answer, so that
	// it may come into force at any later time.
	Unsure bool
}

// Grant is a lease as a Store knows it.
type Grant struct {
	Claim
	// Token is the fencing token, 0 where there is none.
	Token uint64
	// Granted is the TTL that the backend gave. 0 stands for the claim's.
	Granted time.Duration
	// Since is when the request was sent from which on the TTL counts at the latest. Zero
	// stands for the call that returned the grant; a store sets it where that was an
	// earlier one.
	Since time.Time
	// Handle is for the store: what it needs to know the lease by, such as an etcd lease's
	// id.
	Handle int64
}

// HeldError is ErrHeld with the name of the holder.
type HeldError struct{ By HolderInfo }

func (e *HeldError) Error() string {
	if e.By.Instance == "" {
		return ErrHeld.Error()
	}
	return "lock is held by " + e.By.Instance
}

// Is makes it an ErrHeld.
func (e *HeldError) Is(target error) bool { return target == ErrHeld }

const instanceSeparator = "/"

// InstanceOf is the instance that a Claim's Holder begins with.
func InstanceOf(holder string) string {
	if i := strings.LastIndex(holder, instanceSeparator); i >= 0 {
		return holder[:i]
	}
	return holder
}
