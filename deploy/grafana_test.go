package deploy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// mounted is the file or directory of the repository that a service sees under a path.
func mounted(t *testing.T, s composeService, path string) string {
	t.Helper()
	i := slices.IndexFunc(s.Volumes, func(v string) bool { return strings.HasSuffix(v, ":"+path+":ro") })
	require.GreaterOrEqual(t, i, 0, "%s is not mounted", path)
	source, _, _ := strings.Cut(s.Volumes[i], ":")
	return filepath.Join(root, source)
}

// TestGrafanaDashboards follows the way from the provisioning to the dashboards.
func TestGrafanaDashboards(t *testing.T) {
	grafana := loadCompose(t).Services["grafana"]
	var f struct {
		Version   int `yaml:"apiVersion"`
		Providers []struct {
			Name    string `yaml:"name"`
			Type    string `yaml:"type"`
			Options struct {
				Path string `yaml:"path"`
			} `yaml:"options"`
		} `yaml:"providers"`
	}
	decode(t, mounted(t, grafana, "/etc/grafana/provisioning/dashboards/sluice.yaml"), &f)
	require.Equal(t, 1, f.Version)
	require.Len(t, f.Providers, 1)
	require.Equal(t, "file", f.Providers[0].Type)

	dir := mounted(t, grafana, f.Providers[0].Options.Path)
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 5)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var d struct {
			UID    string `json:"uid"`
			Inputs []any  `json:"__inputs"`
		}
		require.NoError(t, json.Unmarshal(text, &d), file)
		require.NotEmpty(t, d.UID, file)
		require.Empty(t, d.Inputs, "%s: a provisioned dashboard is not asked for its data source", file)
	}
	home, found := strings.CutPrefix(grafana.Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"], f.Providers[0].Options.Path)
	require.True(t, found)
	require.FileExists(t, filepath.Join(dir, home))
}
