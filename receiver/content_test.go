package receiver_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/series"
)

// everythingV1 holds all that an RW 1.0 request can.
func everythingV1() *prompb.WriteRequest {
	exemplar := prompb.Exemplar{Labels: labelsV1("trace_id", "abc"), Value: 0.25, Timestamp: startMs - 5}
	return &prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{
			{Labels: named("plain"), Samples: sampleV1(1.5)},
			{Labels: named("many"), Samples: []prompb.Sample{{Value: 1, Timestamp: startMs - 2}, {Value: 2, Timestamp: startMs - 1}, {Value: 3, Timestamp: startMs}}},
			{Labels: named("stale"), Samples: sampleV1(math.Float64frombits(value.StaleNaN))},
			{Labels: named("nan"), Samples: sampleV1(math.Float64frombits(0x7ff80000deadbeef))},
			{Labels: named("old"), Samples: []prompb.Sample{{Value: math.Inf(-1), Timestamp: math.MinInt64}, {Value: math.Copysign(0, -1), Timestamp: 0}}},
			{Labels: named("int"), Histograms: []prompb.Histogram{prompb.FromIntHistogram(startMs, promHistogram())}},
			{Labels: named("float"), Histograms: []prompb.Histogram{prompb.FromFloatHistogram(startMs, promHistogram().ToFloat(nil))}},
			{Labels: named("custom"), Histograms: []prompb.Histogram{prompb.FromIntHistogram(startMs, customHistogram())}},
			{Labels: named("stale_histogram"), Histograms: []prompb.Histogram{prompb.FromIntHistogram(startMs, &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)})}},
			{Labels: named("with_exemplar"), Samples: sampleV1(1), Exemplars: []prompb.Exemplar{exemplar}},
			{Labels: named("exemplar_alone"), Exemplars: []prompb.Exemplar{exemplar, {Value: 1, Timestamp: 1}}},
			{Labels: labelsV1("__name__", "ütf-8.name", "dotted.label", "日本")},
		},
		Metadata: []prompb.MetricMetadata{{Type: prompb.MetricMetadata_HISTOGRAM, MetricFamilyName: "int", Help: "Help\nwith lines.", Unit: "seconds"}},
	}
}

// everythingV2 holds all that an RW 2.0 request can.
func everythingV2() *builderV2 {
	b := newV2()
	s := func(v float64, t, start int64) []writev2.Sample {
		return []writev2.Sample{{Value: v, Timestamp: t, StartTimestamp: start}}
	}
	b.add(writev2.TimeSeries{Samples: s(1.5, startMs, 0), Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE, HelpRef: b.table.Symbolize("Help."), UnitRef: b.table.Symbolize("seconds")}}, "__name__", "plain", "job", "a")
	b.add(writev2.TimeSeries{Samples: s(1, startMs, startMs-60_000)}, "__name__", "started_total")
	b.add(writev2.TimeSeries{Samples: s(1, startMs, -1)}, "__name__", "started_at_zero_total")
	b.add(writev2.TimeSeries{Samples: s(math.Float64frombits(value.StaleNaN), startMs, 0)}, "__name__", "stale")
	b.add(writev2.TimeSeries{Samples: s(math.Float64frombits(0x7ff80000deadbeef), startMs, 0)}, "__name__", "nan")
	b.add(writev2.TimeSeries{Samples: append(s(1, -5, 0), s(2, 0, 0)...)}, "__name__", "old")
	b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{intHistogram(), floatHistogram()}, Exemplars: []writev2.Exemplar{b.exemplar("abc"), {Value: 2, Timestamp: -7}}}, "__name__", "histograms")
	b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{writev2.FromIntHistogram(startMs-1, startMs, customHistogram())}}, "__name__", "custom")
	b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{writev2.FromFloatHistogram(0, startMs, &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)})}}, "__name__", "stale_histogram")
	b.sample(1, "__name__", "ütf-8.name", "dotted.label", "日本")
	return b
}

// What needs no mending goes on byte for byte.
func TestM10_BitForBit(t *testing.T) {
	g := newGate(t)
	for range 2 { // series seen for the first time, and known ones
		body := packV1(t, everythingV1())
		require.Equal(t, 204, g.do(g.request(typeV1, body)).status)
		require.Equal(t, body, g.keptOne().body)

		body = packV2(t, everythingV2().done())
		a := g.do(g.request(typeV2, body))
		require.Equal(t, 204, a.status, a.text)
		require.Equal(t, [3]int{8, 4, 2}, a.written(t))
		require.Equal(t, body, g.keptOne().body)
	}
}

