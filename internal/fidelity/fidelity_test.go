package fidelity_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/capture"
	"github.com/sluice-metrics/sluice/internal/fidelity"
	"github.com/sluice-metrics/sluice/sampler"
)

// until gives a value before the end, then one marker, then nothing.
func until(end time.Duration, v float64) curve {
	return func(at time.Duration) float64 {
		switch {
		case at < end:
			return v
		case at == end:
			return stale
		}
		return none
	}
}

// between is 1 from one time to before the other, else 0.
func between(from, to time.Duration) curve {
	return func(at time.Duration) float64 {
		if at >= from && at < to {
			return 1
		}
		return 0
	}
}

func everything(string, time.Duration) bool { return true }

// Queries have 41 steps: every 15 s from 10 to 20 minutes.
func TestFiguresOfQueries(t *testing.T) {
	halves := func(at time.Duration) float64 { // mean 10 over 40 of the steps: 0 at every other
		if at%(30*time.Second) == 0 {
			return 0
		}
		return 20
	}
	tests := map[string]struct {
		g    curve
		thin *thinning
		want fidelity.Row
	}{
		"nothing left out": {constant(100), keep(everything), fidelity.Row{Kept: 1, Bytes: 1}},
		"error of 5 %": {
			constant(100), alter(func(v float64) float64 { return v * 1.05 }),
			fidelity.Row{Kept: 1, P50: 0.05, P95: 0.05, P99: 0.05},
		},
		"error of 20 %": {
			constant(-100), alter(func(v float64) float64 { return v * 0.8 }),
			fidelity.Row{Kept: 1, P50: 0.2, P95: 0.2, P99: 0.2, Bad: 1},
		},
		"largest error": {
			constant(1), alter(func(v float64) float64 { return 100 * v }),
			fidelity.Row{Kept: 1, P50: 10, P95: 10, P99: 10, Bad: 1},
		},
		"error against the mean of the series": { // 21 steps of 0, 20 of 20
			halves, alter(func(v float64) float64 { return max(v, 1) }),
			fidelity.Row{Kept: 1, P50: 41.0 / 400, P95: 41.0 / 400, P99: 41.0 / 400, Bad: 21.0 / 41},
		},
		"missing after the lookback": { // the last one of 12:00 holds until before 17:00
			constant(100), keep(func(name string, at time.Duration) bool { return name != "g" || at <= 12*time.Minute }),
			fidelity.Row{Kept: (241 + 145) / 482.0, Missing: 13.0 / 41, Bad: 13.0 / 41},
		},
		"extra without the marker": { // 9 steps before 12:15, then 19 until the lookback ends
			until(12*time.Minute+5*time.Second, 100), keep(func(name string, at time.Duration) bool { return name != "g" || at <= 12*time.Minute }),
			fidelity.Row{Kept: (241 + 145) / (241 + 146.0), Extra: 19.0 / 9},
		},
		"no value at all": {
			constant(100), keep(func(name string, _ time.Duration) bool { return name != "g" }),
			fidelity.Row{Kept: 0.5, Missing: 1, Bad: 1},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			file := record(t, map[string]curve{"g": test.g, "clock": func(at time.Duration) float64 { return at.Seconds() }})
			report, got := compare(t, fidelity.Options{Capture: file}, test.thin)
			require.Equal(t, 2, report.Series)
			require.Equal(t, 20*time.Minute, report.Duration)
			want := test.want
			want.Rate, want.Method = 0.5, fidelity.Frames
			want.AlertAgreement, want.PageAgreement = 1, 1
			for _, f := range []struct {
				name      string
				want, got float64
			}{
				{"kept", want.Kept, got.Kept},
				{"p50", want.P50, got.P50},
				{"p95", want.P95, got.P95},
				{"p99", want.P99, got.P99},
				{"missing", want.Missing, got.Missing},
				{"extra", want.Extra, got.Extra},
				{"bad", want.Bad, got.Bad},
				{"alerts", want.AlertAgreement, got.AlertAgreement},
				{"pages", want.PageAgreement, got.PageAgreement},
			} {
				require.InDelta(t, f.want, f.got, 1e-9, f.name)
			}
			require.Zero(t, got.Late)
		})
	}
}

func TestBytesAreOfFullRequests(t *testing.T) {
	file := record(t, map[string]curve{"g": func(at time.Duration) float64 { return float64(at) }})
	_, whole := compare(t, fidelity.Options{Capture: file}, keep(everything))
	require.Equal(t, 1.0, whole.Bytes)
	_, half := compare(t, fidelity.Options{Capture: file}, keep(func(_ string, at time.Duration) bool { return at%(10*time.Second) == 0 }))
	require.InDelta(t, 0.5, half.Bytes, 0.05)
}

