package remotewrite

import (
	"errors"
	"math"
	"math/big"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluice-metrics/sluice/internal/series"
)

// The generated decoders are lax where the specification of the wire format is not.
// A message that they take and the walk refuses must have one of these.
const (
	laxVarint = "a varint of more than 64 bits, or a tag of more than 32"
	laxGroup  = "a group"
	laxPacked = "a packed field whose last element reaches beyond it"
	laxRef    = "a reference of more than 32 bits, of which the decoders drop the upper ones"
)

// TestStricterThanGeneratedDecoders is the whole list of what they take and we refuse,
// besides what the request as a whole must have (symbols, a number of series).
func TestStricterThanGeneratedDecoders(t *testing.T) {
	overlong := []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f")
	bigTag := []byte{0xfa, 0x80, 0x80, 0x80, 0x80, 0x01, 0x00}
	for _, c := range []struct {
		name, lax string
		v1        []byte // content of a V1 TimeSeries
		v2        []byte // the same for V2
	}{
		{"varint beyond 64 bits", laxVarint, field(2, []byte{0x10}, overlong), field(2, []byte{0x10}, overlong)},
		{"unknown varint beyond 64 bits", laxVarint, join([]byte{0x78}, overlong), join([]byte{0x78}, overlong)},
		{"tag beyond 32 bits", laxVarint, bigTag, bigTag},
		{"group", laxGroup, []byte{0x7b, 0x7c}, []byte{0x7b, 0x7c}},
		{
			"packed doubles that end inside of one", laxPacked,
			field(4, field(13, make([]byte, 7)), make([]byte, 1)), field(3, field(13, make([]byte, 7)), make([]byte, 1)),
		},
		{
			"packed varints that end inside of one", laxPacked,
			field(4, field(12, []byte{0x80}), []byte{1}), field(3, field(12, []byte{0x80}), []byte{1}),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m Message
			data := field(1, c.v1)
			require.NoError(t, new(prompb.WriteRequest).Unmarshal(data))
			require.ErrorIs(t, m.Index(series.V1, data, 1), ErrMalformed)
			require.Equal(t, c.lax, laxity(schemaV1, data))
			data = join(symbolsV2(""), field(5, c.v2))
			require.NoError(t, new(writev2.Request).Unmarshal(data))
			require.ErrorIs(t, m.Index(series.V2, data, 1), ErrMalformed)
			require.Equal(t, c.lax, laxity(schemaV2, data))
		})
	}

	// A reference of more than 32 bits makes its series invalid.
	data := join(symbolsV2("", "a"), field(5, field(1, []byte{0x80, 0x80, 0x80, 0x80, 0x10, 1}), oneFloat))
	var req writev2.Request
	require.NoError(t, req.Unmarshal(data))
	require.Equal(t, []uint32{0, 1}, req.Timeseries[0].LabelsRefs)
	var m Message
	require.NoError(t, m.Index(series.V2, data, 1))
	require.Equal(t, ReasonInvalidRefs, m.Series[0].Invalid())
	require.Equal(t, laxRef, laxity(schemaV2, data))
}

// schema is which fields of a message the walk knows.
type schema map[protowire.Number]knownField

type knownField struct {
	message schema         // of a nested message
	packed  protowire.Type // of the elements, where the field may be packed
	isRef   bool
}

const notPacked = protowire.Type(-1)

var (
	plainField    = knownField{packed: notPacked}
	doublesField  = knownField{packed: protowire.Fixed64Type}
	varintsField  = knownField{packed: protowire.VarintType}
	refsField     = knownField{packed: protowire.VarintType, isRef: true}
	refField      = knownField{packed: notPacked, isRef: true}
	spanSchema    = schema{1: plainField, 2: plainField}
	labelSchema   = schema{1: plainField, 2: plainField}
	histogramFlds = schema{
		1: plainField, 2: plainField, 3: plainField, 4: plainField, 5: plainField, 6: plainField, 7: plainField,
		8: nested(spanSchema), 9: varintsField, 10: doublesField, 11: nested(spanSchema), 12: varintsField,
		13: doublesField, 14: plainField, 15: plainField, 16: doublesField,
	}
	schemaV1 = schema{
		1: nested(schema{
			1: nested(labelSchema),
			2: nested(schema{1: plainField, 2: plainField}),
			3: nested(schema{1: nested(labelSchema), 2: plainField, 3: plainField}),
			4: nested(histogramFlds),
		}),
		3: nested(schema{1: plainField, 2: plainField, 4: plainField, 5: plainField}),
	}
	schemaV2 = schema{
		4: plainField,
		5: nested(schema{
			1: refsField,
			2: nested(schema{1: plainField, 2: plainField, 3: plainField}),
			3: nested(histogramFlds),
			4: nested(schema{1: refsField, 2: plainField, 3: plainField}),
			5: nested(schema{1: plainField, 3: refField, 4: refField}),
			6: plainField,
		}),
	}
)