// What stands beside a series that has to be mended loses no bit either.
func TestM10_BitForBitBesideMendedSeries(t *testing.T) {
	g := newGate(t)
	for range 2 {
		v1 := everythingV1()
		want := seriesV1(t, v1)
		bad := prompb.TimeSeries{Labels: labelsV1("job", "nameless"), Samples: sampleV1(1)}
		unsorted := prompb.TimeSeries{Labels: labelsV1("job", "test", "__name__", "unsorted"), Samples: sampleV1(7)}
		sorted := prompb.TimeSeries{Labels: named("unsorted"), Samples: sampleV1(7)}
		v1.Timeseries = slices.Insert(v1.Timeseries, 3, bad, unsorted, bad)
		v1.Timeseries = append(v1.Timeseries, unsorted, bad)
		middle := seriesV1(t, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{sorted}})[0]
		want = append(slices.Insert(want, 3, middle), middle)
		require.Equal(t, 400, g.sendV1(v1).status)
		k := g.keptOne().v1
		require.Equal(t, want, seriesV1(t, k))
		require.Equal(t, v1.Metadata, k.Metadata)

		b := everythingV2()
		wantV2 := seriesV2(t, b.done())
		b.sample(1, "job", "nameless")
		a := g.sendV2(b.done())
		require.Equal(t, 400, a.status)
		require.Equal(t, [3]int{8, 4, 2}, a.written(t))
		require.Equal(t, wantV2, seriesV2(t, g.keptOne().v2))
	}
}

// Custom buckets are no reason to change a request that has to be mended anyway.
func TestM10_CustomBucketsInAMendedRequest(t *testing.T) {
	g := newGate(t)
	h := []prompb.Histogram{prompb.FromIntHistogram(startMs, customHistogram())}
	unsorted := prompb.TimeSeries{Labels: labelsV1("job", "test", "__name__", "h"), Histograms: h}
	mixed := prompb.TimeSeries{Labels: named("mixed"), Histograms: h, Samples: sampleV1(1)}
	require.Equal(t, 204, g.sendV1(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{unsorted, mixed}}).status)
	require.Equal(t, seriesV1(t, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
		{Labels: named("h"), Histograms: h}, {Labels: named("mixed"), Samples: sampleV1(1)}, {Labels: named("mixed"), Histograms: h},
	}}), seriesV1(t, g.keptOne().v1))
	require.Equal(t, series.Counts{Samples: 1, Histograms: 2}, g.booked())
}

func TestM2_References(t *testing.T) {
	g := newGate(t)
	const huge = math.MaxUint32
	for name, bad := range map[string]func(b *builderV2) writev2.TimeSeries{
		"odd":          func(*builderV2) writev2.TimeSeries { return writev2.TimeSeries{LabelsRefs: []uint32{1, 2, 1}} },
		"out of range": func(*builderV2) writev2.TimeSeries { return writev2.TimeSeries{LabelsRefs: []uint32{1, 999}} },
		"largest":      func(*builderV2) writev2.TimeSeries { return writev2.TimeSeries{LabelsRefs: []uint32{huge, huge}} },
		"help": func(b *builderV2) writev2.TimeSeries {
			return writev2.TimeSeries{LabelsRefs: b.refs("__name__", "x"), Metadata: writev2.Metadata{HelpRef: 999}}
		},
		"unit": func(b *builderV2) writev2.TimeSeries {
			return writev2.TimeSeries{LabelsRefs: b.refs("__name__", "x"), Metadata: writev2.Metadata{UnitRef: huge}}
		},
		"exemplar": func(b *builderV2) writev2.TimeSeries {
			return writev2.TimeSeries{LabelsRefs: b.refs("__name__", "x"), Exemplars: []writev2.Exemplar{{LabelsRefs: []uint32{1, 999}, Timestamp: 1}}}
		},
		"exemplar, odd": func(b *builderV2) writev2.TimeSeries {
			return writev2.TimeSeries{LabelsRefs: b.refs("__name__", "x"), Exemplars: []writev2.Exemplar{{LabelsRefs: []uint32{1}, Timestamp: 1}}}
		},
		"after odd names": func(b *builderV2) writev2.TimeSeries {
			return writev2.TimeSeries{LabelsRefs: append(b.refs("__name__", "ü"), 999, 999)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newV2().sample(1, "__name__", "ü.good") // a name beyond the old charset, which the table notes
			want := seriesV2(t, b.done())
			ts := bad(b)
			ts.Samples = []writev2.Sample{{Value: 1, Timestamp: startMs}}
			b.add(ts)
			for range 2 {
				a := g.sendV2(b.done())
				require.Equal(t, 400, a.status)
				require.Contains(t, a.text, "invalid_refs=")
				require.Equal(t, [3]int{1, 0, 0}, a.written(t))
				require.Equal(t, want, seriesV2(t, g.keptOne().v2))
			}
		})
	}
}

