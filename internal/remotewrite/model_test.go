package remotewrite

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/internal/series"
)

// modelSeries is one TimeSeries of either version in a form that can be compared: all
// floats by their bits. It is filled from the generated types only.
type modelSeries struct {
	Labels     string
	Samples    []modelSample
	Histograms []string // marshalled as V2, which V1 is a part of
	Exemplars  []modelExemplar
	Metadata   modelMetadata
}

type modelSample struct {
	Bits        uint64
	Time, Start int64
}

type modelExemplar struct {
	Labels string
	Bits   uint64
	Time   int64
}

type modelMetadata struct {
	Type       int32
	Help, Unit string
}

func spell(pairs []string) string {
	var sb strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Fprintf(&sb, "%q=%q ", pairs[i], pairs[i+1])
	}
	return sb.String()
}

func promPairs(ls []prompb.Label) (pairs []string) {
	for _, l := range ls {
		pairs = append(pairs, l.Name, l.Value)
	}
	return pairs
}

// readV1 decodes a request by the generated code.
func readV1(t require.TestingT, data []byte) ([]modelSeries, map[string]modelMetadata) {
	var req prompb.WriteRequest
	require.NoError(t, req.Unmarshal(data))
	out := make([]modelSeries, 0, len(req.Timeseries))
	for _, ts := range req.Timeseries {
		s := modelSeries{Labels: spell(promPairs(ts.Labels))}
		for _, x := range ts.Samples {
			s.Samples = append(s.Samples, modelSample{Bits: math.Float64bits(x.Value), Time: x.Timestamp})
		}
		for _, h := range ts.Histograms {
			s.Histograms = append(s.Histograms, string(mustMarshal(&h)))
		}
		for _, e := range ts.Exemplars {
			s.Exemplars = append(s.Exemplars, modelExemplar{spell(promPairs(e.Labels)), math.Float64bits(e.Value), e.Timestamp})
		}
		out = append(out, s)
	}
	families := map[string]modelMetadata{}
	for _, md := range req.Metadata {
		families[md.MetricFamilyName] = modelMetadata{int32(md.Type), md.Help, md.Unit}
	}
	return out, families
}

// readV2 decodes a request by the generated code and checks what RW 2.0 asks of every
// request: the empty first symbol, references in pairs and in range (M1), samples or
// histograms in each series but not both (M3).
func readV2(t require.TestingT, data []byte) []modelSeries {
	var req writev2.Request
	require.NoError(t, req.Unmarshal(data))
	require.NotEmpty(t, req.Symbols)
	require.Empty(t, req.Symbols[0])
	pairs := func(refs []uint32) (pairs []string) {
		require.Zero(t, len(refs)%2)
		for _, r := range refs {
			require.Less(t, int(r), len(req.Symbols))
			pairs = append(pairs, req.Symbols[r])
		}
		return pairs
	}
	out := make([]modelSeries, 0, len(req.Timeseries))
	for _, ts := range req.Timeseries {
		require.NotEqual(t, len(ts.Samples) > 0, len(ts.Histograms) > 0)
		s := modelSeries{Labels: spell(pairs(ts.LabelsRefs))}
		for _, x := range ts.Samples {
			s.Samples = append(s.Samples, modelSample{math.Float64bits(x.Value), x.Timestamp, x.StartTimestamp})
		}
		for _, h := range ts.Histograms {
			s.Histograms = append(s.Histograms, string(mustMarshal(&h)))
		}
		for _, e := range ts.Exemplars {
			s.Exemplars = append(s.Exemplars, modelExemplar{spell(pairs(e.LabelsRefs)), math.Float64bits(e.Value), e.Timestamp})
		}
		require.Less(t, int(max(ts.Metadata.HelpRef, ts.Metadata.UnitRef)), len(req.Symbols))
		s.Metadata = modelMetadata{int32(ts.Metadata.Type), req.Symbols[ts.Metadata.HelpRef], req.Symbols[ts.Metadata.UnitRef]}
		out = append(out, s)
	}
	return out
}