func nested(s schema) knownField { return knownField{message: s, packed: notPacked} }

// laxity names the first thing in b that only lax decoders take, "" when there is none.
func laxity(s schema, b []byte) string {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return laxVarint
		}
		if tag, _ := protowire.ConsumeVarint(b); tag > math.MaxUint32 {
			return laxVarint
		}
		if typ == protowire.StartGroupType || typ == protowire.EndGroupType {
			return laxGroup
		}
		v := b[n:]
		size := protowire.ConsumeFieldValue(num, typ, v)
		if size < 0 {
			return laxVarint
		}
		b = v[size:]
		f, known := s[num]
		if !known {
			continue
		}
		if what := f.laxity(typ, v); what != "" {
			return what
		}
	}
	return ""
}

func (f knownField) laxity(typ protowire.Type, v []byte) string {
	switch {
	case typ == protowire.VarintType && f.isRef:
		if ref, _ := protowire.ConsumeVarint(v); ref > math.MaxUint32 {
			return laxRef
		}
	case typ != protowire.BytesType:
	case f.message != nil:
		p, _ := protowire.ConsumeBytes(v)
		return laxity(f.message, p)
	case f.packed == protowire.Fixed64Type:
		if p, _ := protowire.ConsumeBytes(v); len(p)%8 != 0 {
			return laxPacked
		}
	case f.packed == protowire.VarintType:
		p, _ := protowire.ConsumeBytes(v)
		for len(p) > 0 {
			ref, n := protowire.ConsumeVarint(p)
			if n < 0 {
				return laxPacked
			}
			if f.isRef && ref > math.MaxUint32 {
				return laxRef
			}
			p = p[n:]
		}
	}
	return ""
}

// compareV1 holds what the walk makes of data against what prompb makes of it.
func compareV1(t *testing.T, data []byte) {
	t.Helper()
	var want prompb.WriteRequest
	wantErr := want.Unmarshal(data)
	var m Message
	err := m.Index(series.V1, data, 1)
	var all [][]Label
	for i := range m.Series {
		ls, lerr := m.AppendLabels(nil, i)
		err = errors.Join(err, lerr)
		all = append(all, ls)
	}
	if err != nil {
		require.ErrorIs(t, err, ErrMalformed)
		if wantErr == nil && !errors.Is(err, ErrTooManySeries) {
			require.NotEmpty(t, laxity(schemaV1, data), "refused: %v", err)
		}
		return
	}
	require.NoError(t, wantErr)
	require.Len(t, m.Series, len(want.Timeseries))
	var total series.Counts
	for i, ts := range want.Timeseries {
		s := &m.Series[i]
		requireLabels(t, ts.Labels, all[i])
		requireContent(t, &m, i, contentV1(ts))
		total.Add(series.Counts{Samples: uint64(s.Samples), Histograms: uint64(s.Histograms), Exemplars: uint64(s.Exemplars)})
		for j, e := range m.AppendExemplars(nil, i) {
			requireLabels(t, ts.Exemplars[j].Labels, e.Labels)
		}
		require.Zero(t, s.Flags&(FlagBadRefs|FlagStart|FlagCreated|FlagMetadata|FlagNoContent))
	}
	require.Equal(t, total, m.Counts)
	metadata := m.AppendMetadata(nil)
	require.Len(t, metadata, len(want.Metadata))
	for i, md := range want.Metadata {
		got := metadata[i]
		require.Equal(t, metricType(uint64(md.Type)), got.Type)
		require.Equal(t, []string{md.MetricFamilyName, md.Help, md.Unit},
			[]string{string(got.Family), string(got.Help), string(got.Unit)})
	}
	requireSameScan(t, &m, data)
}

