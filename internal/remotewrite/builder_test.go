package remotewrite

import (
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

func TestBuilder_V1ToV1_IsACopy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := encodeV1(genRequest(t, genOptions{exemplars: true}))
		require.Equal(t, data, append([]byte{}, written(t, NewBuilder(BuilderOptions{Version: series.V1}), series.V1, data)...))
	})
}

func TestBuilder_V2ToV2_OneSourceIsACopy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := encodeV2(genRequest(t, genOptions{custom: true, starts: true}))
		require.Equal(t, data, written(t, NewBuilder(BuilderOptions{Version: series.V2}), series.V2, data))
	})
}

// A run makes the bytes, and the counts, that its series make one by one.
func TestBuilder_AddRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.SampledFrom([]series.Version{series.V1, series.V2}).Draw(t, "from")
		to := rapid.SampledFrom([]series.Version{series.V1, series.V2}).Draw(t, "to")
		m := scanBytes(t, from, encode(from, genRequest(t, genOptions{custom: true, starts: from == series.V2, mixed: true, exemplars: true})))
		o := BuilderOptions{Version: to, NHCBOnV1: rapid.SampledFrom([]NHCBPolicy{NHCBKeep, NHCBDrop}).Draw(t, "policy")}
		single, runs := NewBuilder(o), NewBuilder(o)
		for i := 0; i < len(m.Series); {
			end := rapid.IntRange(i+1, len(m.Series)).Draw(t, "end")
			n := runs.AddRun(m, i, end)
			require.LessOrEqual(t, i+n, end)
			for k := range n {
				require.Equal(t, Outcome{Written: m.Series[i+k].Counts()}, single.Add(m, i+k))
			}
			if n == 0 {
				require.Equal(t, single.Add(m, i), runs.Add(m, i))
				n = 1
			}
			i += n
			require.Equal(t, single.Len(), runs.Len())
			require.Equal(t, single.Counts(), runs.Counts())
		}
		require.Equal(t, single.AppendTo(nil), runs.AppendTo(nil))
		require.Equal(t, single.Late(), runs.Late())
	})
	m := scanned(t, series.V1, payloadV1(3))
	require.Equal(t, 3, NewBuilder(BuilderOptions{Version: series.V1}).AddRun(m, 0, 3), "what Prometheus sends goes in one piece")
}

func TestM1_ManySourcesShareOneTable(t *testing.T) {
	b := NewBuilder(BuilderOptions{Version: series.V2})
	rapid.Check(t, func(t *rapid.T) {
		b.Reset()
		var want []modelSeries
		m := new(Message) // one Message for all requests, as a lane has it
		var room []byte
		for range rapid.IntRange(1, 6).Draw(t, "requests") {
			data := encodeV2(genRequest(t, genOptions{custom: true, starts: true}))
			room = append(room[:0], data...)
			require.NoError(t, m.Scan(series.V2, room))
			b.Begin(m)
			require.Empty(t, addAll(b, m).Reason)
			want = append(want, readV2(t, data)...)
		}
		got := b.AppendTo(nil)
		require.Equal(t, len(got), b.Size())
		require.Equal(t, want, append([]modelSeries(nil), readV2(t, got)...))
		symbolsUnique(t, got)
	})
}

func TestBuilder_V1ToV2ToV1(t *testing.T) {
	there := NewBuilder(BuilderOptions{Version: series.V2})
	back := NewBuilder(BuilderOptions{Version: series.V1})
	rapid.Check(t, func(t *rapid.T) {
		there.Reset()
		back.Reset()
		data := encodeV1(genRequest(t, genOptions{}))
		want, _ := readV1(t, data)
		v2 := written(t, there, series.V1, data)
		require.Equal(t, want, withoutMetadata(readV2(t, v2)))
		symbolsUnique(t, v2)
		got, families := readV1(t, written(t, back, series.V2, v2))
		require.Equal(t, want, got)
		require.Empty(t, families)
	})
}

