package receiver_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-metrics/sluice/receiver"
	"github.com/sluice-metrics/sluice/receiver/otlp"
)

const (
	typeProto = "application/x-protobuf"
	typeJSON  = "application/json"
)

// exports is an OTLP receiver over a gate.
type exports struct {
	*gate
	url string
}

func newExports(t testing.TB, change ...func(*setup)) *exports {
	t.Helper()
	var c receiver.OTLPConfig
	g := newGate(t, append(change, func(s *setup) { c = s.receiver.OTLP })...)
	mux := http.NewServeMux()
	for _, p := range receiver.OTLPPaths {
		mux.Handle(p, g.handler.OTLP(otlp.New(c)))
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return &exports{gate: g, url: server.URL}
}

// export is a POST of body to the default path of exporters.
func (e *exports) export(contentType string, body []byte) *http.Request {
	e.t.Helper()
	r, err := http.NewRequest(http.MethodPost, e.url+"/v1/metrics", bytes.NewReader(body))
	require.NoError(e.t, err)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r
}

// send exports md as protobuf and returns what was rejected.
func (e *exports) send(md pmetric.Metrics) (rejected int64, text string) {
	e.t.Helper()
	return accepted(e.t, e.do(e.export(typeProto, packProto(e.t, md))))
}

// accepted reads the answer to an export that was taken in.
func accepted(t testing.TB, a answer) (rejected int64, text string) {
	t.Helper()
	require.Equal(t, http.StatusOK, a.status, a.text)
	a.noWritten(t)
	resp := pmetricotlp.NewExportResponse()
	switch a.header.Get("Content-Type") {
	case typeProto:
		require.NoError(t, resp.UnmarshalProto([]byte(a.text)))
	case typeJSON:
		require.NoError(t, resp.UnmarshalJSON([]byte(a.text)))
	default:
		require.Fail(t, "the answer is in another encoding", a.header.Get("Content-Type"))
	}
	return resp.PartialSuccess().RejectedDataPoints(), resp.PartialSuccess().ErrorMessage()
}

// refused reads the google.rpc.Status of an answer.
func refused(t testing.TB, a answer) string {
	t.Helper()
	var st status.Status
	switch a.header.Get("Content-Type") {
	case typeProto:
		require.NoError(t, proto.Unmarshal([]byte(a.text), &st))
	case typeJSON:
		var fields map[string]any
		require.NoError(t, json.Unmarshal([]byte(a.text), &fields))
		st.Message, _ = fields["message"].(string)
	default:
		st.Message = a.text
	}
	require.NotEmpty(t, st.GetMessage())
	return st.GetMessage()
}

func packProto(t testing.TB, md pmetric.Metrics) []byte {
	t.Helper()
	b, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	require.NoError(t, err)
	return b
}

func packJSON(t testing.TB, md pmetric.Metrics) []byte {
	t.Helper()
	b, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalJSON()
	require.NoError(t, err)
	return b
}

func zip(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return buf.Bytes()
}

// telemetry is metrics of one resource.
type telemetry struct {
	pmetric.Metrics
	list pmetric.MetricSlice
}

// at is the timestamp of data points, and began that of their beginning.
var (
	at    = pcommon.NewTimestampFromTime(start)
	began = pcommon.NewTimestampFromTime(start.Add(-time.Minute))
)

// of starts the telemetry of a resource with attributes: name, value, name, value.
func of(attributes ...string) telemetry {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	for i := 0; i < len(attributes); i += 2 {
		rm.Resource().Attributes().PutStr(attributes[i], attributes[i+1])
	}
	return telemetry{md, rm.ScopeMetrics().AppendEmpty().Metrics()}
}

func (tel telemetry) metric(name, unit string) pmetric.Metric {
	m := tel.list.AppendEmpty()
	m.SetName(name)
	m.SetUnit(unit)
	return m
}

func (tel telemetry) gauge(name string, v float64) pmetric.NumberDataPoint {
	p := tel.metric(name, "").SetEmptyGauge().DataPoints().AppendEmpty()
	p.SetTimestamp(at)
	p.SetDoubleValue(v)
	return p
}

func (tel telemetry) sum(name string, temporality pmetric.AggregationTemporality) pmetric.NumberDataPoint {
	s := tel.metric(name, "").SetEmptySum()
	s.SetIsMonotonic(true)
	s.SetAggregationTemporality(temporality)
	p := s.DataPoints().AppendEmpty()
	p.SetTimestamp(at)
	p.SetStartTimestamp(began)
	p.SetIntValue(7)
	return p
}

func (tel telemetry) histogram(name string, bounds []float64, counts ...uint64) pmetric.HistogramDataPoint {
	h := tel.metric(name, "s").SetEmptyHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	p := h.DataPoints().AppendEmpty()
	p.SetTimestamp(at)
	p.SetStartTimestamp(began)
	p.ExplicitBounds().FromRaw(bounds)
	p.BucketCounts().FromRaw(counts)
	n := uint64(0)
	for _, c := range counts {
		n += c
	}
	p.SetCount(n)
	p.SetSum(1.5)
	return p
}

func (tel telemetry) exponential(name string, scale int32) pmetric.ExponentialHistogramDataPoint {
	h := tel.metric(name, "").SetEmptyExponentialHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	p := h.DataPoints().AppendEmpty()
	p.SetTimestamp(at)
	p.SetStartTimestamp(began)
	p.SetScale(scale)
	p.SetCount(6)
	p.SetSum(12.5)
	p.SetZeroCount(1)
	p.Positive().SetOffset(2)
	p.Positive().BucketCounts().FromRaw([]uint64{2, 0, 3})
	return p
}

func exemplarOf(s pmetric.ExemplarSlice, v float64, trace byte) pmetric.Exemplar {
	e := s.AppendEmpty()
	e.SetTimestamp(at)
	e.SetDoubleValue(v)
	e.SetTraceID(pcommon.TraceID{trace})
	return e
}

// lines spells a request, a line for each sample and exemplar. Timestamps are relative to
// start.
func lines(t testing.TB, req *writev2.Request) (out []string) {
	t.Helper()
	when := func(ms int64) string {
		if ms == 0 {
			return "-"
		}
		return strconv.FormatInt(ms-startMs, 10)
	}
	var b labels.ScratchBuilder
	for _, ts := range req.Timeseries {
		ls, err := ts.ToLabels(&b, req.Symbols)
		require.NoError(t, err)
		md, err := ts.ToMetadata(req.Symbols)
		require.NoError(t, err)
		head := fmt.Sprintf("%s %s", ls, md.Type)
		if md.Unit != "" {
			head += " unit=" + md.Unit
		}
		if md.Help != "" {
			head += " help=" + strconv.Quote(md.Help)
		}
		for _, s := range ts.Samples {
			v := strconv.FormatFloat(s.Value, 'g', -1, 64)
			if value.IsStaleNaN(s.Value) {
				v = "stale"
			}
			out = append(out, fmt.Sprintf("%s: %s @%s from %s", head, v, when(s.Timestamp), when(s.StartTimestamp)))
		}
		for _, h := range ts.Histograms {
			out = append(out, fmt.Sprintf("%s: %s schema=%d custom=%v @%s from %s", head, h.ToIntHistogram(), h.Schema, h.CustomValues, when(h.Timestamp), when(h.StartTimestamp)))
		}
		for _, e := range ts.Exemplars {
			ex, err := e.ToExemplar(&b, req.Symbols)
			require.NoError(t, err)
			out = append(out, fmt.Sprintf("%s # %s %g @%s", head, ex.Labels, ex.Value, when(ex.Ts)))
		}
	}
	return out
}
