package sampler

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestResolveReadsWhatTheClassesName(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	rules := `groups: [{name: g, rules: [{alert: A, expr: 'rate(errors_total[1m]) > 1'}, {alert: B, expr: '{__name__=~"probe_.*"} == 0'}]}]`
	write("a.yml", rules)
	write("shop.json", `{"panels": [{"targets": [{"expr": "rate(rpc_seconds_bucket[2m])"}]}]}`)
	c := DefaultConfig()
	c.Classes[0].FromRules = &FromRules{Files: []string{"*.yml"}}
	c.Classes[1].FromDashboards = []string{"*.json"}
	before := c.Classes
	c.SetDirectory(dir)
	require.Equal(t, []string{"*.yml"}, before[0].FromRules.Files, "the classes of others are not touched")
	require.Equal(t, []string{"*.json"}, before[1].FromDashboards)
	again := c
	again.SetDirectory("elsewhere")
	require.Equal(t, c, again, "globs are relative once")

	first, err := Resolve(c)
	require.NoError(t, err)
	class, why := first.Describer.Explain(labelsOf("errors_total"))
	require.Equal(t, ClassCritical, class)
	require.Contains(t, why, "alert A in ")
	class, _ = first.Describer.Explain(labelsOf("rpc_seconds_sum"))
	require.Equal(t, ClassLow, class)
	critical := first.Metrics[ClassCritical]
	require.Equal(t, 2, critical.Len())
	for _, line := range []string{
		"# algorithm 1\n", "# critical: errors_total over 1m0s\n", "# critical: __name__=~\"probe_.*\"\n",
		"# low: rpc_seconds and its parts\n", "# low: rpc_seconds_bucket\n", "key_frame_min: 30s\n",
	} {
		require.Contains(t, string(first.Text), line)
	}

	same, err := Resolve(c)
	require.NoError(t, err)
	require.Equal(t, first.Text, same.Text)
	require.Equal(t, first.Digest, same.Digest)

	digests := map[string]string{first.Digest: "as it was"}
	change := func(what string, do func(c *Config)) {
		changed := c
		changed.Classes = append([]Class(nil), c.Classes...)
		do(&changed)
		r, err := Resolve(changed)
		require.NoError(t, err)
		require.Empty(t, digests[r.Digest], "%s says nothing else", what)
		digests[r.Digest] = what
	}
	change("a gap", func(c *Config) { c.Classes[2].MaxGap *= 2 })
	change("a selector", func(c *Config) { c.Protect = []ProtectSelector{{mustSelect("up")[0]}} })
	change("a range in a rule", func(*Config) {
		write("a.yml", `groups: [{name: g, rules: [{alert: A, expr: 'rate(errors_total[2m]) > 1'}, {alert: B, expr: '{__name__=~"probe_.*"} == 0'}]}]`)
	})
	change("a metric in a rule", func(*Config) {
		write("a.yml", `groups: [{name: g, rules: [{alert: A, expr: 'rate(failures_total[1m]) > 1'}, {alert: B, expr: '{__name__=~"probe_.*"} == 0'}]}]`)
	})
	change("a metric in a dashboard", func(*Config) { write("shop.json", `{"expr": "queue_depth"}`) })
}

// What cannot be read is told, and the rest is there all the same.
func TestResolveGoesWithoutWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.yml"), []byte(`groups: [{name: g, rules: [{alert: A, expr: 'up =='}, {alert: B, expr: good}]}]`), 0o644))
	c := DefaultConfig()
	c.Classes[0].FromRules = &FromRules{Files: []string{filepath.Join(dir, "*.yml")}}
	r, err := Resolve(c)
	require.ErrorContains(t, err, "alert A of group g")
	class, _ := r.Describer.Explain(labelsOf("good"))
	require.Equal(t, ClassCritical, class)
	require.NotEmpty(t, r.Digest)
}
