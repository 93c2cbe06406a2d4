package thinning_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/sampler"
)

const someTime = 1_763_800_000_000

// point is one sample in a form that can be compared: the value is the bits of a float or
// the encoding of a histogram, whose timestamp is 0.
type point struct {
	time  int64
	value string
	start int64
	hist  bool
	stale bool
	count float64
	hint  histogram.CounterResetHint
	// custom buckets
	custom bool
}

func (p point) String() string {
	return fmt.Sprintf("%d %x start %d", p.time-someTime, p.value, p.start)
}

// message is one TimeSeries message.
type message struct {
	labels    string
	id        series.ID
	points    []point // floats, then histograms
	exemplars []string
	typ       string
}

// kind is what a made-up series does.
type kind int

const (
	counter kind = iota
	gauge
	state
	native
	gaugeNative
	floatNative
	kinds
)

// actor is a series in the making.
type actor struct {
	name   string
	labels []prompb.Label
	id     series.ID
	kind   kind
	every  int // rounds between two scrapes
	phase  int

	v     float64
	h     *histogram.Histogram
	idle  int
	start int64
	dead  bool
}

// worldOptions say what there is in a world.
type worldOptions struct {
	version   series.Version
	repeats   bool // batches and samples that come twice, or late
	exemplars bool
	few       bool // floats only
}

// world makes up batches.
type world struct {
	o      worldOptions
	rng    *rand.Rand
	actors []*actor
}

func newWorld(seed uint64, o worldOptions) *world {
	w := &world{o: o, rng: rand.New(rand.NewPCG(seed, 3))}
	for i := range 40 {
		k := kind(w.rng.IntN(int(kinds)))
		if o.few {
			k = kind(w.rng.IntN(2))
		}
		name := [...]string{"requests_total", "depth", "db_up", "latency", "sizes", "latency_float"}[k]
		critical := ""
		if w.rng.IntN(2) == 0 {
			critical = "ALERTS_" // class critical by the default configuration
		}
		target := i % 3
		a := &actor{
			name: critical + name, kind: k, id: series.Overflow + series.ID(i), every: 1 + target%2, phase: i % (1 + target%2),
			start: someTime - 1000, v: float64(w.rng.IntN(100)),
		}
		if i%13 == 12 {
			a.id = series.ID(i % 2) // beyond the bound of the series table
		}
		a.labels = []prompb.Label{
			{Name: "__name__", Value: a.name},
			{Name: "instance", Value: fmt.Sprint("host-", target)},
			{Name: "job", Value: "api"},
			{Name: "n", Value: fmt.Sprint(i)},
		}
		a.h = &histogram.Histogram{ZeroThreshold: 0.001, PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []int64{1, 1}, Count: 3, Sum: 4}
		if k == native && i%2 == 0 {
			a.h.Schema, a.h.ZeroThreshold, a.h.CustomValues = histogram.CustomBucketsSchema, 0, []float64{1, 2}
		}
		if k == gaugeNative {
			a.h.CounterResetHint = histogram.GaugeType
		}
		w.actors = append(w.actors, a)
	}
	return w
}

// step moves the actor on and returns what is scraped.
func (w *world) step(a *actor, t int64) (f []writev2.Sample, h []writev2.Histogram) {
	stale := false
	switch {
	case a.dead && w.rng.IntN(10) > 0:
		return nil, nil
	case a.dead:
		a.dead = false
	default:
		stale = w.rng.IntN(60) == 0
		a.dead = stale
	}
	switch {
	case a.idle > 0:
		a.idle--
	case w.rng.IntN(8) == 0:
		a.idle = w.rng.IntN(20)
	default:
		w.move(a, t)
	}
	start := int64(0)
	if w.o.version == series.V2 && a.kind != gauge && a.kind != state {
		start = a.start
	}
	if a.kind < native {
		v := a.v
		if stale {
			v = math.Float64frombits(value.StaleNaN)
		}
		return []writev2.Sample{{Value: v, Timestamp: t, StartTimestamp: start}}, nil
	}
	x := a.h.Copy()
	if stale {
		x = &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
	}
	if a.kind == floatNative {
		return nil, []writev2.Histogram{writev2.FromFloatHistogram(start, t, x.ToFloat(nil))}
	}
	return nil, []writev2.Histogram{writev2.FromIntHistogram(start, t, x)}
}

