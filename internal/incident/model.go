package incident

import (
	"math"
	"time"

	"github.com/sluice-metrics/sluice/sampler/control"
)

// Conditions is what a backend can do at some time.
type Conditions struct {
	// Capacity is how many samples a second it takes; 0 is a backend that hangs.
	Capacity float64
	// Burst is for how long capacity is saved up that is not used, and taken at once.
	Burst time.Duration
	// Latency is how long it takes over the smallest request.
	Latency time.Duration
	// Refuses says that every request fails at once.
	Refuses bool
}

// Arrival is a request of a sender.
type Arrival struct {
	At      time.Duration // since the start
	Samples int
}

// ModelOptions is what a Model is made of.
type ModelOptions struct {
	// Conditions of the backend at a time since the start.
	Conditions func(at time.Duration) Conditions
	// Thin is told that the lane has come to the nth arrival, and returns how much of it
	// is sent.
	Thin func(n int, a Arrival) float64
	// Pass is told that the lane passes the nth arrival without sending anything of it;
	// nil where FreshFirst is 0.
	Pass func(n int, a Arrival)
	// FreshFirst is the outage after which the lane passes what waits; 0 is never.
	FreshFirst time.Duration
	// Thresholds of the signals; 0 is off.
	Thresholds Thresholds
	// Shards is how many parcels are in flight at most, Parcel how many samples one
	// holds.
	Shards, Parcel int
	// Sensing is how many ticks the signals are late.
	Sensing int
}

// Thresholds are those of a model's signals.
type Thresholds struct {
	Batches    float64
	Age        time.Duration
	Latency    time.Duration
	ErrorShare float64
}

const (
	modelStep = 20 * time.Millisecond
	// Tick is how often a Model is observed.
	Tick = time.Second

	attemptTimeout = 30 * time.Second
	lately         = 3 // ticks over which latencies are averaged
	errorsLately   = 10
)

// Model is a lane and its backend, step by step: arrivals wait at full resolution, are
// thinned when the lane comes to them, and are in flight until the backend has taken
// them. It is used by one goroutine.
type Model struct {
	o   ModelOptions
	now time.Duration

	waiting []Arrival
	first   int // number of waiting[0]
	flights []parcel
	spare   float64       // samples that the backend takes at once
	failing time.Duration // since when nothing was taken of what is in flight; -1 for not

	maxInFlight float64 // samples in flight from which on no parcel is begun; 0: any

	tick    Observation // what is counted since the last tick
	ended   [errorsLately]attempts
	ticks   int
	delayed []Observation
}

// parcel is arrivals on their way to the backend.
type parcel struct {
	begun, attempt time.Duration
	oldest         time.Duration // arrival
	arrivals       int
	full           int     // samples at full resolution
	samples        float64 // that are sent
	left           float64 // of them
}

type attempts struct {
	n, failed int
	took      time.Duration
}

// Observation is a model at the end of a tick.
type Observation struct {
	At      time.Duration
	Offered int     // samples that came in during the tick
	Taken   float64 // samples that the backend acknowledged
	Sent    float64 // samples kept of those that the lane came to
	Read    int     // samples that the lane came to, those passed included
	Passed  int     // samples that the lane passed

	Batches int           // that wait or are in flight
	Backlog int           // samples in them at full resolution
	Flying  float64       // samples in flight
	Age     time.Duration // of the oldest
	Latency time.Duration
	Errors  float64
}

// NewModel returns a model at its start.
func NewModel(o ModelOptions) *Model { return &Model{o: o, failing: -1} }

// Advance takes a tick's arrivals, in their order, and goes on to its end. It returns what
// is true then, and what the controller sees, which may be older.
func (m *Model) Advance(arrivals []Arrival) (truth, seen Observation) {
	m.tick = Observation{}
	m.ended[m.ticks%errorsLately] = attempts{}
	for end := m.now + Tick; m.now < end; {
		for len(arrivals) > 0 && arrivals[0].At <= m.now {
			m.tick.Offered += arrivals[0].Samples
			m.waiting = append(m.waiting, arrivals[0])
			arrivals = arrivals[1:]
		}
		m.fill()
		m.now += modelStep
		m.serve()
	}
	for _, a := range arrivals {
		m.tick.Offered += a.Samples
		m.waiting = append(m.waiting, a)
	}
	truth = m.observe()
	m.ticks++
	m.delayed = append(m.delayed, truth)
	if len(m.delayed) > m.o.Sensing+1 {
		m.delayed = m.delayed[1:]
	}
	return truth, m.delayed[0]
}

// SetMaxInFlight bounds the samples in flight from now on, as control.Decision says.
func (m *Model) SetMaxInFlight(samples float64) { m.maxInFlight = samples }

// Settled is how many arrivals the backend has taken, or the lane passed, of those that
// came before any that it has not.
func (m *Model) Settled() int {
	n := m.first
	for _, p := range m.flights {
		n -= p.arrivals
	}
	return n
}