func TestBuilder_V2ToV1ToV2(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := genRequest(t, genOptions{starts: true})
		for i := range all { // a family of its own for each, so that metadata returns
			for j, l := range all[i].labels {
				if l.Name == nameLabel {
					all[i].labels[j].Value = fmt.Sprint("metric", i)
				}
			}
		}
		data := encodeV2(all)
		want := withoutStarts(readV2(t, data))

		there := NewBuilder(BuilderOptions{Version: series.V1})
		v1 := written(t, there, series.V2, data)
		got, families := readV1(t, v1)
		require.Equal(t, withoutMetadata(want), got)
		starts := uint64(0)
		for _, s := range all {
			for _, x := range s.samples {
				if x.StartTimestamp != 0 {
					starts++
				}
			}
			for _, x := range s.starts {
				if x != 0 {
					starts++
				}
			}
		}
		require.Equal(t, starts, there.StartsDropped())

		cache := NewMetadataCache(MetadataCacheOptions{})
		for name, md := range families {
			cache.Observe(Metadata{Family: []byte(name), Type: MetricType(md.Type), Help: []byte(md.Help), Unit: []byte(md.Unit)})
		}
		back := NewBuilder(BuilderOptions{Version: series.V2, Metadata: cache})
		require.Equal(t, want, readV2(t, written(t, back, series.V1, v1)))
	})
}

// TestBuilder_ConservesCounts drives everything through every path, in parts and
// together, and holds the Outcomes against what the sources hold and what arrives.
func TestBuilder_ConservesCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := BuilderOptions{
			Version:  rapid.SampledFrom([]series.Version{series.V1, series.V2}).Draw(t, "to"),
			Escaping: rapid.SampledFrom([]Escaping{EscapeAllow, EscapeUnderscores, EscapeDots, EscapeValues, EscapeRefuse}).Draw(t, "escaping"),
			NHCBOnV1: rapid.SampledFrom([]NHCBPolicy{NHCBExpand, NHCBDrop}).Draw(t, "nhcb"),
		}
		b := NewBuilder(o)
		var source, written, dropped series.Counts
		for range rapid.IntRange(1, 4).Draw(t, "requests") {
			v := rapid.SampledFrom([]series.Version{series.V1, series.V2}).Draw(t, "from")
			m := scanBytes(t, v, encode(v, genRequest(t, genOptions{custom: true, starts: true, mixed: true, exemplars: true})))
			b.Begin(m)
			for i := range m.Series {
				if rapid.IntRange(0, 3).Draw(t, "skip") == 0 {
					continue
				}
				one := b.Add(m, i)
				sum := one.Written
				sum.Add(one.Dropped)
				require.Equal(t, m.Series[i].Counts(), sum)
				require.Equal(t, one.Dropped.Zero(), one.Reason == "")
				source.Add(sum)
				written.Add(one.Written)
				dropped.Add(one.Dropped)
			}
		}
		require.Equal(t, written, b.Counts())
		out := b.AppendTo(nil)
		for _, l := range b.Late() {
			require.NotEmpty(t, l.Reason)
			written.Sub(l.Dropped)
			dropped.Add(l.Dropped)
		}
		require.Equal(t, written, b.Counts())
		require.Equal(t, out, b.AppendTo(nil))
		written.Add(dropped)
		require.Equal(t, source, written)
		require.Equal(t, len(out), b.Size())

		m := scanBytes(t, o.Version, out)
		require.Len(t, m.Series, b.Len())
		for i := range m.Series {
			s := &m.Series[i]
			require.False(t, s.NeedsRewrite())
			require.True(t, s.Invalid() == "" || o.Version == series.V1 && s.Exemplars > 0)
			ls, err := m.AppendLabels(nil, i)
			require.NoError(t, err)
			_, changed, reason := CanonicalLabels(ls)
			require.False(t, changed)
			require.Empty(t, reason)
			if o.Escaping != EscapeAllow {
				require.True(t, LegacyNames(ls), "%s", ls)
			}
			if o.Version == series.V1 {
				require.Zero(t, s.Flags&FlagCustomBuckets)
			}
		}
		if o.Version == series.V2 {
			readV2(t, out)
			require.Equal(t, b.Counts(), m.Counts)
		}
	})
}

