package lockbench

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/sluice-metrics/sluice/lock"
)

// mortal is a lock.Store of a process that can die: from then on the backend hears nothing
// more of it.
type mortal struct {
	lock.Store
	dead atomic.Bool
}

var errDead = errors.New("this holder plays dead")

// Renew implements lock.Store.
func (m *mortal) Renew(ctx context.Context, g lock.Grant) (lock.Grant, error) {
	if m.dead.Load() {
		return g, errDead
	}
	return m.Store.Renew(ctx, g)
}

// Release implements lock.Store.
func (m *mortal) Release(ctx context.Context, g lock.Grant) error {
	if m.dead.Load() {
		return errDead
	}
	return m.Store.Release(ctx, g)
}