func (w *world) move(a *actor, t int64) {
	reset := w.rng.IntN(25) == 0
	switch a.kind {
	case counter:
		a.v += float64(1 + w.rng.IntN(5))
		if reset && a.v > 0 {
			a.v, a.start = 0, t-1
		}
	case gauge:
		a.v += w.rng.NormFloat64() * 10
	case state:
		a.v = float64(w.rng.IntN(2))
	default:
		n := int64(1 + w.rng.IntN(3))
		if reset && a.h.PositiveBuckets[0] > 0 {
			a.h.PositiveBuckets[0], a.start = 0, t-1
			n = 0
		}
		a.h.PositiveBuckets[0] += n
		first := uint64(a.h.PositiveBuckets[0])
		a.h.Count = first + first + uint64(a.h.PositiveBuckets[1]) // buckets are deltas
		a.h.Sum += float64(n)
	}
}

// scrape is what a series says in one batch.
type scrape struct {
	a         *actor
	floats    []writev2.Sample
	hists     []writev2.Histogram
	exemplars []prompb.Exemplar
}

// batches makes what arrives in so many rounds of 5 s.
func (w *world) batches(rounds int) (all []*series.Batch) {
	for round := range rounds {
		var list []scrape
		more := 1
		if w.rng.IntN(6) == 0 {
			more = 3 // several samples a message
		}
		for _, a := range w.actors {
			s := scrape{a: a}
			for k := range more {
				if round%a.every != a.phase {
					continue
				}
				t := int64(someTime + (round*3+k)*5000/3 + int(a.labels[1].Value[5]-'0')*100)
				f, h := w.step(a, t)
				s.floats, s.hists = append(s.floats, f...), append(s.hists, h...)
				if w.o.exemplars && w.rng.IntN(4) == 0 {
					s.exemplars = append(s.exemplars, prompb.Exemplar{
						Labels: []prompb.Label{{Name: "trace", Value: fmt.Sprint(w.rng.Uint32())}}, Value: 1, Timestamp: t,
					})
				}
			}
			list = append(list, w.pack(s)...)
		}
		if w.rng.IntN(2) == 0 {
			w.rng.Shuffle(len(list)/2, func(i, j int) {
				if list[i].a != list[j].a {
					list[i], list[j] = list[j], list[i]
				}
			})
		}
		b := makeBatch(w.o.version, list)
		b.Received = int64(someTime + round*5000)
		all = append(all, b)
		if w.o.repeats && w.rng.IntN(5) == 0 && round > 0 {
			all = append(all, all[len(all)-1-w.rng.IntN(2)])
		}
	}
	return all
}

// pack brings what a series says into one or two messages.
func (w *world) pack(s scrape) []scrape {
	if len(s.floats)+len(s.hists) == 0 {
		return nil
	}
	if w.o.repeats && w.rng.IntN(10) == 0 {
		slices.Reverse(s.floats)
		slices.Reverse(s.hists)
	}
	switch {
	case w.o.version == series.V1 && len(s.exemplars) > 0 && w.rng.IntN(2) == 0:
		alone := scrape{a: s.a, exemplars: s.exemplars}
		s.exemplars = nil
		return []scrape{s, alone}
	case len(s.floats) > 1 && w.rng.IntN(3) == 0:
		rest := scrape{a: s.a, floats: s.floats[1:]}
		s.floats = s.floats[:1]
		return []scrape{s, rest}
	}
	return []scrape{s}
}

func makeBatch(v series.Version, list []scrape) *series.Batch {
	if v == series.V1 {
		return batchOf(v, encodeV1(list), list)
	}
	return batchOf(v, encodeV2(list), list)
}