func TestM2_FirstSymbolIsEmpty(t *testing.T) {
	g := newGate(t)
	ts := []writev2.TimeSeries{{LabelsRefs: []uint32{1, 2}, Samples: []writev2.Sample{{Timestamp: startMs}}}}
	for name, symbols := range map[string][]string{"not empty": {"x", "__name__", "up"}, "none": nil} {
		a := g.sendV2(&writev2.Request{Symbols: symbols, Timeseries: ts})
		require.Equal(t, 400, a.status, name)
		require.Equal(t, [3]int{}, a.written(t), name)
		require.Contains(t, a.text, "symbol", name)
	}
	require.Empty(t, g.kept())
}

func TestM3_NothingInASeries(t *testing.T) {
	g := newGate(t)
	b := newV2().sample(1, "__name__", "good")
	want := seriesV2(t, b.done())
	b.add(writev2.TimeSeries{}, "__name__", "empty")
	b.add(writev2.TimeSeries{Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE}}, "__name__", "metadata_only")
	a := g.sendV2(b.done())
	require.Equal(t, 400, a.status)
	require.Contains(t, a.text, "no_samples=2")
	require.Equal(t, [3]int{1, 0, 0}, a.written(t))
	require.Equal(t, want, seriesV2(t, g.keptOne().v2))
	// RW 1.0 has no such rule.
	require.Equal(t, 204, g.sendV1(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: named("empty")}}}).status)
}

// Samples and histograms in one series are taken and kept apart.
func TestM3_MixedSeriesIsSplit(t *testing.T) {
	g := newGate(t)
	b := newV2()
	mixed := writev2.TimeSeries{
		Samples:    []writev2.Sample{{Value: 1, Timestamp: startMs, StartTimestamp: 5}},
		Histograms: []writev2.Histogram{intHistogram()},
		Exemplars:  []writev2.Exemplar{b.exemplar("x")},
	}
	b.add(mixed, "__name__", "both", "job", "x")
	a := g.sendV2(b.done())
	require.Equal(t, 204, a.status, a.text)
	require.Equal(t, [3]int{1, 1, 1}, a.written(t))
	var samples, histograms, exemplars int
	for _, ts := range g.keptOne().v2.Timeseries {
		require.NotEqual(t, len(ts.Samples) > 0, len(ts.Histograms) > 0)
		samples, histograms, exemplars = samples+len(ts.Samples), histograms+len(ts.Histograms), exemplars+len(ts.Exemplars)
		if len(ts.Samples) > 0 {
			require.Equal(t, mixed.Samples, ts.Samples)
		} else {
			require.Equal(t, mixed.Histograms, ts.Histograms)
		}
	}
	require.Equal(t, []int{1, 1, 1}, []int{samples, histograms, exemplars})

	h := prompb.FromIntHistogram(startMs, promHistogram())
	require.Equal(t, 204, g.sendV1(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: named("both"), Samples: sampleV1(1), Histograms: []prompb.Histogram{h}}}}).status)
	require.Len(t, g.keptOne().v1.Timeseries, 2)
}

