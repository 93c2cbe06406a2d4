package fidelity

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	prom "github.com/prometheus/prometheus/model/value"

	"github.com/sluice-metrics/sluice/internal/capture"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/sampler"
)

// tickEvery is how often a Thinner is told the time, in ms of capture time.
const tickEvery = 10_000

// remembered is for how long histograms are kept for a Thinner that sends them later, in
// ms: twice the lookback of the query engine.
const remembered = 600_000

// samplesPerRequest is how many samples make a request full, thinned or not: what is
// left of several requests goes out as one.
const samplesPerRequest = 2000

// traffic is what a replay read and what it sent.
type traffic struct {
	seen, sent uint64 // samples, histograms and markers included
	bytes      uint64 // of the requests sent, compressed; series only, no metadata
	late       uint64 // sent, but not newer than what was sent of their series before
	minTime    int64  // of all samples seen, Unix ms
	maxTime    int64
	series     int
}

// replay reads a capture through a Thinner into a store.
type replay struct {
	thinner Thinner
	store   *store // nil: only the traffic is counted
	traffic traffic

	ids      map[series.Key]uint32
	known    []knownSeries
	families map[string]remotewrite.MetricType
	nextTick int64

	points     []sampler.Sample
	labels     []remotewrite.Label
	samples    []remotewrite.Sample
	histograms []remotewrite.HistogramRef
	metadata   []remotewrite.Metadata
	builder    labels.ScratchBuilder
	request    []byte // the one that is being filled
	inRequest  int    // samples in it
	message    []byte // a TimeSeries of it
	compressed []byte
}

type knownSeries struct {
	labels  labels.Labels
	encoded []byte // its label fields in a TimeSeries
	kind    remotewrite.MetricType
	count   float64 // of the last native histogram
	kept    []keptHistogram
}

// keptHistogram is a native histogram that may still be sent.
type keptHistogram struct {
	value
	raw []byte // its message
}

func newReplay(th Thinner, s *store) *replay {
	return &replay{
		thinner:  th,
		store:    s,
		traffic:  traffic{minTime: math.MaxInt64, maxTime: math.MinInt64},
		ids:      map[series.Key]uint32{},
		families: map[string]remotewrite.MetricType{},
	}
}

// run reads the capture to its end.
func (r *replay) run(ctx context.Context, from *capture.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("replay the capture: %w", context.Cause(ctx))
		}
		req, err := from.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := r.take(req); err != nil {
			if r.store != nil {
				err = errors.Join(err, r.store.rollback())
			}
			return err
		}
	}
	r.flush()
	r.traffic.series = len(r.known)
	if r.traffic.seen == 0 {
		return errors.New("the capture has no samples")
	}
	return nil
}

func (r *replay) take(req *capture.Request) error {
	r.tick(req.Received)
	m := req.Message
	if err := r.learn(m); err != nil {
		return err
	}
	for i := range m.Series {
		if err := r.takeSeries(m, i); err != nil {
			return fmt.Errorf("request received at %d: %w", req.Received, err)
		}
	}
	if r.store == nil {
		return nil
	}
	return r.store.commit()
}

// tick tells the Thinner of each interval that has passed.
func (r *replay) tick(now int64) {
	if r.nextTick == 0 {
		r.nextTick = now + tickEvery
	}
	for ; r.nextTick <= now; r.nextTick += tickEvery {
		r.thinner.Tick(r.nextTick)
	}
}

// learn takes in what the request says about metric families.
func (r *replay) learn(m *remotewrite.Message) error {
	r.metadata = m.AppendMetadata(r.metadata[:0])
	changed := false
	for _, md := range r.metadata {
		if r.families[string(md.Family)] != md.Type {
			r.families[string(md.Family)] = md.Type
			changed = true
		}
	}
	if !changed {
		return nil
	}
	for id := range r.known {
		k := &r.known[id]
		if kind := r.kind(k.labels); kind != k.kind {
			k.kind = kind
			if err := r.thinner.Know(uint32(id), Series{Labels: k.labels, Type: kind}); err != nil {
				return err
			}
		}
	}
	return nil
}

// kind is the type of the family that the series belongs to, by what was learned.
func (r *replay) kind(ls labels.Labels) remotewrite.MetricType {
	name := ls.Get(model.MetricNameLabel)
	if kind, ok := r.families[name]; ok {
		return kind
	}
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		if n := len(name) - len(suffix); n > 0 && name[n:] == suffix {
			return r.families[name[:n]]
		}
	}
	return remotewrite.MetricUnspecified
}

func (r *replay) takeSeries(m *remotewrite.Message, i int) error {
	s := &m.Series[i]
	if s.Samples+s.Histograms == 0 {
		return nil
	}
	id, err := r.id(m, i)
	if err != nil {
		return err
	}
	r.traffic.seen += uint64(s.Samples) + uint64(s.Histograms)
	r.traffic.minTime, r.traffic.maxTime = min(r.traffic.minTime, s.MinTime), max(r.traffic.maxTime, s.MaxTime)
	r.points = r.points[:0]
	r.samples = m.AppendSamples(r.samples[:0], i)
	for _, v := range r.samples {
		bits := math.Float64bits(v.Value)
		r.points = r.thinner.Thin(id, sampler.Sample{Time: v.Time, Bits: bits, Stale: bits == prom.StaleNaN}, r.points)
	}
	r.histograms = m.AppendHistograms(r.histograms[:0], i)
	for _, h := range r.histograms {
		in, err := r.keep(id, m, h)
		if err != nil {
			return err
		}
		r.points = r.thinner.Thin(id, in, r.points)
	}
	return r.send(id)
}