// compareV2 does the same for RW 2.0.
func compareV2(t *testing.T, data []byte) {
	t.Helper()
	var want writev2.Request
	wantErr := want.Unmarshal(data)
	var m Message
	if err := m.Index(series.V2, data, 1); err != nil {
		require.ErrorIs(t, err, ErrMalformed)
		if wantErr == nil && !errors.Is(err, ErrTooManySeries) && symbolsFit(&want) {
			require.NotEmpty(t, laxity(schemaV2, data), "refused: %v", err)
		}
		return
	}
	require.NoError(t, wantErr)
	require.True(t, symbolsFit(&want))
	require.Len(t, m.Series, len(want.Timeseries))
	require.Equal(t, len(want.Symbols), m.Symbols())
	for i, s := range want.Symbols {
		require.Equal(t, s, string(m.Symbol(i)))
	}
	if laxity(schemaV2, data) == laxRef {
		return
	}
	for i, ts := range want.Timeseries {
		compareSeriesV2(t, &m, i, &want, ts)
	}
	requireSameScan(t, &m, data)
}

func symbolsFit(r *writev2.Request) bool {
	if len(r.Symbols) == 0 {
		return len(r.Timeseries) == 0
	}
	return r.Symbols[0] == ""
}

func compareSeriesV2(t *testing.T, m *Message, i int, req *writev2.Request, ts writev2.TimeSeries) {
	t.Helper()
	s := &m.Series[i]
	b := labels.NewScratchBuilder(0)
	_, lerr := ts.ToLabels(&b, req.Symbols)
	_, merr := ts.ToMetadata(req.Symbols)
	err := errors.Join(lerr, merr)
	for _, e := range ts.Exemplars {
		_, eerr := e.ToExemplar(&b, req.Symbols)
		err = errors.Join(err, eerr)
	}
	require.Equal(t, err != nil, s.Flags&FlagBadRefs != 0, "%v", err)
	ls, err := m.AppendLabels(nil, i)
	require.Equal(t, lerr == nil, err == nil, "%v", err)
	if lerr == nil {
		requireLabels(t, pairs(req.Symbols, ts.LabelsRefs), ls)
	}
	requireContent(t, m, i, contentV2(ts))
	require.Equal(t, len(ts.Samples) == 0 && len(ts.Histograms) == 0, s.Flags&FlagNoContent != 0)
	if s.Flags&FlagBadRefs != 0 {
		_, ok := m.SeriesMetadata(i)
		require.False(t, ok)
		return
	}
	for j, e := range m.AppendExemplars(nil, i) {
		requireLabels(t, pairs(req.Symbols, ts.Exemplars[j].LabelsRefs), e.Labels)
	}
	md, ok := m.SeriesMetadata(i)
	require.Equal(t, s.Flags&FlagMetadata != 0, ok)
	require.Equal(t, metricType(uint64(ts.Metadata.Type)), md.Type)
	require.Equal(t, []string{req.Symbols[ts.Metadata.HelpRef], req.Symbols[ts.Metadata.UnitRef]},
		[]string{string(md.Help), string(md.Unit)})
}

func pairs(symbols []string, refs []uint32) (ls []prompb.Label) {
	for ; len(refs) > 1; refs = refs[2:] {
		ls = append(ls, prompb.Label{Name: symbols[refs[0]], Value: symbols[refs[1]]})
	}
	return ls
}

// requireSameScan checks that a Scan sees what Index saw, but for the keys.
func requireSameScan(t *testing.T, m *Message, data []byte) {
	t.Helper()
	var scan Message
	require.NoError(t, scan.Scan(m.Version, data))
	want := append([]Series(nil), m.Series...)
	for i := range want {
		want[i].Key = series.Key{}
	}
	require.Equal(t, want, append([]Series(nil), scan.Series...))
	require.Equal(t, m.Counts, scan.Counts)
	require.Equal(t, []int64{m.MinTime, m.MaxTime}, []int64{scan.MinTime, scan.MaxTime})
}

func requireLabels(t *testing.T, want []prompb.Label, got []Label) {
	t.Helper()
	require.Len(t, got, len(want))
	for i, l := range want {
		require.Equal(t, []string{l.Name, l.Value}, []string{string(got[i].Name), string(got[i].Value)})
	}
}

// content is what a series of either version holds besides labels and metadata.
type content struct {
	samples    []Sample
	histograms []wantHistogram
	exemplars  []prompb.Exemplar // without labels
}