func TestQueryCountsForSoManySteps(t *testing.T) {
	curves := map[string]curve{}
	for i := range 200 { // 8,200 steps; all of the first half of the series are missing
		curves[fmt.Sprintf("g%03d", i)] = constant(1)
	}
	curves["one"] = constant(1)
	o := fidelity.Options{
		Capture: record(t, curves),
		Queries: []fidelity.Query{{Expr: `{__name__=~"g.*"}`}, {Expr: "one"}},
	}
	_, got := compare(t, o, keep(func(name string, _ time.Duration) bool { return name >= "g100" }))
	require.InDelta(t, 2000.0/(4000+41), got.Missing, 0.0005)
}

// TestFiguresOfAlerts: alerts are evaluated every 5 s from 10 minutes on.
func TestFiguresOfAlerts(t *testing.T) {
	const minute = time.Minute
	alerts := []fidelity.Alert{
		{Name: "Slow", Expr: "slow == 1", For: 30 * time.Second, Labels: labels.FromStrings("severity", "ticket")},
		{Name: "Down", Expr: "down == 1", For: 30 * time.Second, Labels: labels.FromStrings("severity", "page")},
	}
	curves := map[string]curve{
		"g":    constant(1),
		"slow": between(12*minute, 14*minute), // fires at 18 steps, from 12:30 to 13:55
		"down": between(16*minute, 17*minute), // fires at 6 steps, from 16:30 to 16:55
	}
	tests := map[string]struct {
		thin *thinning
		want fidelity.Row
	}{
		"nothing left out": {keep(everything), fidelity.Row{AlertAgreement: 1, PageAgreement: 1}},
		"late": { // seen at 12:25 first
			keep(func(name string, at time.Duration) bool {
				return name != "slow" || at < 12*minute || at > 12*minute+20*time.Second
			}),
			fidelity.Row{AlertAgreement: 19.0 / 24, PageAgreement: 1, DelayMean: 12.5, DelayMax: 25},
		},
		"missed page": {
			keep(func(name string, at time.Duration) bool { return name != "down" || at < 16*minute || at >= 17*minute }),
			fidelity.Row{AlertAgreement: 18.0 / 24, PageAgreement: 0, Missed: 1, PagesMissed: 1},
		},
		"false": { // 6 steps more, four minutes after the true ones
			&thinning{thin: func(name string, at time.Duration, in sampler.Sample) []sampler.Sample {
				if name == "slow" && at >= 18*minute && at < 19*minute {
					in = sampler.Float(in.Time, 1)
				}
				return []sampler.Sample{in}
			}},
			fidelity.Row{AlertAgreement: 24.0 / 30, PageAgreement: 1, False: 1},
		},
		"near enough to be the same": { // ends 14:00, comes again 15:00 and fires at 15:30
			&thinning{thin: func(name string, at time.Duration, in sampler.Sample) []sampler.Sample {
				if name == "slow" {
					in = sampler.Float(in.Time, between(15*minute, 16*minute)(at))
				}
				return []sampler.Sample{in}
			}},
			fidelity.Row{AlertAgreement: 6.0 / 30, PageAgreement: 1, DelayMean: 90, DelayMax: 180},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			report, got := compare(t, fidelity.Options{Capture: record(t, curves), Alerts: alerts}, test.thin)
			require.Equal(t, 2, report.Episodes)
			require.Equal(t, 1, report.Pages)
			require.InDelta(t, test.want.AlertAgreement, got.AlertAgreement, 1e-9)
			require.InDelta(t, test.want.PageAgreement, got.PageAgreement, 1e-9)
			require.Equal(t, test.want.Missed, got.Missed)
			require.Equal(t, test.want.False, got.False)
			require.Equal(t, test.want.PagesMissed, got.PagesMissed)
			require.InDelta(t, test.want.DelayMean, got.DelayMean, 1e-9)
			require.InDelta(t, test.want.DelayMax, got.DelayMax, 1e-9)
		})
	}
}

func TestAlertKeepsFiring(t *testing.T) {
	// 1 for 10 s in every 30 s from 12:00 to 13:10: without keeping on, three episodes.
	flapping := func(at time.Duration) float64 {
		if at >= 12*time.Minute && at < 13*time.Minute+10*time.Second && at%(30*time.Second) < 10*time.Second {
			return 1
		}
		return 0
	}
	for want, keepOn := range map[int]time.Duration{3: 0, 1: 25 * time.Second} {
		o := fidelity.Options{
			Capture: record(t, map[string]curve{"g": flapping}),
			Alerts:  []fidelity.Alert{{Name: "Flaps", Expr: "g == 1", KeepFiring: keepOn}},
		}
		report, _ := compare(t, o, keep(everything))
		require.Equal(t, want, report.Episodes)
	}
}

