package sampler

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const someRules = `
groups:
- name: first
  interval: 5s
  rules:
  - record: job:recorded:rate1m
    expr: rate(not_an_alert_total[1m])
  - alert: Errors
    expr: sum(rate(errors_total{code="500"}[1m])) / sum(rate(requests_total[2m])) > 0.1
    labels: {severity: page}
  - alert: Slow
    expr: histogram_quantile(0.9, sum by (le) (rate(rpc_seconds_bucket[5m]))) > 1
    labels: {severity: ticket}
- name: second
  rules:
  - alert: Down
    expr: '{__name__="up"} == 0 or {__name__=~"probe_.*"} == 0 or absent(heartbeat offset 1m)'
    labels: {severity: page}
`

func TestRulesNameTheirMetrics(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "rules"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rules", "a.yml"), []byte(someRules), 0o644))
	for _, c := range []struct {
		severities     Severities
		read, notThere []string
	}{
		{
			nil,
			[]string{"errors_total", "requests_total", "rpc_seconds_bucket", "rpc_seconds_sum", "rpc_seconds_count", "rpc_seconds", "up", "probe_success", "heartbeat"},
			[]string{"not_an_alert_total", "job:recorded:rate1m", "rpc_seconds_total", "uptime", "x_probe_y"},
		},
		{
			Severities{"page"},
			[]string{"errors_total", "requests_total", "up", "probe_success", "heartbeat"},
			[]string{"rpc_seconds_bucket", "rpc_seconds"},
		},
	} {
		metrics, err := LoadRules(dir, FromRules{Files: []string{"rules/*.yml", "none/*.yml"}, Severity: c.severities})
		require.NoError(t, err)
		for _, name := range c.read {
			_, ok := metrics.find(name)
			require.True(t, ok, name)
		}
		for _, name := range c.notThere {
			_, ok := metrics.find(name)
			require.False(t, ok, name)
		}
	}
}

func TestNarrowRangesAreTold(t *testing.T) {
	var metrics Metrics
	require.NoError(t, metrics.AddRules([]byte(someRules), "a.yml", nil))
	warnings := metrics.Narrow(30*time.Second, 5*time.Second)
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], "errors_total is read over 1m0s")
	require.Contains(t, warnings[0], "at most 25s")
	require.Contains(t, warnings[0], "alert Errors in a.yml")
	require.Empty(t, metrics.Narrow(25*time.Second, 5*time.Second))
}

func TestBadRules(t *testing.T) {
	var metrics Metrics
	err := metrics.AddRules([]byte("groups: [{name: g, rules: [{alert: A, expr: 'up =='}, {alert: B, expr: good}]}]"), "f", nil)
	require.ErrorContains(t, err, "alert A of group g")
	require.Equal(t, []string{"good"}, metrics.Names(), "what parses is there")
	require.Error(t, metrics.AddRules([]byte("groups: 5"), "f", nil))
	require.NoError(t, metrics.AddRules(nil, "f", nil))

	_, err = LoadRules(t.TempDir(), FromRules{Files: []string{"[", "*.yml"}})
	require.ErrorContains(t, err, "[")

	var more Metrics
	require.NoError(t, more.AddQuery(`{job="x"}`, "q"))
	require.Zero(t, more.Len(), "no metric is named")
	more.Add(metrics)
	require.Equal(t, 1, more.Len())
}

func TestWarningsNameClassAndMetric(t *testing.T) {
	var read, low Metrics
	require.NoError(t, read.AddRules([]byte(someRules), "a.yml", nil))
	require.NoError(t, low.AddQuery("rate(go_gc_total[2m])", "a dashboard"))
	metrics := map[string]Metrics{ClassCritical: read, ClassLow: low}
	require.Equal(t, []string{
		`class critical: errors_total is read over 1m0s, which may have less than two samples when they are 30s apart; a max_gap of at most 25s answers always (alert Errors in a.yml)`,
		`class low: go_gc_total is read over 2m0s, which may have less than two samples when they are 4m0s apart; a max_gap of at most 55s answers always (a dashboard)`,
	}, Warnings(DefaultConfig(), metrics, 5*time.Second))
	require.Empty(t, Warnings(DefaultConfig(), nil, time.Second))
}
