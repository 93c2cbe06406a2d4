package kafka_test

import (
	"testing"

	"github.com/prometheus/common/config"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/probe/kafka"
)

func TestConfig(t *testing.T) {
	c := kafka.DefaultConfig()
	c.Targets = []kafka.Target{
		{DSN: "kafka://probe@b1", PasswordFile: "secret", TLS: &config.TLSConfig{CAFile: "ca.pem"}},
		{DSN: "kafka://probe@b2"},
		{DSN: "kafka://b1:9092"},
	}
	c.SASLMechanism = "gssapi"
	c.Groups = []string{"g", "", "g"}
	c.SetDirectory("/etc/sluice")
	require.Equal(t, "/etc/sluice/secret", c.Targets[0].PasswordFile)
	require.Equal(t, "/etc/sluice/ca.pem", c.Targets[0].TLS.CAFile)
	var paths []string
	for _, e := range fielderror.List(c.Validate()) {
		paths = append(paths, e.Path)
	}
	require.Equal(t, []string{"targets[2].dsn", "targets[1]", "sasl_mechanism", "groups[1]", "groups[2]"}, paths)
	_, err := c.Probers()
	require.ErrorContains(t, err, "targets[0]: tls_config", "the file is not there")

	c = kafka.Config{}
	c.SetDefaults()
	c.Targets = []kafka.Target{{DSN: "kafka://b1"}, {DSN: "kafka://b2"}}
	require.NoError(t, c.Validate())
	probers, err := c.Probers()
	require.NoError(t, err)
	require.Len(t, probers, 1, "one for the cluster")
	require.Equal(t, "b1:9092", probers[0].Target())
	require.NoError(t, probers[0].Close())
}
