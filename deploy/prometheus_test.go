package deploy

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// TestPromtool lays the files out as the containers see them, and lets Prometheus' own
// program check them.
func TestPromtool(t *testing.T) {
	promtool := testutil.Tool(t, "promtool")
	services := loadCompose(t).Services
	for _, name := range []string{"prometheus", "prometheus-backend"} {
		dir := t.TempDir()
		file := copied(t, dir, services[name], "/etc/prometheus/prometheus.yaml")
		rules := 0
		if name == "prometheus" {
			alerts := mounted(t, services[name], "/etc/prometheus/alerts")
			list, err := filepath.Glob(filepath.Join(alerts, "*.yaml"))
			require.NoError(t, err)
			for _, f := range list {
				text, err := os.ReadFile(f)
				require.NoError(t, err)
				write(t, filepath.Join(dir, "alerts", filepath.Base(f)), text)
			}
			rules = len(list)
			require.GreaterOrEqual(t, rules, 6)
		}
		out, err := exec.Command(promtool, "check", "config", file).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "SUCCESS")
		if rules > 0 {
			require.Contains(t, string(out), "rule files found", "promtool did not see the rules")
		}
	}
}

// copied is a copy of what a service sees under the path.
func copied(t *testing.T, dir string, s composeService, name string) string {
	t.Helper()
	text, err := os.ReadFile(mounted(t, s, name))
	require.NoError(t, err)
	file := filepath.Join(dir, path.Base(name))
	write(t, file, text)
	return file
}

func write(t *testing.T, file string, text []byte) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, text, 0o600))
}
