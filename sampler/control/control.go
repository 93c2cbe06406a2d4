package control

import (
	"math"
	"time"
)

// Step goes on by dt with what was measured at its end, and says which rate holds from
// then on. c is a valid configuration. A dt that is not above 0 counts as none.
func Step(c *Config, s State, in Inputs, dt time.Duration) (State, Decision) {
	t := tick{c: c, s: s, in: in, from: min(max(s.Rung, 0), c.bottom())}
	t.s.Rung = t.from
	t.look()
	t.follow(max(dt, 0))
	t.bound(max(dt, 0))
	t.act()
	t.d.Rate, t.d.Before = c.rate(t.s.Rung), c.rate(t.from)
	return t.s, t.d
}

// tick is one Step in the making.
type tick struct {
	c    *Config
	s    State
	in   Inputs
	from int // the rung before
	d    Decision

	pressure     float64
	queue        float64 // pressure of what waits
	latency      float64
	latencyKnown bool
	latencyLimit float64       // threshold of the latency in seconds; 0: off, or not known
	batches      float64       // that wait or are in flight
	others       float64       // pressure of what is neither queue nor latency
	flight       time.Duration // how long what is sent is on its way
	memory       float64
	unknown      bool    // a signal that counts is not known
	slope        float64 // of the pressure, a second
	growth       float64 // of the backlog, samples a second
	excess       float64 // samples that wait beyond a burst
	burst        bool    // what waits is a burst
	waits        float64 // pressure of the queue without bursts
	busy         bool    // the backend takes what it can
	easing       bool    // what is neither queue nor latency does not get worse
	// fit is the rate at which what arrives and what waits in excess fit into the
	// capacity; without a limit where nothing arrives.
	fit      float64
	fitKnown bool
}

// look reads the signals.
func (t *tick) look() {
	decides := -1
	for i, s := range t.in.Signals {
		if s.Name == QueueLength && s.known() {
			t.batches = finite(s.Value)
		}
		if s.off() {
			continue
		}
		if !s.known() {
			t.unknown = true
			if t.d.unknown == "" {
				t.d.unknown = s.Name
			}
			continue
		}
		p := s.Pressure()
		switch {
		case s.queue():
			t.queue = max(t.queue, p)
		case s.Name != WriteLatency:
			t.others = max(t.others, p)
		}
		switch s.Name {
		case Memory:
			t.memory = p
		case WriteLatency:
			t.latency, t.latencyKnown, t.latencyLimit = p, true, s.Threshold/1000
			t.flight = time.Duration(min(max(s.Value, 0), 60_000) * float64(time.Millisecond))
		}
		if decides < 0 || p > t.pressure {
			decides, t.pressure = i, p
		}
	}
	if decides >= 0 {
		t.d.Signal = t.in.Signals[decides]
	}
	if t.unknown && t.c.OnUnknown == Lower && t.pressure < red {
		t.pressure = red
		t.d.Signal = Signal{Name: t.d.unknown}
	}
	if t.memory >= red {
		t.decideBy(Memory)
	}
	t.d.Pressure = t.pressure
	t.d.Cause = t.d.Signal.Name
	t.d.Event = t.pressure >= red
}

// decideBy makes the named signal the one that decides.
func (t *tick) decideBy(name string) {
	for _, s := range t.in.Signals {
		if s.Name == name {
			t.d.Signal = s
		}
	}
}

// follow takes the tick into the averages and times of the state.
func (t *tick) follow(dt time.Duration) {
	s := &t.s
	s.advance(dt)
	backlog := finite(t.in.Backlog)
	t.growth = (backlog - s.Backlog) / trailTau.Seconds()
	s.Growing = lasting(s.Growing, dt, backlog-s.Waiting >= collapse*s.Offered*dt.Seconds())
	s.Waiting = backlog
	s.Backlog = toward(s.Backlog, backlog, dt, trailTau)
	t.slope = (t.pressure - s.Trail) / trailTau.Seconds()
	s.Trail = toward(s.Trail, t.pressure, dt, trailTau)
	if t.batches > 0 && backlog > 0 {
		s.Batch = backlog / max(t.batches, 1)
	}
	t.busy = t.bottleneck(backlog)
	if t.latencyKnown {
		s.follow(t.latency, dt, t.busy)
	}
	s.measure(&t.in, dt, t.busy)
	t.easing = t.others <= s.Others
	s.Others = t.others
	t.excess = max(0, backlog-s.Burst)
	if backlog > 0 {
		t.waits = t.queue * t.excess / backlog
	}
	t.settle(backlog)
	s.Green = lasting(s.Green, dt, t.pressure < amber && !t.unknown)
	s.Calm = lasting(s.Calm, dt, t.pressure < red && !t.unknown)
	s.Red = lasting(s.Red, dt, t.pressure >= red)
	t.fitRate()
}

