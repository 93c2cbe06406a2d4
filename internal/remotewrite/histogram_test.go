package remotewrite

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

// randomHistogram is a histogram that is valid or broken in one way or two.
func randomHistogram(rng *rand.Rand) prompb.Histogram {
	h := prompb.Histogram{
		Schema:        int32(rng.IntN(13) - 4),
		ZeroThreshold: 0.001,
		Timestamp:     payloadTime,
		ResetHint:     prompb.Histogram_ResetHint(rng.IntN(4)),
		Sum:           rng.NormFloat64(),
	}
	custom := rng.IntN(3) == 0
	h.PositiveSpans = randomSpans(rng, custom)
	if !custom {
		h.NegativeSpans = randomSpans(rng, false)
	}
	positive, negative := randomCounts(rng, h.PositiveSpans), randomCounts(rng, h.NegativeSpans)
	zero := uint64(rng.IntN(5))
	if custom {
		h.Schema, h.ZeroThreshold, zero = histogram.CustomBucketsSchema, 0, 0
		reach := 0
		for _, s := range h.PositiveSpans {
			reach += int(s.Offset) + int(s.Length)
		}
		for i := range reach {
			h.CustomValues = append(h.CustomValues, float64(i)-2.5)
		}
	}
	total := zero
	for _, c := range append(append([]uint64{}, positive...), negative...) {
		total += c
	}
	if rng.IntN(2) == 0 {
		h.Count = &prompb.Histogram_CountFloat{CountFloat: float64(total)}
		h.ZeroCount = &prompb.Histogram_ZeroCountFloat{ZeroCountFloat: float64(zero)}
		h.PositiveCounts, h.NegativeCounts = toFloats(positive), toFloats(negative)
	} else {
		h.Count = &prompb.Histogram_CountInt{CountInt: total}
		h.ZeroCount = &prompb.Histogram_ZeroCountInt{ZeroCountInt: zero}
		h.PositiveDeltas, h.NegativeDeltas = toDeltas(positive), toDeltas(negative)
	}
	for range rng.IntN(3) {
		breaks[rng.IntN(len(breaks))](&h, rng)
	}
	return h
}

func randomSpans(rng *rand.Rand, custom bool) (spans []prompb.BucketSpan) {
	for i := range rng.IntN(4) {
		s := prompb.BucketSpan{Offset: int32(rng.IntN(4)), Length: uint32(rng.IntN(4))}
		if i == 0 && !custom {
			s.Offset = int32(rng.IntN(20) - 10)
		}
		spans = append(spans, s)
	}
	return spans
}

func randomCounts(rng *rand.Rand, spans []prompb.BucketSpan) (counts []uint64) {
	for _, s := range spans {
		for range s.Length {
			counts = append(counts, uint64(rng.IntN(1000)))
		}
	}
	return counts
}

func toFloats(counts []uint64) (f []float64) {
	for _, c := range counts {
		f = append(f, float64(c))
	}
	return f
}

func toDeltas(counts []uint64) (d []int64) {
	last := int64(0)
	for _, c := range counts {
		d = append(d, int64(c)-last)
		last = int64(c)
	}
	return d
}