func label(pairs ...string) []prompb.Label {
	ls := make([]prompb.Label, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		ls = append(ls, prompb.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return ls
}

func exemplar(v float64) []prompb.Exemplar {
	return []prompb.Exemplar{{Labels: label("trace_id", fmt.Sprint(v)), Value: v, Timestamp: 7}}
}

func TestM3_ExemplarsFindTheirSeries(t *testing.T) {
	a, c := label(nameLabel, "a", "job", "x"), label(nameLabel, "c", "job", "x")
	sample := []prompb.Sample{{Value: 1, Timestamp: 7}}
	req := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
		{Labels: a, Exemplars: exemplar(1)}, // before its series
		{Labels: c, Samples: sample},
		{Labels: label(nameLabel, "lonely"), Exemplars: exemplar(2)},
		{Labels: a, Samples: sample, Exemplars: exemplar(3)},
		{Labels: c, Exemplars: exemplar(4)}, // behind its series
		{Labels: a, Exemplars: exemplar(5)},
		{Labels: a, Samples: sample}, // a second one with the same labels
	}}
	b := NewBuilder(BuilderOptions{Version: series.V2})
	m := scanned(t, series.V1, req)
	o := addAll(b, m)
	require.Equal(t, m.Counts, o.Written)
	require.Equal(t, 3, b.Len())

	values := func(s modelSeries) (vs []float64) {
		for _, e := range s.Exemplars {
			require.Equal(t, spell([]string{"trace_id", fmt.Sprint(math.Float64frombits(e.Bits))}), e.Labels)
			vs = append(vs, math.Float64frombits(e.Bits))
		}
		return vs
	}
	got := readV2(t, b.AppendTo(nil))
	require.Len(t, got, 3)
	require.Equal(t, []float64{4}, values(got[0]))
	require.Equal(t, []float64{3, 1, 5}, values(got[1]))
	require.Empty(t, values(got[2]))
	require.Equal(t, []LateDrop{{Ordinal: 2, Dropped: series.Counts{Exemplars: 1}, Reason: ReasonExemplarWithoutSample}}, b.Late())
	require.Equal(t, series.Counts{Samples: 3, Exemplars: 4}, b.Counts())

	b.Reset()
	require.Empty(t, b.Late())
	require.True(t, b.Counts().Zero())
}

// A table that was taken over whole may hold a symbol twice; labels are compared by
// content then.
func TestM3_ExemplarsFindTheirSeriesInATableWithDoubles(t *testing.T) {
	req := &writev2.Request{
		Symbols: []string{"", nameLabel, "a", "a", nameLabel},
		Timeseries: []writev2.TimeSeries{
			{LabelsRefs: []uint32{4, 3}, Exemplars: []writev2.Exemplar{{Value: 2, Timestamp: 1}}},
			{LabelsRefs: []uint32{1, 2}, Samples: []writev2.Sample{{Value: 1, Timestamp: 1}}},
		},
	}
	b := NewBuilder(BuilderOptions{Version: series.V2})
	require.Empty(t, addAll(b, scanned(t, series.V2, req)).Reason)
	got := readV2(t, b.AppendTo(nil))
	require.Len(t, got, 1)
	require.Len(t, got[0].Exemplars, 1)
	require.Empty(t, b.Late())
}

