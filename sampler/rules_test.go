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
	require.NoError(t, metrics.AddQuery(`max_over_time({__name__=~"queue_.*"}[40s])`, "alert Queue"))
	for _, c := range []struct {
		maxGap, cadence time.Duration
		want            []string
	}{
		{30 * time.Second, 5 * time.Second, nil},
		{2 * time.Minute, 5 * time.Second, nil},
		{30 * time.Second, 15 * time.Second, []string{
			"errors_total is read over 1m0s, which has just two samples when they are 30s apart, and one after a scrape was lost; over 1m30s or more it has two always (alert Errors in a.yml)",
			"queue_.* is read over 40s, and scraped every 15s: it is never thinned, since the range has too few samples for that; over 1m0s or more it could be (alert Queue)",
		}},
		{2 * time.Minute, 40 * time.Second, []string{
			"errors_total is read over 1m0s, in which are less than two samples of a series that is scraped every 40s, even if all are sent (alert Errors in a.yml)",
			"requests_total is read over 2m0s, and scraped every 40s: it is never thinned, since the range has too few samples for that; over 2m40s or more it could be (alert Errors in a.yml)",
			"queue_.* is read over 40s, in which are less than two samples of a series that is scraped every 40s, even if all are sent (alert Queue)",
		}},
		{30 * time.Second, 40 * time.Second, nil}, // max_gap lets nothing be thinned
	} {
		require.Equal(t, c.want, metrics.Narrow(c.maxGap, c.cadence), "gap %v, cadence %v", c.maxGap, c.cadence)
	}
}

// The parts of a histogram share the shortest range over which one of them is read, whatever
// the order of the rules.
func TestShortestRangeCounts(t *testing.T) {
	queries := []string{
		"rate(rpc_seconds_bucket[1m])", "rate(rpc_seconds_count[5m])", "rpc_seconds_sum",
		"rate(requests_total[3m])", "requests_total", `rate({__name__=~"requests_.*"}[2m])`,
	}
	for range len(queries) {
		queries = append(queries[1:], queries[0])
		var parts, whole Metrics
		for _, q := range queries[:3] {
			require.NoError(t, parts.AddQuery(q, q))
		}
		for _, q := range queries[3:] {
			require.NoError(t, whole.AddQuery(q, q))
		}
		whole.Add(parts)
		for name, want := range map[string]time.Duration{
			"rpc_seconds_bucket": time.Minute, "rpc_seconds_count": time.Minute, "rpc_seconds_sum": time.Minute,
			"requests_total": 2 * time.Minute, "requests_failed": 2 * time.Minute,
		} {
			r, ok := whole.find(name)
			require.True(t, ok, name)
			require.Equal(t, want, r.within, "%s after %q", name, queries)
		}
	}
}

// What Prometheus itself puts together, or is told to take.
func TestRulesAsPrometheusReadsThem(t *testing.T) {
	var metrics Metrics
	require.NoError(t, metrics.AddRules([]byte(`
groups:
- name: a
  labels: {severity: page}
  rules:
  - {alert: Inherits, expr: inherits_total > 1}
  - {alert: Overwrites, expr: overwrites_total > 1, labels: {severity: ticket}}
  - {alert: Empties, expr: empties_total > 1, labels: {severity: ""}}
  - {alert: Other, expr: other_total > 1, labels: {team: x}}
- name: b
  rules:
  - {alert: None, expr: none_total > 1}
  - {alert: Decides, expr: decides_total > 1, labels: {severity: '{{ if gt $value 5.0 }}page{{ else }}ticket{{ end }}'}}
- name: c
  labels: {severity: page}
  rules:
  - {alert: Info, expr: 'info(load) > 1'}
  - {alert: Named, expr: 'info(load, {__name__="build_info"}) > 1'}
  - {alert: Mad, expr: 'mad_over_time(mad_depth[45s]) > 1'}
  - {alert: Duration, expr: 'rate(duration_total[2m - 3 * 30s + max_of(10s, 5s)]) > 1'}
  - {alert: Anchored, expr: 'increase(anchored_total[1m] anchored) > 1 or smooth_total smoothed > 1'}
  - {alert: Fill, expr: 'left_total + fill(0) right_total > 1'}
`), "f", []string{"page"}))
	require.Equal(t, []string{
		"anchored_total", "build_info", "decides_total", "duration_total", "inherits_total", "left_total", "load", "mad_depth", "other_total",
		"right_total", "smooth_total", "target_info",
	}, metrics.Names())
	for name, want := range map[string]time.Duration{
		"duration_total": 40 * time.Second, "mad_depth": 45 * time.Second, "anchored_total": time.Minute, "load": 0,
	} {
		require.Equal(t, want, metrics.names[name].within, name)
	}
}

