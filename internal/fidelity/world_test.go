package fidelity_test

import (
	"bytes"
	"context"
	"math"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	prom "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/capture"
	"github.com/sluice-metrics/sluice/internal/fidelity"
	"github.com/sluice-metrics/sluice/sampler"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// begin is the time of the first sample of every capture here, Unix ms.
const begin = 1_800_000_000_000

// stale is what a curve gives for a staleness marker; none for no sample.
var (
	stale = math.Float64frombits(prom.StaleNaN)
	none  = math.Inf(-1)
)

// curve is the value of a series by the time since begin.
type curve func(at time.Duration) float64

func constant(v float64) curve { return func(time.Duration) float64 { return v } }

// record makes a capture of twenty minutes, a request every five seconds.
func record(t testing.TB, curves map[string]curve) *bytes.Reader {
	t.Helper()
	var file []byte
	for at := time.Duration(0); at <= 20*time.Minute; at += 5 * time.Second {
		var w prompb.WriteRequest
		for text, c := range curves {
			if v := c(at); !math.IsInf(v, -1) {
				w.Timeseries = append(w.Timeseries, prompb.TimeSeries{Labels: spell(t, text), Samples: []prompb.Sample{{Value: v, Timestamp: begin + at.Milliseconds()}}})
			}
		}
		file = appendRequest(t, file, at, &w)
	}
	return bytes.NewReader(file)
}

func appendRequest(t testing.TB, file []byte, at time.Duration, w *prompb.WriteRequest) []byte {
	t.Helper()
	raw, err := w.Marshal()
	require.NoError(t, err)
	return capture.AppendRecord(file, begin+at.Milliseconds()+3, s2.EncodeSnappy(nil, raw))
}

func spell(t testing.TB, text string) []prompb.Label {
	t.Helper()
	return prompb.FromLabels(labels.FromStrings(model.MetricNameLabel, text), nil)
}

// recordHistograms makes a capture of the native histogram h, whose count rises.
func recordHistograms(t testing.TB) *bytes.Reader {
	t.Helper()
	var file []byte
	for i := range int64(240) {
		h := &histogram.Histogram{
			Count: uint64(3 + i), Sum: float64(i), ZeroThreshold: 1e-128, ZeroCount: uint64(1 + i),
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{1, 0},
		}
		at := time.Duration(i) * 5 * time.Second
		file = appendRequest(t, file, at, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
			Labels:     spell(t, "h"),
			Histograms: []prompb.Histogram{prompb.FromIntHistogram(begin+at.Milliseconds(), h)},
		}}})
	}
	return bytes.NewReader(file)
}

// thinning is a Thinner made of one function of the series' name and a sample.
type thinning struct {
	names map[uint32]string
	thin  func(name string, at time.Duration, in sampler.Sample) []sampler.Sample
	ticks []int64
}

func (f *thinning) Know(id uint32, s fidelity.Series) error {
	if f.names == nil {
		f.names = map[uint32]string{}
	}
	f.names[id] = s.Labels.Get(model.MetricNameLabel)
	return nil
}

func (f *thinning) Thin(id uint32, in sampler.Sample, out []sampler.Sample) []sampler.Sample {
	return append(out, f.thin(f.names[id], time.Duration(in.Time-begin)*time.Millisecond, in)...)
}

func (f *thinning) Tick(now int64) { f.ticks = append(f.ticks, now) }

// keep sends what the condition says.
func keep(condition func(name string, at time.Duration) bool) *thinning {
	return &thinning{thin: func(name string, at time.Duration, in sampler.Sample) []sampler.Sample {
		if condition(name, at) {
			return []sampler.Sample{in}
		}
		return nil
	}}
}

// alter sends other values than came in.
func alter(to func(v float64) float64) *thinning {
	return &thinning{thin: func(_ string, _ time.Duration, in sampler.Sample) []sampler.Sample {
		return []sampler.Sample{sampler.Float(in.Time, to(in.Value()))}
	}}
}

// compare runs one row with the Thinner.
func compare(t testing.TB, o fidelity.Options, th fidelity.Thinner) (*fidelity.Report, fidelity.Row) {
	t.Helper()
	if o.Queries == nil {
		o.Queries = []fidelity.Query{{Expr: "g"}}
	}
	o.Rates, o.Methods, o.Dir = []float64{0.5}, []fidelity.Method{fidelity.Frames}, t.TempDir()
	o.NewThinner = func(fidelity.Method, float64) (fidelity.Thinner, error) { return th, nil }
	report, err := fidelity.Run(context.Background(), o)
	require.NoError(t, err)
	require.Len(t, report.Rows, 1)
	return report, report.Rows[0]
}
