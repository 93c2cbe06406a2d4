package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// mixin runs the command and returns what it wrote, by the path below the directory.
func mixin(t *testing.T, args ...string) map[string]string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mixin")
	var out, errors bytes.Buffer
	require.Equal(t, exitOK, run(append([]string{"mixin", "--out", dir}, args...), &out, &errors), errors.String())
	require.Contains(t, out.String(), filepath.Join(dir, "dashboards"))
	files := map[string]string{}
	for _, pattern := range []string{"dashboards/*.json", "alerts/*.yaml"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		require.NoError(t, err)
		require.NotEmpty(t, found, pattern)
		for _, path := range found {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			name, err := filepath.Rel(dir, path)
			require.NoError(t, err)
			files[filepath.ToSlash(name)] = string(text)
		}
	}
	return files
}

func TestMixin_IsTheCommittedFiles(t *testing.T) {
	for name, text := range mixin(t) {
		want, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(name)))
		require.NoError(t, err)
		require.Equal(t, string(want), text, name)
	}
}

func TestMixin_FitsTheSite(t *testing.T) {
	files := mixin(t, "--prefix", "Edge", "--job", "edge-.*", "--label", "cluster=eu", "--rename", "instance=pod",
		"--threshold", "BackendBehind=120", "--threshold", "Refusing=0.2", "--grafana", "https://grafana.example")
	overview := files["dashboards/overview.json"]
	require.Contains(t, overview, `"uid": "edge-overview"`)
	require.Contains(t, overview, `"title": "Edge: overview"`)
	require.Contains(t, overview, `label_values(sluice_build_info{cluster=\"eu\",job=~\"edge-.*\"}, job)`)
	require.Contains(t, overview, `alertname=~\"Edge.+\"`)
	require.Contains(t, overview, `"value": 120`)
	require.NotContains(t, overview, `"value": 60`)
	databases := files["dashboards/databases.json"]
	require.Contains(t, databases, `max by (target) (replica_lag_seconds{cluster=\"eu\",exported_cluster=~\"$cluster\",`)
	require.Contains(t, databases, `"name": "cluster"`, "variables keep their names, which links use")
	require.Contains(t, databases, `job=~\"$job\"}, exported_cluster)`)
	for name, text := range files {
		require.NotContains(t, text, "instance=~", name)
		require.NotContains(t, text, "{{instance}}", name)
		require.NotContains(t, text, "sluice-overview", name)
	}
	backends := files["alerts/backends.yaml"]
	require.Contains(t, backends, "alert: EdgeBackendBehind")
	require.Contains(t, backends, "> 120")
	require.Contains(t, backends, "https://grafana.example/d/edge-backends")
}

func TestMixin_RefusesBadOptions(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string
	}{
		"number":    {[]string{"--threshold", "BackendBehind=soon"}, `"soon" is no number`},
		"alert":     {[]string{"--threshold", "Nothing=1"}, `threshold "Nothing"`},
		"prefix":    {[]string{"--prefix", "my sluice"}, `prefix "my sluice"`},
		"job":       {[]string{"--job", "("}, `job "("`},
		"label":     {[]string{"--label", "a-b=c"}, `label "a-b"`},
		"rename":    {[]string{"--rename", "instance=a-b"}, `rename "instance" to "a-b"`},
		"directory": {[]string{"--out", filepath.Join(os.DevNull, "x")}, "make the directory"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "mixin")
			var out, errors bytes.Buffer
			args, code := append([]string{"mixin"}, test.args...), exitError
			if test.args[0] != "--out" {
				args, code = append(args, "--out", dir), exitUsage
			}
			require.Equal(t, code, run(args, &out, &errors))
			require.Contains(t, errors.String(), test.want)
			require.NoDirExists(t, dir, "nothing is written when an option is bad")
		})
	}
	var out, errors bytes.Buffer
	require.Equal(t, exitUsage, run([]string{"mixin"}, &out, &errors))
	require.Contains(t, errors.String(), "--out")
}