// settle takes away the pressure of a burst that is gone before the next one comes.
func (t *tick) settle(backlog float64) {
	if t.s.Burst == 0 || t.excess > lean*backlog || t.pressure > max(t.queue, t.latency) {
		return
	}
	t.burst = t.pressure >= amber
	t.pressure = max(min(t.pressure, calm), t.others)
}

// bottleneck reports whether the backend takes what it can, and not only what there is:
// much waits, or what waits changes, or it is much slower than it can be.
func (t *tick) bottleneck(backlog float64) bool {
	if t.queue >= backlogged || t.saturated(backlog) {
		return true
	}
	offered := max(t.s.Offered, finite(t.in.Offered))
	return backlog > fewSeconds*offered && (t.slow() || math.Abs(t.growth) > lean*offered)
}

// slow reports whether writes take too long, and much longer than they would if less were
// sent.
func (t *tick) slow() bool { return t.latency >= red && t.latency >= 2*t.s.Unloaded }

func lasting(d, dt time.Duration, on bool) time.Duration {
	if !on {
		return 0
	}
	return d + dt
}

func (t *tick) fitRate() {
	if !t.in.AcknowledgedKnown || t.s.Capacity == 0 {
		return
	}
	t.fitKnown = true
	need := t.s.Offered
	if p := max(t.queue, t.latency); p > amber {
		need += t.excess * (1 - amber/p) / drainIn.Seconds()
	}
	if need == 0 {
		t.fit = t.c.BaseRate
		return
	}
	t.fit = headroom * t.s.Capacity / need
	if t.queue < red && t.s.Offered > 0 {
		t.fit = max(t.fit, gentle*t.s.Capacity/t.s.Offered)
	}
}

// act moves the rate.
func (t *tick) act() {
	switch {
	case t.memory >= red && (!t.s.Halved || t.s.SinceHalved >= downEvery):
		t.s.Halved, t.s.SinceHalved = true, 0
		t.lower(t.from+halfRungs, halved)
	case t.tracks():
		t.track()
	case t.pressure >= red:
		t.actRed()
	case t.unknown:
		t.d.action = waitsForKnowledge
	case t.pressure >= amber:
		t.actAmber()
	default:
		t.actGreen()
	}
}

func (t *tick) actRed() {
	rested := !t.s.Moved || t.s.SinceDown >= downEvery
	switch {
	case t.settles():
		t.d.action = settling
	case t.s.Age < learnFor:
		t.d.action = learning
	case !rested:
		t.d.action = resting
	case !t.fitKnown:
		t.lower(t.from+halfRungs, halved)
	case t.freshlyRaised() && t.s.Red < t.s.SinceMove:
		t.lower(max(t.from+1, t.c.rungFor(t.fit)), undone)
	case t.fit < lacking*t.c.rate(t.from):
		t.lower(t.c.rungFor(t.fit)+t.again(), fitted)
	case t.soft() && t.from > halfRungs:
		// Less was sent, and it did not help: it is not made by what is sent.
		t.d.action = futile
		if t.s.Red >= calmFor && t.slope <= steady {
			t.climb(slowUp)
		}
	case t.soft() && t.from == halfRungs:
		t.d.action = futile
	case t.s.Silent >= silence:
		t.d.action = silent
	case t.growth < -lean*t.s.Offered:
		t.d.action = draining
	case t.s.Red >= nudgeAfter && (!t.s.Moved || t.s.SinceDown >= nudgeEvery+t.flight):
		t.lower(t.from+1, nudged)
	default:
		t.d.action = watching
	}
}