// TestHeldHistograms: a histogram that was kept back is sent as it was.
func TestHeldHistograms(t *testing.T) {
	var held []sampler.Sample
	th := &thinning{thin: func(_ string, _ time.Duration, in sampler.Sample) []sampler.Sample {
		if held = append(held, in); len(held) < 3 {
			return nil
		}
		out := held
		held = nil
		return out
	}}
	o := fidelity.Options{Capture: recordHistograms(t), Queries: []fidelity.Query{{Expr: "histogram_count(h)"}, {Expr: "histogram_sum(h)"}}}
	_, got := compare(t, o, th)
	require.Equal(t, 1.0, got.Kept)
	require.Zero(t, got.P99)
	require.Zero(t, got.Bad)
	require.Zero(t, got.Late)
}

// Queries and alerts that only a server with experimental functions takes are compared too.
func TestExperimentalFunctions(t *testing.T) {
	alerts, err := fidelity.ParseAlerts("r.yml", []byte("groups: [{name: a, rules: [{alert: A, expr: 'mad_over_time(g[1m]) < 1'}]}]"))
	require.NoError(t, err)
	o := fidelity.Options{
		Capture: record(t, map[string]curve{"g": constant(1)}),
		Queries: []fidelity.Query{{Expr: "limitk(1, g)"}, {Expr: "mad_over_time(g[1m])"}}, Alerts: alerts,
	}
	report, got := compare(t, o, keep(everything))
	require.Equal(t, 1, report.Episodes)
	require.Zero(t, got.Bad)
}

func TestLateSamplesAreCounted(t *testing.T) {
	twice := &thinning{thin: func(_ string, _ time.Duration, in sampler.Sample) []sampler.Sample { return []sampler.Sample{in, in} }}
	_, got := compare(t, fidelity.Options{Capture: record(t, map[string]curve{"g": constant(1)})}, twice)
	require.Equal(t, uint64(241), got.Late)
	require.Zero(t, got.Bad)
}

func TestThinnerIsToldTheTime(t *testing.T) {
	th := keep(everything)
	compare(t, fidelity.Options{Capture: record(t, map[string]curve{"g": constant(1)})}, th)
	require.Len(t, th.ticks, 120)
	for i, at := range th.ticks {
		require.Equal(t, int64(begin+3+10_000*(i+1)), at)
	}
}

// TestRandomHasTheShareOfFrames, whether frames are a row or not.
func TestRandomHasTheShareOfFrames(t *testing.T) {
	for _, methods := range [][]fidelity.Method{{fidelity.Frames, fidelity.Random}, {fidelity.Random, fidelity.Frames}, {fidelity.Random}} {
		var share float64
		report, err := fidelity.Run(context.Background(), fidelity.Options{
			Capture: record(t, map[string]curve{"g": constant(1)}),
			Queries: []fidelity.Query{{Expr: "g"}},
			Rates:   []float64{0.25},
			Methods: methods,
			NewThinner: func(m fidelity.Method, rate float64) (fidelity.Thinner, error) {
				if m == fidelity.Random {
					share = rate
				} else {
					require.Equal(t, 0.25, rate)
				}
				return keep(func(_ string, at time.Duration) bool { return at < 10*time.Minute }), nil
			},
			Dir: t.TempDir(),
		})
		require.NoError(t, err)
		require.Equal(t, 120.0/241, share)
		require.Len(t, report.Rows, len(methods))
		for i, row := range report.Rows {
			require.Equal(t, methods[i], row.Method)
			require.Equal(t, 0.25, row.Rate)
		}
	}
}

// TestSampler runs the real one: it holds its share, and random leaves more behind.
func TestSampler(t *testing.T) {
	curves := map[string]curve{"up": between(12*time.Minute, 14*time.Minute)}
	queries := []fidelity.Query{{Expr: "up"}}
	for i := range 40 {
		queries = append(queries, fidelity.Query{Expr: fmt.Sprintf("rate(requests_%d_total[1m])", i)})
		curves[fmt.Sprintf("requests_%d_total", i)] = func(at time.Duration) float64 { return at.Seconds() * float64(i+1) }
	}
	report, err := fidelity.Run(context.Background(), fidelity.Options{
		Capture:    record(t, curves),
		Queries:    queries,
		Alerts:     []fidelity.Alert{{Name: "Up", Expr: "up == 1", For: 30 * time.Second, Labels: labels.FromStrings("severity", "page")}},
		Rates:      []float64{1, 0.25},
		Methods:    []fidelity.Method{fidelity.Frames, fidelity.Aligned, fidelity.Random},
		NewThinner: fidelity.Sampling{Config: sampler.DefaultConfig()}.NewThinner,
		Dir:        t.TempDir(),
	})
	require.NoError(t, err)
	require.Len(t, report.Rows, 6)
	for _, row := range report.Rows[:3] {
		require.Equal(t, 1.0, row.Kept)
		require.Zero(t, row.Bad)
		require.Equal(t, 1.0, row.AlertAgreement)
	}
	frames, random := report.Rows[3], report.Rows[5]
	require.InDelta(t, 0.25, frames.Kept, 0.03)
	require.InDelta(t, frames.Kept, random.Kept, 0.02)
	require.Equal(t, 1.0, frames.PageAgreement)
	require.Less(t, frames.Bad, random.Bad)
}

