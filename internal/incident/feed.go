package incident

import (
	"fmt"
	"math"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/sluice-metrics/sluice/internal/capture"
	"github.com/sluice-metrics/sluice/internal/fidelity"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/sampler"
)

// feed gives the samples of recorded requests to a thinner, as a lane does that comes to
// one request after the other.
type feed struct {
	from    *capture.Reader
	thinner *thinner

	ids      map[series.Key]uint32
	series   []fed
	families map[string]remotewrite.MetricType

	points     []sampler.Sample
	labels     []remotewrite.Label
	samples    []remotewrite.Sample
	histograms []remotewrite.HistogramRef
	metadata   []remotewrite.Metadata
	builder    labels.ScratchBuilder
}

type fed struct {
	labels labels.Labels
	kind   remotewrite.MetricType
}

func newFeed(from *capture.Reader, t *thinner) *feed {
	return &feed{from: from, thinner: t, ids: map[series.Key]uint32{}, families: map[string]remotewrite.MetricType{}}
}

// pass leaves out the next request.
func (f *feed) pass() error {
	r, err := f.from.Next()
	if err != nil {
		return err
	}
	if err := f.learn(r.Message); err != nil {
		return err
	}
	f.thinner.pass(uint64(samplesOf(r.Message)))
	return nil
}

// next thins the next request and returns how many samples it has, and how many are sent
// with it, those that were held back before included.
func (f *feed) next() (all, sent int, err error) {
	r, err := f.from.Next()
	if err != nil {
		return 0, 0, err
	}
	m := r.Message
	if err := f.learn(m); err != nil {
		return 0, 0, err
	}
	for i := range m.Series {
		if m.Series[i].Samples+m.Series[i].Histograms == 0 {
			continue
		}
		id, err := f.id(m, i)
		if err != nil {
			return 0, 0, err
		}
		f.points = f.points[:0]
		f.samples = m.AppendSamples(f.samples[:0], i)
		for _, v := range f.samples {
			bits := math.Float64bits(v.Value)
			f.points = f.thinner.Thin(id, sampler.Sample{Time: v.Time, Bits: bits, Stale: bits == value.StaleNaN}, f.points)
		}
		f.histograms = m.AppendHistograms(f.histograms[:0], i)
		for _, h := range f.histograms {
			f.points = f.thinner.Thin(id, sampler.Sample{Time: h.Time, Bits: m.HashHistogram(h), Histogram: true, Stale: h.Stale}, f.points)
		}
		sent += len(f.points)
	}
	return samplesOf(m), sent, nil
}

func samplesOf(m *remotewrite.Message) int {
	n := 0
	for i := range m.Series {
		n += int(m.Series[i].Samples) + int(m.Series[i].Histograms)
	}
	return n
}

// learn takes in what the request says about metric families.
func (f *feed) learn(m *remotewrite.Message) error {
	changed := false
	f.metadata = m.AppendMetadata(f.metadata[:0])
	for _, md := range f.metadata {
		if f.families[string(md.Family)] != md.Type {
			f.families[string(md.Family)] = md.Type
			changed = true
		}
	}
	for id := range f.series {
		s := &f.series[id]
		if !changed || f.kind(s.labels) == s.kind {
			continue
		}
		s.kind = f.kind(s.labels)
		if err := f.thinner.Know(uint32(id), fidelity.Series{Labels: s.labels, Type: s.kind}); err != nil {
			return err
		}
	}
	return nil
}

// kind is the type of the family that the series belongs to, by what was learned.
func (f *feed) kind(ls labels.Labels) remotewrite.MetricType {
	name := ls.Get(model.MetricNameLabel)
	if k, ok := f.families[name]; ok {
		return k
	}
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		if n := len(name) - len(suffix); n > 0 && name[n:] == suffix {
			return f.families[name[:n]]
		}
	}
	return remotewrite.MetricUnspecified
}

func (f *feed) id(m *remotewrite.Message, i int) (uint32, error) {
	if id, ok := f.ids[m.Series[i].Key]; ok {
		return id, nil
	}
	var err error
	if f.labels, err = m.AppendLabels(f.labels[:0], i); err != nil {
		return 0, err
	}
	list, changed, reason := remotewrite.CanonicalLabels(f.labels)
	if reason != "" {
		return 0, fmt.Errorf("series %d has no valid labels: %s", i, reason)
	}
	key := m.Series[i].Key
	if changed {
		if id, ok := f.ids[remotewrite.CanonicalKey(list, 0)]; ok {
			f.ids[key] = id
			return id, nil
		}
		f.ids[remotewrite.CanonicalKey(list, 0)] = uint32(len(f.series))
	}
	f.builder.Reset()
	for _, l := range list {
		f.builder.Add(string(l.Name), string(l.Value))
	}
	s := fed{labels: f.builder.Labels()}
	s.kind = f.kind(s.labels)
	id := uint32(len(f.series))
	f.ids[key] = id
	f.series = append(f.series, s)
	return id, f.thinner.Know(id, fidelity.Series{Labels: s.labels, Type: s.kind})
}