// again is a rung more for a backend that lags anew although the rate was lowered and has
// not risen since: its capacity falls.
func (t *tick) again() int {
	if t.s.Moved && !t.s.Rose && t.s.Red < t.s.SinceMove && t.s.SinceMove <= forget {
		return 1
	}
	return 0
}

// settles reports whether the pressure falls into the band by itself soon.
func (t *tick) settles() bool {
	const inBand = 0.9
	if t.slope >= 0 || t.memory >= red {
		return false
	}
	return t.pressure-inBand <= -t.slope*settleIn.Seconds()
}

// soft reports whether the backend keeps up, and only is slow or refuses now and then.
func (t *tick) soft() bool {
	if t.queue >= amber || t.slow() {
		return false
	}
	return t.d.Signal.Name == WriteLatency || t.d.Signal.Name == Errors || t.d.Signal.Name == Throttled
}

func (t *tick) freshlyRaised() bool { return t.s.Rose && t.s.SinceMove <= undoWithin }

func (t *tick) actAmber() {
	switch {
	case t.freshlyRaised() && t.probing() && t.slope > 0 && t.growth > 0:
		t.lower(t.from+1, undone)
	case t.slope > 0 && t.queue >= backlogged && t.fitKnown && t.fit < t.c.rate(t.from) && (!t.s.Moved || t.s.SinceDown >= downEvery):
		t.lower(t.c.rungFor(t.fit), fitted)
	case t.s.Calm >= calmFor && t.queue < backlogged && t.slope <= steady:
		t.d.action = watching
		t.climb(slowUp)
	default:
		t.d.action = watching
	}
}

func (t *tick) actGreen() {
	switch {
	case t.from == 0:
		t.d.action = full
	case t.burst:
		t.d.action = bursting
	default:
		t.d.action = watching
	}
	if t.s.Green >= greenFor {
		t.climb(upEvery)
	}
}

// climb goes up a rung, unless it is too early for it.
func (t *tick) climb(every time.Duration) {
	s := &t.s
	if t.from == 0 {
		t.d.action = full
		return
	}
	if t.unknown || !t.in.AcknowledgedKnown {
		t.d.action = waitsForKnowledge
		return
	}
	if s.Silent >= silence {
		t.d.action = silent
		return
	}
	if s.Swing >= uneven {
		every = max(every, unevenUp) // what a rung does shows with the next burst
	}
	if t.probing() && s.SinceMove >= calmFor {
		s.Overload = 0 // it is carried now
	}
	if s.Overload > 0 && s.Offered*t.c.rate(t.from-1) >= headroom*s.Overload && every < s.Probe {
		every = s.Probe
		t.d.action = wary
	}
	if s.Moved && s.SinceMove < every {
		return
	}
	s.Rung = t.from - 1
	s.Moved, s.Rose, s.SinceMove = true, true, 0
	t.d.action, t.d.Direction = raised, 1
}

// probing reports whether as much is sent as was too much lately.
func (t *tick) probing() bool {
	return t.s.Overload > 0 && t.s.Offered*t.c.rate(t.from) >= headroom*t.s.Overload
}

// lower goes down to a rung, at most by half.
func (t *tick) lower(to int, why action) {
	s := &t.s
	to = min(max(to, t.from), t.from+halfRungs, t.c.bottom())
	t.note()
	if to == t.from {
		t.d.action = lowest
		return
	}
	s.Rung = to
	s.Refuted = t.latency >= red && (why == undone || s.Refuted)
	s.Moved, s.Rose, s.SinceMove, s.SinceDown = true, false, 0, 0
	t.d.action, t.d.Direction = why, -1
}

// note remembers the load that was too much. Where it is found again soon after the rate
// rose, the next attempt waits longer.
func (t *tick) note() {
	s := &t.s
	load := s.Offered * t.c.rate(t.from)
	if s.Measured && s.Silent < silence {
		load = s.Capacity
	}
	switch {
	case s.Probe == 0:
		s.Probe = probeFirst
	case s.Rose:
		s.Probe = min(s.Probe*3/2, probeMost)
	}
	s.Overload, s.SinceOverload = load, 0
}
