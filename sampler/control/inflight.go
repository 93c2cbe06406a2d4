package control

import (
	"math"
	"time"
)

// What a lagging backend is sent waits in the journal, not in the backend. A bound of the
// samples in flight makes it so. Three things follow. Writes take about as long as they do
// without a queue at the backend, so that their latency says how the backend is, and not how
// much was sent. What waits can still be thinned. And as long as a little waits, the backend
// is never idle and its throughput is its capacity: one that is back is seen at once, without
// probing for it.
//
// By Little's law the bound is the capacity times the time that a write is to take. A backend
// that is far away, or slow for another reason than what it is sent, is not made quicker by
// that: it would be sent less, that would be taken for its capacity, and so on. So the bound
// falls by half in a trial, and where the throughput falls with it, it is taken back.
const (
	aimedLatency = 0.4 // pressure of the latency that is aimed at
	overUnloaded = 1.3 // and at least this much of the latency without a queue

	unboundAfter = 15 * time.Second
	trialFor     = 4 * time.Second
	trialTo      = 0.5 // of the bound at the start, the lowest in a trial
	narrower     = 0.6 // of the bound at the start, that count as lower
	throttled    = 0.7 // of the capacity at the start, that count as made by the bound

	coarser    = 2                       // times what is aimed at, for a single batch
	certain    = 1900 * time.Millisecond // of a backlog that grows fast, that do not come of writes that take longer from now on
	collapse   = 0.25                    // of what comes in, by which a backlog grows a second whose backend clearly takes too little
	waitingFor = 0.1                     // seconds of what comes in, beyond what is in flight, from which on the backend is never idle
)

// bound decides how much may be in flight.
func (t *tick) bound(dt time.Duration) {
	s := &t.s
	switch {
	case t.latency >= red || t.queue >= red || t.from > 0:
		s.Bounded = true
	case min(s.Green, s.SinceMove) >= unboundAfter && !t.busy:
		s.Bounded = false
	}
	switch {
	case !s.Bounded || !t.in.AcknowledgedKnown || t.latencyLimit == 0 || t.coarse():
		s.MaxInFlight = 0
	case s.Silent > 0 || s.Capacity == 0:
		// Nothing new is known of the capacity.
	default:
		t.narrow(dt)
	}
	t.d.MaxInFlight = s.MaxInFlight
}

// aimed is the bound that is aimed at.
func (t *tick) aimed() float64 {
	return t.s.Capacity * t.latencyLimit * max(aimedLatency, overUnloaded*t.s.Unloaded)
}

// coarse reports whether a single batch is more than what is to be in flight: then writes
// are too slow as soon as the backend is never idle.
func (t *tick) coarse() bool { return t.s.Batch*t.c.rate(t.from) > coarser*t.aimed() }

// Trial is of a lower bound of the samples in flight. Bound and Capacity are those at its
// start.
type Trial struct {
	Since    time.Duration `json:"since"`
	Bound    float64       `json:"bound"`
	Capacity float64       `json:"capacity"`
	// First says that nothing was bounded before it.
	First bool `json:"first"`
}

// narrow moves the bound towards what is aimed at.
func (t *tick) narrow(dt time.Duration) {
	s := &t.s
	now := finite(t.in.Acknowledged)
	s.Trial.Since += dt
	switch {
	case s.MaxInFlight == 0:
		s.MaxInFlight = max(finite(t.in.InFlight), t.aimed())
		s.Trial = Trial{Bound: s.MaxInFlight, Capacity: s.Capacity, First: true}
	case s.Trial.First && s.Growing >= certain && now > 0:
		// The backend takes too little, and it is known how much.
		s.Capacity = min(s.Capacity, now)
		s.MaxInFlight = t.aimed()
		s.Trial = Trial{Bound: s.MaxInFlight, Capacity: s.Capacity}
	default:
		lowest := s.MaxInFlight * math.Pow(trialTo, dt.Seconds()/trialFor.Seconds())
		s.MaxInFlight = max(lowest, t.aimed())
	}
	if s.Trial.Since < trialFor {
		return
	}
	if s.MaxInFlight <= narrower*s.Trial.Bound && s.Capacity <= throttled*s.Trial.Capacity {
		s.Unloaded, s.Capacity = t.latency, s.Trial.Capacity
		s.MaxInFlight = max(s.Trial.Bound, t.aimed())
		s.Overload, s.Refuted = 0, false
	}
	s.Trial = Trial{Bound: s.MaxInFlight, Capacity: s.Capacity}
}

// saturated reports whether there is always something to send for a backend whose samples
// in flight are bounded.
func (t *tick) saturated(backlog float64) bool {
	if t.s.MaxInFlight == 0 {
		return false
	}
	offered := max(t.s.Offered, finite(t.in.Offered))
	return backlog-t.s.Burst-t.s.MaxInFlight/t.c.rate(t.from) > waitingFor*offered
}
