package otlp_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/receiver"
	"github.com/sluice-metrics/sluice/receiver/otlp"
)

const limit = 1 << 20

// seeds are exports that the fuzzer starts with.
func seeds(t testing.TB) [][]byte {
	t.Helper()
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "s")
	rm.Resource().Attributes().PutStr("cloud.region", "eu")
	list := rm.ScopeMetrics().AppendEmpty().Metrics()
	const at = pcommon.Timestamp(1_763_700_000_000_000_000)
	attributes := func(m pcommon.Map) {
		m.PutStr("http.method", "GET")
		m.PutStr("http_method", "PUT")
		m.PutEmptySlice("list").AppendEmpty().SetDouble(1)
	}
	exemplar := func(s pmetric.ExemplarSlice) {
		e := s.AppendEmpty()
		e.SetTimestamp(at)
		e.SetIntValue(3)
		e.SetTraceID(pcommon.TraceID{1})
		attributes(e.FilteredAttributes())
	}

	metric := func(name string) pmetric.Metric {
		m := list.AppendEmpty()
		m.SetName(name)
		m.SetUnit("ms")
		return m
	}
	g := metric("gauge").SetEmptyGauge().DataPoints().AppendEmpty()
	g.SetTimestamp(at)
	g.SetDoubleValue(math.NaN())
	attributes(g.Attributes())
	s := metric("sum").SetEmptySum()
	s.SetIsMonotonic(true)
	s.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	sp := s.DataPoints().AppendEmpty()
	sp.SetTimestamp(at)
	sp.SetIntValue(1)
	exemplar(sp.Exemplars())
	h := metric("histogram").SetEmptyHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	hp := h.DataPoints().AppendEmpty()
	hp.SetTimestamp(at)
	hp.SetCount(6)
	hp.ExplicitBounds().FromRaw([]float64{1, 2})
	hp.BucketCounts().FromRaw([]uint64{1, 2, 3})
	exemplar(hp.Exemplars())
	x := metric("exponential").SetEmptyExponentialHistogram()
	x.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	xp := x.DataPoints().AppendEmpty()
	xp.SetTimestamp(at)
	xp.SetScale(20)
	xp.SetCount(4)
	xp.Negative().SetOffset(math.MaxInt32)
	xp.Negative().BucketCounts().FromRaw([]uint64{1, 0, 3})
	q := metric("summary").SetEmptySummary().DataPoints().AppendEmpty()
	q.SetTimestamp(at)
	q.QuantileValues().AppendEmpty().SetQuantile(0.5)

	one, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	require.NoError(t, err)
	list.RemoveIf(func(m pmetric.Metric) bool { return m.Name() != "gauge" })
	two, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	require.NoError(t, err)
	return [][]byte{one, two}
}

// Whatever is exported: what is not rejected can be translated, and makes a request that
// is well-formed and has not more than the limit.
func FuzzTranslate(f *testing.F) {
	for _, b := range seeds(f) {
		for i := range receiver.TranslationStrategies() {
			f.Add(b, uint8(i), i%2 == 0)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, strategy uint8, nhcb bool) {
		req := pmetricotlp.NewExportRequest()
		if req.UnmarshalProto(b) != nil {
			return
		}
		c := receiver.DefaultConfig().OTLP
		all := receiver.TranslationStrategies()
		c.TranslationStrategy = all[int(strategy)%len(all)]
		c.ConvertHistogramsToNHCB = nhcb
		tr, err := otlp.New(c).Translate(context.Background(), req.Metrics(), receiver.TranslateOptions{Horizon: math.MaxInt64, Limit: limit})
		if err != nil {
			var refusal *receiver.Refusal
			require.True(t, errors.As(err, &refusal), "%v", err)
			require.Contains(t, err.Error(), "more remote write", "all that the converter refuses is to be rejected before")
			return
		}
		rejected := uint64(0)
		for _, n := range tr.Rejected {
			rejected += n
		}
		require.LessOrEqual(t, rejected, tr.Points)
		require.Equal(t, rejected < tr.Points, len(tr.Request) > 0)
		require.LessOrEqual(t, len(tr.Request), limit)
		require.Equal(t, rejected > 0, tr.Example != "")
		if len(tr.Request) == 0 {
			return
		}
		var m remotewrite.Message
		require.NoError(t, m.Index(series.V2, tr.Request, 1))
		for i := range m.Series {
			if reason := m.Series[i].Invalid(); reason != "" {
				require.Equal(t, remotewrite.ReasonInvalidHistogram, reason)
			}
		}
		var w writev2.Request
		require.NoError(t, w.Unmarshal(tr.Request))
		for _, s := range w.Symbols {
			require.Equal(t, strings.ToValidUTF8(s, ""), s)
		}
	})
}

func TestTranslateEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	md := pmetric.NewMetrics()
	list := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	for range 1000 {
		m := list.AppendEmpty()
		m.SetName("x")
		p := m.SetEmptyGauge().DataPoints().AppendEmpty()
		p.SetTimestamp(1e6)
		p.SetIntValue(1)
	}
	_, err := otlp.New(receiver.DefaultConfig().OTLP).Translate(ctx, md, receiver.TranslateOptions{Horizon: math.MaxInt64, Limit: limit})
	require.ErrorIs(t, err, context.Canceled)
}

// The labels of a resource go with each of its series: a small export is not to make the
// gateway copy them for hours.
func TestTranslateBoundsItsWork(t *testing.T) {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", strings.Repeat("x", limit/2))
	points := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	points.SetName("x")
	g := points.SetEmptyGauge()
	for i := range 10_000 {
		p := g.DataPoints().AppendEmpty()
		p.SetTimestamp(1e6)
		p.SetIntValue(1)
		p.Attributes().PutInt("i", int64(i))
	}
	_, err := otlp.New(receiver.DefaultConfig().OTLP).Translate(context.Background(), md, receiver.TranslateOptions{Horizon: math.MaxInt64, Limit: limit})
	var refusal *receiver.Refusal
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, 400, refusal.Status)
}