// Prometheus sends each exemplar as a series of its own: RW 1.0 takes that, RW 2.0 does
// where a sample of the series is in the same request.
func TestM3_ExemplarsAlone(t *testing.T) {
	alone := func(b *builderV2, trace string, pairs ...string) {
		b.add(writev2.TimeSeries{Exemplars: []writev2.Exemplar{b.exemplar(trace)}}, pairs...)
	}
	for name, tc := range map[string]struct {
		build     func(b *builderV2)
		status    int
		written   [3]int
		text      string
		exemplars []int // of each kept series
	}{
		"sample before": {func(b *builderV2) { b.sample(1, "__name__", "a", "x", "1"); alone(b, "t", "__name__", "a", "x", "1") }, 204, [3]int{1, 0, 1}, "", []int{1}},
		"sample after":  {func(b *builderV2) { alone(b, "t", "__name__", "a", "x", "1"); b.sample(1, "__name__", "a", "x", "1") }, 204, [3]int{1, 0, 1}, "", []int{1}},
		"histogram": {func(b *builderV2) {
			b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{intHistogram()}}, "__name__", "a")
			alone(b, "t", "__name__", "a")
			alone(b, "u", "__name__", "a")
		}, 204, [3]int{0, 1, 2}, "", []int{2}},
		"another spelling": {func(b *builderV2) {
			b.sample(1, "__name__", "a", "x", "1")
			alone(b, "t", "x", "1", "y", "", "__name__", "a")
		}, 204, [3]int{1, 0, 1}, "", []int{1}},
		"sample misspelled": {func(b *builderV2) { b.sample(1, "x", "1", "__name__", "a"); alone(b, "t", "__name__", "a", "x", "1") }, 204, [3]int{1, 0, 1}, "", []int{1}},
		"no sample":         {func(b *builderV2) { b.sample(1, "__name__", "b"); alone(b, "t", "__name__", "a") }, 400, [3]int{1, 0, 0}, "exemplar_without_sample=1", []int{0}},
		"sample of another": {func(b *builderV2) { b.sample(1, "__name__", "a", "x", "2"); alone(b, "t", "__name__", "a", "x", "1") }, 400, [3]int{1, 0, 0}, "exemplar_without_sample=1", []int{0}},
		"sample that is refused": {func(b *builderV2) {
			b.add(writev2.TimeSeries{Samples: []writev2.Sample{{Timestamp: startMs + 1e9}}}, "__name__", "a")
			alone(b, "t", "__name__", "a")
		}, 400, [3]int{}, "2 of 2 samples rejected: exemplar_without_sample=1 too_far_in_future=1", nil},
		"one refused, one taken": {func(b *builderV2) {
			b.add(writev2.TimeSeries{Samples: []writev2.Sample{{Timestamp: startMs + 1e9}}}, "__name__", "a")
			alone(b, "t", "__name__", "a")
			b.sample(1, "__name__", "a")
		}, 400, [3]int{1, 0, 1}, "1 of 3 samples rejected: too_far_in_future=1", []int{1}},
		"labels that are refused": {func(b *builderV2) { b.sample(1, "x", "1"); alone(b, "t", "x", "1") }, 400, [3]int{}, "2 of 2 samples rejected: missing_name=2", nil},
		"nothing but exemplars":   {func(b *builderV2) { alone(b, "t", "__name__", "a"); alone(b, "u", "__name__", "a") }, 400, [3]int{}, "exemplar_without_sample=2", nil},
	} {
		for _, size := range []int{100_000, 0} { // with a series table, and with shared ids only
			t.Run(fmt.Sprintf("%s, table of %d", name, size), func(t *testing.T) {
				g := newGate(t, func(s *setup) { s.series = size })
				for range 2 {
					b := newV2()
					tc.build(b)
					a := g.sendV2(b.done())
					require.Equal(t, tc.status, a.status, a.text)
					require.Equal(t, tc.written, a.written(t))
					require.Contains(t, a.text, tc.text)
					var exemplars []int
					for _, k := range g.kept() {
						for _, ts := range k.v2.Timeseries {
							exemplars = append(exemplars, len(ts.Exemplars))
						}
					}
					require.Equal(t, tc.exemplars, exemplars)
				}
			})
		}
	}
}

// Two series that share an id are told apart when exemplars look for their sample.
func TestM3_ExemplarsAloneWithSharedID(t *testing.T) {
	g := newGate(t, func(s *setup) { s.series = 0 })
	b := newV2()
	const n = 200
	for i := range n {
		b.add(writev2.TimeSeries{Exemplars: []writev2.Exemplar{b.exemplar("t")}}, "__name__", fmt.Sprint("alone_", i))
	}
	for i := range 30_000 { // so many that each shared id has some
		b.sample(1, "__name__", fmt.Sprint("sample_", i))
	}
	a := g.sendV2(b.done())
	require.Equal(t, 400, a.status)
	require.Equal(t, [3]int{30_000, 0, 0}, a.written(t))
	require.Contains(t, a.text, "200 of 30200 samples rejected: exemplar_without_sample=200; first: {\"__name__\"=\"alone_0\"}")
	require.Len(t, g.keptOne().v2.Timeseries, 30_000)
}

