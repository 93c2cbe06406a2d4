package control

import (
	"math"
	"time"
)

// State is what the controller remembers from one Step to the next. The zero State is at
// the base rate and knows nothing. States are values: they may be compared, copied, and
// written down as JSON.
type State struct {
	// Rung is the number of rungs below the base rate.
	Rung int `json:"rung"`
	// Moved says that the rate ever changed. SinceMove and SinceDown are the times since
	// it last did, and last fell; before, since the first Step.
	Moved     bool          `json:"moved"`
	SinceMove time.Duration `json:"since_move"`
	SinceDown time.Duration `json:"since_down"`
	// Rose says that the latest move was upwards.
	Rose bool `json:"rose"`

	// Green, Calm and Red are for how long without a break the pressure was green, not
	// red, and red.
	Green time.Duration `json:"green"`
	Calm  time.Duration `json:"calm"`
	Red   time.Duration `json:"red"`
	// Halved says that memory was red and halved the rate, SinceHalved when that was.
	Halved      bool          `json:"halved"`
	SinceHalved time.Duration `json:"since_halved"`
	// Trail and Backlog follow the pressure and the samples that wait; Others is the
	// pressure of what is neither queue nor latency.
	Trail   float64       `json:"trail"`
	Others  float64       `json:"others"`
	Backlog float64       `json:"backlog"`
	Waiting float64       `json:"waiting"`
	Growing time.Duration `json:"growing"`

	// Unloaded is the pressure of the latency as far as it is not made by what waits at
	// the backend. 0 is not known.
	Unloaded float64 `json:"unloaded"`
	// Bounded says that the samples in flight are to be bounded, and MaxInFlight by what;
	// 0 is without a bound.
	Bounded     bool    `json:"bounded"`
	MaxInFlight float64 `json:"max_in_flight"`
	// Batch is how many samples a batch holds at full resolution, on the average of those that
	// waited last. 0 is not known.
	Batch float64 `json:"batch"`
	// Trial is of the bound, for whether it makes writes quicker.
	Trial Trial `json:"trial"`

	// Age is for how long it was measured what comes in, up to some seconds.
	Age time.Duration `json:"age"`
	// Early and Offered are samples a second that come in, averaged once and twice: the
	// bursts in which senders scrape are no change of load.
	Early   float64 `json:"early"`
	Offered float64 `json:"offered"`
	// Swing is how uneven it comes in: the square of the distance from Offered, relative
	// to its square, averaged.
	Swing float64 `json:"swing"`
	// Burst is how much of the backlog comes of that: what would wait in front of a
	// backend that takes just as much as comes in on the average.
	Burst float64 `json:"burst"`
	// Capacity is how many samples a second the backend takes as far as known: measured
	// while it is the bottleneck, and else at least what it was seen to take. 0 is not
	// known.
	Capacity float64 `json:"capacity"`
	// Steady is the same, as far as measured, averaged for longer.
	Steady float64 `json:"steady"`
	// Measured says that Capacity was measured while it was the bottleneck.
	Measured bool `json:"measured"`
	// SinceMeasured is the time since it was.
	SinceMeasured time.Duration `json:"since_measured"`
	// Silent is the time since the backend last acknowledged something, while something
	// waited for it.
	Silent time.Duration `json:"silent"`

	// Overload is the load, in samples a second, under which the backend fell behind
	// lately, SinceOverload the time since then, and Probe how long the rate waits
	// before it goes there again. An Overload of 0 is none.
	Overload      float64       `json:"overload"`
	SinceOverload time.Duration `json:"since_overload"`
	Probe         time.Duration `json:"probe"`
	// Refuted says that writes were too slow as soon as the rate rose: no request is so
	// small that the backend takes it in time while it is at its limit.
	Refuted bool `json:"refuted"`
}

// Start is the state of a controller that goes on from a rate, at the nearest rung that is
// not above it.
func Start(c *Config, rate float64) State { return State{Rung: c.rungFor(rate)} }

// Rate is the share that the state stands for.
func (s State) Rate(c *Config) float64 { return c.rate(min(s.Rung, c.bottom())) }