type wantHistogram struct {
	time, start int64
	schema      int32
	ints        *histogram.Histogram
	floats      *histogram.FloatHistogram
	resetHint   int32
}

func contentV1(ts prompb.TimeSeries) (c content) {
	for _, s := range ts.Samples {
		c.samples = append(c.samples, Sample{Value: s.Value, Time: s.Timestamp})
	}
	for _, h := range ts.Histograms {
		w := wantHistogram{time: h.Timestamp, schema: h.Schema, resetHint: int32(h.ResetHint), ints: h.ToIntHistogram()}
		if w.ints == nil {
			w.floats = h.ToFloatHistogram()
		}
		c.histograms = append(c.histograms, w)
	}
	for _, e := range ts.Exemplars {
		c.exemplars = append(c.exemplars, prompb.Exemplar{Value: e.Value, Timestamp: e.Timestamp})
	}
	return c
}

func contentV2(ts writev2.TimeSeries) (c content) {
	for _, s := range ts.Samples {
		c.samples = append(c.samples, Sample{Value: s.Value, Time: s.Timestamp, Start: s.StartTimestamp})
	}
	for _, h := range ts.Histograms {
		w := wantHistogram{time: h.Timestamp, start: h.StartTimestamp, schema: h.Schema, resetHint: int32(h.ResetHint), ints: h.ToIntHistogram()}
		if w.ints == nil {
			w.floats = h.ToFloatHistogram()
		}
		c.histograms = append(c.histograms, w)
	}
	for _, e := range ts.Exemplars {
		c.exemplars = append(c.exemplars, prompb.Exemplar{Value: e.Value, Timestamp: e.Timestamp})
	}
	return c
}

func requireContent(t *testing.T, m *Message, i int, want content) {
	t.Helper()
	s := &m.Series[i]
	created := m.Created(i)
	low, high := int64(math.MaxInt64), int64(math.MinInt64)
	var stale, start bool
	samples := m.AppendSamples(nil, i)
	require.Len(t, samples, len(want.samples))
	require.EqualValues(t, len(samples), s.Samples)
	for j, w := range want.samples {
		got := samples[j]
		start = start || w.Start != 0
		if w.Start == 0 {
			w.Start = created
		}
		require.Equal(t, math.Float64bits(w.Value), math.Float64bits(got.Value))
		require.Equal(t, []int64{w.Time, w.Start}, []int64{got.Time, got.Start})
		low, high = min(low, w.Time), max(high, w.Time)
		stale = stale || value.IsStaleNaN(w.Value)
	}
	valid, custom := true, false
	refs := m.AppendHistograms(nil, i)
	require.Len(t, refs, len(want.histograms))
	require.EqualValues(t, len(refs), s.Histograms)
	for j, w := range want.histograms {
		requireHistogram(t, m, refs[j], w, created)
		start = start || w.start != 0
		low, high = min(low, w.time), max(high, w.time)
		stale = stale || refs[j].Stale
		valid = valid && ruled(w)
		custom = custom || w.schema == histogram.CustomBucketsSchema
	}
	exemplars := m.AppendExemplars(nil, i)
	if s.Flags&FlagBadRefs == 0 {
		require.Len(t, exemplars, len(want.exemplars))
	}
	noTime := false
	for j, w := range want.exemplars {
		noTime = noTime || w.Timestamp == 0
		if s.Flags&FlagBadRefs == 0 {
			require.Equal(t, math.Float64bits(w.Value), math.Float64bits(exemplars[j].Value))
			require.Equal(t, w.Timestamp, exemplars[j].Time)
		}
	}
	require.EqualValues(t, len(want.exemplars), s.Exemplars)
	require.Equal(t, []int64{low, high}, []int64{s.MinTime, s.MaxTime})
	for flag, want := range map[Flags]bool{
		FlagStale: stale, FlagStart: start, FlagBadHistogram: !valid, FlagCustomBuckets: custom,
		FlagExemplarNoTime: noTime, FlagMixed: len(want.samples) > 0 && len(want.histograms) > 0,
	} {
		require.Equal(t, want, s.Flags&flag != 0, "flag %#x of %#x", flag, s.Flags)
	}
}