// A request full of exemplars without samples takes no more time than its length is
// worth.
func TestM3_ManyExemplarsAlone(t *testing.T) {
	g := newGate(t)
	b := newV2()
	for i := range 200_000 {
		b.add(writev2.TimeSeries{Exemplars: []writev2.Exemplar{{Timestamp: startMs}}}, "__name__", fmt.Sprint(i))
	}
	body := packV2(t, b.done())
	begin := time.Now()
	a := g.do(g.request(typeV2, body))
	require.Equal(t, 400, a.status)
	require.Contains(t, a.text, "200000 of 200000")
	require.Less(t, time.Since(begin), 10*time.Second) // a quadratic search takes more
}

func TestM4toM9_Labels(t *testing.T) {
	g := newGate(t)
	for name, tc := range map[string]struct {
		pairs  []string
		reason string   // empty when accepted
		kept   []string // labels as they are kept
	}{
		"M4 no name":              {[]string{"job", "x"}, "missing_name", nil},
		"M4 no labels":            {nil, "missing_name", nil},
		"M4 empty metric name":    {[]string{"__name__", "", "job", "x"}, "missing_name", nil},
		"M5 utf-8":                {[]string{"__name__", "héllo wörld", "lä.bel", "日本"}, "", []string{"__name__", "héllo wörld", "lä.bel", "日本"}},
		"M5 not utf-8 value":      {[]string{"__name__", "a", "b", "\xff"}, "invalid_utf8", nil},
		"M5 not utf-8 name":       {[]string{"__name__", "a", "b\xc3", "x"}, "invalid_utf8", nil},
		"M6 duplicate":            {[]string{"__name__", "a", "b", "1", "b", "2"}, "duplicate_label", nil},
		"M6 duplicate, same":      {[]string{"__name__", "a", "b", "1", "b", "1"}, "duplicate_label", nil},
		"M6 duplicate apart":      {[]string{"b", "1", "__name__", "a", "b", "2"}, "duplicate_label", nil},
		"M6 duplicate metric":     {[]string{"__name__", "a", "__name__", "b"}, "duplicate_label", nil},
		"M7 unsorted":             {[]string{"z", "1", "job", "x", "__name__", "a"}, "", []string{"__name__", "a", "job", "x", "z", "1"}},
		"M8 empty value":          {[]string{"__name__", "a", "b", "", "c", "1"}, "", []string{"__name__", "a", "c", "1"}},
		"M8 empty and unsorted":   {[]string{"z", "1", "b", "", "__name__", "a"}, "", []string{"__name__", "a", "z", "1"}},
		"M8 duplicate of empty":   {[]string{"__name__", "a", "b", "", "b", "1"}, "", []string{"__name__", "a", "b", "1"}},
		"M8 empty label name":     {[]string{"", "x", "__name__", "a"}, "empty_label_name", nil},
		"M8 both empty":           {[]string{"", "", "__name__", "a"}, "empty_label_name", nil},
		"M9 reserved":             {[]string{"__name__", "a", "__type__", "counter", "__unit__", "s"}, "", []string{"__name__", "a", "__type__", "counter", "__unit__", "s"}},
		"many":                    {manyLabels(), "", manyLabels()},
		"a long value":            {[]string{"__name__", "a", "b", strings.Repeat("x", 100_000)}, "", []string{"__name__", "a", "b", strings.Repeat("x", 100_000)}},
		"names that are prefixes": {[]string{"__name__", "a", "ab", "1", "a", "2"}, "", []string{"__name__", "a", "a", "2", "ab", "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // new and known
				v1 := g.sendV1(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: labelsV1(tc.pairs...), Samples: sampleV1(1)}}})
				b := newV2().add(writev2.TimeSeries{LabelsRefs: nil, Samples: []writev2.Sample{{Value: 1, Timestamp: startMs}}}, tc.pairs...)
				kv1 := g.kept()
				v2 := g.sendV2(b.done())
				kv2 := g.kept()
				if tc.reason != "" {
					require.Equal(t, 400, v1.status)
					require.Equal(t, 400, v2.status)
					require.Contains(t, v1.text, tc.reason+"=1")
					require.Contains(t, v2.text, tc.reason+"=1")
					require.Empty(t, kv1)
					require.Empty(t, kv2)
					continue
				}
				require.Equal(t, 204, v1.status, v1.text)
				require.Equal(t, 204, v2.status, v2.text)
				require.Equal(t, [3]int{1, 0, 0}, v2.written(t))
				require.Equal(t, labelsV1(tc.kept...), kv1[0].v1.Timeseries[0].Labels)
				ts := kv2[0].v2.Timeseries[0]
				var got []string
				for _, r := range ts.LabelsRefs {
					got = append(got, kv2[0].v2.Symbols[r])
				}
				require.Equal(t, tc.kept, got)
			}
		})
	}
}