// symbolsUnique checks that a request's table holds each symbol once (M1).
func symbolsUnique(t require.TestingT, data []byte) {
	var req writev2.Request
	require.NoError(t, req.Unmarshal(data))
	sorted := slices.Sorted(slices.Values(req.Symbols))
	require.Equal(t, len(req.Symbols), len(slices.Compact(sorted)))
}

// genSeries is a series in the making, for both versions.
type genSeries struct {
	labels    []prompb.Label
	samples   []writev2.Sample
	ints      []*histogram.Histogram
	floats    []*histogram.FloatHistogram
	times     []int64 // of ints, then of floats
	starts    []int64
	exemplars []prompb.Exemplar
	metadata  modelMetadata
}

// genOptions says what may be in generated requests.
type genOptions struct {
	custom    bool // native histograms with custom buckets
	starts    bool // start timestamps
	mixed     bool // samples and histograms in one series
	exemplars bool // series with exemplars only, too
}

var genText = rapid.OneOf(
	rapid.SampledFrom([]string{"a", "job", "instance", "le", "node-1", "héllo", "日本語", "with.dot", "a b", "🙂", strings.Repeat("long", 60)}),
	rapid.StringN(1, 12, 40),
)

var genTime = rapid.OneOf(
	rapid.Int64Range(1_763_000_000_000, 1_764_000_000_000),
	rapid.SampledFrom([]int64{0, 1, -1, -1_000_000, math.MaxInt64, math.MinInt64}),
)

var genBits = rapid.OneOf(
	rapid.Uint64(),
	rapid.SampledFrom([]uint64{
		0, 1 << 63, staleBits, 0x7ff8000000000001, 0x7ff80000deadbeef, 0xfff0000000000001,
		math.Float64bits(1), math.Float64bits(-2.5), math.Float64bits(math.Inf(1)), math.Float64bits(math.Inf(-1)),
	}),
)

func genLabels(t *rapid.T, what string) []prompb.Label {
	names := map[string]string{}
	for range rapid.IntRange(0, 5).Draw(t, what) {
		names[genText.Draw(t, "name")] = genText.Draw(t, "value")
	}
	delete(names, nameLabel)
	if what == "labels" {
		names[nameLabel] = genText.Draw(t, "metric")
	}
	ls := make([]prompb.Label, 0, len(names))
	for n, v := range names {
		ls = append(ls, prompb.Label{Name: n, Value: v})
	}
	slices.SortFunc(ls, func(a, b prompb.Label) int { return cmp.Compare(a.Name, b.Name) })
	return ls
}

// genBuckets draws spans and the absolute counts of their buckets.
func genBuckets(t *rapid.T, limit int) (spans []histogram.Span, counts []int64) {
	at := 0
	for n := range rapid.IntRange(0, 3).Draw(t, "spans") {
		offset := rapid.IntRange(0, 3).Draw(t, "offset")
		length := rapid.IntRange(1, 3).Draw(t, "length")
		if n > 0 {
			offset++
		}
		if at += offset + length; at > limit {
			break
		}
		spans = append(spans, histogram.Span{Offset: int32(offset), Length: uint32(length)})
		for range length {
			counts = append(counts, rapid.Int64Range(0, 1000).Draw(t, "count"))
		}
	}
	return spans, counts
}

func genHistogram(t *rapid.T, custom bool) *histogram.Histogram {
	h := &histogram.Histogram{
		Sum:              math.Float64frombits(genBits.Draw(t, "sum")),
		CounterResetHint: histogram.CounterResetHint(rapid.IntRange(0, 3).Draw(t, "hint")),
	}
	limit := 1000
	if custom {
		h.Schema = customBuckets
		bound := -3.5
		for range rapid.IntRange(0, 6).Draw(t, "bounds") {
			bound += rapid.SampledFrom([]float64{0.25, 3.5, 1, 1e10}).Draw(t, "step")
			h.CustomValues = append(h.CustomValues, bound)
		}
		limit = len(h.CustomValues) + 1
	} else {
		h.Schema = rapid.Int32Range(-4, 8).Draw(t, "schema")
		h.ZeroThreshold = 0.001
		h.ZeroCount = rapid.Uint64Range(0, 10).Draw(t, "zero")
	}
	h.Count = h.ZeroCount
	add := func() (spans []histogram.Span, deltas []int64) {
		spans, counts := genBuckets(t, limit)
		last := int64(0)
		for _, c := range counts {
			h.Count += uint64(c)
			deltas = append(deltas, c-last)
			last = c
		}
		return spans, deltas
	}
	h.PositiveSpans, h.PositiveBuckets = add()
	if !custom {
		h.NegativeSpans, h.NegativeBuckets = add()
	}
	return h
}

