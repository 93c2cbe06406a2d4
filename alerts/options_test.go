package alerts

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

func one(t *testing.T, rules []rulefmt.Rule, name string) rulefmt.Rule {
	t.Helper()
	i := slices.IndexFunc(rules, func(r rulefmt.Rule) bool { return r.Alert+r.Record == name && r.Labels["severity"] != "info" })
	require.GreaterOrEqual(t, i, 0, "no rule %s", name)
	return rules[i]
}

func TestFiles_Standard(t *testing.T) {
	for _, f := range mustFiles(t) {
		text, err := os.ReadFile(f.Name)
		require.NoError(t, err)
		require.Equal(t, string(text), string(f.YAML))
	}
}

func TestFiles_Fitted(t *testing.T) {
	o := DefaultOptions()
	o.Prefix, o.Job, o.Labels = "Gate", "gw|gate.*", map[string]string{"region": "eu"}
	o.Rename = map[string]string{"cluster": "exported_cluster", "instance": "pod"}
	o.Thresholds = map[string]float64{"BackendBehind": 90, "SamplingActive": 0.25, "ReplicaLagHigh": 10, "MemoryNearLimit": 0.75}
	o.Source, o.Grafana = "https://git.example.org/sluice/", "https://grafana.example.org"
	rules := all(t, o)

	behind := one(t, rules, "GateBackendBehind")
	require.Equal(t, `max_over_time(sluice_in_journal_age_seconds{region="eu"}[5m]) > 90`, behind.Expr)
	require.Equal(t, 10*time.Minute, time.Duration(behind.For))
	require.Equal(t, "https://git.example.org/sluice/docs/runbook.md#sluicebackendbehind", behind.Annotations["runbook_url"])
	require.True(t, strings.HasPrefix(behind.Annotations["dashboard"], "https://grafana.example.org/d/gate-backends?viewPanel="), behind.Annotations["dashboard"])
	require.Contains(t, behind.Annotations["dashboard"], "&var-job={{ $labels.job }}&var-instance={{ $labels.pod }}&")
	require.Equal(t, "Backend {{ $labels.backend }} of Sluice {{ $labels.pod }} is behind.", behind.Annotations["summary"])

	require.Equal(t, `up{job=~"gw|gate.*",region="eu"} == 0`, one(t, rules, "GateDown").Expr)
	require.Contains(t, one(t, rules, "GateAbsent").Annotations["description"], `job=~"gw|gate.*"`)
	lag := strings.Join(strings.Fields(one(t, rules, "GateReplicaLagHigh").Expr), " ")
	require.Equal(t, `max_over_time(replica_lag_seconds{region="eu"}[5m]) > 10 unless on (job, pod, exported_cluster, target) max_over_time(replica_apply_delay_configured_seconds{region="eu"}[5m]) > 0`, lag)
	require.Contains(t, one(t, rules, "GateSamplingActive").Expr, "< 0.25")
	require.Regexp(t, `>\s+0.75$`, one(t, rules, "GateMemoryNearLimit").Expr)
	require.Equal(t, `sum by (job, kind, lock, region) (dlock_held{kind!="local",region="eu"}) >= 2`, one(t, rules, "GateTwoLeaders").Expr)
	for _, r := range rules {
		require.NotRegexp(t, `instance[^:]`, r.Expr, "another name is in force")
		require.NotContains(t, r.Annotations["dashboard"], "/d/sluice-")
	}

	dir := filepath.Join(t.TempDir(), "a", "b")
	require.NoError(t, Write(dir, o))
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	require.NoError(t, err)
	require.Len(t, files, len(examples()))
	out, err := exec.Command(testutil.Tool(t, "promtool"), append([]string{"check", "rules"}, files...)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	text, err := os.ReadFile(filepath.Join(dir, "sampling.yaml"))
	require.NoError(t, err)
	require.Contains(t, string(text), "# In shadow mode the share is what would be kept.")
}

func TestFiles_Speed(t *testing.T) {
	o := DefaultOptions()
	o.Speed = 60
	files, err := Files(o)
	require.NoError(t, err)
	for _, f := range files {
		for _, g := range groups(t, f) {
			require.Equal(t, time.Second, time.Duration(g.Interval))
		}
	}
	rules := all(t, o)
	behind := one(t, rules, "SluiceBackendBehind")
	require.Equal(t, `max_over_time(sluice_in_journal_age_seconds[5s]) > 60`, behind.Expr)
	require.Equal(t, 10*time.Second, time.Duration(behind.For))
	require.Contains(t, one(t, rules, "SluiceConservationBroken").Expr, "[15s:500ms]")
	require.Contains(t, one(t, rules, "backend:sluice_dropped:increase10m").Expr, "[5s] offset 10s")
}

func TestFiles_Refused(t *testing.T) {
	o := Options{
		Prefix: "9", Job: "(", Labels: map[string]string{"a-b": "c"}, Rename: map[string]string{"d": "e f"},
		Thresholds: map[string]float64{"Down": 1, "SluiceBackendBehind": 2}, Speed: -1,
	}
	err := Write(t.TempDir(), o)
	for _, text := range []string{`prefix "9"`, `job "("`, `label "a-b"`, `rename "d" to "e f"`, `threshold "Down"`, `threshold "SluiceBackendBehind"`, "BackendBehind, ", "speed -1"} {
		require.ErrorContains(t, err, text)
	}
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.ErrorContains(t, Write(filepath.Join(file, "below"), DefaultOptions()), "make the directory of the rules")
}

func TestThresholds(t *testing.T) {
	got, err := Thresholds()
	require.NoError(t, err)
	require.Greater(t, len(got), 20)
	for alert, want := range map[string]float64{
		"BackendBehind": 60, "SamplingActive": 0.5, "QueueFullIn4h": 4 * 3600, "QueueFullIn12h": 12 * 3600, "CertificateExpires": 14 * 86400,
		"TransactionSlow": 3, "TransactionRollbacksHigh": 0.15, "TransactionNestingDeep": 5, "PoolNearlyFull": 0.95,
		"ConnectionQueueSlow": 2, "StatementTimeouts": 5, "ReplicaLagHigh": 3,
	} {
		require.Equal(t, want, got[alert], alert)
	}
	require.NotContains(t, got, "DiskErrors", "it compares several")
	require.NotContains(t, got, "Down", "it asks for a state")
}