// breaks are ways to break a rule, or to come near to it.
var breaks = []func(*prompb.Histogram, *rand.Rand){
	func(h *prompb.Histogram, rng *rand.Rand) { h.Schema = int32(rng.IntN(130) - 65) },
	func(h *prompb.Histogram, _ *rand.Rand) { h.Schema = histogram.CustomBucketsSchema },
	func(h *prompb.Histogram, _ *rand.Rand) { h.Sum = math.NaN() },
	func(h *prompb.Histogram, _ *rand.Rand) { h.Sum = math.Float64frombits(value.StaleNaN) },
	func(h *prompb.Histogram, _ *rand.Rand) { h.Count = &prompb.Histogram_CountInt{CountInt: 5000} },
	func(h *prompb.Histogram, _ *rand.Rand) { h.Count = &prompb.Histogram_CountFloat{CountFloat: -1} },
	func(h *prompb.Histogram, _ *rand.Rand) { h.Count = nil },
	func(h *prompb.Histogram, _ *rand.Rand) { h.ZeroCount = &prompb.Histogram_ZeroCountInt{ZeroCountInt: 9} },
	func(h *prompb.Histogram, _ *rand.Rand) {
		h.ZeroCount = &prompb.Histogram_ZeroCountFloat{ZeroCountFloat: -9}
	},
	func(h *prompb.Histogram, _ *rand.Rand) { h.ZeroThreshold = math.NaN() },
	func(h *prompb.Histogram, rng *rand.Rand) {
		h.PositiveSpans = append(h.PositiveSpans, randomSpans(rng, false)...)
	},
	func(h *prompb.Histogram, _ *rand.Rand) {
		h.NegativeSpans = append(h.NegativeSpans, prompb.BucketSpan{Offset: -1})
	},
	func(h *prompb.Histogram, _ *rand.Rand) {
		h.PositiveSpans = append(h.PositiveSpans, prompb.BucketSpan{Offset: 1})
	},
	func(h *prompb.Histogram, _ *rand.Rand) { h.PositiveDeltas = append(h.PositiveDeltas, -2000) },
	func(h *prompb.Histogram, _ *rand.Rand) { h.NegativeDeltas = append(h.NegativeDeltas, 3) },
	func(h *prompb.Histogram, _ *rand.Rand) {
		h.PositiveSpans = []prompb.BucketSpan{{Length: 3}}
		h.PositiveDeltas = []int64{math.MaxInt64, 0, math.MaxInt64}
	},
	func(h *prompb.Histogram, _ *rand.Rand) {
		h.PositiveSpans, h.NegativeSpans = []prompb.BucketSpan{{Length: 3}}, nil
		h.PositiveDeltas, h.NegativeDeltas = []int64{math.MaxInt64, 0, 0}, nil
		h.Count = &prompb.Histogram_CountInt{CountInt: math.MaxInt64 - 2}
		h.ZeroCount = nil
	},
	func(h *prompb.Histogram, _ *rand.Rand) { h.PositiveCounts = append(h.PositiveCounts, -3) },
	func(h *prompb.Histogram, _ *rand.Rand) { h.NegativeCounts = append(h.NegativeCounts, math.NaN()) },
	func(h *prompb.Histogram, _ *rand.Rand) { h.CustomValues = append(h.CustomValues, 1e9) },
	func(h *prompb.Histogram, _ *rand.Rand) { h.CustomValues = append(h.CustomValues, math.Inf(1)) },
	func(h *prompb.Histogram, _ *rand.Rand) {
		h.CustomValues = append([]float64{math.Inf(-1)}, h.CustomValues...)
	},
	func(h *prompb.Histogram, _ *rand.Rand) {
		if len(h.CustomValues) > 0 {
			h.CustomValues[len(h.CustomValues)-1] = math.NaN()
		}
	},
	func(h *prompb.Histogram, _ *rand.Rand) {
		if len(h.CustomValues) > 0 {
			h.CustomValues = append(h.CustomValues, h.CustomValues[0])
		}
	},
	func(h *prompb.Histogram, _ *rand.Rand) {
		if len(h.CustomValues) > 0 {
			h.CustomValues = h.CustomValues[1:]
		}
	},
	func(h *prompb.Histogram, _ *rand.Rand) { h.ResetHint = 77 },
}

// TestHistogramRulesAgreeWithPrometheus judges random histograms as Prometheus does,
// with the two exceptions of ruled.
func TestHistogramRulesAgreeWithPrometheus(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	verdicts := map[bool]int{}
	for range 4000 {
		h := randomHistogram(rng)
		data := field(1, labelV1("__name__", "h"), field(4, mustMarshal(&h)))
		compareV1(t, data)
		var m Message
		require.NoError(t, m.Scan(series.V1, data))
		verdicts[m.Series[0].Invalid() == ""]++
	}
	require.Greater(t, verdicts[true], 1000)
	require.Greater(t, verdicts[false], 1000)
}

