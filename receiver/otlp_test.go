package receiver_test

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/receiver"
)

// one is the telemetry of a service with every type of metric.
func one() telemetry {
	tel := of("service.name", "shop", "service.namespace", "web", "service.instance.id", "a1", "cloud.region", "eu")
	g := tel.gauge("queue.depth", 3)
	g.Attributes().PutStr("queue.name", "mail")
	g.Attributes().PutInt("shard", 2)
	tel.list.At(0).SetDescription("Jobs that wait.")

	exemplarOf(tel.sum("http.requests", pmetric.AggregationTemporalityCumulative).Exemplars(), 1, 0xab)
	up := tel.sum("connections", pmetric.AggregationTemporalityCumulative)
	up.SetDoubleValue(-1)
	tel.list.At(2).Sum().SetIsMonotonic(false)

	h := tel.histogram("latency", []float64{0.1, 1}, 4, 2, 1)
	exemplarOf(h.Exemplars(), 0.5, 2) // not in the order of their values
	exemplarOf(h.Exemplars(), 0.05, 1)
	exemplarOf(h.Exemplars(), 9, 3)

	exemplarOf(tel.exponential("size", 0).Exemplars(), 1.25, 4)

	p := tel.metric("gc.pause", "ms").SetEmptySummary().DataPoints().AppendEmpty()
	p.SetTimestamp(at)
	p.SetCount(5)
	p.SetSum(20)
	q := p.QuantileValues().AppendEmpty()
	q.SetQuantile(0.99)
	q.SetValue(8)
	return tel
}

const trace = "00000000000000000000000000000000"

func traceID(b byte) string { return fmt.Sprintf("%02x", b) + trace[2:] }

// oneKept is what one has to be in the journal.
func oneKept() []string {
	id := `instance="a1", job="web/shop"`
	latency := " histogram unit=seconds"
	return []string{
		`{__name__="queue_depth", ` + id + `, queue_name="mail", shard="2"} gauge help="Jobs that wait.": 3 @0 from -`,
		`{__name__="http_requests_total", ` + id + `} counter: 7 @0 from -60000`,
		`{__name__="http_requests_total", ` + id + `} counter # {trace_id="` + traceID(0xab) + `"} 1 @0`,
		`{__name__="connections", ` + id + `} gauge: -1 @0 from -60000`,
		`{__name__="latency_seconds_sum", ` + id + `}` + latency + `: 1.5 @0 from -60000`,
		`{__name__="latency_seconds_count", ` + id + `}` + latency + `: 7 @0 from -60000`,
		`{__name__="latency_seconds_bucket", ` + id + `, le="0.1"}` + latency + `: 4 @0 from -60000`,
		`{__name__="latency_seconds_bucket", ` + id + `, le="0.1"}` + latency + ` # {trace_id="` + traceID(1) + `"} 0.05 @0`,
		`{__name__="latency_seconds_bucket", ` + id + `, le="1"}` + latency + `: 6 @0 from -60000`,
		`{__name__="latency_seconds_bucket", ` + id + `, le="1"}` + latency + ` # {trace_id="` + traceID(2) + `"} 0.5 @0`,
		`{__name__="latency_seconds_bucket", ` + id + `, le="+Inf"}` + latency + `: 7 @0 from -60000`,
		`{__name__="latency_seconds_bucket", ` + id + `, le="+Inf"}` + latency + ` # {trace_id="` + traceID(3) + `"} 9 @0`,
		`{__name__="size", ` + id + `} histogram: {count:6, sum:12.5, [-1e-128,1e-128]:1, (4,8]:2, (16,32]:3} schema=0 custom=[] @0 from -60000`,
		`{__name__="size", ` + id + `} histogram # {trace_id="` + traceID(4) + `"} 1.25 @0`,
		`{__name__="gc_pause_milliseconds_sum", ` + id + `} summary unit=milliseconds: 20 @0 from -`,
		`{__name__="gc_pause_milliseconds_count", ` + id + `} summary unit=milliseconds: 5 @0 from -`,
		`{__name__="gc_pause_milliseconds", ` + id + `, quantile="0.99"} summary unit=milliseconds: 8 @0 from -`,
		`{__name__="target_info", cloud_region="eu", ` + id + `} gauge help="Target metadata": 1 @0 from -`,
	}
}

