package thinning

import (
	"slices"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/control"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// View is how the sampling of a backend stands, for people and programs.
type View struct {
	Backend string `json:"backend"`
	Mode    string `json:"mode"`
	// Rate is the share that the controller asks for, Kept the one that is sent.
	Rate       float64 `json:"rate"`
	Kept       float64 `json:"kept"`
	Pressure   float64 `json:"pressure"`
	FloorBound bool    `json:"floor_bound"`
	// Since is when the present session began; nil while everything is sent.
	Since *time.Time `json:"since,omitempty"`
	// Cause is the signal that is nearest to its threshold, or above it most, and Why
	// what the controller made of it last.
	Cause   string   `json:"cause,omitempty"`
	Why     string   `json:"why,omitempty"`
	Signals []Signal `json:"signals"`
	// MaxInFlight is how many samples are in flight at most, since the backend lags; 0 is as
	// many as the lane's configuration lets.
	MaxInFlight int `json:"max_in_flight"`
	// OfferedPerSecond is what comes in for the backend, AcknowledgedPerSecond what it
	// takes, in samples.
	OfferedPerSecond      float64  `json:"offered_per_second"`
	AcknowledgedPerSecond float64  `json:"acknowledged_per_second"`
	Debt                  Debt     `json:"debt"`
	GivingBack            *Stretch `json:"giving_back,omitempty"`
	Events                []Event  `json:"events"`
}

// Signal is one of the measures that the controller steers by.
type Signal struct {
	Name string `json:"name"`
	// Value is nil while it is not known: also where nothing measures it, since no cluster or
	// no limit is configured.
	Value     *float64 `json:"value"`
	Threshold float64  `json:"threshold"`
	Known     bool     `json:"known"`
	// Pressure is the value as a share of the threshold; nil where it is not known or off.
	Pressure *float64 `json:"pressure,omitempty"`
}

// Debt is what was withheld and is not given back yet.
type Debt struct {
	Samples    uint64     `json:"samples"` // and histograms
	Bytes      uint64     `json:"bytes"`
	Oldest     *time.Time `json:"oldest,omitempty"`
	AgeSeconds float64    `json:"age_seconds"`
	// ETASeconds is nil where it is not known, or nothing is given back.
	ETASeconds *float64 `json:"eta_seconds,omitempty"`
	// Unknown says that nobody knows all that is owed.
	Unknown bool `json:"unknown,omitempty"`
}

// Stretch is a part of the journal.
type Stretch struct {
	From journal.Position `json:"from"`
	To   journal.Position `json:"to"`
	At   journal.Position `json:"at"`
}

// View returns how the sampling stands.
func (t *Thinner) View() View {
	debt := t.o.Ledger.Debt()
	t.mu.Lock()
	defer t.mu.Unlock()
	st := &t.steer
	v := View{
		Backend:               t.o.Backend,
		Mode:                  string(t.o.Config.Mode),
		Rate:                  st.wanted,
		Kept:                  1,
		Cause:                 st.decision.Cause,
		Signals:               []Signal{},
		MaxInFlight:           int(t.maxInFlight.Load()),
		OfferedPerSecond:      st.state.Offered,
		AcknowledgedPerSecond: st.inputs.Acknowledged,
		Debt:                  t.debt(debt),
		Events:                append([]Event{}, t.events...),
	}
	if !st.last.At.IsZero() {
		v.Why = st.decision.Why()
	}
	if s := t.session; s != nil {
		stats := s.sampler.Stats()
		since := s.since
		v.Since, v.Kept, v.Pressure, v.FloorBound = &since, s.lately.share(), stats.Step.Pressure, stats.FloorBound
	}
	for _, s := range t.signals() {
		out := Signal{Name: s.Name, Threshold: s.Threshold, Known: s.Known}
		if s.Known {
			value := s.Value
			out.Value = &value
			if s.Threshold > 0 {
				p := s.Pressure()
				out.Pressure = &p
			}
		}
		v.Signals = append(v.Signals, out)
	}
	if e := t.owes; e != nil {
		v.GivingBack = &Stretch{From: e.From, To: e.To, At: t.restored}
	}
	return v
}

// signals are those that the controller was given last, with those that nothing measures;
// t.mu is held.
func (t *Thinner) signals() []control.Signal {
	list := slices.Clone(t.steer.inputs.Signals)
	if len(list) == 0 {
		return nil // it was not told anything yet
	}
	th := t.o.Config.Thresholds
	if t.o.ReplicaLag == nil {
		list = append(list, control.Signal{Name: control.ReplicaLag, Threshold: th.ReplicaLagSeconds})
	}
	if t.o.Memory == nil {
		list = append(list, control.Signal{Name: control.Memory, Threshold: th.MemoryRatio})
	}
	return list
}

// debt is the ledger's with what the Thinner knows beside; t.mu is held.
func (t *Thinner) debt(d ledger.Debt) Debt {
	n := d.Counts.Samples + d.Counts.Histograms
	out := Debt{Samples: n, Bytes: uint64(float64(n) * t.perSample), Unknown: d.Unknown}
	if n == 0 {
		zero := 0.0
		out.ETASeconds = &zero
		return out
	}
	if d.Oldest != 0 {
		at := d.Oldest.Time()
		out.Oldest = &at
		out.AgeSeconds = max(0, t.o.Now().Sub(at).Seconds())
	}
	if t.o.Config.Backfill && t.o.Window > 0 {
		eta := float64(n) / t.tempo.perSecond(t.o.Config.BackfillShare)
		out.ETASeconds = &eta
	}
	return out
}

// Ledger is the account of what was withheld.
func (t *Thinner) Ledger() *ledger.Ledger { return t.o.Ledger }

// measureBytes follows how many bytes a sample takes in the journal.
func (t *Thinner) measureBytes(b *series.Batch) {
	n := b.Counts.Samples + b.Counts.Histograms
	if n == 0 {
		return
	}
	now := float64(len(b.Body)) / float64(n)
	if t.perSample == 0 {
		t.perSample = now
	}
	const weight = 0.01
	t.perSample += weight * (now - t.perSample)
}

// Describer tells the classes of series.
func (t *Thinner) Describer() *sampler.Describer { return t.o.Describer }
