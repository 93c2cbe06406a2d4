package ownmetrics_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/ownmetrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// written is one request as it came out of the writer.
type written struct {
	values   map[string]float64 // by labels
	metadata map[string]string  // type, help and unit, by labels
	times    map[int64]bool
}

func decode(t testing.TB, body []byte) written {
	t.Helper()
	plain, err := snappy.Decode(nil, body)
	require.NoError(t, err)
	var req writev2.Request
	require.NoError(t, req.Unmarshal(plain))
	w := written{values: map[string]float64{}, metadata: map[string]string{}, times: map[int64]bool{}}
	require.Empty(t, req.Symbols[0])
	b := labels.NewScratchBuilder(10)
	for _, ts := range req.Timeseries {
		ls, err := ts.ToLabels(&b, req.Symbols)
		require.NoError(t, err)
		var names []string
		ls.Range(func(l labels.Label) {
			require.NotEmpty(t, l.Value)
			names = append(names, l.Name)
		})
		require.True(t, slices.IsSorted(names), names)
		require.Len(t, slices.Compact(names), ls.Len(), "a label twice")
		require.Len(t, ts.Samples, 1)
		key := ls.String()
		require.NotContains(t, w.values, key, "a series twice")
		w.values[key] = ts.Samples[0].Value
		w.times[ts.Samples[0].Timestamp] = true
		w.metadata[key] = fmt.Sprint(ts.Metadata.Type, "|", req.Symbols[ts.Metadata.HelpRef], "|", req.Symbols[ts.Metadata.UnitRef])
	}
	return w
}

// writer is a Writer with the requests that it wrote.
type writer struct {
	*ownmetrics.Writer
	bodies chan []byte
	full   atomic.Bool // what Write fails with
	log    bytes.Buffer
}

func newWriter(g prometheus.Gatherer) *writer {
	w := &writer{bodies: make(chan []byte, 1)}
	w.Writer = ownmetrics.New(ownmetrics.Options{
		Gatherer: g, Job: "sluice", Instance: "127.0.0.1:9201", Interval: 15 * time.Second,
		Write: func(ctx context.Context, body []byte) error {
			select {
			case w.bodies <- body:
			case <-ctx.Done():
				return ctx.Err()
			}
			if w.full.Load() {
				return errors.New("journal is full")
			}
			return nil
		},
		Logger: slog.New(slog.NewTextHandler(&w.log, nil)),
		Now:    time.Now,
	})
	return w
}

// run starts the writer within a bubble of time, and stops it at its end.
func (w *writer) run(t *testing.T, test func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	defer func() {
		cancel()
		require.NoError(t, <-done)
	}()
	test()
}

func id(name string, more ...string) string {
	ls := append([]string{"__name__", name, "instance", "127.0.0.1:9201", "job", "sluice"}, more...)
	return labels.FromStrings(ls...).String()
}

func TestWriter_ValuesOfEveryType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c_total", Help: "Counter."}, []string{"a", "z"})
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "g_seconds", Help: "Gauge.", Unit: "seconds"})
		u := prometheus.NewUntypedFunc(prometheus.UntypedOpts{Name: "u", Help: "Untyped."}, func() float64 { return math.Inf(1) })
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Help: "Histogram.", Buckets: []float64{0.5, 1, 10}, NativeHistogramBucketFactor: 1.1})
		s := prometheus.NewSummary(prometheus.SummaryOpts{Name: "s", Help: "Summary.", Objectives: map[float64]float64{0.5: 0.1, 1: 0.1}})
		reg.MustRegister(c, g, u, h, s)
		c.WithLabelValues("1", "").Add(3)
		c.WithLabelValues("2", "x").Add(0.1)
		g.Set(math.NaN())
		for _, v := range []float64{0.5, 0.7, 100} {
			h.Observe(v)
			s.Observe(v)
		}

		w := newWriter(reg)
		w.run(t, func() {
			got := decode(t, <-w.bodies)
			require.Equal(t, map[int64]bool{time.Now().UnixMilli(): true}, got.times)
			require.True(t, math.IsNaN(got.values[id("g_seconds")]))
			delete(got.values, id("g_seconds"))
			require.Equal(t, map[string]float64{
				id("up"):                          1,
				id("c_total", "a", "1"):           3,
				id("c_total", "a", "2", "z", "x"): 0.1,
				id("u"):                           math.Inf(1),
				id("h_bucket", "le", "0.5"):       1,
				id("h_bucket", "le", "1.0"):       2,
				id("h_bucket", "le", "10.0"):      2,
				id("h_bucket", "le", "+Inf"):      3,
				id("h_sum"):                       101.2,
				id("h_count"):                     3,
				id("s", "quantile", "0.5"):        0.7,
				id("s", "quantile", "1.0"):        100,
				id("s_sum"):                       101.2,
				id("s_count"):                     3,
			}, got.values)
			require.Equal(t, "METRIC_TYPE_COUNTER|Counter.|", got.metadata[id("c_total", "a", "1")])
			require.Equal(t, "METRIC_TYPE_GAUGE|Gauge.|seconds", got.metadata[id("g_seconds")])
			require.Equal(t, "METRIC_TYPE_HISTOGRAM|Histogram.|", got.metadata[id("h_bucket", "le", "+Inf")])
			require.Equal(t, "METRIC_TYPE_SUMMARY|Summary.|", got.metadata[id("s_sum")])
			require.Equal(t, "METRIC_TYPE_UNSPECIFIED|Untyped.|", got.metadata[id("u")])
			require.True(t, strings.HasPrefix(got.metadata[id("up")], "METRIC_TYPE_GAUGE|"))
		})
	})
}