func TestOTLPEveryTypeInEveryEncoding(t *testing.T) {
	for name, c := range map[string]struct {
		contentType string
		pack        func(testing.TB, pmetric.Metrics) []byte
		gzip        bool
		path        string
	}{
		"protobuf":      {typeProto, packProto, false, "/v1/metrics"},
		"protobuf gzip": {typeProto, packProto, true, "/v1/metrics"},
		"json":          {typeJSON + "; charset=utf-8", packJSON, false, "/v1/metrics"},
		"json gzip":     {typeJSON, packJSON, true, "/api/v1/otlp/v1/metrics"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newExports(t)
			body := c.pack(t, one().Metrics)
			if c.gzip {
				body = zip(t, body)
			}
			r := e.export(c.contentType, body)
			r.URL.Path = c.path
			if c.gzip {
				r.Header.Set("Content-Encoding", "gzip")
			}
			a := e.do(r)
			require.Equal(t, strings.Split(c.contentType, ";")[0], a.header.Get("Content-Type"))
			rejected, text := accepted(t, a)
			require.Zero(t, rejected, text)
			require.ElementsMatch(t, oneKept(), lines(t, e.keptOne().v2))
			require.Equal(t, series.Counts{Samples: 12, Histograms: 1, Exemplars: 5}, e.booked())
			require.InDelta(t, 1, e.counter("sluice_receiver_requests_total", "protocol", "otlp", "code", "200"), 0)
			require.InDelta(t, len(body), e.counter("sluice_receiver_bytes_total", "protocol", "otlp"), 0)
			require.Zero(t, e.counter("sluice_receiver_refused_samples_total"))
			require.Zero(t, e.counter("sluice_receiver_requests_in_flight"))
		})
	}
}

func TestOTLPConfigDecidesOnNames(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*receiver.OTLPConfig)
		want   []string
	}{
		"without suffixes": {
			func(c *receiver.OTLPConfig) { c.TranslationStrategy = "UnderscoreEscapingWithoutSuffixes" },
			[]string{
				`{__name__="a_b", job="s", x_y="1"} counter: 7 @0 from -60000`,
				`{__name__="target_info", cloud_region="eu", job="s"} gauge help="Target metadata": 1 @0 from -`,
			},
		},
		"no escaping": {
			func(c *receiver.OTLPConfig) { c.TranslationStrategy = "NoUTF8EscapingWithSuffixes" },
			[]string{
				`{__name__="a.b_total", job="s", "x.y"="1"} counter: 7 @0 from -60000`,
				`{__name__="target_info", "cloud.region"="eu", job="s"} gauge help="Target metadata": 1 @0 from -`,
			},
		},
		"no translation": {
			func(c *receiver.OTLPConfig) { c.TranslationStrategy = "NoTranslation" },
			[]string{
				`{__name__="a.b", job="s", "x.y"="1"} counter: 7 @0 from -60000`,
				`{__name__="target_info", "cloud.region"="eu", job="s"} gauge help="Target metadata": 1 @0 from -`,
			},
		},
		"promoted and kept": {
			func(c *receiver.OTLPConfig) {
				c.PromoteResourceAttributes = []string{"cloud.region"}
				c.KeepIdentifyingResourceAttributes = true
			},
			[]string{
				`{__name__="a_b_total", cloud_region="eu", job="s", x_y="1"} counter: 7 @0 from -60000`,
				`{__name__="target_info", cloud_region="eu", job="s", service_name="s"} gauge help="Target metadata": 1 @0 from -`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newExports(t, func(s *setup) { c.change(&s.receiver.OTLP) })
			tel := of("service.name", "s", "cloud.region", "eu")
			tel.sum("a.b", pmetric.AggregationTemporalityCumulative).Attributes().PutStr("x.y", "1")
			rejected, text := e.send(tel.Metrics)
			require.Zero(t, rejected, text)
			got := lines(t, e.keptOne().v2)
			for i := range got {
				got[i] = sortedLabels(got[i])
			}
			for i := range c.want {
				c.want[i] = sortedLabels(c.want[i])
			}
			require.ElementsMatch(t, c.want, got)
		})
	}
}

// sortedLabels gives the labels of a line one order: quotes around a name are not part
// of its order in a request.
func sortedLabels(line string) string {
	head, rest, _ := strings.Cut(strings.TrimPrefix(line, "{"), "}")
	parts := strings.Split(head, ", ")
	slices.Sort(parts)
	return fmt.Sprint(parts, rest)
}

func TestOTLPCustomBuckets(t *testing.T) {
	e := newExports(t, func(s *setup) { s.receiver.OTLP.ConvertHistogramsToNHCB = true })
	tel := of("service.name", "s")
	tel.histogram("latency", []float64{0.1, 1}, 4, 2, 1)
	rejected, text := e.send(tel.Metrics)
	require.Zero(t, rejected, text)
	require.Equal(t, []string{
		`{__name__="latency_seconds", job="s"} histogram unit=seconds: {count:7, sum:1.5, [-Inf,0.1]:4, (0.1,1]:2, (1,+Inf]:1} schema=-53 custom=[0.1 1] @0 from -60000`,
	}, lines(t, e.keptOne().v2))
}

