// Package lock gives out leases: the right to do a job alone for a while, kept by
// renewals, ended by release or by time.
//
// A lease cannot guarantee that nobody else does the job: a process that is paused
// between its check and its write wakes up after another has taken over. Three
// measures stand against that, each stronger than the one before:
//
//   - Done and Context end no later than the backend's own expiry minus a margin;
//   - Valid, asked immediately before an effect, compares the clock with the deadline;
//   - Token grows with every grant of a name, so that a store which compares tokens (a
//     Fence, a row, a compare-and-swap) refuses what a former holder still sends. Only
//     this one is a proof. Kinds that cannot give one have the token 0.
//
// The timing is in one place, Engine; what differs between etcd, Redis, PostgreSQL and
// the process' own memory is a Store.
package lock

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Why a lease ended, as Lease.Err and the cause of Lease.Context say it, wrapped with the
// name of the lock and what led to it.
var (
	// ErrReleased is the end by Release.
	ErrReleased = errors.New("lease was released")
	// ErrExpired is the end by time: no renewal was confirmed before the deadline.
	ErrExpired = errors.New("lease expired before a renewal was confirmed")
	// ErrLost is the end by the backend's word: the lease is gone, or another has it.
	ErrLost = errors.New("lease is gone from the backend, or another has it")
)

// Why a lease was not given.
var (
	// ErrHeld says that another holds the lock.
	ErrHeld = errors.New("lock is held by another")
	// ErrLate says that the backend granted the lease so slowly that its deadline had
	// passed when the answer came. The lease was given back.
	ErrLate = errors.New("lease was granted too late to be used")
	// ErrClosed says that the Locker was closed.
	ErrClosed = errors.New("locker is closed")
)

// Lease is a lock that was acquired. All methods may be called from several goroutines.
type Lease interface {
	// Done is closed when the lease has ended, for whatever reason, and no later than the
	// backend lets another have it, less a margin.
	Done() <-chan struct{}
	// Err is nil while Done is open. Then it wraps ErrReleased, ErrExpired or ErrLost.
	Err() error
	// Valid compares the monotonic clock with the deadline. It is to be called right before
	// each effect that the lease guards: after a pause of the process it is false even
	// when Done is not closed yet. Once false it stays false.
	Valid() bool
	// Deadline is the time until which the lease holds without another renewal. It carries
	// a monotonic clock reading.
	Deadline() time.Time
	// Token is the fencing token: greater for every later grant of the same name. 0 says
	// that the backend has none.
	Token() uint64
	// Context has the values of the context that Acquire was called with, but not its
	// end. It is cancelled with the cause Err when Done closes.
	Context() context.Context
	// Release closes Done and tells the backend, so that another need not wait for the
	// expiry. It tries until the context ends or the lease has expired at the backend. An
	// error says that the backend was not told: the lease ends there by its expiry. It is
	// idempotent; of a lease that has ended otherwise it does nothing.
	Release(ctx context.Context) error
}

// Locker acquires leases from one backend. Its methods may be called from several
// goroutines.
type Locker interface {
	// Acquire waits until it has the lock or the context ends, and retries while the
	// backend does not answer. The error then wraps the context's and what the last
	// attempt said.
	Acquire(ctx context.Context, name string, o Options) (Lease, error)
	// TryAcquire makes one attempt. It returns an error that wraps ErrHeld when another
	// holds the lock.
	TryAcquire(ctx context.Context, name string, o Options) (Lease, error)
	// Holder says who holds the lock; with Held false nobody does. It is a picture of a
	// moment, for people and metrics, and nothing to decide by.
	Holder(ctx context.Context, name string) (HolderInfo, error)
	// Close releases all leases and closes the backend. It returns when all that the
	// Locker started has returned.
	Close() error
}

// HolderInfo is who holds a lock.
type HolderInfo struct {
	// Held is false when nobody holds the lock.
	Held bool
	// Instance is the name of the holder's process, see EngineOptions.
	Instance string
	// Token is the holder's fencing token; 0 where the backend has none.
	Token uint64
	// Remaining is how long the backend keeps the lease without a renewal; 0 where it
	// does not say.
	Remaining time.Duration
}

// DefaultTTL is the TTL of Options that name none.
const DefaultTTL = 2 * time.Second

// MinTTL is the shortest TTL. Below it the margin, which covers the scheduling of a busy
// machine, would leave no time between renewals.
const MinTTL = 300 * time.Millisecond

// Options are how a lease is held.
type Options struct {
	// TTL is how long the backend shall keep the lease after a renewal: what others wait
	// when this process dies. 0 is DefaultTTL. A backend may grant more than asked for;
	// deadlines count from what it granted.
	TTL time.Duration
	// RenewEvery is the time between renewals; 0 is a third of the TTL that was granted.
	RenewEvery time.Duration
}

func (o Options) withDefaults() (Options, error) {
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.TTL < MinTTL {
		return o, fmt.Errorf("TTL %v is too short, use %v or more", o.TTL, MinTTL)
	}
	if o.RenewEvery < 0 || o.RenewEvery > o.TTL/2 {
		return o, fmt.Errorf("RenewEvery %v must be between 0 and half of the TTL %v", o.RenewEvery, o.TTL)
	}
	return o, nil
}

// every is the time between renewals at the granted TTL.
func (o Options) every(granted time.Duration) time.Duration {
	if o.RenewEvery > 0 {
		return o.RenewEvery
	}
	return granted / 3
}

// margin is kept free before the backend's expiry: for the difference of the clocks' speed
// and for the time until somebody has seen that Done is closed.
func margin(ttl time.Duration) time.Duration { return max(100*time.Millisecond, ttl/20) }

// callLimit bounds one call during a lease. Calls are short and repeated soon: one that was
// sent to a member which is just dying must not use up the time that is left for asking
// another one.
func callLimit(ttl time.Duration) time.Duration { return min(ttl/6, 300*time.Millisecond) }

// attemptLimit bounds one attempt to acquire. It leaves room for a new connection, which a
// renewal does not need, and ends before the grant would come too late.
func attemptLimit(ttl time.Duration) time.Duration { return ttl / 2 }

// retryPause is the pause after a call that failed. That of attempts to acquire doubles
// with each failure up to longestPause, or refusedPause: a backend that is slow because it has too much to do
// must not get more to do by that.
const (
	retryPause   = 50 * time.Millisecond
	longestPause = 200 * time.Millisecond
	refusedPause = 10 * time.Second // after refusals: somebody has to mend something
)
