package gateway

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/config"
)

// All names of the probes get the prefix, and have none without it.
func TestProbePrefix(t *testing.T) {
	names := func(compat string) (list []string) {
		c, err := config.Parse("sluice.yaml", []byte(compat+"backends: [{name: a, tsdb: {}}]\nclusters: [{name: shop, redis: {targets: [{dsn: 'redis://127.0.0.1:1'}]}}]\n"))
		require.NoError(t, err)
		g := &Gateway{o: Options{Config: c, Logger: slog.New(slog.DiscardHandler), Now: time.Now}, registry: prometheus.NewRegistry()}
		g.leaders, err = g.newLeaders(nil)
		require.NoError(t, err)
		w, err := g.newWatched(&c.Clusters[0])
		require.NoError(t, err)
		_, err = w.cluster.Once(t.Context(), 1)
		require.NoError(t, err)
		families, err := w.registry.Gather()
		require.NoError(t, err)
		for _, f := range families {
			list = append(list, f.GetName())
		}
		return list
	}
	plain := names("")
	require.Contains(t, plain, "db_probe_success")
	for _, name := range names("compat: {probe_prefix: sluice_}\n") {
		own, ok := strings.CutPrefix(name, "sluice_")
		require.True(t, ok, name)
		require.Contains(t, plain, own)
	}
}
