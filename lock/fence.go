package lock

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Fence refuses what the former holder of a lease still sends: of each name it accepts
// only tokens that are not below the highest one that it has seen. It is as good as its
// memory: where effects are stored for longer than a process lives, the highest token
// has to be stored with them, and compared there.
//
// Its methods may be called from several goroutines.
type Fence struct {
	refused prometheus.Counter

	mu      sync.Mutex
	highest map[string]uint64
}

// NewFence returns a Fence that accepts every name's first token. The resource is the label
// of what it refuses; one Fence guards one resource.
func NewFence(resource string, m *Metrics) *Fence {
	return &Fence{refused: m.rejections.WithLabelValues(resource), highest: map[string]uint64{}}
}

// Accept reports whether an effect under the token may happen. The token 0 comes from a
// backend that cannot fence and is accepted only as long as no other was seen.
func (f *Fence) Accept(name string, token uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if token < f.highest[name] {
		f.refused.Inc()
		return false
	}
	f.highest[name] = token
	return true
}

// Admit reports whether an effect under the lease may happen: it has not ended, and its
// token is not below the highest one. It is to be asked right before the effect.
func (f *Fence) Admit(name string, l Lease) bool {
	if !l.Valid() {
		f.refused.Inc()
		return false
	}
	return f.Accept(name, l.Token())
}

// Learn raises what is known of the name's tokens, by one that was seen elsewhere.
func (f *Fence) Learn(name string, token uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.highest[name] = max(f.highest[name], token)
}

// Highest is the highest token that was seen of the name, 0 for none.
func (f *Fence) Highest(name string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.highest[name]
}

// Reset forgets the name. A backend that lost its data begins to count anew, below what
// was seen; from then on everything is refused until somebody who knows that no former
// holder is left says so by this call.
func (f *Fence) Reset(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.highest, name)
}
