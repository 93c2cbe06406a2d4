package config

import (
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/ha"
)

func TestPairs(t *testing.T) {
	c := mustParse(t, smallest)
	require.False(t, c.PairsEnabled())
	c = mustParse(t, "ha: {enabled: false, failover_timeout: 10s}\n"+smallest)
	require.False(t, c.PairsEnabled())
	c = mustParse(t, "ha: {failover_timeout: 10s}\nlease: {local: {}}\n"+smallest)
	require.True(t, c.PairsEnabled())
	want := ha.DefaultConfig()
	want.Enabled, want.FailoverTimeout = true, model.Duration(10*time.Second)
	require.Equal(t, want, *c.HA)
	again := mustParse(t, c.String())
	require.Equal(t, c.HA, again.HA)
}

func TestRecords(t *testing.T) {
	for name, text := range map[string]string{
		"etcd":     "etcd: {endpoints: ['127.0.0.1:1']}",
		"redis":    "redis: {address: '127.0.0.1:1'}",
		"postgres": "postgres: {dsn: 'postgres://u@127.0.0.1:1/d'}",
		"local":    "local: {}",
	} {
		t.Run(name, func(t *testing.T) {
			c := mustParse(t, "ha: {}\nlease: {"+text+"}\n"+smallest)
			require.Equal(t, name, c.Lease.Kind())
			s, err := c.Lease.Records(LeaseOptions{})
			require.NoError(t, err, "it connects later")
			require.NoError(t, s.Close())
		})
	}
}

func TestPairsNeedRecords(t *testing.T) {
	_, err := Parse("f.yaml", []byte("ha: {}\n"+smallest))
	require.ErrorContains(t, err, "ha: needs a section lease")
	for _, text := range []string{
		"redlock: {addresses: ['127.0.0.1:1', '127.0.0.1:2', '127.0.0.1:3']}",
		"etcdcas: {endpoints: ['127.0.0.1:1']}",
	} {
		_, err = Parse("f.yaml", []byte("ha: {}\nlease: {"+text+"}\n"+smallest))
		require.ErrorContains(t, err, "keep no records")
	}
	_, err = Parse("f.yaml", []byte("ha: {replica_label: cluster, failover_timeout: 1s}\nlease: {local: {}}\n"+smallest))
	require.ErrorContains(t, err, "ha.replica_label: must not be cluster_label")
	require.ErrorContains(t, err, "ha.failover_timeout: must be at least 2s")
}

func TestTracingNeedsLease(t *testing.T) {
	const tracing = "tracing: {endpoint: 'http://127.0.0.1:4318/v1/traces'}\n"
	_, err := Parse("f.yaml", []byte(tracing+smallest))
	require.ErrorContains(t, err, "f.yaml:1:1: tracing: has no effect without a section lease")
	c := mustParse(t, tracing+"lease: {local: {}}\n"+smallest)
	require.Equal(t, "http://127.0.0.1:4318/v1/traces", c.Tracing.Endpoint)
}