func TestM3_SamplesAndHistogramsAreSplit(t *testing.T) {
	ls := label(nameLabel, "a", "job", "x")
	h := prompb.FromIntHistogram(9, &histogram.Histogram{Count: 3, ZeroCount: 3})
	for _, from := range []series.Version{series.V1, series.V2} {
		for _, to := range []series.Version{series.V1, series.V2} {
			t.Run(fmt.Sprint(from, "_", to), func(t *testing.T) {
				all := []genSeries{{
					labels: ls, samples: []writev2.Sample{{Value: 1, Timestamp: 8}},
					ints: []*histogram.Histogram{h.ToIntHistogram()}, times: []int64{9}, starts: []int64{0},
					exemplars: exemplar(5),
				}}
				b := NewBuilder(BuilderOptions{Version: to})
				out := written(t, b, from, encode(from, all))
				var got []modelSeries
				if to == series.V1 {
					got, _ = readV1(t, out)
				} else {
					got = readV2(t, out)
				}
				require.Len(t, got, 2)
				require.Equal(t, 2, b.Len())
				require.Equal(t, got[0].Labels, got[1].Labels)
				require.Len(t, got[0].Samples, 1)
				require.Len(t, got[0].Exemplars, 1)
				require.Len(t, got[1].Histograms, 1)
			})
		}
	}
}

// rc3Request is a request of an rc.3 sender: the created timestamp is in field 6.
func rc3Request(created int64) []byte {
	data := mustMarshal(&writev2.Request{Symbols: []string{"", nameLabel, "a"}})
	ts := mustMarshal(&writev2.TimeSeries{
		LabelsRefs: []uint32{1, 2},
		Samples: []writev2.Sample{
			{Value: 1, Timestamp: payloadTime},
			{Value: 2, Timestamp: payloadTime + 1, StartTimestamp: 77},
			{Timestamp: -5},
		},
	})
	data = appendBytesField(data, 5, appendVarintField(ts, 6, uint64(created)))
	ts = mustMarshal(&writev2.TimeSeries{
		LabelsRefs: []uint32{1, 2},
		Histograms: []writev2.Histogram{{Timestamp: 3}, {Timestamp: 4, StartTimestamp: 1}},
	})
	return appendBytesField(data, 5, appendVarintField(ts, 6, uint64(created)))
}

func TestM11_CreatedTimestampBecomesStartTimestamp(t *testing.T) {
	for _, created := range []int64{payloadTime - 1000, -3} {
		b := NewBuilder(BuilderOptions{Version: series.V2})
		got := readV2(t, written(t, b, series.V2, rc3Request(created)))
		require.Equal(t, []int64{created, 77, created}, []int64{got[0].Samples[0].Start, got[0].Samples[1].Start, got[0].Samples[2].Start})
		var starts []int64
		for _, h := range got[1].Histograms {
			var x writev2.Histogram
			require.NoError(t, x.Unmarshal([]byte(h)))
			starts = append(starts, x.StartTimestamp)
		}
		require.Equal(t, []int64{created, 1}, starts)
		require.Zero(t, b.StartsDropped())

		b = NewBuilder(BuilderOptions{Version: series.V1})
		v1, _ := readV1(t, written(t, b, series.V2, rc3Request(created)))
		require.Len(t, v1, 2)
		require.Equal(t, []modelSample{{math.Float64bits(1), payloadTime, 0}, {math.Float64bits(2), payloadTime + 1, 0}, {0, -5, 0}}, v1[0].Samples)
		require.EqualValues(t, 5, b.StartsDropped())
	}
}

func TestBuilder_SplitLabelsBecomeOneRun(t *testing.T) {
	ts := mustMarshal(&prompb.TimeSeries{Labels: label(nameLabel, "a"), Samples: []prompb.Sample{{Value: 1, Timestamp: 2}}})
	ts = append(ts, mustMarshal(&prompb.TimeSeries{Labels: label("job", "x")})...)
	v1 := appendBytesField(nil, 1, ts)

	v2 := mustMarshal(&writev2.Request{Symbols: []string{"", nameLabel, "a", "job", "x"}})
	ts = mustMarshal(&writev2.TimeSeries{Samples: []writev2.Sample{{Value: 1, Timestamp: 2}}})
	for _, r := range []uint64{1, 2, 3, 4} {
		ts = appendVarintField(ts, 1, r)
	}
	v2 = appendBytesField(v2, 5, ts)

	want := modelSeries{Labels: spell([]string{nameLabel, "a", "job", "x"}), Samples: []modelSample{{math.Float64bits(1), 2, 0}}}
	for _, to := range []series.Version{series.V1, series.V2} {
		for from, data := range map[series.Version][]byte{series.V1: v1, series.V2: v2} {
			for _, escaping := range []Escaping{EscapeAllow, EscapeUnderscores} {
				out := written(t, NewBuilder(BuilderOptions{Version: to, Escaping: escaping}), from, data)
				m := scanBytes(t, to, out)
				require.Zero(t, m.Series[0].Flags&FlagSplitLabels)
				if to == series.V1 {
					got, _ := readV1(t, out)
					require.Equal(t, []modelSeries{want}, got)
				} else {
					require.Equal(t, []modelSeries{want}, readV2(t, out))
				}
			}
		}
	}
}

