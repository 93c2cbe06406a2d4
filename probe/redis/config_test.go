package redis_test

import (
	"testing"

	"github.com/prometheus/common/config"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/probe/redis"
)

func TestConfig(t *testing.T) {
	c := redis.Config{Targets: []redis.Target{
		{DSN: "redis://probe@db1"},
		{DSN: "redis://probe@db2:1", PasswordFile: "secret", TLS: &config.TLSConfig{CAFile: "ca.pem"}},
		{DSN: "redis://probe@db1:6379"},
		{DSN: "ftp://probe@db3"},
	}}
	c.SetDirectory("/etc/sluice")
	require.Equal(t, "/etc/sluice/secret", c.Targets[1].PasswordFile)
	require.Equal(t, "/etc/sluice/ca.pem", c.Targets[1].TLS.CAFile)
	var paths []string
	for _, e := range fielderror.List(c.Validate()) {
		paths = append(paths, e.Path)
	}
	require.Equal(t, []string{"targets[2].dsn", "targets[3].dsn"}, paths)
	_, err := c.Probers()
	require.ErrorContains(t, err, "targets[1]: tls_config", "the file is not there")

	c.Targets = c.Targets[:1]
	require.NoError(t, c.Validate())
	probers, err := c.Probers()
	require.NoError(t, err)
	require.Equal(t, "db1:6379", probers[0].Target())
	require.NoError(t, probers[0].Close())
}

func TestConfigOfStreams(t *testing.T) {
	c := redis.Config{
		Targets: []redis.Target{{DSN: "redis://db1/orders"}},
		Streams: []redis.Stream{{Key: "a", Groups: []string{"g", "g", ""}}, {}, {Key: "a"}},
	}
	var paths []string
	for _, e := range fielderror.List(c.Validate()) {
		paths = append(paths, e.Path)
	}
	require.Equal(t, []string{"targets[0].dsn", "streams[0].groups[1]", "streams[0].groups[2]", "streams[1].key", "streams[2].key"}, paths)
}
