package sampler

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const someDashboard = `{
  "title": "Shop",
  "panels": [
    {"title": "Traffic", "targets": [
      {"expr": "sum by ($group) (rate(requests_total{instance=~\"$instance\"}[$__rate_interval]))"},
      {"expr": "histogram_quantile(0.9, rate(rpc_bucket{job=\"[[job]]\"}[${window:text}]))"},
      {"expr": "max_over_time(queue_depth[$__range:$__interval])"},
      {"expr": "node_${kind}_bytes"},
      {"expr": "$metric"},
      {"expr": ""},
      {"expr": "broken("}
    ]},
    {"title": "Logs", "datasource": {"type": "loki"}, "targets": [{"expr": "logs_read_total"}]},
    {"type": "row", "panels": [{"datasource": {"type": "prometheus", "uid": "x"}, "targets": [{"expr": "inner"}]}]}
  ]
}`

func TestDashboardsNameTheirMetrics(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "shop.json"), []byte(someDashboard), 0o644))
	metrics, err := LoadDashboards(dir, []string{"*.json"})
	require.ErrorContains(t, err, "broken(")
	for name, want := range map[string]bool{
		"requests_total": true, "rpc_bucket": true, "rpc_count": true, "queue_depth": true, "inner": true,
		"node_memory_bytes": true, "node_bytes": false, "logs_read_total": false, "other": false, "shop": false,
	} {
		r, ok := metrics.find(name)
		require.Equal(t, want, ok, name)
		if name == "requests_total" {
			require.Contains(t, r.source, "shop.json, Traffic")
		}
	}
	require.Empty(t, metrics.Narrow(1e12, 1e9), "ranges of dashboards are not known")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "shop.json"), []byte("{"), 0o644))
	_, err = LoadDashboards(dir, []string{"*.json"})
	require.ErrorContains(t, err, "shop.json")
}
