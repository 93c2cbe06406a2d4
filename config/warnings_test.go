package config

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWarnings(t *testing.T) {
	const backends = `
backends:
  - {name: near, tsdb: {out_of_order_time_window: 1h}}
  - {name: far, remote_write: {url: 'http://h/w'}}
  - {name: taking, remote_write: {url: 'http://h/w', out_of_order_time_window: 1h}}
  - {name: strict, tsdb: {out_of_order_time_window: 0s}}
`
	require.Empty(t, mustParse(t, backends).Warnings())
	require.Empty(t, mustParse(t, "adaptive_sampling: {}"+backends).Warnings())
	require.Equal(t, []string{
		"backend far: nothing is ever given back to it: adaptive_sampling.backfill is true, but remote_write.out_of_order_time_window is 0s; set that to how far behind the backend takes samples",
		"backend strict: nothing is ever given back to it: adaptive_sampling.backfill is true, but tsdb.out_of_order_time_window is 0s; set that to how far behind the backend takes samples",
	}, mustParse(t, "adaptive_sampling: {backfill: true}"+backends).Warnings())
}

func TestCheckWarnsOfRuleFilesWithoutGroups(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"good.yml": "groups: []", "flat.yml": "rules: [{alert: A, expr: up == 0}]", "broken.yml": "groups: [", "list.yml": "[1]",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	file := filepath.Join(dir, "sluice.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
adaptive_sampling: {backfill: true, classes: [{name: critical, max_gap: 30s, from_rules: {files: ['*.yml']}}, {name: low, max_gap: 4m, match: [low]}, {name: normal}]}
backends: [{name: a, remote_write: {url: 'http://h/w'}}, {name: b, remote_write: {url: 'http://h/w', out_of_order_time_window: 1h}}]
`), 0o600))
	report, ok := Check(file)
	require.True(t, ok, report)
	flat := filepath.Join(dir, "flat.yml")
	require.Contains(t, report, "warning: backend a: nothing is ever given back to it")
	require.Contains(t, report, "warning: adaptive_sampling: "+flat+" has no list groups at the top, as rule files of Prometheus have: no rules are taken from it\n")
	require.NotContains(t, report, "good.yml")
	require.NotContains(t, report, "broken.yml has no list")
}

func TestStoresThatCollide(t *testing.T) {
	for _, name := range ownDirectories() {
		_, err := Parse("f.yaml", fmt.Appendf(nil, "backends: [{name: %s, tsdb: {}}]", name))
		require.ErrorContains(t, err, fmt.Sprintf("the store of the backend %q would be in the gateway's own directory %q", name, name))
		mustParse(t, fmt.Sprintf("backends: [{name: %s, tsdb: {path: /elsewhere}}, {name: x, remote_write: {url: 'http://h/w'}}]", name))
		mustParse(t, fmt.Sprintf("backends: [{name: %s, remote_write: {url: 'http://h/w'}}]", name))
	}
	_, err := Parse("f.yaml", []byte("backends: [{name: a, tsdb: {path: x/y}}, {name: b, tsdb: {path: ./x/z/../y/}}]"))
	require.ErrorContains(t, err, `backends[1].tsdb.path: "./x/z/../y/" is the directory of the backend "a" too; "b" needs one of its own`)
	mustParse(t, "backends: [{name: a, tsdb: {path: x}}, {name: b, tsdb: {path: y}}, {name: c, tsdb: {}}, {name: d, tsdb: {}}]")
}