func TestRangesOfDurationExpressions(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1m": time.Minute, "90": 90 * time.Second, "1m + 30s": 90 * time.Second, "-(-1m)": time.Minute, "2 * 1m / 4": 30 * time.Second,
		"2 ^ 3": 8 * time.Second, "7 % 4": 3 * time.Second, "min_of(1m, 2m)": time.Minute,
		"step()": 0, "range() + 1m": 0, "1m / (2m - 2m)": 0, "1m - 2m": 0, "10 ^ 300": 0,
	} {
		var read Metrics
		require.NoError(t, read.AddQuery("rate(x["+text+"])", "q"), text)
		require.Equal(t, want, read.names["x"].within, text)
	}
}

// What an alert reads through recording rules, whichever files they are in, counts as
// read by it.
func TestRecordingRulesAreFollowed(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"alerts.yml": `
groups:
- name: a
  rules:
  - {alert: Slow, expr: 'job:errors:ratio > 0.1', labels: {severity: page}}
  - {alert: Rising, expr: 'delta(queue:depth:sum[90s]) > 5', labels: {severity: page}}
  - {alert: Any, expr: '{__name__=~"any:.*"} > 5', labels: {severity: page}}
  - {alert: Lazy, expr: 'lazy:requests:rate5m > 5', labels: {severity: ticket}}
  - {alert: Round, expr: 'round:a > 5', labels: {severity: page}}
`,
		"records.yml": `
groups:
- name: r
  rules:
  - {record: 'job:errors:ratio', expr: 'job:errors:rate1m / job:requests:rate5m'}
  - {record: 'job:errors:rate1m', expr: 'sum by (job) (rate(errors_total[1m]))'}
  - {record: 'queue:depth:sum', expr: 'sum(queue_depth)'}
  - {record: 'any:one', expr: 'one_depth'}
  - {record: 'any:one', expr: 'two_depth'}
  - {record: 'lazy:requests:rate5m', expr: 'rate(lazy_total[5m])'}
  - {record: 'unread:rate5m', expr: 'rate(unread_total[5m])'}
  - {record: 'round:a', expr: 'round:b + rate(round_total[5m])'}
  - {record: 'round:b', expr: 'max_over_time(round:a[2m])'}
`,
		"more.yml": `
groups:
- name: r
  rules:
  - {record: 'job:requests:rate5m', expr: 'sum by (job) (rate({__name__=~"requests_.*"}[5m]))'}
`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	metrics, err := LoadRules(dir, FromRules{Files: []string{"*.yml"}, Severity: Severities{"page"}})
	require.NoError(t, err)
	require.Equal(t, []string{
		"errors_total", "job:errors:rate1m", "job:errors:ratio", "job:requests:rate5m", "one_depth", "queue:depth:sum", "queue_depth",
		"round:a", "round:b", "round_total", "two_depth",
	}, metrics.Names())
	for name, want := range map[string]reading{
		"job:errors:ratio": {"alert Slow in " + dir + "/alerts.yml", 0},
		"errors_total":     {"alert Slow in " + dir + "/alerts.yml, through job:errors:ratio", time.Minute},
		"requests_other":   {"alert Slow in " + dir + "/alerts.yml, through job:errors:ratio", 5 * time.Minute},
		"queue_depth":      {"alert Rising in " + dir + "/alerts.yml, through queue:depth:sum", 90 * time.Second},
		"two_depth":        {"alert Any in " + dir + "/alerts.yml, through any:one", 0},
		"round_total":      {"alert Round in " + dir + "/alerts.yml, through round:a", 2 * time.Minute},
	} {
		r, ok := metrics.find(name)
		require.True(t, ok, name)
		require.Equal(t, want, r, name)
	}
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
	_, err = LoadRules(t.TempDir(), FromRules{Files: []string{"none.yml", "none/*.yml"}})
	require.ErrorContains(t, err, "none.yml: no such file", "a name without wildcards has to be there")
	require.NotContains(t, err.Error(), "*")

	var more Metrics
	require.NoError(t, more.AddQuery(`{job="x"}`, "q"))
	require.Zero(t, more.Len(), "no metric is named")
	more.Add(metrics)
	require.Equal(t, 1, more.Len())
}

func TestWarningsNameClassAndMetric(t *testing.T) {
	var read, low Metrics
	require.NoError(t, read.AddRules([]byte(someRules), "a.yml", nil))
	require.NoError(t, low.AddQuery("rate(go_gc_total[45s])", "a rule"))
	metrics := map[string]Metrics{ClassCritical: read, ClassLow: low}
	require.Equal(t, []string{
		`class critical: errors_total is read over 1m0s, which has just two samples when they are 30s apart, and one after a scrape was lost; over 1m30s or more it has two always (alert Errors in a.yml)`,
		`class low: go_gc_total is read over 45s, and scraped every 15s: it is never thinned, since the range has too few samples for that; over 1m0s or more it could be (a rule)`,
	}, Warnings(DefaultConfig(), metrics, 15*time.Second))
	require.Empty(t, Warnings(DefaultConfig(), metrics, 5*time.Second))
	require.Empty(t, Warnings(DefaultConfig(), nil, time.Second))
}