func TestOTLPSamplesOfASeriesComeInOrderAndOnce(t *testing.T) {
	e := newExports(t)
	tel := of("service.name", "s")
	points := tel.metric("x", "").SetEmptyGauge().DataPoints()
	for _, offset := range []time.Duration{2, 0, 1, 0} {
		p := points.AppendEmpty()
		p.SetTimestamp(pcommon.NewTimestampFromTime(start.Add(offset * time.Second)))
		p.SetIntValue(int64(offset))
	}
	stale := points.AppendEmpty()
	stale.SetTimestamp(pcommon.NewTimestampFromTime(start.Add(3 * time.Second)))
	stale.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
	rejected, text := e.send(tel.Metrics)
	require.Zero(t, rejected, text)
	head := `{__name__="x", job="s"} gauge: `
	require.Equal(t, []string{
		head + "0 @0 from -", head + "1 @1000 from -", head + "2 @2000 from -", head + "stale @3000 from -",
	}, lines(t, e.keptOne().v2))
}

func TestOTLPRejectsOnlyWhatIsBad(t *testing.T) {
	delta := pmetric.AggregationTemporalityDelta
	for reason, bad := range map[string]func(tel telemetry){
		"delta_temporality": func(tel telemetry) { tel.sum("bad", delta) },
		"unspecified_temporality": func(tel telemetry) {
			tel.sum("bad", pmetric.AggregationTemporalityUnspecified)
		},
		"invalid_timestamp": func(tel telemetry) { tel.gauge("bad", 1).SetTimestamp(999_999) },
		"too_far_in_future": func(tel telemetry) {
			tel.gauge("bad", 1).SetTimestamp(pcommon.NewTimestampFromTime(start.Add(time.Hour)))
		},
		"no_value": func(tel telemetry) {
			tel.metric("bad", "").SetEmptyGauge().DataPoints().AppendEmpty().SetTimestamp(at)
		},
		"invalid_utf8":              func(tel telemetry) { tel.gauge("bad", 1).Attributes().PutStr("a", "\xff") },
		"invalid_name":              func(tel telemetry) { tel.gauge("bad", 1).Attributes().PutStr("", "a") },
		"invalid_histogram":         func(tel telemetry) { tel.histogram("bad", []float64{1, 1}, 1, 1, 1) },
		"histogram_scale_too_small": func(tel telemetry) { tel.exponential("bad", -5) },
		"too_many_attributes": func(tel telemetry) {
			p := tel.gauge("bad", 1)
			for i := range 1025 {
				p.Attributes().PutStr("a"+strconv.Itoa(i), "")
			}
		},
	} {
		t.Run(reason, func(t *testing.T) {
			e := newExports(t)
			tel := of("service.name", "s")
			tel.gauge("good", 1)
			bad(tel)
			tel.gauge("better", 2)
			rejected, text := e.send(tel.Metrics)
			require.EqualValues(t, 1, rejected)
			require.Contains(t, text, "1 of 3 data points rejected: "+reason+"=1")
			require.Contains(t, text, `metric "bad"`)
			require.Equal(t, []string{
				`{__name__="good", job="s"} gauge: 1 @0 from -`,
				`{__name__="better", job="s"} gauge: 2 @0 from -`,
			}, lines(t, e.keptOne().v2))
			require.InDelta(t, 1, e.counter("sluice_receiver_refused_samples_total", "reason", reason), 0)
			require.InDelta(t, 1, e.counter("sluice_receiver_requests_total", "protocol", "otlp", "code", "200"), 0)
		})
	}
}

func TestOTLPRejectsNamesWithoutTranslation(t *testing.T) {
	e := newExports(t)
	tel := of("service.name", "s")
	tel.gauge("", 1)
	tel.gauge("\xff", 1)
	tel.gauge("good", 1)
	rejected, text := e.send(tel.Metrics)
	require.EqualValues(t, 2, rejected)
	require.Contains(t, text, "invalid_name=1 invalid_utf8=1")
	require.Len(t, lines(t, e.keptOne().v2), 1)
}

func TestOTLPBadResourceCostsNoOther(t *testing.T) {
	e := newExports(t)
	tel := of("service.name", "\xff")
	tel.gauge("x", 1)
	tel.histogram("y", []float64{1}, 1, 1)
	other := of("service.name", "fine")
	other.gauge("x", 2)
	other.ResourceMetrics().MoveAndAppendTo(tel.ResourceMetrics())
	rejected, text := e.send(tel.Metrics)
	require.EqualValues(t, 2, rejected, "a histogram is one data point")
	require.Contains(t, text, "2 of 3 data points rejected: invalid_utf8=2")
	require.Equal(t, []string{`{__name__="x", job="fine"} gauge: 2 @0 from -`}, lines(t, e.keptOne().v2))
}

