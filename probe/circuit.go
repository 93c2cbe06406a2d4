package probe

import "time"

// CircuitState says whether a replica may be read from.
type CircuitState string

// The states of a circuit.
const (
	CircuitClosed   CircuitState = "closed"    // reads may go there
	CircuitOpen     CircuitState = "open"      // no reads
	CircuitHalfOpen CircuitState = "half_open" // no reads yet, but good probes are counted
)

const (
	// goodShare is the share of the limit under which a probe counts as good, so that a
	// replica at the limit does not go in and out.
	goodShare = 0.7
	// goodAfterLag and goodAfterRole are how many good probes in a row close a circuit.
	goodAfterLag  = 3
	goodAfterRole = 1
)

// Circuit takes one replica out of reading and lets it in again. The zero Circuit is
// closed. It has no clock and is not safe for concurrent use.
type Circuit struct {
	missing int // good probes until it closes; 0 is closed
	need    int
	opened  uint64
}

// Observe notes the lag that one probe found, and how much lag is allowed. An unknown
// lag opens nothing, but is no good probe.
func (c *Circuit) Observe(lag Maybe[time.Duration], limit time.Duration) {
	switch {
	case lag.Known && lag.Value > limit:
		c.open(goodAfterLag)
	case c.missing == 0:
	case lag.Known && float64(lag.Value) < goodShare*float64(limit):
		c.missing--
	default:
		c.missing = c.need
	}
}

// ChangeRole opens the circuit until one good probe.
func (c *Circuit) ChangeRole() { c.open(goodAfterRole) }

func (c *Circuit) open(need int) {
	if c.missing == 0 {
		c.opened++
		c.need = 0
	}
	c.need = max(c.need, need)
	c.missing = c.need
}

// State is the state now.
func (c *Circuit) State() CircuitState {
	switch c.missing {
	case 0:
		return CircuitClosed
	case c.need:
		return CircuitOpen
	}
	return CircuitHalfOpen
}

// Opened is how often it has opened.
func (c *Circuit) Opened() uint64 { return c.opened }

// ReadWeight is the share of reads that a replica should get, of 100 for one that is
// idle and has everything: less with lag and with client connections, never less than 1.
func ReadWeight(lag time.Duration, connections uint64) int {
	if lag >= 20*time.Second || connections >= 1000 {
		return 1
	}
	return max(1, 100-int(lag/time.Second)*5-int(connections/10))
}

// risePerSecond bounds how fast the weight of a replica that was out returns.
const risePerSecond = 20

// ramp lets a weight fall at once and rise slowly.
type ramp struct {
	weight float64
	at     time.Time
}

// follow moves towards the weight that is right now. The first weight ever is taken as it
// is: nothing was out before.
func (r *ramp) follow(weight int, now time.Time) {
	to := float64(weight)
	if !r.at.IsZero() {
		to = min(to, r.weight+risePerSecond*now.Sub(r.at).Seconds())
	}
	r.weight, r.at = to, now
}

// value is the weight in force; one that is not 0 is at least 1.
func (r *ramp) value() int {
	if r.weight <= 0 {
		return 0
	}
	return max(1, int(r.weight))
}
