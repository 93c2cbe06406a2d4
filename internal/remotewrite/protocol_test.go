package remotewrite

import (
	"math"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

// The tests are named by the obligations of the remote-write specification that they
// hold the walk to.

// seriesV2 is the index of one series with the given fields; the symbols are "",
// "__name__", "up", "trace_id", "7".
func seriesV2(t *testing.T, fields ...[]byte) (*Message, *Series) {
	t.Helper()
	m := indexed(t, series.V2, join(symbolsV2("", "__name__", "up", "trace_id", "7"), field(5, fields...)))
	return m, &m.Series[0]
}

var (
	upRefs   = field(1, []byte{1, 2})
	oneFloat = field(2, sampleV(1, payloadTime))
)

func TestM2_OddRefs(t *testing.T) {
	for _, refs := range [][]byte{{1}, {1, 2, 3}} {
		m, s := seriesV2(t, field(1, refs), oneFloat)
		require.Equal(t, ReasonInvalidRefs, s.Invalid())
		require.Zero(t, s.Key)
		_, err := m.AppendLabels(nil, 0)
		require.ErrorIs(t, err, ErrMalformed)
		require.ErrorContains(t, err, "labels_refs")
		require.EqualValues(t, 1, m.Counts.Samples)
	}
}

func TestM2_RefsOutOfRange(t *testing.T) {
	for name, fields := range map[string][][]byte{
		"name":            {field(1, []byte{5, 2}), oneFloat},
		"value":           {field(1, []byte{1, 5}), oneFloat},
		"two bytes":       {field(1, []byte{1, 0x80, 0x01}), oneFloat},
		"three bytes":     {field(1, []byte{1, 0x80, 0x80, 0x01}), oneFloat},
		"beyond 32 bits":  {field(1, []byte{1, 0x82, 0x80, 0x80, 0x80, 0x10}), oneFloat},
		"not packed":      {varintField(1, 1), varintField(1, 5), oneFloat},
		"help":            {upRefs, oneFloat, field(5, varintField(3, 5))},
		"unit":            {upRefs, oneFloat, field(5, varintField(4, math.MaxUint64))},
		"exemplar":        {upRefs, oneFloat, field(4, field(1, []byte{3, 5}), varintField(3, 1))},
		"exemplar odd":    {upRefs, oneFloat, field(4, field(1, []byte{3}), varintField(3, 1))},
		"exemplar single": {upRefs, oneFloat, field(4, varintField(1, 3), varintField(1, 9), varintField(3, 1))},
	} {
		t.Run(name, func(t *testing.T) {
			m, s := seriesV2(t, fields...)
			require.Equal(t, ReasonInvalidRefs, s.Invalid())
			require.Empty(t, m.AppendExemplars(nil, 0))
			_, ok := m.SeriesMetadata(0)
			require.False(t, ok)
		})
	}
}

// TestM2_BadRefsCostOnlyTheirSeries also when the table follows the series.
func TestM2_BadRefsCostOnlyTheirSeries(t *testing.T) {
	bad, good := field(5, field(1, []byte{1, 3}), oneFloat), field(5, upRefs, oneFloat)
	table := symbolsV2("", "__name__", "up")
	for _, data := range [][]byte{join(table, bad, good), join(bad, good, table), join(bad, table, good)} {
		m := indexed(t, series.V2, data)
		require.Equal(t, ReasonInvalidRefs, m.Series[0].Invalid())
		require.Empty(t, m.Series[1].Invalid())
		require.NotZero(t, m.Series[1].Key)
		require.EqualValues(t, 2, m.Counts.Samples)
	}
}

func TestM3_Content(t *testing.T) {
	exemplar := field(4, field(1, []byte{3, 4}), varintField(3, 1))
	hist := field(3, varintField(fieldTime, 5))
	for _, c := range []struct {
		name    string
		fields  [][]byte
		reason  Reason
		rewrite bool
	}{
		{"nothing", [][]byte{upRefs}, ReasonNoSamples, false},
		{"metadata only", [][]byte{upRefs, field(5, varintField(1, 1))}, ReasonNoSamples, false},
		{"exemplar only", [][]byte{upRefs, exemplar}, ReasonExemplarWithoutSample, false},
		{"sample", [][]byte{upRefs, oneFloat, exemplar}, "", false},
		{"histogram", [][]byte{upRefs, hist, exemplar}, "", false},
		{"both", [][]byte{upRefs, oneFloat, hist}, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, s := seriesV2(t, c.fields...)
			require.Equal(t, c.reason, s.Invalid())
			require.Equal(t, c.rewrite, s.NeedsRewrite())
		})
	}
	t.Run("V1 exemplar only", func(t *testing.T) {
		m := indexed(t, series.V1, field(1, labelV1("__name__", "up"), field(3, varintField(3, 1))))
		require.Empty(t, m.Series[0].Invalid())
		require.Equal(t, series.Counts{Exemplars: 1}, m.Counts)
		require.EqualValues(t, math.MaxInt64, m.MinTime)
		require.EqualValues(t, math.MinInt64, m.MaxTime)
	})
	t.Run("V1 both", func(t *testing.T) {
		m := indexed(t, series.V1, field(1, labelV1("__name__", "up"), oneFloat, field(4)))
		require.True(t, m.Series[0].NeedsRewrite())
	})
}