const (
	offeredTau   = 8 * time.Second // of each of the two averages of what comes in
	capacityTau  = 1500 * time.Millisecond
	steadyTau    = 5 * time.Second
	swingTau     = 30 * time.Second
	uneven       = 1.5 // Swing from which on there are bursts
	longestBurst = 30 * time.Second
	outage       = 20 * time.Second
	unloadedTau  = 40 * time.Second // in which the latency without a queue grows to e times as much at most
	trailTau     = 3 * time.Second
)

// advance lets time pass.
func (s *State) advance(dt time.Duration) {
	s.SinceMove += dt
	s.SinceDown += dt
	s.SinceOverload += dt
	s.SinceHalved += dt
	s.SinceMeasured += dt
	if s.SinceOverload > forget {
		s.Overload, s.Probe = 0, 0
	}
}

// measure takes the throughput of the tick into account.
func (s *State) measure(in *Inputs, dt time.Duration, busy bool) {
	offered := finite(in.Offered)
	s.Age = min(s.Age+dt, learnFor)
	if s.Age < learnFor {
		s.Early += (offered - s.Early) * dt.Seconds() / s.Age.Seconds()
	} else {
		s.Early = toward(s.Early, offered, dt, offeredTau)
	}
	if s.Age < learnFor {
		s.Offered = s.Early
	} else {
		s.Offered = toward(s.Offered, s.Early, dt, offeredTau)
	}
	s.swing(offered, dt)
	acknowledged := finite(in.Acknowledged)
	if !in.AcknowledgedKnown {
		return
	}
	switch {
	case acknowledged == 0 && in.Backlog > 0:
		s.Silent += dt
		return
	case acknowledged == 0:
		s.Silent = 0
		return
	}
	// Acknowledgements come in lumps, each for the time since the one before. The first
	// after a longer silence, which was an outage, says nothing about the capacity.
	silent := s.Silent
	s.Silent = 0
	if silent > outage {
		return
	}
	over := dt + min(silent, silence)
	acknowledged *= dt.Seconds() / over.Seconds()
	switch {
	case !busy:
		if acknowledged > s.Capacity {
			s.Capacity, s.Measured = acknowledged, false
		}
	default:
		s.measured(acknowledged, over)
	}
}

// measured takes a throughput into account that is the capacity, seen over a time.
func (s *State) measured(throughput float64, over time.Duration) {
	if !s.Measured || s.SinceMeasured > holds {
		s.Steady = throughput
	}
	if s.Capacity == 0 {
		s.Capacity = throughput
	}
	s.Capacity = toward(s.Capacity, throughput, over, capacityTau)
	s.Steady = toward(s.Steady, throughput, over, steadyTau)
	s.Measured, s.SinceMeasured = true, 0
	if min(s.Capacity, s.Steady) > carried*s.Overload {
		s.Overload = 0
	}
}

// follow takes a latency into account; one of 0 is of a backend that had nothing to do.
// While the backend is the bottleneck, a larger one may be made by what waits there.
func (s *State) follow(latency float64, dt time.Duration, busy bool) {
	switch {
	case latency == 0:
	case s.Unloaded == 0 || latency < s.Unloaded:
		s.Unloaded = latency
	case !busy:
		s.Unloaded = min(latency, s.Unloaded*math.Exp(dt.Seconds()/unloadedTau.Seconds()))
	}
}

// swing takes what came in into account for bursts.
func (s *State) swing(offered float64, dt time.Duration) {
	if s.Offered == 0 {
		s.Swing, s.Burst = 0, 0
		return
	}
	distance := (offered - s.Offered) / s.Offered
	s.Swing = toward(s.Swing, min(distance*distance, 1000), dt, swingTau)
	if s.Swing < uneven {
		s.Burst = 0
		return
	}
	s.Burst = max(0, s.Burst+(offered-s.Offered)*dt.Seconds())
	s.Burst = min(s.Burst, s.Offered*longestBurst.Seconds())
}

// toward moves an average with the time constant tau to v.
func toward(average, v float64, dt, tau time.Duration) float64 {
	if dt >= tau {
		return v
	}
	return average + (v-average)*-math.Expm1(-dt.Seconds()/tau.Seconds())
}

// mostAmount bounds amounts, so that what is made of them stays finite.
const mostAmount = 1e15

// finite is v, or 0 where that is no amount.
func finite(v float64) float64 {
	if !(v > 0) {
		return 0
	}
	return min(v, mostAmount)
}
