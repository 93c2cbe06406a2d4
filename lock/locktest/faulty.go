// Package locktest is the conformance suite of the kinds of locks, and the faults that it
// is made with.
package locktest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/lock"
)

// Op is a method of lock.Store.
type Op int

// The methods that can fail.
const (
	Grant Op = iota
	Find
	Renew
	Release
	Holder
	ops
)

// Fault is what happens to a call.
type Fault int

// The faults.
const (
	None      Fault = iota
	Cut             // refused at once; the backend never hears of it
	Stall           // no answer before the context ends; the backend never hears of it
	LoseReply       // done by the backend, and then no answer
)

// ErrInjected is what calls fail with, apart from Stall.
var ErrInjected = errors.New("injected fault")

// Faulty is a lock.Store that fails on demand. Its methods may be called from several
// goroutines.
type Faulty struct {
	lock.Store

	mu     sync.Mutex
	faults [ops]Fault
	delays [ops]time.Duration
	calls  [ops]int
	last   lock.Grant
	with   error // what Cut fails with; nil: ErrInjected
}

// NewFaulty returns a Store that passes everything on, for now.
func NewFaulty(s lock.Store) *Faulty { return &Faulty{Store: s} }

// Set lets the calls fail from now on.
func (f *Faulty) Set(fault Fault, list ...Op) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, op := range list {
		f.faults[op] = fault
	}
}

// SetAll lets all calls fail from now on.
func (f *Faulty) SetAll(fault Fault) { f.Set(fault, Grant, Find, Renew, Release, Holder) }

// FailWith lets calls that are Cut fail with the error.
func (f *Faulty) FailWith(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.with = err
}

// AllCalls is how often all methods together were called.
func (f *Faulty) AllCalls() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, calls := range f.calls {
		n += calls
	}
	return n
}

// Delay lets the calls of a method take longer by d, whatever their context says, before
// the backend hears of them.
func (f *Faulty) Delay(op Op, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delays[op] = d
}

// Calls is how often the method was called.
func (f *Faulty) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// Last is the newest grant that the Store gave.
func (f *Faulty) Last() lock.Grant {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// call does what is set for the method around the call of the Store.
func (f *Faulty) call(ctx context.Context, op Op, inner func(context.Context) error) error {
	f.mu.Lock()
	f.calls[op]++
	fault, delay, with := f.faults[op], f.delays[op], f.with
	f.mu.Unlock()
	switch fault {
	case Cut:
		if with != nil {
			return with
		}
		return ErrInjected
	case Stall:
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if delay > 0 {
		time.Sleep(delay)
		ctx = context.WithoutCancel(ctx)
	}
	err := inner(ctx)
	if fault == LoseReply {
		return ErrInjected
	}
	return err
}

// Grant implements lock.Store.
func (f *Faulty) Grant(ctx context.Context, c lock.Claim) (g lock.Grant, err error) {
	err = f.call(ctx, Grant, func(ctx context.Context) error {
		g, err = f.Store.Grant(ctx, c)
		f.note(g, err)
		return err
	})
	return g, err
}

// Find implements lock.Store.
func (f *Faulty) Find(ctx context.Context, c lock.Claim) (g lock.Grant, err error) {
	err = f.call(ctx, Find, func(ctx context.Context) error {
		g, err = f.Store.Find(ctx, c)
		f.note(g, err)
		return err
	})
	return g, err
}

func (f *Faulty) note(g lock.Grant, err error) {
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = g
}

// Renew implements lock.Store.
func (f *Faulty) Renew(ctx context.Context, g lock.Grant) (renewed lock.Grant, err error) {
	err = f.call(ctx, Renew, func(ctx context.Context) error {
		renewed, err = f.Store.Renew(ctx, g)
		return err
	})
	return renewed, err
}

// Release implements lock.Store.
func (f *Faulty) Release(ctx context.Context, g lock.Grant) error {
	return f.call(ctx, Release, func(ctx context.Context) error { return f.Store.Release(ctx, g) })
}

// Holder implements lock.Store.
func (f *Faulty) Holder(ctx context.Context, name string) (info lock.HolderInfo, err error) {
	err = f.call(ctx, Holder, func(ctx context.Context) error {
		info, err = f.Store.Holder(ctx, name)
		return err
	})
	return info, err
}

// Await implements lock.Awaiter where the Store does.
func (f *Faulty) Await(ctx context.Context, name string) error {
	if a, ok := f.Store.(lock.Awaiter); ok {
		return a.Await(ctx, name)
	}
	return errors.ErrUnsupported
}