func TestM10_Values(t *testing.T) {
	samples := []prompb.Sample{
		{Value: math.Float64frombits(value.StaleNaN), Timestamp: -1},
		{Value: math.Float64frombits(value.NormalNaN), Timestamp: 0},
		{Value: math.Float64frombits(0x7ff0dead_beef0001), Timestamp: math.MinInt64},
		{Value: math.Copysign(0, -1), Timestamp: math.MaxInt64},
		{Value: math.Inf(1), Timestamp: 1<<35 - 1},
		{Value: 0, Timestamp: 1 << 35},
		{Value: 5e-324, Timestamp: 1<<42 - 1},
		{Value: 0, Timestamp: 1 << 42},
		{Value: 1, Timestamp: payloadTime},
	}
	data := mustMarshal(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels: []prompb.Label{{Name: "__name__", Value: "x"}}, Samples: samples,
	}}})
	m := indexed(t, series.V1, data)
	require.Equal(t, FlagStale, m.Series[0].Flags)
	require.EqualValues(t, math.MinInt64, m.MinTime)
	require.EqualValues(t, math.MaxInt64, m.MaxTime)
	require.EqualValues(t, len(samples), m.Counts.Samples)
	for _, s := range samples[1:] {
		data := field(1, field(2, sampleV(s.Value, s.Timestamp)))
		m := indexed(t, series.V1, join(data, mustMarshal(payloadV1(1))))
		require.Zero(t, m.Series[0].Flags)
		require.Equal(t, s.Timestamp, m.Series[0].MinTime)
	}
}

// TestM10_LastScalarWins as protobuf wants it.
func TestM10_LastScalarWins(t *testing.T) {
	stale := appendFixed64Field(nil, 1, value.StaleNaN)
	one := appendFixed64Field(nil, 1, math.Float64bits(1))
	m := indexed(t, series.V1, field(1, field(2, stale, varintField(2, 5), one, varintField(2, 6))))
	require.Equal(t, []Sample{{Value: 1, Time: 6}}, m.AppendSamples(nil, 0))
	require.Zero(t, m.Series[0].Flags)
}

func TestM11_StartTimestamps(t *testing.T) {
	req := payloadV2(3, false)
	req.Timeseries[0].Samples[0].StartTimestamp = -1
	req.Timeseries[1].Samples = append(req.Timeseries[1].Samples,
		writev2.Sample{Value: 2, Timestamp: payloadTime + 1, StartTimestamp: payloadTime - 1})
	m := indexed(t, series.V2, mustMarshal(req))
	for i, want := range []Flags{FlagStart, FlagStart, 0} {
		require.Equal(t, want, m.Series[i].Flags&FlagStart)
	}
	require.EqualValues(t, -1, m.AppendSamples(nil, 0)[0].Start)
	require.EqualValues(t, payloadTime-1, m.AppendSamples(nil, 1)[1].Start)

	// A V1 sample does not have the field: it is skipped, whatever it is.
	for _, unknown := range [][]byte{varintField(3, 5), field(3, []byte("x"))} {
		m = indexed(t, series.V1, field(1, field(2, varintField(2, 9), unknown)))
		require.Equal(t, []Sample{{Time: 9}}, m.AppendSamples(nil, 0))
	}
}