func TestBuilder_AddLabelsReplacesLabels(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.SampledFrom([]series.Version{series.V1, series.V2}).Draw(t, "from")
		to := rapid.SampledFrom([]series.Version{series.V1, series.V2}).Draw(t, "to")
		data := encode(from, genRequest(t, genOptions{}))
		m := scanBytes(t, from, data)
		b := NewBuilder(BuilderOptions{Version: to})
		var want []modelSeries
		if from == series.V1 {
			want, _ = readV1(t, data)
		} else {
			want = readV2(t, data)
		}
		for i := range m.Series {
			ls := genLabels(t, "labels")
			given := make([]Label, 0, len(ls))
			for _, l := range ls {
				given = append(given, Label{[]byte(l.Name), []byte(l.Value)})
			}
			o := b.AddLabels(m, i, given)
			require.Empty(t, o.Reason)
			require.Equal(t, m.Series[i].Counts(), o.Written)
			for _, l := range given { // copied: the caller's memory is its own again
				clear(l.Name)
				clear(l.Value)
			}
			want[i].Labels = spell(promPairs(ls))
		}
		out := b.AppendTo(nil)
		require.Equal(t, len(out), b.Size())
		if to == series.V2 {
			got := readV2(t, out)
			if from == series.V1 {
				got = withoutMetadata(got)
			}
			require.Equal(t, want, got)
			return
		}
		got, _ := readV1(t, out)
		require.Equal(t, withoutMetadata(want), got)
	})
}

func TestBuilder_InvalidSeriesAreDropped(t *testing.T) {
	sample := []writev2.Sample{{Value: 1, Timestamp: 1}}
	req := &writev2.Request{
		Symbols: []string{"", nameLabel, "a"},
		Timeseries: []writev2.TimeSeries{
			{LabelsRefs: []uint32{1, 9}, Samples: sample},
			{LabelsRefs: []uint32{1}, Samples: sample},
			{LabelsRefs: []uint32{1, 2}},
			{LabelsRefs: []uint32{1, 2}, Samples: sample, Exemplars: []writev2.Exemplar{{Value: 1}}},
			{LabelsRefs: []uint32{1, 2}, Histograms: []writev2.Histogram{{Schema: 77}}},
			{LabelsRefs: []uint32{1, 2}, Samples: sample},
		},
	}
	want := []Reason{ReasonInvalidRefs, ReasonInvalidRefs, ReasonNoSamples, ReasonExemplarWithoutTimestamp, ReasonInvalidHistogram, ""}
	for _, to := range []series.Version{series.V1, series.V2} {
		b := NewBuilder(BuilderOptions{Version: to})
		m := scanned(t, series.V2, req)
		for i, reason := range want {
			for _, o := range []Outcome{b.Add(m, i), b.AddLabels(m, i, []Label{{[]byte(nameLabel), []byte("b")}})} {
				require.Equal(t, reason, o.Reason)
				if reason != "" {
					require.Equal(t, Outcome{Dropped: m.Series[i].Counts(), Reason: reason}, o)
				}
			}
		}
		require.Equal(t, 2, b.Len())
		require.Equal(t, series.Counts{Samples: 2}, b.Counts())
	}
}