// TestHistogramRules has one case for each rule of section 1.5 of the protocol notes.
func TestHistogramRules(t *testing.T) {
	count := func(n uint64) *prompb.Histogram_CountInt { return &prompb.Histogram_CountInt{CountInt: n} }
	zero := func(n uint64) *prompb.Histogram_ZeroCountInt {
		return &prompb.Histogram_ZeroCountInt{ZeroCountInt: n}
	}
	spans := func(pairs ...int32) (s []prompb.BucketSpan) {
		for ; len(pairs) > 1; pairs = pairs[2:] {
			s = append(s, prompb.BucketSpan{Offset: pairs[0], Length: uint32(pairs[1])})
		}
		return s
	}
	const nhcb = histogram.CustomBucketsSchema
	for _, c := range []struct {
		name  string
		h     prompb.Histogram
		valid bool
	}{
		{"empty", prompb.Histogram{}, true},
		{"buckets", prompb.Histogram{Count: count(5), ZeroCount: zero(1), PositiveSpans: spans(-3, 2), PositiveDeltas: []int64{1, 2}}, true},
		{"schema -4", prompb.Histogram{Schema: -4}, true},
		{"schema -5", prompb.Histogram{Schema: -5}, false},
		{"schema 8", prompb.Histogram{Schema: 8}, true},
		{"schema 52", prompb.Histogram{Schema: 52}, true},
		{"schema 53", prompb.Histogram{Schema: 53}, false},
		{"schema -52", prompb.Histogram{Schema: -52}, false},
		{"more buckets than spans", prompb.Histogram{Count: count(2), PositiveSpans: spans(0, 1), PositiveDeltas: []int64{1, 0}}, false},
		{"fewer buckets than spans", prompb.Histogram{Count: count(1), NegativeSpans: spans(0, 2), NegativeDeltas: []int64{1}}, false},
		{"negative bucket", prompb.Histogram{PositiveSpans: spans(0, 2), PositiveDeltas: []int64{1, -2}}, false},
		{"count too small", prompb.Histogram{Count: count(1), PositiveSpans: spans(0, 1), PositiveDeltas: []int64{2}}, false},
		{"count too big", prompb.Histogram{Count: count(3), PositiveSpans: spans(0, 1), PositiveDeltas: []int64{2}}, false},
		{"count too big, sum NaN", prompb.Histogram{Sum: math.NaN(), Count: count(3), PositiveSpans: spans(0, 1), PositiveDeltas: []int64{2}}, true},
		{"count too small, sum NaN", prompb.Histogram{Sum: math.NaN(), Count: count(1), PositiveSpans: spans(0, 1), PositiveDeltas: []int64{2}}, false},
		{"count is not compared for floats", prompb.Histogram{Count: &prompb.Histogram_CountFloat{CountFloat: 1}, PositiveSpans: spans(0, 1), PositiveCounts: []float64{2}}, true},
		{"negative float count", prompb.Histogram{Count: &prompb.Histogram_CountFloat{CountFloat: -1}}, false},
		{"negative offset first", prompb.Histogram{NegativeSpans: spans(-1, 0, 1, 0)}, true},
		{"negative offset later", prompb.Histogram{NegativeSpans: spans(0, 0, -1, 0)}, false},
		{"bounds with exponential schema", prompb.Histogram{CustomValues: []float64{1}}, false},
		{"bucket wraps around", prompb.Histogram{Sum: math.NaN(), Count: count(math.MaxUint64), PositiveSpans: spans(0, 2), PositiveDeltas: []int64{math.MaxInt64, 1}}, false},
		{"sum of buckets wraps around", prompb.Histogram{Count: count(math.MaxInt64 - 2), PositiveSpans: spans(0, 3), PositiveDeltas: []int64{math.MaxInt64, 0, 0}}, false},
		{"custom", prompb.Histogram{Schema: nhcb, Count: count(3), PositiveSpans: spans(0, 2, 1, 1), PositiveDeltas: []int64{1, 0, 0}, CustomValues: []float64{-1, 0, 1}}, true},
		{"custom, zero count", prompb.Histogram{Schema: nhcb, Count: count(1), ZeroCount: zero(1)}, false},
		{"custom, zero threshold", prompb.Histogram{Schema: nhcb, ZeroThreshold: 1}, false},
		{"custom, negative span", prompb.Histogram{Schema: nhcb, NegativeSpans: spans(0, 0)}, false},
		{"custom, negative bucket", prompb.Histogram{Schema: nhcb, NegativeDeltas: []int64{0}}, false},
		{"custom, bounds not increasing", prompb.Histogram{Schema: nhcb, CustomValues: []float64{1, 1}}, false},
		{"custom, bound +Inf", prompb.Histogram{Schema: nhcb, CustomValues: []float64{1, math.Inf(1)}}, false},
		{"custom, bound -Inf", prompb.Histogram{Schema: nhcb, CustomValues: []float64{math.Inf(-1), 1}}, false},
		{"custom, bound NaN", prompb.Histogram{Schema: nhcb, CustomValues: []float64{math.NaN()}}, false},
		{"custom, too few bounds", prompb.Histogram{Schema: nhcb, Count: count(0), PositiveSpans: spans(0, 2, 1, 1), PositiveDeltas: []int64{0, 0, 0}, CustomValues: []float64{-1, 0}}, false},
		{"custom, negative offset", prompb.Histogram{Schema: nhcb, PositiveSpans: spans(-1, 0), CustomValues: []float64{-1, 0}}, false},
		{"stale marker", prompb.Histogram{Sum: math.Float64frombits(value.StaleNaN)}, true},
		{"stale marker, custom", prompb.Histogram{Schema: nhcb, Sum: math.Float64frombits(value.StaleNaN)}, true},
		{"stale marker, float", prompb.Histogram{Count: &prompb.Histogram_CountFloat{}, Sum: math.Float64frombits(value.StaleNaN)}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for v, data := range map[series.Version][]byte{
				series.V1: field(1, labelV1("__name__", "h"), field(4, mustMarshal(&c.h))),
				series.V2: join(symbolsV2("", "__name__", "h"), field(5, field(1, []byte{1, 2}), field(3, mustMarshal(&c.h)))),
			} {
				s := indexed(t, v, data).Series[0]
				want := Reason("")
				if !c.valid {
					want = ReasonInvalidHistogram
				}
				require.Equal(t, want, s.Invalid())
				require.Equal(t, value.IsStaleNaN(c.h.Sum), s.Flags&FlagStale != 0)
				require.Equal(t, c.h.Schema == nhcb, s.Flags&FlagCustomBuckets != 0)
				require.EqualValues(t, 1, s.Histograms)
			}
		})
	}
}

