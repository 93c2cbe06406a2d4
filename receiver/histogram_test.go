package receiver_test

import (
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
)

func promHistogram() *histogram.Histogram {
	return &histogram.Histogram{
		Schema: 3, ZeroThreshold: 0.001, ZeroCount: 2, Count: 9, Sum: -1.5, CounterResetHint: histogram.NotCounterReset,
		PositiveSpans: []histogram.Span{{Offset: -2, Length: 2}, {Offset: 3, Length: 1}}, PositiveBuckets: []int64{1, 1, -1},
		NegativeSpans: []histogram.Span{{Offset: 0, Length: 1}}, NegativeBuckets: []int64{3},
	}
}

func customHistogram() *histogram.Histogram {
	return &histogram.Histogram{
		Schema: histogram.CustomBucketsSchema, Count: 6, Sum: 12.5, CustomValues: []float64{-1, 0.5, 10},
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}, {Offset: 1, Length: 1}}, PositiveBuckets: []int64{1, 1, 1},
	}
}

func intHistogram() writev2.Histogram { return writev2.FromIntHistogram(0, startMs, promHistogram()) }

func floatHistogram() writev2.Histogram {
	return writev2.FromFloatHistogram(0, startMs, promHistogram().ToFloat(nil))
}

// 1.5: which native histograms are refused.
func TestHistogramRules(t *testing.T) {
	g := newGate(t)
	exp := func(change func(h *writev2.Histogram)) writev2.Histogram {
		h := intHistogram()
		change(&h)
		return h
	}
	float := func(change func(h *writev2.Histogram)) writev2.Histogram {
		h := floatHistogram()
		change(&h)
		return h
	}
	custom := func(change func(h *writev2.Histogram)) writev2.Histogram {
		h := writev2.FromIntHistogram(0, startMs, customHistogram())
		change(&h)
		return h
	}
	count := func(h *writev2.Histogram, n uint64) { h.Count = &writev2.Histogram_CountInt{CountInt: n} }
	for name, tc := range map[string]struct {
		h  writev2.Histogram
		ok bool
	}{
		"int":                  {exp(func(*writev2.Histogram) {}), true},
		"float":                {float(func(*writev2.Histogram) {}), true},
		"custom":               {custom(func(*writev2.Histogram) {}), true},
		"empty":                {writev2.Histogram{Timestamp: startMs, Count: &writev2.Histogram_CountInt{}}, true},
		"schema -4":            {exp(func(h *writev2.Histogram) { h.Schema = -4 }), true},
		"schema -5":            {exp(func(h *writev2.Histogram) { h.Schema = -5 }), false},
		"schema 8":             {exp(func(h *writev2.Histogram) { h.Schema = 8 }), true},
		"schema 9":             {exp(func(h *writev2.Histogram) { h.Schema = 9 }), true},
		"schema 52":            {exp(func(h *writev2.Histogram) { h.Schema = 52 }), true},
		"schema 53":            {exp(func(h *writev2.Histogram) { h.Schema = 53 }), false},
		"schema -52":           {exp(func(h *writev2.Histogram) { h.Schema = -52 }), false},
		"schema -54":           {exp(func(h *writev2.Histogram) { h.Schema = -54 }), false},
		"count too small":      {exp(func(h *writev2.Histogram) { count(h, 8) }), false},
		"count too large":      {exp(func(h *writev2.Histogram) { count(h, 10) }), false},
		"count too small, NaN": {exp(func(h *writev2.Histogram) { count(h, 8); h.Sum = math.NaN() }), false},
		"count larger, NaN":    {exp(func(h *writev2.Histogram) { count(h, 10); h.Sum = math.NaN() }), true},
		"stale":                {writev2.Histogram{Timestamp: startMs, Sum: math.Float64frombits(value.StaleNaN)}, true},
		"missing bucket":       {exp(func(h *writev2.Histogram) { h.PositiveDeltas = h.PositiveDeltas[:2]; count(h, 8) }), false},
		"bucket too many":      {exp(func(h *writev2.Histogram) { h.PositiveDeltas = append(h.PositiveDeltas, -1); count(h, 9) }), false},
		"bucket without span":  {exp(func(h *writev2.Histogram) { h.NegativeSpans = nil }), false},
		"negative bucket":      {exp(func(h *writev2.Histogram) { h.PositiveDeltas = []int64{1, -2, 5}; count(h, 9) }), false},
		"negative span": {exp(func(h *writev2.Histogram) {
			h.PositiveSpans = []writev2.BucketSpan{{Offset: 1, Length: 2}, {Offset: -1, Length: 1}}
		}), false},
		"negative first span":        {exp(func(h *writev2.Histogram) { h.PositiveSpans[0].Offset = -100 }), true},
		"custom values, exponential": {exp(func(h *writev2.Histogram) { h.CustomValues = []float64{1} }), false},
		"float, negative bucket":     {float(func(h *writev2.Histogram) { h.PositiveCounts[0] = -1 }), false},
		"float, negative count":      {float(func(h *writev2.Histogram) { h.Count = &writev2.Histogram_CountFloat{CountFloat: -1} }), false},
		"float, negative zero":       {float(func(h *writev2.Histogram) { h.ZeroCount = &writev2.Histogram_ZeroCountFloat{ZeroCountFloat: -1} }), false},
		"float, missing bucket":      {float(func(h *writev2.Histogram) { h.PositiveCounts = h.PositiveCounts[:2] }), false},
		"custom, zero count": {custom(func(h *writev2.Histogram) {
			h.ZeroCount = &writev2.Histogram_ZeroCountInt{ZeroCountInt: 1}
			count(h, 7)
		}), false},
		"custom, zero threshold": {custom(func(h *writev2.Histogram) { h.ZeroThreshold = 0.1 }), false},
		"custom, negative spans": {custom(func(h *writev2.Histogram) {
			h.NegativeSpans = []writev2.BucketSpan{{Length: 1}}
			h.NegativeDeltas = []int64{0}
		}), false},
		"custom, bounds not rising": {custom(func(h *writev2.Histogram) { h.CustomValues = []float64{1, 1, 2} }), false},
		"custom, bounds falling":    {custom(func(h *writev2.Histogram) { h.CustomValues = []float64{3, 2, 1} }), false},
		"custom, infinite bound":    {custom(func(h *writev2.Histogram) { h.CustomValues = []float64{1, 2, math.Inf(1)} }), false},
		"custom, NaN bound":         {custom(func(h *writev2.Histogram) { h.CustomValues = []float64{1, math.NaN(), 3} }), false},
		"custom, too few bounds":    {custom(func(h *writev2.Histogram) { h.CustomValues = []float64{1, 2} }), false},
		"custom, negative offset":   {custom(func(h *writev2.Histogram) { h.PositiveSpans[1].Offset = -1 }), false},
		"huge span":                 {exp(func(h *writev2.Histogram) { h.PositiveSpans[1].Length = math.MaxUint32 }), false},
		"deltas that overflow":      {exp(func(h *writev2.Histogram) { h.PositiveDeltas = []int64{math.MaxInt64, math.MaxInt64, 1} }), false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newV2().sample(1, "__name__", "good")
			b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{tc.h}}, "__name__", "h")
			body := packV2(t, b.done())
			a := g.do(g.request(typeV2, body))
			// RW 1.0 has the same message but for the start timestamp.
			var h1 prompb.Histogram
			require.NoError(t, h1.Unmarshal(mustMarshal(t, &tc.h)))
			body1 := packV1(t, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: named("h"), Histograms: []prompb.Histogram{h1}}}})
			if tc.ok {
				require.Equal(t, 204, a.status, a.text)
				require.Equal(t, [3]int{1, 1, 0}, a.written(t))
				require.Equal(t, body, g.keptOne().body)
				require.Equal(t, 204, g.do(g.request(typeV1, body1)).status)
				require.Equal(t, body1, g.keptOne().body)
				return
			}
			require.Equal(t, 400, a.status)
			require.Equal(t, [3]int{1, 0, 0}, a.written(t))
			require.Contains(t, a.text, "invalid_histogram=1")
			require.Len(t, g.keptOne().v2.Timeseries, 1)
			require.Equal(t, 400, g.do(g.request(typeV1, body1)).status)
			require.Empty(t, g.kept())
		})
	}
}