func genOne(t *rapid.T, o genOptions) (s genSeries) {
	s.labels = genLabels(t, "labels")
	kinds := 2
	if o.exemplars {
		kinds++
	}
	kind := rapid.IntRange(0, kinds-1).Draw(t, "kind")
	start := func() int64 {
		if !o.starts {
			return 0
		}
		return rapid.OneOf(rapid.Just(int64(0)), genTime).Draw(t, "start")
	}
	both := o.mixed && rapid.Bool().Draw(t, "both")
	if kind == 0 || both {
		for range rapid.IntRange(1, 3).Draw(t, "samples") {
			s.samples = append(s.samples, writev2.Sample{
				Value: math.Float64frombits(genBits.Draw(t, "value")), Timestamp: genTime.Draw(t, "time"), StartTimestamp: start(),
			})
		}
	}
	if kind == 1 || both {
		for range rapid.IntRange(1, 3).Draw(t, "histograms") {
			h := genHistogram(t, o.custom && rapid.Bool().Draw(t, "custom"))
			if rapid.Bool().Draw(t, "float") {
				s.floats = append(s.floats, h.ToFloat(nil))
			} else {
				s.ints = append(s.ints, h)
			}
			s.times = append(s.times, genTime.Draw(t, "time"))
			s.starts = append(s.starts, start())
		}
	}
	n := rapid.IntRange(0, 2).Draw(t, "exemplars")
	if kind == 2 {
		n++
	}
	for range n {
		at := genTime.Draw(t, "time")
		if at == 0 {
			at = 5
		}
		s.exemplars = append(s.exemplars, prompb.Exemplar{
			Labels: genLabels(t, "exemplar"), Value: math.Float64frombits(genBits.Draw(t, "value")), Timestamp: at,
		})
	}
	if rapid.Bool().Draw(t, "metadata") {
		s.metadata = modelMetadata{rapid.Int32Range(0, 7).Draw(t, "type"), rapid.StringN(0, 10, 20).Draw(t, "help"), rapid.SampledFrom([]string{"", "seconds"}).Draw(t, "unit")}
	}
	return s
}

// genRequest draws a request in which neighbours often share labels, as in real ones.
func genRequest(t *rapid.T, o genOptions) (all []genSeries) {
	for i := range rapid.IntRange(0, 8).Draw(t, "series") {
		s := genOne(t, o)
		if i > 0 && rapid.IntRange(0, 3).Draw(t, "alike") > 0 {
			s.labels = genNeighbour(t, all[i-1].labels)
		}
		all = append(all, s)
	}
	return all
}

// genNeighbour draws labels that differ from ls in one place or in none.
func genNeighbour(t *rapid.T, ls []prompb.Label) []prompb.Label {
	ls = slices.Clone(ls)
	at := rapid.IntRange(0, len(ls)-1).Draw(t, "place")
	switch rapid.IntRange(0, 3).Draw(t, "change") {
	case 0:
		ls[at].Value = genText.Draw(t, "value")
	case 1:
		if ls[at].Name != nameLabel {
			ls = slices.Delete(ls, at, at+1)
		}
	case 2:
		l := prompb.Label{Name: ls[at].Name + "x", Value: genText.Draw(t, "value")}
		if !slices.ContainsFunc(ls, func(o prompb.Label) bool { return o.Name == l.Name }) {
			ls = append(ls, l)
			slices.SortFunc(ls, func(a, b prompb.Label) int { return cmp.Compare(a.Name, b.Name) })
		}
	}
	return ls
}