func TestBuilder_BrokenLabelsAreDropped(t *testing.T) {
	ts := appendBytesField(nil, 1, []byte{0x0a, 0x7f}) // a label whose name is longer than it
	ts = append(ts, mustMarshal(&prompb.TimeSeries{Samples: []prompb.Sample{{Value: 1, Timestamp: 2}}})...)
	m := scanBytes(t, series.V1, appendBytesField(nil, 1, ts))
	for _, o := range []BuilderOptions{{Version: series.V2}, {Version: series.V1, Escaping: EscapeUnderscores}} {
		require.Equal(t, Outcome{Dropped: series.Counts{Samples: 1}, Reason: ReasonMalformedLabels}, NewBuilder(o).Add(m, 0))
	}
}

// An unknown field of a V1 sample or histogram must not become a start timestamp.
func TestBuilder_V1ToV2_UnknownFieldsGetNoMeaning(t *testing.T) {
	sample := mustMarshal(&prompb.Sample{Value: 1, Timestamp: payloadTime})
	short := mustMarshal(&prompb.Sample{Value: 1, Timestamp: 3})
	hist := prompb.FromIntHistogram(9, &histogram.Histogram{Count: 3, ZeroCount: 3})
	ts := mustMarshal(&prompb.TimeSeries{Labels: label(nameLabel, "a")})
	withSamples := appendBytesField(slices.Clone(ts), 2, appendVarintField(sample, 3, payloadTime))
	withSamples = appendBytesField(withSamples, 2, appendVarintField(short, 3, 1))
	withHistogram := appendBytesField(slices.Clone(ts), 4, appendVarintField(mustMarshal(&hist), 17, 5))
	data := appendBytesField(appendBytesField(nil, 1, withSamples), 1, withHistogram)
	got := readV2(t, written(t, NewBuilder(BuilderOptions{Version: series.V2}), series.V1, data))
	require.Equal(t, []modelSample{{math.Float64bits(1), payloadTime, 0}, {math.Float64bits(1), 3, 0}}, got[0].Samples)
	require.Equal(t, []string{string(mustMarshal(&hist))}, got[1].Histograms)
}

// The table is rebuilt field by field where the source's does not stand in one piece.
func TestBuilder_V2ToV2_OddTables(t *testing.T) {
	var data []byte
	ts := mustMarshal(&writev2.TimeSeries{LabelsRefs: []uint32{1, 2}, Samples: []writev2.Sample{{Value: 1, Timestamp: 1}}})
	data = appendBytesField(data, 4, nil)
	data = appendBytesField(data, 4, []byte(nameLabel))
	data = appendBytesField(data, 5, ts)
	data = appendBytesField(data, 4, []byte("a"))
	long := append([]byte{tagSymbol, 0x80, 0x00}, data[2:]...) // the empty symbol with a length of two bytes
	for _, d := range [][]byte{data, long} {
		got := readV2(t, written(t, NewBuilder(BuilderOptions{Version: series.V2}), series.V2, d))
		require.Equal(t, spell([]string{nameLabel, "a"}), got[0].Labels)
	}
}

func TestBuilder_EmptyRequests(t *testing.T) {
	require.Empty(t, NewBuilder(BuilderOptions{Version: series.V1}).AppendTo(nil))
	require.Empty(t, readV2(t, NewBuilder(BuilderOptions{Version: series.V2}).AppendTo(nil)))
	require.Panics(t, func() { NewBuilder(BuilderOptions{}) })
}

// Add must notice by itself that it is given another request.
func TestBuilder_NoticesAnotherMessage(t *testing.T) {
	a := scanned(t, series.V2, payloadV2(3, false))
	c := scanned(t, series.V2, payloadV2(5, true))
	b := NewBuilder(BuilderOptions{Version: series.V2})
	var want []modelSeries
	for _, m := range []*Message{a, c, a, c} {
		require.Empty(t, b.Add(m, 2).Reason)
		want = append(want, readV2(t, m.Data)[2])
	}
	require.Equal(t, want, readV2(t, b.AppendTo(nil)))
}

