package fidelity_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/fidelity"
	"github.com/sluice-metrics/sluice/sampler"
)

func seconds(list ...int) []time.Duration {
	var out []time.Duration
	for _, s := range list {
		out = append(out, time.Duration(s)*time.Second)
	}
	return out
}

// shops differ in what a capture may differ in. They are a choice and no proof for all: the
// errors of queries are far from their limits on any that was tried. The agreement of alerts
// is near its limit where key frames alone are left; "bursts, another seed" had the lowest of
// twenty captures made like these, with other seeds, CPUs that get busy at once, and faster
// churn.
var shops = map[string]shop{
	"mixed intervals": {
		seed: 1, intervals: seconds(5, 10, 30, 60, 15, 5), node: 10 * time.Second, jitter: 3 * time.Millisecond,
		pods: 3, podLife: 3 * time.Minute, perSend: 2000, traffic: 40,
	},
	"all at 30 s, scrapes lost": {
		seed: 2, intervals: seconds(30, 30, 30, 30, 30, 30), node: 30 * time.Second, jitter: 40 * time.Millisecond, lost: 0.03,
		pods: 4, podLife: 4 * time.Minute, perSend: 500, traffic: 60,
	},
	"churn": {
		seed: 3, intervals: seconds(5, 10, 5, 10, 5, 15), node: 10 * time.Second, jitter: 30 * time.Millisecond,
		pods: 15, podLife: 90 * time.Second, perSend: 100, reversed: true, traffic: 25, busy: 0.95,
	},
	"bursts, late start, 5 s": {
		seed: 4, intervals: seconds(5, 5, 5, 5), node: 5 * time.Second, jitter: 5 * time.Millisecond, lost: 0.005,
		pods: 2, podLife: 5 * time.Minute, perSend: 333, traffic: 30, burst: true, late: 7 * time.Minute,
	},
	"bursts, another seed": {
		seed: 24, intervals: seconds(5, 5, 5, 5), node: 5 * time.Second, jitter: 5 * time.Millisecond, lost: 0.005,
		pods: 2, podLife: 5 * time.Minute, perSend: 333, traffic: 30, burst: true, late: 7 * time.Minute,
	},
}

// Against random dropping at the same share, frames keep what the design demands of any
// capture.
func TestFramesOnOtherCaptures(t *testing.T) {
	queriesText, err := os.ReadFile("testdata/queries.yaml")
	require.NoError(t, err)
	alertsText, err := os.ReadFile("testdata/alerts.yml")
	require.NoError(t, err)
	queries, err := fidelity.ParseQueries("queries.yaml", queriesText)
	require.NoError(t, err)
	alerts, err := fidelity.ParseAlerts("alerts.yml", alertsText)
	require.NoError(t, err)
	var metrics sampler.Metrics
	require.NoError(t, metrics.AddRules(alertsText, "alerts.yml", nil))
	sampling := fidelity.Sampling{Config: sampler.DefaultConfig(), Metrics: map[string]sampler.Metrics{sampler.ClassCritical: metrics}}
	for name, s := range shops {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.length = 28 * time.Minute
			file := s.record(t)
			report, err := fidelity.Run(context.Background(), fidelity.Options{
				Capture: file, Queries: queries, Alerts: alerts, Rates: []float64{0.25, 0.1, 0.05},
				Methods: []fidelity.Method{fidelity.Frames, fidelity.Random}, NewThinner: sampling.NewThinner, Dir: t.TempDir(),
			})
			require.NoError(t, err)
			require.Greater(t, report.Episodes, 10)
			require.Greater(t, report.Pages, 5)
			for i, most := range []float64{0.25, 0.5, 0.6} {
				frames, random := report.Rows[2*i], report.Rows[2*i+1]
				require.Zero(t, frames.Late)
				require.LessOrEqual(t, frames.Bad, most*random.Bad, "bad at %v", frames.Rate)
				require.GreaterOrEqual(t, frames.AlertAgreement, 0.93, "alerts at %v", frames.Rate)
				require.Zero(t, frames.PagesMissed, "pages missed at %v", frames.Rate)
			}
		})
	}
}