// The inside of RW 1.0 labels is only read when a series is new.
func TestM4toM9_BrokenLabel(t *testing.T) {
	g := newGate(t)
	good := mustMarshal(t, oneV1())
	content := append([]byte{1<<3 | 2, 4, 1<<3 | 2, 9, 'x', 'y'}, mustMarshal(t, &prompb.TimeSeries{Samples: sampleV1(1)})...)
	broken := append(binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(content))), content...)
	for range 2 {
		a := g.do(g.request(typeV1, snappy.Encode(nil, slices.Concat(broken, good))))
		require.Equal(t, 400, a.status)
		require.Contains(t, a.text, "1 of 2 samples rejected: malformed_labels=1; first: series 0")
		require.Equal(t, oneV1(), g.keptOne().v1)
	}
}

func manyLabels() []string {
	pairs := []string{"__name__", "many"}
	for i := range 500 {
		pairs = append(pairs, fmt.Sprintf("label_%04d", i), "x")
	}
	return pairs
}

// M7: a series in any order of its labels, in either version, is one series, in the
// order in which its samples came.
func TestM7_AnyOrderIsOneSeries(t *testing.T) {
	g := newGate(t)
	pairs := [][2]string{{"__name__", "a"}, {"b", "1"}, {"c", "2"}, {"d", "3"}}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 100 {
		rng.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
		var flat []string
		for _, p := range pairs {
			flat = append(flat, p[0], p[1])
		}
		if i%2 == 0 {
			require.Equal(t, 204, g.sendV1(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: labelsV1(flat...), Samples: sampleV1(float64(i))}}}).status)
		} else {
			require.Equal(t, 204, g.sendV2(newV2().sample(float64(i), flat...).done()).status)
		}
	}
	for i, k := range g.kept() {
		if i%2 == 0 {
			require.Equal(t, float64(i), k.v1.Timeseries[0].Samples[0].Value)
			require.Equal(t, labelsV1("__name__", "a", "b", "1", "c", "2", "d", "3"), k.v1.Timeseries[0].Labels)
		} else {
			require.Equal(t, float64(i), k.v2.Timeseries[0].Samples[0].Value)
		}
	}
	require.Equal(t, 1, g.table.Len())
}

// Label fields that do not stand together are one label set (protobuf does not order
// fields).
func TestM7_SplitLabelFields(t *testing.T) {
	g := newGate(t)
	whole := mustMarshal(t, &prompb.TimeSeries{Labels: labelsV1("__name__", "a", "b", "1")})
	sample := mustMarshal(t, &prompb.TimeSeries{Samples: sampleV1(1)})
	first := mustMarshal(t, &prompb.TimeSeries{Labels: labelsV1("__name__", "a")})
	content := slices.Concat(first, sample, whole[len(first):])
	body := append(binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(content))), content...)
	require.Equal(t, 204, g.do(g.request(typeV1, snappy.Encode(nil, body))).status)
	require.Equal(t, []string{string(slices.Concat(whole, sample))}, seriesV1(t, g.keptOne().v1))
}