// The benchmarks' requests, whose neighbours differ in the metric name alone.
func TestBuilder_Payload(t *testing.T) {
	v1 := mustMarshal(payloadV1(500))
	v2 := mustMarshal(payloadV2(500, false))
	want, _ := readV1(t, v1)
	for _, escaping := range []Escaping{EscapeAllow, EscapeUnderscores} {
		toV1 := NewBuilder(BuilderOptions{Version: series.V1, Escaping: escaping})
		got, _ := readV1(t, written(t, toV1, series.V2, v2))
		require.Equal(t, want, got)
		toV2 := NewBuilder(BuilderOptions{Version: series.V2, Escaping: escaping})
		require.Equal(t, want, readV2(t, written(t, toV2, series.V1, v1)))
		toV2.Reset()
		addAll(toV2, scanned(t, series.V2, payloadV2(1, true)), scanBytes(t, series.V2, v2))
		require.Equal(t, readV2(t, v2), readV2(t, toV2.Bytes())[1:])
	}
}

func TestBuilder_BeginPartTakesOnlyWhatIsUsed(t *testing.T) {
	m := scanned(t, series.V2, payloadV2(1000, false))
	b := NewBuilder(BuilderOptions{Version: series.V2})
	b.BeginPart(m)
	require.Empty(t, b.Add(m, 7).Reason)
	out := b.AppendTo(nil)
	require.Equal(t, readV2(t, m.Data)[7:8], readV2(t, out))
	symbolsUnique(t, out)
	require.Less(t, len(out), 2000)
	require.GreaterOrEqual(t, b.Footprint(), len(out))
}

// References of one, two and three bytes.
func TestBuilder_ManySymbols(t *testing.T) {
	req := &prompb.WriteRequest{}
	for i := range 20_000 {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
			Labels: label(nameLabel, "m", "id", fmt.Sprint("id-", i)), Samples: []prompb.Sample{{Value: 1, Timestamp: int64(i) + 1}},
		})
	}
	data := mustMarshal(req)
	want, _ := readV1(t, data)
	b := NewBuilder(BuilderOptions{Version: series.V2})
	one := written(t, b, series.V1, data)
	require.Equal(t, want, readV2(t, one))
	symbolsUnique(t, one)

	b.Reset() // the same by remapping, behind a request with another table
	m := scanBytes(t, series.V2, one)
	addAll(b, scanned(t, series.V2, payloadV2(1, false)), m)
	require.Equal(t, want, readV2(t, b.AppendTo(nil))[1:])
	symbolsUnique(t, b.Bytes())

	got, _ := readV1(t, written(t, NewBuilder(BuilderOptions{Version: series.V1}), series.V2, one))
	require.Equal(t, want, got)
}

// A reference is short and what it stands for may be long: a small RW 2.0 series must
// not become an RW 1.0 series of any size.
func TestBuilder_V2ToV1_DoesNotExplode(t *testing.T) {
	req := &writev2.Request{Symbols: []string{"", nameLabel, "m", strings.Repeat("x", 1<<20)}}
	refs := []uint32{1, 2}
	for i := range 40 {
		req.Symbols = append(req.Symbols, fmt.Sprintf("l%02d", i))
		refs = append(refs, uint32(len(req.Symbols)-1), 3)
	}
	sample := []writev2.Sample{{Value: 1, Timestamp: 1}}
	req.Timeseries = []writev2.TimeSeries{
		{LabelsRefs: refs, Samples: sample},
		{LabelsRefs: []uint32{1, 2}, Samples: sample, Exemplars: []writev2.Exemplar{{LabelsRefs: refs, Timestamp: 1}}},
		{LabelsRefs: refs[:24], Samples: sample},
		{LabelsRefs: []uint32{1, 2}, Samples: sample},
	}
	m := scanned(t, series.V2, req)
	b := NewBuilder(BuilderOptions{Version: series.V1})
	for i, want := range []Reason{ReasonSeriesTooLong, ReasonSeriesTooLong, "", ""} {
		o := b.Add(m, i)
		require.Equal(t, want, o.Reason)
		require.Equal(t, want == "", o.Dropped.Zero())
	}
	require.Equal(t, 2, b.Len())
	require.Less(t, b.Size(), 12<<20)
}
