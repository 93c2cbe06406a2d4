package tsdb

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/fielderror"
)

func duration(d time.Duration) model.Duration { return model.Duration(d) }

func counterValue(t testing.TB, c prometheus.Metric) float64 {
	t.Helper()
	var m dto.Metric
	require.NoError(t, c.Write(&m))
	return m.GetCounter().GetValue()
}

func TestConfigFromYAML(t *testing.T) {
	c := DefaultConfig()
	require.NoError(t, yaml.Load([]byte("retention: 30d\nretention_size: 2GiB\nout_of_order_time_window: 0s\nquery: {timeout: 10s}\n"), &c, yaml.WithKnownFields()))
	require.NoError(t, c.Validate())
	want := DefaultConfig()
	want.Retention = duration(30 * 24 * time.Hour)
	want.RetentionSize = 2 * bytesize.GiB
	want.OutOfOrderTimeWindow = 0
	want.Query.Timeout = duration(10 * time.Second)
	require.Equal(t, want, c)

	text, err := yaml.Dump(&c)
	require.NoError(t, err)
	var back Config
	require.NoError(t, yaml.Load(text, &back, yaml.WithKnownFields()))
	require.Equal(t, c, back)
}

func TestConfigValidate(t *testing.T) {
	c := DefaultConfig()
	require.NoError(t, c.Validate())
	for _, bad := range []struct {
		path   string
		change func(*Config)
	}{
		{"retention", func(c *Config) { c.Retention = 0 }},
		{"retention_size", func(c *Config) { c.RetentionSize = -1 }},
		{"out_of_order_time_window", func(c *Config) { c.OutOfOrderTimeWindow = -1 }},
		{"out_of_order_time_window", func(c *Config) { c.OutOfOrderTimeWindow = c.Retention + 1 }},
		{"max_exemplars", func(c *Config) { c.MaxExemplars = -1 }},
		{"max_exemplars", func(c *Config) { c.MaxExemplars = maxExemplarsLimit + 1 }},
		{"query.timeout", func(c *Config) { c.Query.Timeout = 0 }},
		{"query.max_samples", func(c *Config) { c.Query.MaxSamples = 0 }},
		{"query.max_concurrency", func(c *Config) { c.Query.MaxConcurrency = -3 }},
		{"query.lookback_delta", func(c *Config) { c.Query.LookbackDelta = 0 }},
	} {
		c := DefaultConfig()
		bad.change(&c)
		list := fielderror.List(c.Validate())
		require.Len(t, list, 1)
		require.Equal(t, bad.path, list[0].Path)
	}
	var none Config
	require.Len(t, fielderror.List(none.Validate()), 5)
}

func TestStoreOptions(t *testing.T) {
	for _, c := range []struct {
		retention, block time.Duration
	}{
		{time.Hour, 2 * time.Hour},
		{15 * 24 * time.Hour, 36 * time.Hour},
		{400 * 24 * time.Hour, 31 * 24 * time.Hour},
	} {
		o := storeOptions(Config{Retention: duration(c.retention)})
		require.Equal(t, c.retention.Milliseconds(), o.RetentionDuration)
		require.Equal(t, c.block.Milliseconds(), o.MaxBlockDuration)
	}
}
