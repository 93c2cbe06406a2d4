package remotewrite

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/internal/series"
)

// classicOf is what Prometheus makes of a histogram with custom buckets.
func classicOf(t require.TestingT, ls []prompb.Label, h *histogram.FloatHistogram, at int64) (want []modelSeries) {
	var pairs []string
	for _, l := range ls {
		pairs = append(pairs, l.Name, l.Value)
	}
	err := histogram.ConvertNHCBToClassic(h, labels.FromStrings(pairs...), labels.NewBuilder(labels.EmptyLabels()),
		func(ls labels.Labels, v float64) error {
			var pairs []string
			ls.Range(func(l labels.Label) { pairs = append(pairs, l.Name, l.Value) })
			want = append(want, modelSeries{Labels: spell(pairs), Samples: []modelSample{{Bits: math.Float64bits(v), Time: at}}})
			return nil
		})
	require.NoError(t, err)
	return want
}

func TestNHCB_BecomesTheClassicSeriesOfPrometheus(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := genHistogram(t, true)
		if value.IsStaleNaN(h.Sum) || h.Sum == 0 { // the generated encoders lose the sign of -0
			h.Sum = 1
		}
		s := genSeries{labels: genLabels(t, "labels"), times: []int64{genTime.Draw(t, "time")}, starts: []int64{5}}
		if rapid.Bool().Draw(t, "float") {
			s.floats = append(s.floats, h.ToFloat(nil))
		} else {
			s.ints = append(s.ints, h)
		}
		from := rapid.SampledFrom([]series.Version{series.V1, series.V2}).Draw(t, "from")
		b := NewBuilder(BuilderOptions{Version: series.V1})
		out := written(t, b, from, encode(from, []genSeries{s}))
		got, _ := readV1(t, out)
		require.Equal(t, classicOf(t, s.labels, h.ToFloat(nil), s.times[0]), got)
		require.Equal(t, len(h.CustomValues)+3, b.Len())
		require.Equal(t, series.Counts{Histograms: 1}, b.Counts())
		if from == series.V2 {
			require.EqualValues(t, 1, b.StartsDropped())
		}
	})
}

// Empty buckets between spans stay empty in integer histograms too.
func TestNHCB_GapsAreEmptyBuckets(t *testing.T) {
	h := &histogram.Histogram{
		Schema: customBuckets, Count: 7, Sum: 3, CustomValues: []float64{1, 2, 3},
		PositiveSpans:   []histogram.Span{{Offset: 0, Length: 1}, {Offset: 2, Length: 1}},
		PositiveBuckets: []int64{3, 1},
	}
	b := NewBuilder(BuilderOptions{Version: series.V1})
	got, _ := readV1(t, written(t, b, series.V2, encodeV2([]genSeries{{
		labels: label(nameLabel, "h"), ints: []*histogram.Histogram{h}, times: []int64{1}, starts: []int64{0},
	}})))
	var values []float64
	for _, s := range got {
		values = append(values, math.Float64frombits(s.Samples[0].Bits))
	}
	require.Equal(t, []float64{3, 3, 3, 7, 7, 3}, values)
}

func nhcb(bounds ...float64) *histogram.Histogram {
	return &histogram.Histogram{
		Schema: customBuckets, Count: 2, Sum: 3, CustomValues: bounds,
		PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{2},
	}
}

func TestNHCB_StaleMarkerEndsAllSeries(t *testing.T) {
	h := &histogram.Histogram{Schema: customBuckets, Sum: math.Float64frombits(value.StaleNaN), CustomValues: []float64{0.5, 1}}
	s := genSeries{labels: label(nameLabel, "h", "z", "y"), ints: []*histogram.Histogram{h}, times: []int64{9}, starts: []int64{0}}
	got, _ := readV1(t, written(t, NewBuilder(BuilderOptions{Version: series.V1}), series.V2, encodeV2([]genSeries{s})))
	var want []modelSeries
	for _, ls := range [][]string{
		{nameLabel, "h_bucket", "le", "0.5", "z", "y"},
		{nameLabel, "h_bucket", "le", "1.0", "z", "y"},
		{nameLabel, "h_bucket", "le", "+Inf", "z", "y"},
		{nameLabel, "h_count", "z", "y"},
		{nameLabel, "h_sum", "z", "y"},
	} {
		want = append(want, modelSeries{Labels: spell(ls), Samples: []modelSample{{Bits: value.StaleNaN, Time: 9}}})
	}
	require.Equal(t, want, got)
}

