package tsdb

import (
	"context"
	"sync"
)

// gate keeps the store open while something reads or appends: closing a store under a
// running query takes the mapped memory away that the query reads.
type gate struct {
	// closing is cancelled when the gate closes, so that those inside can hurry.
	closing context.Context
	cancel  context.CancelFunc

	mu     sync.Mutex
	closed bool
	inside sync.WaitGroup
}

func newGate() *gate {
	g := &gate{}
	g.closing, g.cancel = context.WithCancel(context.Background())
	return g
}

// enter reports whether the gate is open; each success is followed by one leave.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.inside.Add(1)
	return true
}

func (g *gate) leave() { g.inside.Done() }

// close lets nobody in any more and waits until all have left. It reports whether
// this call closed the gate.
func (g *gate) close() bool {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	g.mu.Unlock()
	g.cancel()
	g.inside.Wait()
	return first
}
