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
	// Trail and Backlog follow the pressure and the samples that wait.
	Trail   float64 `json:"trail"`
	Backlog float64 `json:"backlog"`

	// Quickest is the smallest pressure of the latency lately: how quick the backend is
	// when not much is asked of it. 0 is not known.
	Quickest float64 `json:"quickest"`

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
	// Measured says that Capacity was measured while it was the bottleneck.
	Measured bool `json:"measured"`
	// Silent is the time since the backend last acknowledged something, while something
	// waited for it.
	Silent time.Duration `json:"silent"`

	// Overload is the load, in samples a second, under which the backend fell behind
	// lately, SinceOverload the time since then, and Probe how long the rate waits
	// before it goes there again. An Overload of 0 is none.
	Overload      float64       `json:"overload"`
	SinceOverload time.Duration `json:"since_overload"`
	Probe         time.Duration `json:"probe"`
}

// Start is the state of a controller that goes on from a rate, at the nearest rung that is
// not above it.
func Start(c *Config, rate float64) State { return State{Rung: c.rungFor(rate)} }

// Rate is the share that the state stands for.
func (s State) Rate(c *Config) float64 { return c.rate(min(s.Rung, c.bottom())) }

const (
	offeredTau   = 8 * time.Second // of each of the two averages of what comes in
	capacityTau  = 1500 * time.Millisecond
	swingTau     = 30 * time.Second
	uneven       = 1.5 // Swing from which on there are bursts
	longestBurst = 30 * time.Second
	quickestTau  = 40 * time.Second // in which the smallest latency grows to e times as much
	trailTau     = 3 * time.Second
)

// advance lets time pass.
func (s *State) advance(dt time.Duration) {
	s.SinceMove += dt
	s.SinceDown += dt
	s.SinceOverload += dt
	s.SinceHalved += dt
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
	// Acknowledgements come in lumps, each for the time since the one before. A longer
	// silence was an outage and says nothing about the capacity.
	over := dt + min(s.Silent, silence)
	s.Silent = 0
	acknowledged *= dt.Seconds() / over.Seconds()
	switch {
	case !busy:
		if acknowledged > s.Capacity {
			s.Capacity, s.Measured = acknowledged, false
		}
	case s.Capacity == 0:
		s.Capacity, s.Measured = acknowledged, true
	default:
		s.Capacity, s.Measured = toward(s.Capacity, acknowledged, over, capacityTau), true
	}
}

// follow takes a latency into account; one of 0 is of a backend that had nothing to do.
func (s *State) follow(latency float64, dt time.Duration) {
	if latency == 0 {
		return
	}
	if grown := s.Quickest * math.Exp(dt.Seconds()/quickestTau.Seconds()); s.Quickest == 0 || latency < grown {
		s.Quickest = latency
	} else {
		s.Quickest = grown
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