// What only the Ingester sees is told in the same way.
func TestOTLPHistogramThatContradictsItself(t *testing.T) {
	e := newExports(t)
	tel := of("service.name", "s")
	tel.exponential("bad", 3).SetCount(1)
	tel.gauge("good", 1)
	rejected, text := e.send(tel.Metrics)
	require.EqualValues(t, 1, rejected)
	require.Contains(t, text, "1 of 2 data points rejected: invalid_histogram=1; first: {")
	require.Equal(t, []string{`{__name__="good", job="s"} gauge: 1 @0 from -`}, lines(t, e.keptOne().v2))
	require.InDelta(t, 1, e.counter("sluice_receiver_refused_samples_total", "reason", "invalid_histogram"), 0)
}

func TestOTLPNothingButRejected(t *testing.T) {
	e := newExports(t)
	tel := of("service.name", "s", "cloud.region", "eu")
	tel.sum("x", pmetric.AggregationTemporalityDelta)
	rejected, text := e.send(tel.Metrics)
	require.EqualValues(t, 1, rejected)
	require.Contains(t, text, "delta_temporality=1")
	require.Empty(t, e.kept(), "not even target_info")
}

func TestOTLPExemplarsThatCannotBeKept(t *testing.T) {
	e := newExports(t)
	tel := of("service.name", "s")
	p := tel.sum("x", pmetric.AggregationTemporalityCumulative)
	exemplarOf(p.Exemplars(), 1, 1).SetTimestamp(0)
	p.Exemplars().AppendEmpty().SetTimestamp(at) // has no value
	ok := exemplarOf(p.Exemplars(), 2, 2)
	ok.FilteredAttributes().PutStr("trace_id", "another")
	ok.FilteredAttributes().PutStr("user", "u1")
	exemplarOf(tel.gauge("y", 1).Exemplars(), 1, 1)
	rejected, text := e.send(tel.Metrics)
	require.Zero(t, rejected, text)
	require.Equal(t, []string{
		`{__name__="x_total", job="s"} counter: 7 @0 from -60000`,
		`{__name__="x_total", job="s"} counter # {trace_id="` + traceID(2) + `", user="u1"} 2 @0`,
		`{__name__="y", job="s"} gauge: 1 @0 from -`,
	}, lines(t, e.keptOne().v2))
	for _, reason := range []string{"exemplar_without_timestamp", "invalid_exemplar", "exemplar_on_gauge"} {
		require.InDelta(t, 1, e.counter("sluice_receiver_refused_samples_total", "reason", reason), 0, reason)
	}
}

func TestOTLPStartAfterTheValueIsNoStart(t *testing.T) {
	e := newExports(t)
	tel := of("service.name", "s")
	tel.sum("x", pmetric.AggregationTemporalityCumulative).SetStartTimestamp(math.MaxUint64)
	e.send(tel.Metrics)
	require.Equal(t, []string{`{__name__="x_total", job="s"} counter: 7 @0 from -`}, lines(t, e.keptOne().v2))
}

func TestOTLPNothing(t *testing.T) {
	e := newExports(t)
	empty := of("service.name", "s", "cloud.region", "eu")
	empty.metric("x", "").SetEmptyGauge()
	empty.metric("y", "")
	for _, r := range []*http.Request{
		e.export(typeProto, nil),
		e.export(typeJSON, []byte("{}")),
		e.export(typeProto, packProto(t, empty.Metrics)),
	} {
		rejected, text := accepted(t, e.do(r))
		require.Zero(t, rejected)
		require.Empty(t, text)
	}
	require.Empty(t, e.kept())
}

// Half an hour of the lives of many resources, or centuries of that of one, is not to
// make more target_info than there is time for.
func TestOTLPTargetInfoIsBounded(t *testing.T) {
	for name, first := range map[string]pcommon.Timestamp{
		"hour":    pcommon.NewTimestampFromTime(start.Add(-time.Hour)),
		"decades": 1e6,
	} {
		t.Run(name, func(t *testing.T) {
			e := newExports(t)
			tel := of("service.name", "s", "cloud.region", "eu")
			tel.gauge("x", 1)
			tel.gauge("x", 2).SetTimestamp(first)
			rejected, text := e.send(tel.Metrics)
			require.Zero(t, rejected, text)
			n := 0
			for _, line := range lines(t, e.keptOne().v2) {
				if strings.Contains(line, "target_info") {
					n++
				}
			}
			if name == "hour" {
				require.Equal(t, 25, n, "each 2.5 minutes, and at the end")
			} else {
				require.InDelta(t, 10_000, n, 2)
			}
		})
	}
}
