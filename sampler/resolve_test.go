package sampler

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
		"# algorithm 2\n", "# critical: errors_total over 1m0s\n", "# critical: __name__=~\"probe_.*\"\n",
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
	c.Classes[1].FromDashboards = []string{filepath.Join(dir, "none.json")}
	_, err = Resolve(c)
	problems := Problems(err)
	require.Len(t, problems, 2)
	require.Contains(t, problems[0], "read "+filepath.Join(dir, "a.yml")+": alert A of group g: parse query \"up ==\": ")
	require.Contains(t, problems[1], "none.json: no such file or directory")
	require.Equal(t, problems, Problems(errors.Join(err, err)), "each is told once")
	require.Empty(t, Problems(nil))
}

// What a dashboard reads through a recording rule is read, whichever class names the rules.
func TestDashboardsReadThroughRecordingRules(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"r.yml":     `groups: [{name: g, rules: [{record: 'job:rate5m', expr: 'rate(requests_total[5m])'}]}]`,
		"shop.json": `{"panels": [{"title": "Traffic", "targets": [{"expr": "job:rate5m"}]}]}`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	c := DefaultConfig()
	c.Classes[0].FromRules = &FromRules{Files: []string{filepath.Join(dir, "r.yml")}}
	c.Classes[1].FromDashboards = []string{filepath.Join(dir, "shop.json")}
	r, err := Resolve(c)
	require.NoError(t, err)
	class, why := r.Describer.Explain(labelsOf("requests_total"))
	require.Equal(t, ClassLow, class)
	require.Equal(t, "dashboard "+dir+"/shop.json, Traffic, through job:rate5m", why)
	require.Zero(t, r.Describer.Describe(labelsOf("requests_total"), 0).Need, "ranges count for alerts")
}

// What was withheld is looked for with the decisions of then, and these are told apart by the
// algorithm's number. Where this fails, decisions have changed: raise algorithm, and put down
// what it says here.
func TestDecisionsAreThoseOfTheAlgorithm(t *testing.T) {
	sum := sha256.New()
	for seed := range uint64(20) {
		for _, change := range []func(*Options){nil, shed, func(o *Options) { o.OutOfOrder = true }} {
			w := newWorld(seed)
			film := w.film(900)
			s := w.sampler(t, change)
			steps := []Step{{0.5, 0.6}, {0.1, 1.5}, {1, 0}, {0.05, 3}, {0.01, 4.5}}
			out := run(s, film, func(i int) {
				if i%50 == 0 {
					s.Set(steps[i/50%len(steps)])
				}
			})
			for _, id := range slices.Sorted(maps.Keys(out)) {
				for _, o := range out[id] {
					fmt.Fprintln(sum, id, o.Time, o.Bits, o.Histogram)
				}
			}
		}
	}
	require.Equal(t, "2 2a5be5bb550283ad", fmt.Sprintf("%d %x", algorithm, sum.Sum(nil)[:8]))
}