func TestNHCB_ExemplarsGoWithTheirBuckets(t *testing.T) {
	s := genSeries{
		labels: label(nameLabel, "h"), ints: []*histogram.Histogram{nhcb(1, 2), nhcb(1, 2)}, times: []int64{8, 9}, starts: []int64{0, 0},
		exemplars: append(append(exemplar(0.5), exemplar(1)...), append(exemplar(99), exemplar(math.NaN())...)...),
	}
	got, _ := readV1(t, written(t, NewBuilder(BuilderOptions{Version: series.V1}), series.V2, encodeV2([]genSeries{s})))
	require.Len(t, got, 10)
	for i, want := range []int{0, 0, 0, 0, 0, 2, 0, 2, 0, 0} {
		require.Len(t, got[i].Exemplars, want, "%d", i)
	}
}

func TestNHCB_OtherThingsInTheSeriesStay(t *testing.T) {
	exponential := &histogram.Histogram{Count: 3, ZeroCount: 3}
	for _, withSamples := range []bool{false, true} {
		for _, policy := range []NHCBPolicy{NHCBExpand, NHCBDrop} {
			s := genSeries{
				labels: label(nameLabel, "h"), ints: []*histogram.Histogram{nhcb(1), exponential}, times: []int64{8, 9}, starts: []int64{0, 0},
				exemplars: exemplar(1),
			}
			if withSamples {
				s.samples = []writev2.Sample{{Value: 1, Timestamp: 7}}
			}
			b := NewBuilder(BuilderOptions{Version: series.V1, NHCBOnV1: policy})
			m := scanBytes(t, series.V2, encodeV2([]genSeries{s}))
			o := b.Add(m, 0)
			got, _ := readV1(t, b.AppendTo(nil))
			want := 1
			if withSamples {
				require.Len(t, got[0].Samples, 1)
				want++
			}
			require.Len(t, got[0].Exemplars, 1)
			require.Len(t, got[want-1].Histograms, 1)
			dropped := series.Counts{}
			if policy == NHCBDrop {
				require.Equal(t, ReasonNHCBOnRW1, o.Reason)
				dropped.Histograms = 1
			} else {
				want += 4
			}
			require.Equal(t, dropped, o.Dropped)
			require.Len(t, got, want)
		}
	}
}

func TestNHCB_DropTakesExemplarsAlong(t *testing.T) {
	s := genSeries{labels: label(nameLabel, "h"), ints: []*histogram.Histogram{nhcb(1)}, times: []int64{8}, starts: []int64{0}, exemplars: exemplar(1)}
	for _, from := range []series.Version{series.V1, series.V2} {
		b := NewBuilder(BuilderOptions{Version: series.V1, NHCBOnV1: NHCBDrop})
		o := b.Add(scanBytes(t, from, encode(from, []genSeries{s})), 0)
		require.Equal(t, Outcome{Dropped: series.Counts{Histograms: 1, Exemplars: 1}, Reason: ReasonNHCBOnRW1}, o)
		require.Zero(t, b.Size())
	}
	// RW 2.0 takes them as they are.
	require.Equal(t, series.Counts{Histograms: 1, Exemplars: 1},
		NewBuilder(BuilderOptions{Version: series.V2, NHCBOnV1: NHCBDrop}).Add(scanBytes(t, series.V1, encodeV1([]genSeries{s})), 0).Written)
}