// fill puts what waits into parcels.
func (m *Model) fill() {
	most := float64(m.o.Parcel)
	if m.maxInFlight > 0 {
		most = min(most, m.maxInFlight)
	}
	for len(m.flights) < m.o.Shards && len(m.waiting) > 0 && m.open() {
		p := parcel{begun: m.now, attempt: m.now, oldest: m.waiting[0].At}
		for len(m.waiting) > 0 && p.samples < most {
			a := m.waiting[0]
			p.samples += m.o.Thin(m.first, a)
			p.full += a.Samples
			p.arrivals++
			m.drop()
		}
		p.left = p.samples
		m.tick.Sent += p.samples
		m.tick.Read += p.full
		if p.samples > 0 {
			m.flights = append(m.flights, p)
		}
	}
	if len(m.flights) > 0 && m.failing < 0 {
		m.failing = m.now
	}
}

// open reports whether one more parcel may begin.
func (m *Model) open() bool {
	if m.maxInFlight == 0 || len(m.flights) == 0 {
		return true
	}
	return m.inFlight() < m.maxInFlight
}

func (m *Model) inFlight() float64 {
	n := 0.0
	for _, p := range m.flights {
		n += p.samples
	}
	return n
}

func (m *Model) drop() {
	m.waiting = m.waiting[1:]
	m.first++
}

// serve lets the backend work for a step.
func (m *Model) serve() {
	c := m.o.Conditions(m.now)
	room := min(m.spare, c.Capacity*c.Burst.Seconds()) + c.Capacity*modelStep.Seconds()
	if c.Refuses {
		room = 0
	}
	kept := m.flights[:0]
	for _, p := range m.flights {
		served := min(room, p.left)
		room -= served
		p.left -= served
		switch took := m.now - p.attempt; {
		case c.Refuses || took >= attemptTimeout:
			m.end(took, true)
			p.attempt, p.left = m.now, p.samples
		case p.left <= 0 && m.now-p.begun >= c.Latency:
			m.end(took, false)
			m.taken(p)
			continue
		}
		kept = append(kept, p)
	}
	m.flights, m.spare = kept, room
	if len(m.flights) == 0 {
		m.failing = -1
	}
}

// taken notes that the backend has a parcel, and may let the newest go first.
func (m *Model) taken(p parcel) {
	m.tick.Taken += p.samples
	outage := m.now - m.failing
	m.failing = m.now
	if m.o.FreshFirst == 0 || outage < m.o.FreshFirst {
		return
	}
	for len(m.waiting) > 0 {
		m.tick.Passed += m.waiting[0].Samples
		m.tick.Read += m.waiting[0].Samples
		m.o.Pass(m.first, m.waiting[0])
		m.drop()
	}
}

func (m *Model) end(took time.Duration, failed bool) {
	e := &m.ended[m.ticks%errorsLately]
	e.n++
	e.took += took
	if failed {
		e.failed++
	}
}

func (m *Model) observe() Observation {
	o := m.tick
	o.At = m.now
	oldest := m.now
	for _, p := range m.flights {
		o.Batches += p.arrivals
		o.Backlog += p.full
		oldest = min(oldest, p.oldest)
		o.Latency = max(o.Latency, m.now-p.attempt)
	}
	for _, a := range m.waiting {
		o.Batches++
		o.Backlog += a.Samples
		oldest = min(oldest, a.At)
	}
	o.Flying = m.inFlight()
	o.Age = m.now - oldest
	var all, last attempts
	for i, e := range m.ended {
		all.n += e.n
		all.failed += e.failed
		if age := (m.ticks - i + errorsLately) % errorsLately; age < lately {
			last.n += e.n
			last.took += e.took
		}
	}
	if last.n > 0 {
		o.Latency = max(o.Latency, last.took/time.Duration(last.n))
	}
	if all.n > 0 {
		o.Errors = float64(all.failed) / float64(all.n)
	}
	return o
}

// Inputs is the observation as the controller takes it.
func (o Observation) Inputs(t Thresholds) control.Inputs {
	return control.Inputs{
		Signals: []control.Signal{
			{Name: control.QueueLength, Value: float64(o.Batches), Threshold: t.Batches, Known: true},
			{Name: control.QueueAge, Value: o.Age.Seconds(), Threshold: t.Age.Seconds(), Known: true},
			{Name: control.WriteLatency, Value: float64(o.Latency) / float64(time.Millisecond), Threshold: float64(t.Latency) / float64(time.Millisecond), Known: true},
			{Name: control.Errors, Value: o.Errors, Threshold: t.ErrorShare, Known: true},
		},
		Offered:           float64(o.Offered) / Tick.Seconds(),
		Acknowledged:      o.Taken / Tick.Seconds(),
		AcknowledgedKnown: true,
		Backlog:           float64(o.Backlog),
		InFlight:          o.Flying,
	}
}

// Pressure is the largest of the signals, each as a share of its threshold.
func (o Observation) Pressure(t Thresholds) float64 {
	p := 0.0
	for _, s := range o.Inputs(t).Signals {
		p = math.Max(p, s.Pressure())
	}
	return p
}