func encodeV1(list []scrape) []byte {
	req := &prompb.WriteRequest{}
	for _, s := range list {
		ts := prompb.TimeSeries{Labels: s.a.labels, Exemplars: s.exemplars}
		for _, f := range s.floats {
			ts.Samples = append(ts.Samples, prompb.Sample{Value: f.Value, Timestamp: f.Timestamp})
		}
		for _, h := range s.hists {
			var x prompb.Histogram
			if err := x.Unmarshal(mustMarshal(&h)); err != nil {
				panic(err)
			}
			ts.Histograms = append(ts.Histograms, x)
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	return mustMarshal(req)
}

func encodeV2(list []scrape) []byte {
	req := &writev2.Request{}
	table := writev2.NewSymbolTable()
	refs := func(ls []prompb.Label) (refs []uint32) {
		for _, l := range ls {
			refs = append(refs, table.Symbolize(l.Name), table.Symbolize(l.Value))
		}
		return refs
	}
	for _, s := range list {
		ts := writev2.TimeSeries{LabelsRefs: refs(s.a.labels), Samples: s.floats, Histograms: s.hists}
		ts.Metadata.Type = [...]writev2.Metadata_MetricType{1, 2, 2, 3, 4, 3}[s.a.kind]
		ts.Metadata.HelpRef = table.Symbolize("Help of " + s.a.name)
		for _, e := range s.exemplars {
			ts.Exemplars = append(ts.Exemplars, writev2.Exemplar{LabelsRefs: refs(e.Labels), Value: e.Value, Timestamp: e.Timestamp})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Symbols = table.Symbols()
	return mustMarshal(req)
}

type marshaler interface{ Marshal() ([]byte, error) }

func mustMarshal(m marshaler) []byte {
	b, err := m.Marshal()
	if err != nil {
		panic(err)
	}
	return b
}

// batchOf is a batch as the journal gives it.
func batchOf(v series.Version, body []byte, list []scrape) *series.Batch {
	packed := snappy.Encode(nil, body)
	buf := series.NewBuffer(len(packed))
	buf.B = append(buf.B, packed...)
	b := series.NewBatch(buf)
	b.Version, b.Decoded, b.Series, b.Epoch, b.Legacy = v, len(body), len(list), 7, true
	var m remotewrite.Message
	if err := m.Scan(v, body); err != nil {
		panic(err)
	}
	b.MinTime, b.MaxTime, b.Counts = m.MinTime, m.MaxTime, m.Counts
	b.IDs = make([]series.ID, 0, len(list))
	for i, s := range list {
		b.IDs = append(b.IDs, s.a.id)
		b.CustomBuckets = b.CustomBuckets || m.Series[i].Flags&remotewrite.FlagCustomBuckets != 0
	}
	return b
}

// scan indexes a batch.
func scan(t require.TestingT, b *series.Batch) *remotewrite.Message {
	body, err := snappy.Decode(nil, b.Body)
	require.NoError(t, err)
	m := new(remotewrite.Message)
	require.NoError(t, m.Scan(b.Version, body))
	return m
}

// decode reads a batch by the generated code, and checks what a batch says of its body.
func decode(t require.TestingT, b *series.Batch) (list []message) {
	body, err := snappy.Decode(nil, b.Body)
	require.NoError(t, err)
	require.Len(t, body, b.Decoded)
	if b.Version == series.V1 {
		list = decodeV1(t, body)
	} else {
		list = decodeV2(t, body)
	}
	require.Len(t, list, b.Series)
	require.Len(t, b.IDs, b.Series)
	from, to := int64(math.MaxInt64), int64(math.MinInt64)
	var counts series.Counts
	for i := range list {
		list[i].id = b.IDs[i]
		counts.Add(countsOf(list[i].points))
		counts.Exemplars += uint64(len(list[i].exemplars))
		for _, p := range list[i].points {
			from, to = min(from, p.time), max(to, p.time)
		}
	}
	require.Equal(t, b.Counts, counts)
	require.Equal(t, [2]int64{from, to}, [2]int64{b.MinTime, b.MaxTime})
	return list
}

func countsOf(points []point) (n series.Counts) {
	for _, p := range points {
		if p.hist {
			n.Histograms++
		} else {
			n.Samples++
		}
	}
	return n
}

func decodeV1(t require.TestingT, body []byte) (list []message) {
	var req prompb.WriteRequest
	require.NoError(t, req.Unmarshal(body))
	for _, ts := range req.Timeseries {
		m := message{labels: spell(ts.Labels)}
		for _, f := range ts.Samples {
			m.points = append(m.points, floatPoint(writev2.Sample{Value: f.Value, Timestamp: f.Timestamp}))
		}
		for _, h := range ts.Histograms {
			var x writev2.Histogram
			require.NoError(t, x.Unmarshal(mustMarshal(&h)))
			require.Zero(t, x.StartTimestamp)
			m.points = append(m.points, histPoint(x))
		}
		for _, e := range ts.Exemplars {
			m.exemplars = append(m.exemplars, fmt.Sprint(spell(e.Labels), e.Value, e.Timestamp))
		}
		list = append(list, m)
	}
	return list
}

func decodeV2(t require.TestingT, body []byte) (list []message) {
	var req writev2.Request
	require.NoError(t, req.Unmarshal(body))
	require.Empty(t, req.Symbols[0])
	labels := func(refs []uint32) (ls []prompb.Label) {
		for i := 0; i < len(refs); i += 2 {
			ls = append(ls, prompb.Label{Name: req.Symbols[refs[i]], Value: req.Symbols[refs[i+1]]})
		}
		return ls
	}
	for _, ts := range req.Timeseries {
		require.NotEqual(t, len(ts.Samples) > 0, len(ts.Histograms) > 0)
		m := message{labels: spell(labels(ts.LabelsRefs)), typ: fmt.Sprint(ts.Metadata.Type, req.Symbols[ts.Metadata.HelpRef])}
		for _, f := range ts.Samples {
			m.points = append(m.points, floatPoint(f))
		}
		for _, h := range ts.Histograms {
			m.points = append(m.points, histPoint(h))
		}
		for _, e := range ts.Exemplars {
			m.exemplars = append(m.exemplars, fmt.Sprint(spell(labels(e.LabelsRefs)), e.Value, e.Timestamp))
		}
		list = append(list, m)
	}
	return list
}

func spell(ls []prompb.Label) string {
	var sb strings.Builder
	for _, l := range ls {
		fmt.Fprintf(&sb, "%q=%q ", l.Name, l.Value)
	}
	return sb.String()
}

func floatPoint(f writev2.Sample) point {
	bits := math.Float64bits(f.Value)
	return point{time: f.Timestamp, value: fmt.Sprint(bits), start: f.StartTimestamp, stale: bits == value.StaleNaN}
}

func histPoint(h writev2.Histogram) point {
	p := point{time: h.Timestamp, start: h.StartTimestamp, hist: true, stale: math.Float64bits(h.Sum) == value.StaleNaN}
	p.hint = histogram.CounterResetHint(h.ResetHint)
	if h.IsFloatHistogram() {
		p.count = h.GetCountFloat()
	} else {
		p.count = float64(h.GetCountInt())
	}
	p.custom = h.Schema == histogram.CustomBucketsSchema
	h.Timestamp = 0
	p.value = string(mustMarshal(&h))
	return p
}

// newSampler is one of the defaults, with its Describer.
func newSampler(t require.TestingT, change func(*sampler.Config)) (*sampler.Sampler, *sampler.Describer) {
	c := sampler.DefaultConfig()
	if change != nil {
		change(&c)
	}
	s, err := sampler.New(sampler.Options{Config: c})
	require.NoError(t, err)
	return s, sampler.NewDescriber(sampler.DescriberOptions{Config: c})
}

func newSplicer(t require.TestingT, change func(*sampler.Config)) (*thinning.Splicer, *sampler.Sampler) {
	s, d := newSampler(t, change)
	return thinning.NewSplicer(thinning.SplicerOptions{Sampler: s, Describer: d}), s
}

// takes is the set of some series, the same in each batch: those that the backend is
// routed. Nil when all are.
func takes(b *series.Batch, modulus int) series.Set {
	if modulus == 0 {
		return nil
	}
	set := series.NewSet(len(b.IDs))
	for i, id := range b.IDs {
		if int(id)%modulus != 0 {
			set.Add(i)
		}
	}
	return set
}

func TestWorldHasEverything(t *testing.T) {
	var counts series.Counts
	shared, several, custom, alone := false, false, false, false
	for _, b := range newWorld(1, worldOptions{version: series.V1, exemplars: true}).batches(100) {
		counts.Add(b.Counts)
		custom = custom || b.CustomBuckets
		for _, m := range decode(t, b) {
			shared = shared || m.id.Shared()
			several = several || len(m.points) > 1
			alone = alone || len(m.points) == 0
		}
	}
	require.True(t, shared && several && custom && alone && counts.Samples > 0 && counts.Histograms > 0 && counts.Exemplars > 0)
}