func TestNHCB_TooWide(t *testing.T) {
	bounds := make([]float64, maxClassicBuckets+1)
	for i := range bounds {
		bounds[i] = float64(i)
	}
	for n, want := range map[int]Reason{maxClassicBuckets: "", maxClassicBuckets + 1: ReasonHistogramTooWide} {
		for _, float := range []bool{true, false} {
			s := genSeries{labels: label(nameLabel, "h"), times: []int64{8}, starts: []int64{0}, exemplars: exemplar(1)}
			if h := nhcb(bounds[:n]...); float {
				s.floats = append(s.floats, h.ToFloat(nil))
			} else {
				s.ints = append(s.ints, h)
			}
			b := NewBuilder(BuilderOptions{Version: series.V1})
			o := b.Add(scanBytes(t, series.V2, encodeV2([]genSeries{s})), 0)
			require.Equal(t, want, o.Reason)
			require.Equal(t, want != "", o.Dropped == series.Counts{Histograms: 1, Exemplars: 1})
			require.Equal(t, want != "", b.Size() == 0)
		}
	}
}

// The labels are repeated for each bucket, so that their length counts too, for all
// histograms of a series together.
func TestNHCB_TooLong(t *testing.T) {
	bounds := make([]float64, 900)
	for i := range bounds {
		bounds[i] = float64(i)
	}
	s := genSeries{labels: label(nameLabel, "h", "long", strings.Repeat("x", 6000)), exemplars: exemplar(1)}
	for i := range 5 {
		s.ints = append(s.ints, nhcb(bounds...))
		s.times, s.starts = append(s.times, int64(i)), append(s.starts, 0)
	}
	b := NewBuilder(BuilderOptions{Version: series.V1})
	o := b.Add(scanBytes(t, series.V2, encodeV2([]genSeries{s})), 0)
	require.Equal(t, Outcome{
		Written: series.Counts{Histograms: 3}, Dropped: series.Counts{Histograms: 2, Exemplars: 1}, Reason: ReasonHistogramTooWide,
	}, o)
	require.Less(t, b.Size(), maxExpanded+1<<20)
}

func TestNHCB_NamesAreEscapedWithTheirSuffix(t *testing.T) {
	s := genSeries{labels: label(nameLabel, "h.ms", "le", "gone", "x.y", "1"), ints: []*histogram.Histogram{nhcb(2.5)}, times: []int64{8}, starts: []int64{0}}
	for escaping, want := range map[Escaping][]string{
		EscapeAllow:       {nameLabel, "h.ms_bucket", "le", "2.5", "x.y", "1"},
		EscapeUnderscores: {nameLabel, "h_ms_bucket", "le", "2.5", "x_y", "1"},
		EscapeDots:        {nameLabel, "h_dot_ms__bucket", "le", "2.5", "x_dot_y", "1"},
		EscapeValues:      {"U__x_2e_y", "1", nameLabel, "U__h_2e_ms__bucket", "le", "2.5"},
	} {
		b := NewBuilder(BuilderOptions{Version: series.V1, Escaping: escaping})
		got, _ := readV1(t, written(t, b, series.V2, encodeV2([]genSeries{s})))
		require.Equal(t, spell(want), got[0].Labels)
	}
	s.labels = label(nameLabel, "h", "x.y", "1", "x_y", "2")
	b := NewBuilder(BuilderOptions{Version: series.V1, Escaping: EscapeUnderscores})
	o := b.Add(scanBytes(t, series.V2, encodeV2([]genSeries{s})), 0)
	require.Equal(t, Outcome{Dropped: series.Counts{Histograms: 1}, Reason: ReasonEscapingCollision}, o)
}

func TestAppendBound(t *testing.T) {
	f := func(v float64) {
		t.Helper()
		require.Equal(t, labels.FormatOpenMetricsFloat(v), string(appendBound(nil, v)))
	}
	for _, v := range []float64{0, math.Copysign(0, -1), 1, -1, 0.005, 10, 1e6, 1e20, 1e21, 1e22, 1e-7, math.MaxFloat64, math.SmallestNonzeroFloat64, math.Inf(1), 123456789} {
		f(v)
	}
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Float64().Draw(t, "bound")
		require.Equal(t, labels.FormatOpenMetricsFloat(v), string(appendBound(nil, v)), fmt.Sprint(v))
	})
}