// TestM11_CreatedTimestamp is rc.3's way to say it: once for the series.
func TestM11_CreatedTimestamp(t *testing.T) {
	own := field(2, varintField(2, 30), varintField(3, 20))
	m, s := seriesV2(t, upRefs, field(2, varintField(2, 25)), own, field(3, varintField(fieldTime, 30)), varintField(6, 10))
	require.True(t, s.NeedsRewrite())
	require.NotZero(t, s.Flags&FlagCreated)
	require.EqualValues(t, 10, m.Created(0))
	require.Equal(t, []Sample{{Time: 25, Start: 10}, {Time: 30, Start: 20}}, m.AppendSamples(nil, 0))
	require.EqualValues(t, 10, m.AppendHistograms(nil, 0)[0].Start)

	m, s = seriesV2(t, upRefs, oneFloat, varintField(6, 10), varintField(6, 0))
	require.False(t, s.NeedsRewrite())
	require.Zero(t, m.Created(0))
	require.Zero(t, m.AppendSamples(nil, 0)[0].Start)

	// Reserved since rc.4, so in any other wire type it is an unknown field.
	_, s = seriesV2(t, upRefs, oneFloat, field(6, []byte("x")))
	require.False(t, s.NeedsRewrite())
}

func TestM13_Metadata(t *testing.T) {
	m, s := seriesV2(t, upRefs, oneFloat, field(5, varintField(1, 2), varintField(3, 4)), field(5, varintField(4, 3)))
	require.NotZero(t, s.Flags&FlagMetadata)
	md, ok := m.SeriesMetadata(0)
	require.True(t, ok)
	require.Equal(t, Metadata{Type: MetricGauge, Help: []byte("7"), Unit: []byte("trace_id")}, md)

	for _, fields := range [][][]byte{{upRefs, oneFloat}, {upRefs, oneFloat, field(5)}} {
		m, s = seriesV2(t, fields...)
		require.Zero(t, s.Flags&FlagMetadata)
		_, ok = m.SeriesMetadata(0)
		require.False(t, ok)
		require.Empty(t, s.Invalid())
	}

	m = indexed(t, series.V1, mustMarshal(&prompb.WriteRequest{Metadata: []prompb.MetricMetadata{
		{Type: prompb.MetricMetadata_STATESET, MetricFamilyName: "a", Help: "b", Unit: "c"}, {Type: 42},
	}}))
	require.Equal(t, []Metadata{{Family: []byte("a"), Type: MetricStateset, Help: []byte("b"), Unit: []byte("c")}, {}}, m.AppendMetadata(nil))
	_, ok = indexed(t, series.V1, mustMarshal(payloadV1(1))).SeriesMetadata(0)
	require.False(t, ok)
}

// TestM13_MetricTypes checks that both versions number the types as we do.
func TestM13_MetricTypes(t *testing.T) {
	for typ := MetricUnspecified; typ <= MetricStateset; typ++ {
		name := prompb.MetricMetadata_MetricType_name[int32(typ)]
		if typ == MetricUnspecified {
			require.Equal(t, "unknown", typ.String())
			continue
		}
		require.Equal(t, "METRIC_TYPE_"+name, writev2.Metadata_MetricType_name[int32(typ)])
		require.EqualValues(t, prompb.FromMetadataType(model.MetricType(typ.String())), typ)
	}
}

func TestM14_ExemplarWithoutTimestamp(t *testing.T) {
	timed, untimed := varintField(3, 5), appendFixed64Field(nil, 2, 1)
	_, s := seriesV2(t, upRefs, oneFloat, field(4, timed), field(4, untimed))
	require.Equal(t, ReasonExemplarWithoutTimestamp, s.Invalid())
	_, s = seriesV2(t, upRefs, oneFloat, field(4, timed))
	require.Empty(t, s.Invalid())
	m := indexed(t, series.V1, field(1, oneFloat, field(3, untimed)))
	require.Equal(t, ReasonExemplarWithoutTimestamp, m.Series[0].Invalid())
}

// TestExemplarLabelsLifetime: they outlive further calls that append.
func TestExemplarLabelsLifetime(t *testing.T) {
	req := &prompb.WriteRequest{}
	for _, id := range []string{"a", "b", "c"} {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{Exemplars: []prompb.Exemplar{
			{Labels: []prompb.Label{{Name: "trace_id", Value: id}}, Timestamp: 1},
			{Labels: []prompb.Label{{Name: "trace_id", Value: id + id}}, Timestamp: 2},
		}})
	}
	m := indexed(t, series.V1, mustMarshal(req))
	var es []Exemplar
	for i := range m.Series {
		es = m.AppendExemplars(es, i)
	}
	var ids []string
	for _, e := range es {
		ids = append(ids, string(e.Labels[0].Value))
	}
	require.Equal(t, []string{"a", "aa", "b", "bb", "c", "cc"}, ids)
}