func encodeV1(all []genSeries) []byte {
	req := &prompb.WriteRequest{}
	for _, s := range all {
		ts := prompb.TimeSeries{Labels: s.labels, Exemplars: s.exemplars}
		for _, x := range s.samples {
			ts.Samples = append(ts.Samples, prompb.Sample{Value: x.Value, Timestamp: x.Timestamp})
		}
		for i, h := range s.ints {
			ts.Histograms = append(ts.Histograms, prompb.FromIntHistogram(s.times[i], h))
		}
		for i, h := range s.floats {
			ts.Histograms = append(ts.Histograms, prompb.FromFloatHistogram(s.times[len(s.ints)+i], h))
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	return mustMarshal(req)
}

func encodeV2(all []genSeries) []byte {
	req := &writev2.Request{}
	table := writev2.NewSymbolTable()
	refs := func(ls []prompb.Label) (refs []uint32) {
		for _, l := range ls {
			refs = append(refs, table.Symbolize(l.Name), table.Symbolize(l.Value))
		}
		return refs
	}
	for _, s := range all {
		ts := writev2.TimeSeries{LabelsRefs: refs(s.labels), Samples: s.samples}
		for i, h := range s.ints {
			ts.Histograms = append(ts.Histograms, writev2.FromIntHistogram(s.starts[i], s.times[i], h))
		}
		for i, h := range s.floats {
			ts.Histograms = append(ts.Histograms, writev2.FromFloatHistogram(s.starts[len(s.ints)+i], s.times[len(s.ints)+i], h))
		}
		for _, e := range s.exemplars {
			ts.Exemplars = append(ts.Exemplars, writev2.Exemplar{LabelsRefs: refs(e.Labels), Value: e.Value, Timestamp: e.Timestamp})
		}
		ts.Metadata = writev2.Metadata{
			Type: writev2.Metadata_MetricType(s.metadata.Type), HelpRef: table.Symbolize(s.metadata.Help), UnitRef: table.Symbolize(s.metadata.Unit),
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Symbols = table.Symbols()
	return mustMarshal(req)
}

func encode(v series.Version, all []genSeries) []byte {
	if v == series.V1 {
		return encodeV1(all)
	}
	return encodeV2(all)
}

func scanBytes(t require.TestingT, v series.Version, data []byte) *Message {
	m := new(Message)
	require.NoError(t, m.Scan(v, data))
	return m
}

// withoutStarts is what a request holds after a passage through RW 1.0.
func withoutStarts(all []modelSeries) []modelSeries {
	out := slices.Clone(all)
	for i := range out {
		out[i].Samples = slices.Clone(out[i].Samples)
		for j := range out[i].Samples {
			out[i].Samples[j].Start = 0
		}
		out[i].Histograms = slices.Clone(out[i].Histograms)
		for j, h := range out[i].Histograms {
			var x writev2.Histogram
			if err := x.Unmarshal([]byte(h)); err != nil {
				panic(err)
			}
			x.StartTimestamp = 0
			out[i].Histograms[j] = string(mustMarshal(&x))
		}
	}
	return out
}

func withoutMetadata(all []modelSeries) []modelSeries {
	out := slices.Clone(all)
	for i := range out {
		out[i].Metadata = modelMetadata{}
	}
	return out
}

// written adds all of data to b, checks that nothing was dropped, and returns the request.
func written(t require.TestingT, b *Builder, v series.Version, data []byte) []byte {
	m := scanBytes(t, v, data)
	o := addAll(b, m)
	require.Empty(t, o.Reason)
	require.Equal(t, m.Counts, o.Written)
	require.True(t, o.Dropped.Zero())
	out := b.AppendTo(nil)
	require.Empty(t, b.Late())
	require.Equal(t, m.Counts, b.Counts())
	require.Equal(t, len(out), b.Size())
	require.Equal(t, string(out), string(b.Bytes()))
	return out
}

// TestModelHarness keeps the tests' own decoders honest: both versions of one request
// read the same.
func TestModelHarness(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := genRequest(t, genOptions{custom: true})
		v1, _ := readV1(t, encodeV1(all))
		require.Equal(t, v1, withoutMetadata(readV2(t, encodeV2(all))))
	})
}