func TestErrors(t *testing.T) {
	good := fidelity.Options{
		Capture: record(t, map[string]curve{"g": constant(1)}),
		Queries: []fidelity.Query{{Expr: "g"}},
		Rates:   []float64{0.5},
		Methods: []fidelity.Method{fidelity.Frames},
		NewThinner: func(fidelity.Method, float64) (fidelity.Thinner, error) {
			return keep(everything), nil
		},
	}
	cancelled, cancel := context.WithCancelCause(context.Background())
	broken := errors.New("no thinner")
	tests := map[string]struct {
		change func(o *fidelity.Options)
		want   string
	}{
		"empty":     {func(o *fidelity.Options) { o.Capture = bytes.NewReader(nil) }, "the capture has no samples"},
		"damaged":   {func(o *fidelity.Options) { o.Capture = bytes.NewReader([]byte("x")) }, "damaged capture: record 1 at byte 0"},
		"too short": {func(o *fidelity.Options) { o.Capture = record(t, map[string]curve{"g": until(5*time.Minute, 1)}) }, "queries and rules begin 10m0s after its first sample"},
		"histograms": {func(o *fidelity.Options) {
			o.Capture, o.Queries = recordHistograms(t), []fidelity.Query{{Expr: "h"}}
		}, "gives native histograms"},
		"query fails": {func(o *fidelity.Options) { o.Queries = []fidelity.Query{{Expr: "g +"}} }, `query "g +"`},
		"alert fails": {func(o *fidelity.Options) { o.Alerts = []fidelity.Alert{{Name: "A", Expr: "g +"}} }, `alert A: query "g +"`},
		"no thinner": {func(o *fidelity.Options) {
			o.NewThinner = func(fidelity.Method, float64) (fidelity.Thinner, error) { return nil, broken }
		}, "rate 0.5, method frames: no thinner"},
		"no directory": {func(o *fidelity.Options) { o.Dir = "missing" }, "make a directory for comparison"},
		"made up": {func(o *fidelity.Options) {
			o.Capture, o.Queries = recordHistograms(t), []fidelity.Query{{Expr: "histogram_count(h)"}}
			o.NewThinner = func(fidelity.Method, float64) (fidelity.Thinner, error) {
				return &thinning{thin: func(_ string, _ time.Duration, in sampler.Sample) []sampler.Sample {
					in.Time++
					return []sampler.Sample{in}
				}}, nil
			}
		}, "is to be sent and did not come in"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := good
			o.Dir = t.TempDir()
			test.change(&o)
			_, err := fidelity.Run(context.Background(), o)
			require.ErrorContains(t, err, test.want)
			if o.Dir != "missing" {
				left, err := os.ReadDir(o.Dir)
				require.NoError(t, err)
				require.Empty(t, left)
			}
		})
	}
	cancel(broken)
	_, err := fidelity.Run(cancelled, good)
	require.ErrorIs(t, err, broken)
	bad := good
	bad.Capture = bytes.NewReader([]byte("x"))
	_, err = fidelity.Run(context.Background(), bad)
	require.ErrorIs(t, err, capture.ErrDamaged)
}

func TestExplainNamesWhatDiffers(t *testing.T) {
	file := record(t, map[string]curve{
		"g":     between(12*time.Minute, 15*time.Minute),
		"other": constant(1),
	})
	alert := fidelity.Alert{Name: "High", Expr: "g > 0", Labels: labels.FromStrings("severity", "page")}
	report, row := compare(t, fidelity.Options{
		Capture: file, Alerts: []fidelity.Alert{alert}, Queries: []fidelity.Query{{Expr: "other"}, {Expr: "g"}},
	}, keep(func(name string, at time.Duration) bool { return name != "g" || at%(50*time.Second) == 0 }))
	require.Equal(t, []fidelity.Episode{{
		Alert: `{alertname="High", severity="page"}`, What: "shifted", At: 720, Delay: 30,
	}}, row.Episodes)
	require.Zero(t, row.BadByQuery[0])
	require.Positive(t, row.BadByQuery[1])
	var text bytes.Buffer
	require.NoError(t, report.Explain(&text))
	require.Regexp(t, `(?s)0\.5, frames:.*shifted +at 720 s +30 s +\{alertname="High".*% bad +g\n`, text.String())
	require.NotContains(t, text.String(), "other")
}
