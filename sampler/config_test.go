package sampler

import (
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/sluice-metrics/sluice/internal/fielderror"
)

func TestDefaultConfigIsValid(t *testing.T) {
	c := DefaultConfig()
	require.NoError(t, c.Validate())
}

// The section as its documentation has it is the default.
func TestDefaultConfigIsTheDocumentedOne(t *testing.T) {
	var c Config
	require.NoError(t, yaml.Unmarshal([]byte(`
enabled: true
base_rate: 1.0
min_rate: 0.01
backpressure_thresholds: {queue_length: 5000, write_latency_ms: 200, queue_age_seconds: 10, error_share: 0.1, replica_lag_seconds: 0, memory_ratio: 0.85, on_unknown: hold}
method: frames
floor: hold
mode: active
protect: []
fresh_first_after: 30s
backfill: false
backfill_after: 1m
backfill_share: 0.2
backfill_method: exact
affinity: series
target_labels: [job, instance]
key_frame_min: 30s
lookback: 5m
classes:
- {name: critical, max_gap: 30s, weight: 8, keep_change: 0.1, match: ['{__name__=~"up|ALERTS.*"}'], from_rules: {files: [rules/*.yml]}}
- {name: low, max_gap: 240s, weight: 0.25, match: ['{__name__=~"go_.*|promhttp_.*|scrape_.*|net_conntrack_.*"}']}
- {name: normal, max_gap: 120s, weight: 1}
`), &c))
	want, err := yaml.Marshal(DefaultConfig())
	require.NoError(t, err)
	got, err := yaml.Marshal(c)
	require.NoError(t, err)
	require.YAMLEq(t, string(want), string(got))
}

func TestSeverities(t *testing.T) {
	for text, want := range map[string]Severities{"page": {"page"}, "page, ticket": {"page", "ticket"}} {
		var f FromRules
		require.NoError(t, yaml.Unmarshal([]byte("severity: "+text), &f))
		require.Equal(t, want, f.Severity)
		back, err := f.Severity.MarshalText()
		require.NoError(t, err)
		require.Equal(t, text, string(back))
	}
	var s Severities
	require.Error(t, s.UnmarshalText([]byte("page,,ticket")))
}

func TestBadConfigs(t *testing.T) {
	seconds := func(n int) model.Duration { return model.Duration(time.Duration(n) * time.Second) }
	for path, spoil := range map[string]func(*Config){
		"base_rate":                            func(c *Config) { c.BaseRate = 1.1 },
		"min_rate":                             func(c *Config) { c.MinRate = 0 },
		"backpressure_thresholds.queue_length": func(c *Config) { c.Thresholds.QueueLength = 0 },
		"backpressure_thresholds.write_latency_ms": func(c *Config) { c.Thresholds.WriteLatencyMS = 0 },
		"method":                      func(c *Config) { c.Method = "some" },
		"floor":                       func(c *Config) { c.Floor = "" },
		"mode":                        func(c *Config) { c.Mode = "off" },
		"backfill_method":             func(c *Config) { c.BackfillMethod = "x" },
		"backfill_after":              func(c *Config) { c.BackfillAfter = 0 },
		"backfill_share":              func(c *Config) { c.BackfillShare = 2 },
		"affinity":                    func(c *Config) { c.Affinity = "x" },
		"fresh_first_after":           func(c *Config) { c.FreshFirstAfter = 0 },
		"target_labels":               func(c *Config) { c.TargetLabels = nil },
		"target_labels[1]":            func(c *Config) { c.TargetLabels = []string{"a", ""} },
		"key_frame_min":               func(c *Config) { c.KeyFrameMin = 0 },
		"lookback":                    func(c *Config) { c.Lookback = seconds(60) },
		"classes":                     func(c *Config) { c.Classes[1].Name = "lower" },
		"classes[1].name":             func(c *Config) { c.Classes[1].Name = "critical" },
		"classes[1]":                  func(c *Config) { c.Classes[0].Match, c.Classes[0].FromRules = nil, nil },
		"classes[0].max_gap":          func(c *Config) { c.Classes[0].MaxGap = seconds(29) },
		"classes[2].max_gap":          func(c *Config) { c.Classes[2].MaxGap = seconds(241) },
		"classes[2].weight":           func(c *Config) { c.Classes[2].Weight = 0 },
		"classes[0].keep_change":      func(c *Config) { c.Classes[0].KeepChange = -1 },
		"classes[0].from_rules.files": func(c *Config) { c.Classes[0].FromRules.Files = nil },
	} {
		c := DefaultConfig()
		spoil(&c)
		var paths []string
		for _, e := range fielderror.List(c.Validate()) {
			paths = append(paths, e.Path)
		}
		require.Contains(t, paths, path)
		_, err := New(Options{Config: c})
		require.Error(t, err)
	}

	c := DefaultConfig()
	c.Classes[2].Match = mustSelect("up")
	require.ErrorContains(t, c.Validate(), "everything else")
	var s Selector
	require.ErrorContains(t, s.UnmarshalText([]byte("up{")), "not a series selector")
	require.Empty(t, s.String())
}
