package fidelity

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/sampler"
)

// Thinner decides what is sent. It sees a capture in the order of its requests and is
// used by one goroutine.
type Thinner interface {
	// Know tells of a series before its first sample, and again when its type becomes
	// known. Ids are dense, from 0.
	Know(id uint32, s Series) error
	// Thin appends to out what is to be sent now of series id, oldest first: samples that
	// were kept back, then perhaps in itself. Nothing is sent that did not come in.
	Thin(id uint32, in sampler.Sample, out []sampler.Sample) []sampler.Sample
	// Tick is called every ten seconds of capture time with the time in Unix ms.
	Tick(now int64)
}

// Series is what a Thinner learns of a series.
type Series struct {
	Labels labels.Labels
	Type   remotewrite.MetricType // MetricUnspecified until metadata has told it
}

// Sampling makes Thinners that are samplers, as lanes have them.
type Sampling struct {
	// Config is a valid configuration; its Method is not looked at.
	Config sampler.Config
	// Metrics are those that belong to a class by its name, as for a sampler.Describer.
	Metrics map[string]sampler.Metrics
}

// NewThinner returns a sampler that holds the share of the samples at rate. It goes with
// Options.NewThinner.
func (s Sampling) NewThinner(m Method, rate float64) (Thinner, error) {
	c := s.Config
	c.Method = sampler.Method(m)
	inner, err := sampler.New(sampler.Options{Config: c})
	if err != nil {
		return nil, fmt.Errorf("set up the sampler: %w", err)
	}
	inner.SetRate(rate)
	return &sampled{
		sampler:   inner,
		describer: sampler.NewDescriber(sampler.DescriberOptions{Config: c, Metrics: s.Metrics}),
	}, nil
}

type sampled struct {
	sampler   *sampler.Sampler
	describer *sampler.Describer
}

func (t *sampled) Know(id uint32, s Series) error {
	list := make([]remotewrite.Label, 0, s.Labels.Len())
	s.Labels.Range(func(l labels.Label) {
		list = append(list, remotewrite.Label{Name: []byte(l.Name), Value: []byte(l.Value)})
	})
	return t.sampler.Know(id, t.describer.Describe(list, s.Type))
}

func (t *sampled) Thin(id uint32, in sampler.Sample, out []sampler.Sample) []sampler.Sample {
	return t.sampler.Sample(id, in, out)
}

func (t *sampled) Tick(now int64) { t.sampler.Tick(now) }

// everything is the Thinner of the full side.
type everything struct{}

func (everything) Know(uint32, Series) error { return nil }

func (everything) Thin(_ uint32, in sampler.Sample, out []sampler.Sample) []sampler.Sample {
	return append(out, in)
}

func (everything) Tick(int64) {}
