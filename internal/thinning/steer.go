package thinning

import (
	"math"
	"time"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/sampler/control"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// steering is the controller with what it was told last.
type steering struct {
	state    control.State
	last     exporter.Signals
	inputs   control.Inputs
	decision control.Decision
	wanted   float64
	// told is the direction that was logged last, and clear since when the backend does
	// not lag; zero while it does.
	told  int
	clear time.Time
}

// Steering is what the controller of a Thinner knows of the backend, for one that takes its
// place: with another configuration it must not begin to learn it anew, and send everything
// meanwhile. It has also what readers of the backend were told. The zero Steering knows
// nothing.
type Steering struct {
	known       bool
	state       control.State
	clear       time.Time
	maxInFlight int64
	tempo       tempo
	told        told
}

// Steering returns what is known now. It may be called after Run has ended.
func (t *Thinner) Steering() Steering {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Steering{known: true, state: t.steer.state, clear: t.steer.clear, maxInFlight: t.maxInFlight.Load(), tempo: t.tempo, told: t.told}
	s.tempo.given = 0 // it is counted from the start of a Thinner
	return s
}

// takeOver goes on with what another Thinner knew, or with the rate at which the process
// before stopped: the backend may lag as it did then.
func (t *Thinner) takeOver(s Steering) {
	st := &t.steer
	st.wanted = t.o.Config.BaseRate
	t.tempo.careful = 1
	t.told = s.told
	switch e := t.openEntry(); {
	case s.known:
		st.state, st.clear, t.tempo = s.state, s.clear, s.tempo
		t.maxInFlight.Store(s.maxInFlight)
	case e != nil:
		st.state = control.Start(&t.control, e.Steps[len(e.Steps)-1].Rate)
	default:
		return
	}
	st.wanted = st.state.Rate(&t.control)
}

// openEntry is the entry of the session that a run before left open; nil: there is none.
func (t *Thinner) openEntry() *ledger.Entry {
	list := t.o.Ledger.Entries()
	if n := len(list); n > 0 && list[n-1].Kind == ledger.KindSampled && list[n-1].To == (journal.Position{}) {
		return &list[n-1]
	}
	return nil
}

// rouse has a session prepared, where one is due.
func (t *Thinner) rouse() {
	if t.steer.wanted >= 1 || t.session != nil || t.ready != nil || t.taking || t.o.Now().Before(t.retry) {
		return
	}
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// Observe implements exporter.Sampling.
func (t *Thinner) Observe(s exporter.Signals) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := &t.steer
	dt := s.At.Sub(st.last.At)
	first := st.last.At.IsZero()
	before := st.last
	st.last = s
	if first || dt <= 0 {
		return
	}
	st.inputs = t.inputs(before, s, dt)
	st.state, st.decision = control.Step(&t.control, st.state, st.inputs, dt)
	st.wanted = st.decision.Rate
	t.maxInFlight.Store(int64(math.Ceil(st.decision.MaxInFlight)))
	lags := st.decision.Pressure >= 1 || st.wanted < t.o.Config.BaseRate
	t.tempo.observe(look{at: s.At, dt: dt, live: st.inputs.Acknowledged, given: t.counts.givenBack, lags: lags})
	if lags {
		if !st.clear.IsZero() {
			t.tempo.blame(s.At, t.owes != nil)
		}
		st.clear = time.Time{}
	} else if st.clear.IsZero() {
		st.clear = s.At
	}
	if st.decision.Event {
		t.o.Metrics.events.WithLabelValues(t.o.Backend, st.decision.Cause).Inc()
	}
	if d := st.decision.Direction; d != 0 && d != st.told {
		st.told = d
		text := "Less is sent to the backend, since it lags"
		if d > 0 {
			text = "More is sent to the backend again"
		}
		if t.shadow {
			text = "Shadow mode, nothing changes: " + text
		}
		t.o.Logger.Info(text, "rate", st.wanted, "before", st.decision.Before, "cause", st.decision.Cause, "why", st.decision.Why())
		t.note(map[int]string{-1: "rate falls", 1: "rate rises"}[d], st.decision.Why())
	}
	t.rouse()
}

// inputs are the signals as the controller takes them.
func (t *Thinner) inputs(before, s exporter.Signals, dt time.Duration) control.Inputs {
	th := t.o.Config.Thresholds
	share := func(n int) (float64, bool) {
		if s.Attempts == 0 {
			return 0, s.Idle
		}
		return float64(n) / float64(s.Attempts), true
	}
	failed, failedKnown := share(s.Failed)
	throttled, throttledKnown := share(s.Throttled)
	in := control.Inputs{
		Signals: []control.Signal{
			{Name: control.QueueLength, Value: float64(s.Batches), Threshold: float64(th.QueueLength), Known: true},
			{Name: control.QueueAge, Value: s.Age.Seconds(), Threshold: th.QueueAgeSeconds, Known: true},
			{Name: control.WriteLatency, Value: float64(s.Latency) / float64(time.Millisecond), Threshold: float64(th.WriteLatencyMS), Known: true},
			{Name: control.Errors, Value: failed, Threshold: th.ErrorShare, Known: failedKnown},
			{Name: control.Throttled, Value: throttled, Threshold: th.ErrorShare, Known: throttledKnown},
			{Name: control.RetryAfter, Value: s.RetryAfter.Seconds(), Known: true},
		},
		Offered:           perSecond(s.Routed, before.Routed, dt),
		Acknowledged:      perSecond(s.Delivered, before.Delivered, dt),
		AcknowledgedKnown: true,
		Backlog:           float64(s.Waiting.Samples + s.Waiting.Histograms),
		InFlight:          float64(s.InFlight),
	}
	if t.o.ReplicaLag != nil {
		lag, known := t.o.ReplicaLag()
		in.Signals = append(in.Signals, control.Signal{Name: control.ReplicaLag, Value: lag, Threshold: th.ReplicaLagSeconds, Known: known})
	}
	if t.o.Memory != nil {
		used, known := t.o.Memory()
		in.Signals = append(in.Signals, control.Signal{Name: control.Memory, Value: used, Threshold: th.MemoryRatio, Known: known})
	}
	return in
}

func perSecond(now, before series.Counts, dt time.Duration) float64 {
	to, from := now.Samples+now.Histograms, before.Samples+before.Histograms
	return float64(to-min(to, from)) / dt.Seconds()
}