// A histogram with its own +Inf bucket does not get a second one.
func TestWriter_InfBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inf, n := math.Inf(1), uint64(4)
		name, typ := "h", dto.MetricType_HISTOGRAM
		w := newWriter(prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
			return []*dto.MetricFamily{{Name: &name, Type: &typ, Metric: []*dto.Metric{{
				Histogram: &dto.Histogram{SampleCount: &n, Bucket: []*dto.Bucket{{UpperBound: &inf, CumulativeCount: &n}}},
			}}}}, nil
		}))
		w.run(t, func() {
			require.Equal(t, 4.0, decode(t, <-w.bodies).values[id("h_bucket", "le", "+Inf")])
		})
	})
}

func isStale(v float64) bool { return math.Float64bits(v) == value.StaleNaN }

// A series that is gone gets one stale marker, and no second one; when it comes back it
// has values again.
func TestWriter_StaleMarkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "g", Help: "Gauge."}, []string{"x"})
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Help: "Histogram.", Buckets: []float64{1}})
		reg.MustRegister(g, h)
		g.WithLabelValues("stays").Set(1)
		g.WithLabelValues("goes").Set(2)
		w := newWriter(reg)
		w.run(t, func() {
			begin := time.Now()
			require.Len(t, decode(t, <-w.bodies).values, 7)
			g.DeleteLabelValues("goes")
			reg.Unregister(h)
			got := decode(t, <-w.bodies)
			require.Equal(t, 15*time.Second, time.Since(begin))
			var stale []string
			for k, v := range got.values {
				if isStale(v) {
					stale = append(stale, k)
				}
			}
			require.ElementsMatch(t, []string{id("g", "x", "goes"), id("h_bucket", "le", "1.0"), id("h_bucket", "le", "+Inf"), id("h_sum"), id("h_count")}, stale)
			require.Equal(t, 1.0, got.values[id("g", "x", "stays")])
			require.ElementsMatch(t, []string{id("up"), id("g", "x", "stays")}, slices.Collect(maps.Keys(decode(t, <-w.bodies).values)))
			g.WithLabelValues("goes").Set(3)
			require.Equal(t, 3.0, decode(t, <-w.bodies).values[id("g", "x", "goes")])
		})
	})
}

// A marker that could not be written comes with the next request.
func TestWriter_StaleMarkerAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "g", Help: "Gauge."}, []string{"x"})
		reg.MustRegister(g)
		g.WithLabelValues("goes").Set(2)
		w := newWriter(reg)
		w.run(t, func() {
			<-w.bodies
			synctest.Wait()
			g.DeleteLabelValues("goes")
			w.full.Store(true)
			require.True(t, isStale(decode(t, <-w.bodies).values[id("g", "x", "goes")]))
			synctest.Wait()
			require.True(t, isStale(decode(t, <-w.bodies).values[id("g", "x", "goes")]))
			synctest.Wait()
			w.full.Store(false)
			require.True(t, isStale(decode(t, <-w.bodies).values[id("g", "x", "goes")]))
			synctest.Wait()
			require.NotContains(t, decode(t, <-w.bodies).values, id("g", "x", "goes"))
		})
		require.Equal(t, 1, strings.Count(w.log.String(), "cannot be written"), "a change of state is one line")
		require.Equal(t, 1, strings.Count(w.log.String(), "written again"))
		require.Contains(t, w.log.String(), "journal is full")
	})
}

// What a collector fails to give is said, and the rest written.
func TestWriter_GatherErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "g", Help: "Gauge."})
		reg.MustRegister(g)
		broken := errors.New("collector is broken")
		w := newWriter(prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
			families, err := reg.Gather()
			return families, errors.Join(err, broken)
		}))
		w.run(t, func() {
			require.Contains(t, decode(t, <-w.bodies).values, id("g"))
			require.Contains(t, decode(t, <-w.bodies).values, id("g"))
			synctest.Wait()
		})
		require.Contains(t, w.log.String(), "collector is broken")
		require.Equal(t, 1, strings.Count(w.log.String(), "\n"), w.log.String())
	})
}

func TestWriter_NothingGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter(prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return nil, errors.New("nothing there") }))
		w.run(t, func() {
			time.Sleep(40 * time.Second)
			synctest.Wait()
			require.Empty(t, w.bodies)
		})
		require.Equal(t, 1, strings.Count(w.log.String(), "nothing there"))
	})
}

// The end comes at once, also while a write is waiting, and is no error.
func TestWriter_Stops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter(prometheus.NewRegistry())
		begin := time.Now()
		w.run(t, func() {
			time.Sleep(20 * time.Second) // the second write waits: nobody takes the first
			synctest.Wait()
		})
		require.Equal(t, 20*time.Second, time.Since(begin))
		require.Empty(t, w.log.String())
	})
}

// Go's own metrics have all that occurs.
func TestWriter_GoMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsAll)))
	w := newWriter(reg)
	w.run(t, func() {
		got := decode(t, <-w.bodies)
		require.Greater(t, len(got.values), 100)
		require.Equal(t, 1.0, got.values[id("up")])
	})
}
