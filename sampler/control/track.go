package control

import "time"

// While the samples in flight are bounded, the rate moves between the rung below the capacity
// and the one above it: down when some seconds' worth waits, up when next to nothing does.
// Neighbouring rungs are a quarter apart, so that what waits changes slowly: the rate turns
// seldom, and most of the time something waits and the capacity is seen.
const (
	littleWaits = 0.12 // pressure of the queue below which next to nothing waits
	enoughWaits = 0.45 // pressure of the queue at which the rate goes down

	below        = 0.97 // of the capacity, that are below it
	clearlyBelow = 0.92 // the same, whatever the noise of a measurement
	farBelow     = 0.8  // the same, although something waits

	holds   = 15 * time.Second // for how long a capacity that was measured is taken for the present one
	carried = 1.5              // times the load that was too much: a capacity at which it is not any more
	emptied = 2 * time.Second  // in green, until nothing is sure to wait
	lookFor = 5 * time.Second  // at a rung that may be above the capacity, until something would wait
)

// tracks reports whether the rate is to follow the capacity: samples in flight are bounded,
// and nothing is over its threshold.
func (t *tick) tracks() bool {
	return t.s.MaxInFlight > 0 && t.pressure < red && !t.unknown && t.s.Age >= learnFor
}

// track moves the rate by what waits.
func (t *tick) track() {
	s := &t.s
	rate, next := t.c.rate(t.from), t.c.rate(t.from-1)
	fits, surelyFits := 0.0, 0.0
	if s.Offered > 0 {
		fits, surelyFits = s.Capacity/s.Offered, min(s.Capacity, s.Steady)/s.Offered
	}
	known := s.Measured && s.SinceMeasured <= holds
	room := clearlyBelow
	if t.waits >= 2*littleWaits {
		room = farBelow
	}
	t.d.action = watching
	switch {
	case s.Silent >= silence:
		t.d.action = silent
	case t.waits >= enoughWaits && t.growth > 0:
		if t.d.action = resting; !s.Moved || s.SinceDown >= downEvery {
			t.lower(max(t.from+1, t.c.rungFor(below*fits)), fitted)
		}
	case t.from == 0:
		t.d.action = full
	case t.others >= amber && !t.easing:
	case known && room*surelyFits >= next:
		t.rise(t.c.rungFor(clearlyBelow*surelyFits), upEvery)
	case t.waits >= littleWaits:
	case t.busy && s.Measured:
		if rate < clearlyBelow*surelyFits {
			t.rise(t.from-1, upEvery)
		}
	case s.Green >= emptied:
		t.search(upEvery)
	case s.Calm >= calmFor && t.slope <= steady:
		t.search(slowUp)
	}
}

// search goes up a rung to where something waits, and slowly where that was found lately.
func (t *tick) search(every time.Duration) {
	s := &t.s
	if s.Overload > 0 && s.Offered*t.c.rate(t.from) >= clearlyBelow*s.Overload {
		if every = lookFor; s.SinceMove >= lookFor {
			s.Overload = 0 // it is carried now
		}
	}
	if s.Refuted && s.Overload > 0 && s.Offered*t.c.rate(t.from-1) >= headroom*s.Overload {
		every = s.Probe
	}
	t.rise(t.from-1, every)
}

// rise goes up to a rung, at most by halfRungs, unless the rate changed just before.
func (t *tick) rise(to int, every time.Duration) {
	s := &t.s
	if s.Moved && s.SinceMove < every {
		return
	}
	if to = max(to, t.from-halfRungs, 0); to < t.from {
		s.Rung = to
		s.Moved, s.Rose, s.SinceMove = true, true, 0
		t.d.action, t.d.Direction = raised, 1
	}
}