func requireHistogram(t *testing.T, m *Message, h HistogramRef, want wantHistogram, created int64) {
	t.Helper()
	if want.start == 0 {
		want.start = created
	}
	require.Equal(t, []int64{want.time, want.start}, []int64{h.Time, h.Start})
	require.Equal(t, want.schema, h.Schema)
	require.Equal(t, want.floats != nil, h.Float)
	ints, floats, err := m.DecodeHistogram(h)
	require.NoError(t, err)
	hint := histogram.UnknownCounterReset
	if 0 <= want.resetHint && want.resetHint <= int32(histogram.GaugeType) {
		hint = histogram.CounterResetHint(want.resetHint)
	}
	if floats != nil {
		require.Nil(t, ints)
		require.Equal(t, hint, floats.CounterResetHint)
		require.Equal(t, value.IsStaleNaN(floats.Sum), h.Stale)
		requireFloatHistogram(t, want.floats, floats)
		return
	}
	require.Equal(t, hint, ints.CounterResetHint)
	require.Equal(t, value.IsStaleNaN(ints.Sum), h.Stale)
	require.Equal(t, []uint64{want.ints.Count, want.ints.ZeroCount}, []uint64{ints.Count, ints.ZeroCount})
	require.Equal(t, append([]int64{}, want.ints.PositiveBuckets...), append([]int64{}, ints.PositiveBuckets...))
	require.Equal(t, append([]int64{}, want.ints.NegativeBuckets...), append([]int64{}, ints.NegativeBuckets...))
	requireBits(t, []float64{want.ints.Sum, want.ints.ZeroThreshold}, []float64{ints.Sum, ints.ZeroThreshold})
	requireBits(t, want.ints.CustomValues, ints.CustomValues)
	requireSpans(t, want.ints.PositiveSpans, ints.PositiveSpans)
	requireSpans(t, want.ints.NegativeSpans, ints.NegativeSpans)
	require.Equal(t, want.ints.CustomValues == nil, ints.CustomValues == nil)
}

func requireFloatHistogram(t *testing.T, want, got *histogram.FloatHistogram) {
	t.Helper()
	requireBits(t, []float64{want.Sum, want.ZeroThreshold, want.Count, want.ZeroCount},
		[]float64{got.Sum, got.ZeroThreshold, got.Count, got.ZeroCount})
	requireBits(t, want.CustomValues, got.CustomValues)
	requireBits(t, want.PositiveBuckets, got.PositiveBuckets)
	requireBits(t, want.NegativeBuckets, got.NegativeBuckets)
	requireSpans(t, want.PositiveSpans, got.PositiveSpans)
	requireSpans(t, want.NegativeSpans, got.NegativeSpans)
	require.Equal(t, want.CustomValues == nil, got.CustomValues == nil)
}

func requireSpans(t *testing.T, want, got []histogram.Span) {
	t.Helper()
	require.Equal(t, append([]histogram.Span{}, want...), append([]histogram.Span{}, got...))
}

func requireBits(t *testing.T, want, got []float64) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, math.Float64bits(want[i]), math.Float64bits(got[i]))
	}
}

// ruled reports whether Prometheus takes the histogram, and none of the two rules is
// broken that are ours alone: bounds are finite at both ends, and buckets of integers
// add up without wrapping around.
func ruled(w wantHistogram) bool {
	schema := w.schema
	if schema > histogram.ExponentialSchemaMax && schema <= histogram.ExponentialSchemaMaxReserved {
		schema = histogram.ExponentialSchemaMax // where Prometheus reduces it to
	}
	if w.floats != nil {
		h := *w.floats
		h.Schema = schema
		return h.Validate() == nil && (len(h.CustomValues) == 0 || !math.IsInf(h.CustomValues[0], -1))
	}
	h := *w.ints
	h.Schema = schema
	return h.Validate() == nil && (len(h.CustomValues) == 0 || !math.IsInf(h.CustomValues[0], -1)) && addsUp(&h)
}

// addsUp reports whether the buckets of h fit into 64 bits, singly and together.
func addsUp(h *histogram.Histogram) bool {
	sum := new(big.Int).SetUint64(h.ZeroCount)
	for _, deltas := range [][]int64{h.PositiveBuckets, h.NegativeBuckets} {
		last := new(big.Int)
		for _, d := range deltas {
			last.Add(last, big.NewInt(d))
			if !last.IsInt64() {
				return false
			}
			sum.Add(sum, last)
		}
	}
	return sum.IsUint64()
}