// M11: rc.3 wrote one created timestamp a series; rc.4 has one with each sample.
func TestM11_CreatedTimestampOfRC3(t *testing.T) {
	g := newGate(t)
	created := startMs - 60_000
	b := newV2()
	b.add(writev2.TimeSeries{Samples: []writev2.Sample{{Value: 1, Timestamp: startMs - 1}, {Value: 2, Timestamp: startMs, StartTimestamp: 7}}, XXX_unrecognized: createdField(created)}, "__name__", "a_total")
	b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{intHistogram(), floatHistogram()}, XXX_unrecognized: createdField(created)}, "__name__", "h")
	b.add(writev2.TimeSeries{Samples: []writev2.Sample{{Value: 3, Timestamp: startMs}}, XXX_unrecognized: createdField(0)}, "__name__", "unset_total")
	b.add(writev2.TimeSeries{Samples: []writev2.Sample{{Value: 4, Timestamp: startMs}}, XXX_unrecognized: createdField(-1)}, "__name__", "zero_total")
	a := g.sendV2(b.done())
	require.Equal(t, 204, a.status, a.text)
	require.Equal(t, [3]int{4, 2, 0}, a.written(t))
	k := g.keptOne().v2
	require.Equal(t, []writev2.Sample{{Value: 1, Timestamp: startMs - 1, StartTimestamp: created}, {Value: 2, Timestamp: startMs, StartTimestamp: 7}}, k.Timeseries[0].Samples)
	for i, want := range []writev2.Histogram{intHistogram(), floatHistogram()} {
		want.StartTimestamp = created
		require.Equal(t, want, k.Timeseries[1].Histograms[i])
	}
	require.Equal(t, []writev2.Sample{{Value: 3, Timestamp: startMs}}, k.Timeseries[2].Samples)
	require.Equal(t, []writev2.Sample{{Value: 4, Timestamp: startMs, StartTimestamp: -1}}, k.Timeseries[3].Samples)
}

// M12, M13, M15: metadata of any type, with or without start timestamps, also changing.
func TestM13_Metadata(t *testing.T) {
	g := newGate(t)
	for typ := range writev2.Metadata_MetricType_name {
		b := newV2()
		b.add(writev2.TimeSeries{
			Samples:  []writev2.Sample{{Value: 1, Timestamp: startMs}},
			Metadata: writev2.Metadata{Type: writev2.Metadata_MetricType(typ), HelpRef: b.table.Symbolize("Help " + fmt.Sprint(typ))},
		}, "__name__", "a")
		body := packV2(t, b.done())
		require.Equal(t, 204, g.do(g.request(typeV2, body)).status)
		require.Equal(t, body, g.keptOne().body)
	}
}

// M13: RW 1.0 tells metadata in requests without series. They are kept for backends and
// remembered for those that want it with the series.
func TestM13_MetadataOnlyRequest(t *testing.T) {
	g := newGate(t)
	body := packV1(t, &prompb.WriteRequest{Metadata: []prompb.MetricMetadata{
		{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "a_total", Help: "Old."},
		{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "a_total", Help: "New.", Unit: "s"},
		{Type: prompb.MetricMetadata_UNKNOWN, MetricFamilyName: "b"},
	}})
	require.Equal(t, 204, g.do(g.request(typeV1, body)).status)
	require.Equal(t, body, g.keptOne().body)
	md, ok := g.metadata.Get([]byte("a_total"))
	require.True(t, ok)
	require.Equal(t, "New.", string(md.Help))
	require.Equal(t, "s", string(md.Unit))
}

func TestM14_ExemplarWithoutTimestamp(t *testing.T) {
	g := newGate(t)
	b := newV2().sample(1, "__name__", "good")
	b.add(writev2.TimeSeries{Samples: []writev2.Sample{{Value: 1, Timestamp: startMs}}, Exemplars: []writev2.Exemplar{{Value: 1, LabelsRefs: b.refs("trace_id", "x")}}}, "__name__", "bad")
	a := g.sendV2(b.done())
	require.Equal(t, 400, a.status)
	require.Contains(t, a.text, "exemplar_without_timestamp=2")
	require.Equal(t, [3]int{1, 0, 0}, a.written(t))
	g.keptOne()
	a = g.sendV1(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: named("a"), Exemplars: []prompb.Exemplar{{Value: 1}}}}})
	require.Equal(t, 400, a.status)
	require.Contains(t, a.text, "exemplar_without_timestamp=1")
	require.Empty(t, g.kept())
}

// Splitting doubles labels: what is kept may be longer than what came.
func TestM3_SplitRequestsGrow(t *testing.T) {
	g := newGate(t, func(s *setup) { s.receiver.MaxDecodedSize = bytesize.MiB })
	req := &prompb.WriteRequest{}
	ls := labelsV1(manyLabels()...)
	h := prompb.FromIntHistogram(startMs, promHistogram())
	for range 90 {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{Labels: ls, Samples: sampleV1(1), Histograms: []prompb.Histogram{h}})
	}
	a := g.sendV1(req)
	require.Equal(t, 204, a.status, a.text)
	require.Len(t, g.keptOne().v1.Timeseries, 180)
	require.Equal(t, series.Counts{Samples: 90, Histograms: 90}, g.booked())
}
