package thinning

import (
	"math"
	"time"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/sampler/control"
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
	// capacity is the most samples a second that the backend was seen to take lately.
	capacity float64
}

// capacityTau is how slowly a measured capacity is forgotten.
const capacityTau = 10 * time.Minute

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
	if rate := st.inputs.Acknowledged; rate > st.capacity {
		st.capacity = rate
	} else {
		st.capacity -= st.capacity * min(1, dt.Seconds()/capacityTau.Seconds())
	}
	if st.decision.Pressure >= 1 || st.wanted < t.o.Config.BaseRate {
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
	if st.wanted < 1 && t.session == nil && t.ready == nil && !t.taking && !t.o.Now().Before(t.retry) {
		select {
		case t.kick <- struct{}{}:
		default:
		}
	}
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