// TestHistogramSpelledOut reads repeated fields that are not packed, scattered among
// others, and scalars that come twice.
func TestHistogramSpelledOut(t *testing.T) {
	h := join(
		appendFixed64Field(nil, fieldCountFloat, math.Float64bits(9)),
		varintField(fieldPositiveDeltas, 4), // zigzag of 2
		varintField(fieldTime, 1),
		field(fieldPositiveSpans, varintField(2, 1)),
		varintField(fieldPositiveDeltas, 2), // zigzag of 1
		varintField(fieldCountInt, 5),
		field(fieldPositiveSpans, varintField(2, 1)),
		varintField(fieldTime, uint64(math.MaxUint64)), // -1
		varintField(fieldStart, 77),
	)
	for v, data := range map[series.Version][]byte{
		series.V1: field(1, labelV1("__name__", "h"), field(4, h)),
		series.V2: join(symbolsV2("", "__name__", "h"), field(5, field(1, []byte{1, 2}), field(3, h))),
	} {
		m := indexed(t, v, data)
		require.Empty(t, m.Series[0].Invalid())
		refs := m.AppendHistograms(nil, 0)
		require.Len(t, refs, 1)
		require.Equal(t, h, m.Data[refs[0].From:refs[0].To])
		require.EqualValues(t, -1, refs[0].Time)
		require.Equal(t, v == series.V2, refs[0].Start == 77)
		ints, _, err := m.DecodeHistogram(refs[0])
		require.NoError(t, err)
		require.Equal(t, []int64{2, 1}, ints.PositiveBuckets)
	}
}

func TestDecodeHistogramOfAnotherMessage(t *testing.T) {
	m := indexed(t, series.V1, mustMarshal(payloadV1(1)))
	for _, h := range []HistogramRef{{From: 5, To: 4}, {From: 0, To: math.MaxUint32}, {From: 0, To: 5}} {
		_, _, err := m.DecodeHistogram(h)
		require.ErrorIs(t, err, ErrMalformed)
	}
}

func BenchmarkHistogramWalk(b *testing.B) {
	h := prompb.Histogram{
		Count: &prompb.Histogram_CountInt{CountInt: 20*21/2 + 1}, ZeroCount: &prompb.Histogram_ZeroCountInt{ZeroCountInt: 1},
		Sum: 1234.5, Schema: 3, ZeroThreshold: 0.001, Timestamp: payloadTime,
		PositiveSpans: []prompb.BucketSpan{{Offset: -5, Length: 12}, {Offset: 2, Length: 8}},
	}
	for range 20 {
		h.PositiveDeltas = append(h.PositiveDeltas, 1)
	}
	data := field(1, labelV1("__name__", "h"), field(4, mustMarshal(&h)))
	var m Message
	require.NoError(b, m.Scan(series.V1, data))
	require.Empty(b, m.Series[0].Invalid())
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Scan(series.V1, data); err != nil {
			b.Fatal(err)
		}
	}
}