// id is the number of series i, a new one when it is seen for the first time.
func (r *replay) id(m *remotewrite.Message, i int) (uint32, error) {
	id, ok := r.ids[m.Series[i].Key]
	if ok {
		return id, nil
	}
	var err error
	if r.labels, err = m.AppendLabels(r.labels[:0], i); err != nil {
		return 0, err
	}
	canonical, changed, reason := remotewrite.CanonicalLabels(r.labels)
	if reason != "" {
		return 0, fmt.Errorf("series %d has no valid labels: %s", i, reason)
	}
	if changed {
		key := remotewrite.CanonicalKey(canonical, 0)
		if id, ok = r.ids[key]; !ok {
			if id, err = r.add(canonical); err != nil {
				return 0, err
			}
			r.ids[key] = id
		}
	} else if id, err = r.add(canonical); err != nil {
		return 0, err
	}
	r.ids[m.Series[i].Key] = id
	return id, nil
}

func (r *replay) add(ls []remotewrite.Label) (uint32, error) {
	id := uint32(len(r.known))
	r.builder.Reset()
	k := knownSeries{}
	for _, l := range ls {
		r.builder.Add(string(l.Name), string(l.Value))
		k.encoded = appendLabel(k.encoded, l)
	}
	k.labels = r.builder.Labels()
	k.kind = r.kind(k.labels)
	r.known = append(r.known, k)
	return id, r.thinner.Know(id, Series{Labels: k.labels, Type: k.kind})
}

// keep notes a native histogram, for when it is sent, and gives the point for it.
func (r *replay) keep(id uint32, m *remotewrite.Message, ref remotewrite.HistogramRef) (sampler.Sample, error) {
	h, fh, err := m.DecodeHistogram(ref)
	if err != nil {
		return sampler.Sample{}, err
	}
	k := &r.known[id]
	raw := append([]byte(nil), m.Data[ref.From:ref.To]...)
	old := 0
	for old < len(k.kept) && k.kept[old].t < ref.Time-remembered {
		old++
	}
	k.kept = append(k.kept[old:], keptHistogram{value{t: ref.Time, h: h, fh: fh}, raw})

	in := sampler.Sample{Time: ref.Time, Bits: histogramHash(h, fh), Histogram: true, Stale: ref.Stale}
	if ref.Stale {
		return in, nil
	}
	var hint histogram.CounterResetHint
	count := 0.0
	if h != nil {
		hint, count = h.CounterResetHint, float64(h.Count)
	} else {
		hint, count = fh.CounterResetHint, fh.Count
	}
	in.Reset = hint == histogram.CounterReset || hint != histogram.GaugeType && count < k.count
	k.count = count
	return in, nil
}

// histogramHash is equal for histograms of equal content, whatever their hint of a reset
// and their time.
func histogramHash(h *histogram.Histogram, fh *histogram.FloatHistogram) uint64 {
	if h != nil {
		fh = h.ToFloat(nil)
	}
	b := binary.LittleEndian.AppendUint64(nil, uint64(fh.Schema))
	for _, v := range []float64{fh.ZeroThreshold, fh.ZeroCount, fh.Count, fh.Sum} {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	for _, spans := range [][]histogram.Span{fh.PositiveSpans, fh.NegativeSpans} {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(spans)))
		for _, s := range spans {
			b = binary.LittleEndian.AppendUint64(b, uint64(uint32(s.Offset))<<32|uint64(s.Length))
		}
	}
	for _, values := range [][]float64{fh.PositiveBuckets, fh.NegativeBuckets, fh.CustomValues} {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(values)))
		for _, v := range values {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	}
	return xxhash.Sum64(b)
}

// send puts the points at hand into the request and the store.
func (r *replay) send(id uint32) error {
	if len(r.points) == 0 {
		return nil
	}
	k := &r.known[id]
	r.message = append(r.message[:0], k.encoded...)
	for _, p := range r.points {
		v := value{t: p.Time, f: math.Float64frombits(p.Bits)}
		if p.Histogram {
			kept, err := k.histogram(p.Time)
			if err != nil {
				return err
			}
			v = kept.value
			r.message = appendField(r.message, fieldHistogram, kept.raw)
		} else {
			r.message = appendSample(r.message, p)
		}
		r.traffic.sent++
		if err := r.put(id, v); err != nil {
			return err
		}
	}
	r.request = appendField(r.request, fieldTimeSeries, r.message)
	if r.inRequest += len(r.points); r.inRequest >= samplesPerRequest {
		r.flush()
	}
	return nil
}

// flush counts the bytes of the request at hand and begins the next.
func (r *replay) flush() {
	if r.inRequest == 0 {
		return
	}
	r.compressed = s2.EncodeSnappy(r.compressed[:cap(r.compressed)], r.request)
	r.traffic.bytes += uint64(len(r.compressed))
	r.request, r.inRequest = r.request[:0], 0
}

func (r *replay) put(id uint32, v value) error {
	if r.store == nil {
		return nil
	}
	taken, err := r.store.append(id, r.known[id].labels, v)
	if err != nil {
		return err
	}
	if !taken {
		r.traffic.late++
	}
	return nil
}

// histogram is the native histogram of the given time.
func (k *knownSeries) histogram(t int64) (*keptHistogram, error) {
	for i := len(k.kept) - 1; i >= 0; i-- {
		if k.kept[i].t == t {
			return &k.kept[i], nil
		}
	}
	return nil, fmt.Errorf("%s: the histogram of %d is to be sent and did not come in within the last %d minutes", k.labels, t, remembered/60_000)
}
