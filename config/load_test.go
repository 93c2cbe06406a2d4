package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a start only warns of, Check warns of: the file is valid.
func TestCheckReadsRulesAndDashboards(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	write("sluice.yaml", `
adaptive_sampling:
  classes:
  - {name: critical, max_gap: 30s, weight: 8, from_rules: {files: ['rules.yml', 'none.yml', 'none/*.yml']}}
  - {name: low, max_gap: 4m, weight: 0.25, from_dashboards: ['shop.json']}
  - {name: normal, max_gap: 2m}
backends:
- name: a
  remote_write: {url: http://localhost:1/write}
- name: b
  remote_write: {url: http://localhost:2/write}
- name: c
  remote_write: {url: http://localhost:3/write}
  adaptive_sampling: {enabled: false}
`)
	write("rules.yml", `groups: [{name: g, rules: [{alert: A, expr: 'up =='}, {alert: B, expr: 'up == 0'}]}]`)
	write("shop.json", `{"panels": [{"libraryPanel": {"name": "CPU"}}]}`)
	report, ok := Check(filepath.Join(dir, "sluice.yaml"))
	require.True(t, ok)
	require.Contains(t, report, "sluice.yaml: valid, 3 backends\n")
	require.Equal(t, 3, strings.Count(report, "\nwarning: adaptive_sampling: read "), report)
	require.Contains(t, report, filepath.Join(dir, "rules.yml")+`: alert A of group g: parse query "up =="`)
	require.Contains(t, report, "none.yml: no such file or directory\n")
	require.Contains(t, report, "CPU is a library panel")

	write("rules.yml", "groups: []")
	write("none.yml", "groups: []")
	write("shop.json", "{}")
	report, ok = Check(filepath.Join(dir, "sluice.yaml"))
	require.True(t, ok)
	require.NotContains(t, report, "warning")
}
