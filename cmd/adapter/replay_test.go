package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/capture"
	"github.com/sluice-metrics/sluice/internal/incident"
)

// recording is twenty minutes of one series.
func recording(t *testing.T) []byte {
	t.Helper()
	var out []byte
	for at := int64(1_700_000_000_000); at < 1_700_001_200_000; at += 5000 {
		req := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
			Labels:  []prompb.Label{{Name: "__name__", Value: "up"}, {Name: "instance", Value: "a"}, {Name: "job", Value: "b"}},
			Samples: []prompb.Sample{{Value: 1, Timestamp: at}},
		}}}
		body, err := req.Marshal()
		require.NoError(t, err)
		out = capture.AppendRecord(out, at, s2.EncodeSnappy(nil, body))
	}
	return out
}

func TestReplayCommand(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	load := file("load.rw", string(recording(t)))
	damaged := file("damaged.rw", "no capture at all")
	calm := file("calm.yaml", "duration: 9m\nbackend: {capacity: [{at: 0s, share: 5}]}")
	down := file("down.yaml", "duration: 9m\nbackend: {capacity: [{at: 0s, share: 5}, {at: 30s, samples: 0}]}")
	wrong := file("wrong.yaml", "duration: 9m\nbackend: {capacity: [{at: 0s, shard: 5}]}")
	rules := file("rules.yml", "groups: [{name: a, rules: [{alert: Up, expr: up == 1}]}]")
	long := file("long.yaml", "duration: 30m\nbackend: {capacity: [{at: 0s, share: 5}]}")
	unread := file("unread.yaml", "duration: 9m\nbackend: {capacity: [{at: 0s, share: 5}]}\nadaptive_sampling: {classes: [{name: critical, max_gap: 30s, from_rules: {files: [none.yml]}}, {name: low, max_gap: 4m, match: [low]}, {name: normal}]}")
	file("flat.yml", "rules: [{alert: Up, expr: up == 1}]")
	flat := file("flat.yaml", "duration: 9m\nbackend: {capacity: [{at: 0s, share: 5}]}\nadaptive_sampling: {classes: [{name: critical, max_gap: 30s, from_rules: {files: [flat.yml]}}, {name: low, max_gap: 4m, match: [low]}, {name: normal}]}")
	missing := filepath.Join(dir, "missing")
	tests := map[string]struct {
		args []string
		code int
		want string
	}{
		"within limits":   {[]string{"--capture", load, "--incident", calm, "--rules", rules, "--fail-below", "alert_agreement=0.9", "--fail-above", "max_queue_age_seconds=10"}, exitOK, ""},
		"no limits":       {[]string{"--capture", load, "--incident", down, "--format", "json"}, exitOK, ""},
		"too long":        {[]string{"--capture", load, "--incident", long}, exitOK, "warning: The capture ends 9m56s after the start"},
		"too long, limit": {[]string{"--capture", load, "--incident", long, "--fail-above", "max_queue_age_seconds=10"}, exitError, "not within its limits: only 596 s of 30m were played"},
		"rules not read":  {[]string{"--capture", load, "--incident", unread}, exitOK, "warning: adaptive_sampling: read "},
		"no rule file":    {[]string{"--capture", load, "--incident", flat}, exitOK, "flat.yml has no list groups at the top"},
		"below":           {[]string{"--capture", load, "--incident", down, "--rules", rules, "--fail-below", "alert_agreement=0.9"}, exitError, "not within its limits: alert_agreement is"},
		"above":           {[]string{"--capture", load, "--incident", down, "--fail-above", "max_queue_age_seconds=10"}, exitError, "max_queue_age_seconds is 51"},
		"no rules":        {[]string{"--capture", missing, "--incident", calm, "--fail-below", "alert_agreement=0.9"}, exitUsage, `--fail-below: there is no figure "alert_agreement" without --rules`},
		"rules of others": {[]string{"--capture", missing, "--incident", calm, "--queries", missing, "--fail-below", "page_agreement=0.9"}, exitUsage, `"page_agreement" without --rules`},
		"no pages":        {[]string{"--capture", missing, "--incident", calm, "--rules", rules, "--fail-below", "page_agreement=0.9"}, exitUsage, "has the severity page, so there is no page_agreement"},
		"no queries":      {[]string{"--capture", missing, "--incident", calm, "--rules", rules, "--fail-above", "bad=0.1"}, exitUsage, `--fail-above: there is no figure "bad" without --queries`},
		"nothing at all":  {[]string{"--capture", missing, "--incident", calm, "--fail-above", "kept=0.1"}, exitUsage, `"kept" without --queries or --rules`},
		"no figure":       {[]string{"--capture", missing, "--incident", calm, "--fail-above", "bat=0.1"}, exitUsage, `there is no figure "bat"; there are alert_agreement, bad, `},
		"no limit":        {[]string{"--capture", load, "--incident", calm, "--fail-below", "alert_agreement"}, exitUsage, `"alert_agreement" is no limit`},
		"no number":       {[]string{"--capture", load, "--incident", calm, "--fail-above", "bad=NaN"}, exitUsage, `"bad=NaN" is no limit`},
		"no capture":      {[]string{"--capture", missing, "--incident", calm}, exitError, "--capture: open"},
		"no incident":     {[]string{"--capture", load, "--incident", missing}, exitError, "--incident: open"},
		"wrong incident":  {[]string{"--capture", load, "--incident", wrong}, exitError, "did you mean"},
		"damaged capture": {[]string{"--capture", damaged, "--incident", calm}, exitError, "damaged.rw: damaged capture: record 1 at byte 0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			app := kingpin.New("sluice", "")
			cmd, run := replayCommand(app)
			picked, err := app.Parse(append([]string{"replay"}, test.args...))
			require.NoError(t, err)
			require.Equal(t, cmd.FullCommand(), picked)
			var stdout, stderr bytes.Buffer
			require.Equal(t, test.code, run(&stdout, &stderr), stderr.String())
			if test.want == "" {
				require.Empty(t, stderr.String())
				require.NotEmpty(t, stdout.String())
				return
			}
			require.Contains(t, stderr.String(), test.want)
			require.Contains(t, stderr.String(), "sluice: replay: ")
		})
	}
}

func TestEveryFigureOfTheComparisonNeedsFiles(t *testing.T) {
	figures := func(r *incident.Report) map[string]float64 {
		all, err := r.Figures()
		require.NoError(t, err)
		return all
	}
	without := figures(&incident.Report{})
	require.NotEmpty(t, without)
	for name := range figures(&incident.Report{Fidelity: &incident.Fidelity{}}) {
		_, free := without[name]
		_, given := (&replayFlags{}).needed(name)
		require.Equal(t, free, given, name)
	}
}
