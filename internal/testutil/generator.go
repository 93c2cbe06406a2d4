package testutil

import (
	"fmt"
	"math"

	"github.com/golang/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// Content says which kinds of points a generator makes beside plain floats.
type Content struct {
	Histograms    bool // integer and float native histograms
	CustomBuckets bool // native histograms with custom buckets
	Exemplars     bool
	Specials      bool // NaN, infinities, subnormal numbers
	Stale         bool // stale markers
	StartTimes    bool // start timestamps, in RW 2.0
	Metadata      bool // in RW 2.0
}

// Everything is all kinds of points that both versions of remote write can carry.
func Everything() Content {
	return Content{Histograms: true, Exemplars: true, Specials: true, Stale: true}
}

// generator makes series whose content is a function of the series and the round,
// so that nothing has to be remembered to check it.
type generator struct {
	content Content
	base    int64 // time of round 0 of series 0, milliseconds
	step    int64
	series  []generated
}

type generated struct {
	labels labels.Labels
	v1     []prompb.Label
	key    string
	flavor flavor
	id     uint64
	target uint64
}

type flavor uint8

const (
	gauge flavor = iota
	counter
	intHistogram
	floatHistogram
	customHistogram
)

func newGenerator(o LoadOptions) *generator {
	g := &generator{content: o.Content, base: o.Start.UnixMilli(), step: o.Step.Milliseconds(), series: make([]generated, o.Series)}
	for i := range g.series {
		s := &g.series[i]
		s.id = uint64(i)
		s.target = uint64(i / o.Target)
		s.flavor = flavorOf(i, o.Content)
		s.labels = labels.FromStrings(
			"__name__", fmt.Sprintf("load_%s_%d", []string{"gauge", "total", "int", "float", "custom"}[s.flavor], i%17),
			"cluster", "test",
			"instance", fmt.Sprintf("10.0.%d.%d:9100", s.target/200, s.target%200),
			"job", o.Name,
			"pod", fmt.Sprintf("%s-%08x", o.Name, mix(uint64(i), 7)&0xffffffff),
			"text", fmt.Sprintf("quoted \"%d\" and ünïcode", i%3),
		)
		s.v1 = prompb.FromLabels(s.labels, nil)
		s.key = SeriesKey(s.labels)
	}
	return g
}

func flavorOf(i int, c Content) flavor {
	switch {
	case c.Histograms && i%8 == 5:
		return intHistogram
	case c.Histograms && i%8 == 6:
		return floatHistogram
	case c.CustomBuckets && i%8 == 7:
		return customHistogram
	case i%2 == 0:
		return counter
	}
	return gauge
}

// time is when the sample of the round is taken. Each target has an offset of its own.
func (g *generator) time(s *generated, round int) int64 {
	return g.base + int64(round)*g.step + int64(s.target)%g.step
}

func (g *generator) startTime(s *generated, round int) int64 {
	if !g.content.StartTimes || s.flavor == gauge {
		return 0
	}
	return g.base - 1000 + int64(round/100)*100*g.step
}

// points is what a receiver should see of the series in the round.
func (g *generator) points(s *generated, round int) []Point {
	p := Point{Kind: "samples", Time: g.time(s, round), Start: g.startTime(s, round)}
	switch h, fh := g.histogram(s, round); {
	case h != nil:
		p.Kind, p.Sum = "histograms", sumHistogram(h, nil)
	case fh != nil:
		p.Kind, p.Sum = "histograms", sumHistogram(nil, fh)
	default:
		p.Sum = sumFloat(g.float(s, round))
	}
	out := []Point{p}
	if ls, v, ok := g.exemplar(s, round); ok {
		out = append(out, exemplarPoint(ls, v, p.Time))
	}
	return out
}

// stale leaves custom buckets out: the marker that ends such a series is a plain
// histogram, which a version without custom buckets can carry too.
func (g *generator) stale(s *generated, round int) bool {
	return g.content.Stale && s.flavor != customHistogram && mix(s.id, uint64(round))%61 == 3
}

func (g *generator) float(s *generated, round int) float64 {
	r := mix(s.id, uint64(round))
	switch {
	case g.stale(s, round):
		return math.Float64frombits(value.StaleNaN)
	case g.content.Specials && r%53 == 1:
		// No -0: Prometheus' own encoder takes it for the default and leaves it out.
		return []float64{
			math.Float64frombits(value.NormalNaN), math.Inf(1), math.Inf(-1),
			math.SmallestNonzeroFloat64, -math.MaxFloat64,
		}[r>>32%5]
	case s.flavor == counter:
		return float64(round%100)*10 + float64(r%10) // resets every hundred rounds
	}
	return float64(int64(r))/(1<<40) + 0.1
}

func (g *generator) exemplar(s *generated, round int) (labels.Labels, float64, bool) {
	r := mix(s.id, uint64(round)+1<<40)
	if !g.content.Exemplars || s.flavor == gauge || r%7 != 0 || g.stale(s, round) {
		return labels.EmptyLabels(), 0, false
	}
	return labels.FromStrings("trace_id", fmt.Sprintf("%016x", r)), float64(r%1000) / 7, true
}

// histogram returns the integer or the float histogram of the round, or neither.
func (g *generator) histogram(s *generated, round int) (*histogram.Histogram, *histogram.FloatHistogram) {
	if s.flavor < intHistogram {
		return nil, nil
	}
	r := mix(s.id, uint64(round))
	h := &histogram.Histogram{Sum: float64(r%100000) / 3}
	switch {
	case g.stale(s, round):
		h.Sum = math.Float64frombits(value.StaleNaN)
	case s.flavor == customHistogram:
		h.Schema = histogram.CustomBucketsSchema
		h.CustomValues = []float64{-1, 0.25, 0.5, 10}
		h.PositiveSpans = []histogram.Span{{Offset: 0, Length: 2}, {Offset: 1, Length: 2}}
		h.PositiveBuckets = []int64{int64(r % 5), 3, -1, 2}
	default:
		h.Schema = int32(s.id%13) - 4
		h.ZeroThreshold = 0x1p-128
		h.ZeroCount = r % 3
		h.PositiveSpans = []histogram.Span{{Offset: -2, Length: 2}, {Offset: 3, Length: 1}}
		h.PositiveBuckets = []int64{int64(1 + r%9), 2, -1}
		h.NegativeSpans = []histogram.Span{{Offset: 1, Length: 1}}
		h.NegativeBuckets = []int64{int64(r >> 8 % 4)}
		if s.id%3 == 0 {
			h.CounterResetHint = histogram.GaugeType
		}
	}
	h.Count = h.ZeroCount + total(h.PositiveBuckets) + total(h.NegativeBuckets)
	if s.flavor == floatHistogram {
		return nil, h.ToFloat(nil)
	}
	return h, nil
}

// total adds up the buckets that the deltas describe.
func total(deltas []int64) uint64 {
	var sum, bucket int64
	for _, d := range deltas {
		bucket += d
		sum += bucket
	}
	return uint64(sum)
}

// encode makes the request body of one round of the series [from, to), and says how
// many samples, histograms and exemplars it holds.
func (g *generator) encode(p Protocol, round, from, to int) (body []byte, counts [3]int, err error) {
	for i := from; i < to; i++ {
		for _, p := range g.points(&g.series[i], round) {
			counts[kindIndex(p.Kind)]++
		}
	}
	var raw []byte
	if p == RW2 {
		raw, err = g.requestV2(round, from, to).Marshal()
	} else {
		raw, err = g.requestV1(round, from, to).Marshal()
	}
	if err != nil {
		return nil, counts, fmt.Errorf("encode round %d: %w", round, err)
	}
	return snappy.Encode(nil, raw), counts, nil
}

func (g *generator) requestV1(round, from, to int) *prompb.WriteRequest {
	req := &prompb.WriteRequest{Timeseries: make([]prompb.TimeSeries, 0, to-from)}
	for i := from; i < to; i++ {
		s := &g.series[i]
		ts := prompb.TimeSeries{Labels: s.v1}
		t := g.time(s, round)
		switch h, fh := g.histogram(s, round); {
		case h != nil:
			ts.Histograms = []prompb.Histogram{prompb.FromIntHistogram(t, h)}
		case fh != nil:
			ts.Histograms = []prompb.Histogram{prompb.FromFloatHistogram(t, fh)}
		default:
			ts.Samples = []prompb.Sample{{Value: g.float(s, round), Timestamp: t}}
		}
		if ls, v, ok := g.exemplar(s, round); ok {
			ts.Exemplars = []prompb.Exemplar{{Labels: prompb.FromLabels(ls, nil), Value: v, Timestamp: t}}
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	return req
}

func (g *generator) requestV2(round, from, to int) *writev2.Request {
	symbols := writev2.NewSymbolTable()
	req := &writev2.Request{Timeseries: make([]writev2.TimeSeries, 0, to-from)}
	for i := from; i < to; i++ {
		s := &g.series[i]
		ts := writev2.TimeSeries{LabelsRefs: symbols.SymbolizeLabels(s.labels, nil)}
		t, start := g.time(s, round), g.startTime(s, round)
		switch h, fh := g.histogram(s, round); {
		case h != nil:
			ts.Histograms = []writev2.Histogram{writev2.FromIntHistogram(start, t, h)}
		case fh != nil:
			ts.Histograms = []writev2.Histogram{writev2.FromFloatHistogram(start, t, fh)}
		default:
			ts.Samples = []writev2.Sample{{Value: g.float(s, round), Timestamp: t, StartTimestamp: start}}
		}
		if ls, v, ok := g.exemplar(s, round); ok {
			ts.Exemplars = []writev2.Exemplar{{LabelsRefs: symbols.SymbolizeLabels(ls, nil), Value: v, Timestamp: t}}
		}
		if g.content.Metadata {
			ts.Metadata = writev2.Metadata{
				Type:    writev2.FromMetadataType(s.metricType()),
				HelpRef: symbols.Symbolize(s.help()),
			}
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Symbols = symbols.Symbols()
	return req
}

func (s *generated) metricType() model.MetricType {
	switch s.flavor {
	case gauge:
		return model.MetricTypeGauge
	case counter:
		return model.MetricTypeCounter
	}
	return model.MetricTypeHistogram
}

func (s *generated) help() string { return "Help of " + s.labels.Get("__name__") + "." }

// mix is a hash of the pair; equal pairs give equal numbers in every run.
func mix(a, b uint64) uint64 {
	x := a*0x9e3779b97f4a7c15 ^ (b+0x7f4a7c15)*0xbf58476d1ce4e5b9
	x ^= x >> 31
	x *= 0x94d049bb133111eb
	return x ^ x>>29
}
