package incident

import (
	"github.com/prometheus/prometheus/model/labels"

	"github.com/sluice-metrics/sluice/internal/fidelity"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/sampler"
)

// step is what the sampler is told between two samples.
type step struct {
	after uint64  // samples that came before
	tick  int64   // Unix ms; 0 where the rate changes
	rate  float64 // the share that is asked for
}

// stretch is samples that the lane passes, by their numbers: first included, last not.
type stretch struct{ from, to uint64 }

// record is all that a lane told its sampler. Together with the samples it gives the same
// output again.
type record struct {
	steps  []step
	passed []stretch
	end    uint64 // samples up to the last that the backend has taken
}

// thinner is a sampler that is told what to do either by the simulation, or by the record
// of one. It implements fidelity.Thinner.
type thinner struct {
	sampler   *sampler.Sampler
	describer *sampler.Describer
	record    record
	replays   bool
	shadow    bool // all that the lane came to is sent, whatever the sampler says
	seen      uint64
	steps     int // of the record, that are done
	passed    int
	labels    []remotewrite.Label
}

func newThinner(r *sampler.Resolved, outOfOrder bool) (*thinner, error) {
	s, err := sampler.New(sampler.Options{Config: r.Config, OutOfOrder: outOfOrder})
	if err != nil {
		return nil, err
	}
	return &thinner{sampler: s, describer: r.Describer, shadow: r.Config.Mode == sampler.ModeShadow}, nil
}

// again is a thinner that does what t did, from the start.
func (t *thinner) again(r *sampler.Resolved, outOfOrder bool) (*thinner, error) {
	n, err := newThinner(r, outOfOrder)
	if err != nil {
		return nil, err
	}
	n.record, n.replays = t.record, true
	return n, nil
}

// Know implements fidelity.Thinner.
func (t *thinner) Know(id uint32, s fidelity.Series) error {
	t.labels = t.labels[:0]
	s.Labels.Range(func(l labels.Label) {
		t.labels = append(t.labels, remotewrite.Label{Name: []byte(l.Name), Value: []byte(l.Value)})
	})
	return t.sampler.Know(id, t.describer.Describe(t.labels, s.Type))
}

// Tick implements fidelity.Thinner. The steps of the record are at the times of the lane,
// which is behind.
func (t *thinner) Tick(int64) {}

// Thin implements fidelity.Thinner.
func (t *thinner) Thin(id uint32, in sampler.Sample, out []sampler.Sample) []sampler.Sample {
	at := t.seen
	t.seen++
	if t.replays {
		t.follow(at)
		if t.leavesOut(at) {
			return out
		}
		if t.shadow {
			return append(out, in)
		}
	}
	return t.sampler.Sample(id, in, out)
}

// follow does the steps of the record that were before a sample.
func (t *thinner) follow(at uint64) {
	for ; t.steps < len(t.record.steps) && t.record.steps[t.steps].after <= at; t.steps++ {
		t.do(t.record.steps[t.steps])
	}
}

func (t *thinner) do(s step) {
	if s.tick != 0 {
		t.sampler.Tick(s.tick)
		return
	}
	t.sampler.SetRate(s.rate)
}

// leavesOut reports whether the lane passed a sample, or did not get rid of.
func (t *thinner) leavesOut(at uint64) bool {
	for t.passed < len(t.record.passed) && t.record.passed[t.passed].to <= at {
		t.passed++
	}
	if t.passed < len(t.record.passed) && t.record.passed[t.passed].from <= at {
		return true
	}
	return at >= t.record.end
}

// tell does a step and writes it down.
func (t *thinner) tell(s step) {
	s.after = t.seen
	t.do(s)
	t.record.steps = append(t.record.steps, s)
}

// pass leaves out the next n samples.
func (t *thinner) pass(n uint64) {
	from := t.seen
	t.seen += n
	if last := len(t.record.passed) - 1; last >= 0 && t.record.passed[last].to == from {
		t.record.passed[last].to = t.seen
		return
	}
	t.record.passed = append(t.record.passed, stretch{from, t.seen})
}
