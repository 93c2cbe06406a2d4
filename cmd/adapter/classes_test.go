package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/stretchr/testify/require"
)

// classes runs the command and returns its exit code and what it wrote.
func classes(t *testing.T, configFile string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	app := kingpin.New("sluice", "")
	cmd, run := classesCommand(app, &configFile)
	picked, err := app.Parse(append([]string{"classes"}, args...))
	require.NoError(t, err)
	require.Equal(t, cmd.FullCommand(), picked)
	var out, errs bytes.Buffer
	code = run(&out, &errs)
	return code, out.String(), errs.String()
}

func TestClassesCommand(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "rules.yml")
	require.NoError(t, os.WriteFile(rules, []byte("groups: [{name: a, rules: [{alert: Errors, expr: 'rate(errors_total[1m]) > 1'}]}]"), 0o600))
	code, out, errs := classes(t, "", "--rules", rules, "--format", "json", `up{job="a"}`, `up{job="b"}`, "errors_total", "go_goroutines", "other")
	require.Equal(t, exitOK, code, errs)
	var got struct {
		Classes []struct {
			Class, Reason, Example string
			Series                 int
		}
		Series   []struct{ Series, Class, Reason string }
		Warnings []string
	}
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	type row struct {
		class, example string
		series         int
	}
	var rows []row
	for _, c := range got.Classes {
		require.NotEmpty(t, c.Reason)
		rows = append(rows, row{c.Class, c.Example, c.Series})
	}
	require.Equal(t, []row{
		{"critical", `{__name__="up", job="a"}`, 2},
		{"critical", `{__name__="errors_total"}`, 1},
		{"low", `{__name__="go_goroutines"}`, 1},
		{"normal", `{__name__="other"}`, 1},
	}, rows)
	require.Equal(t, "alert Errors in "+rules, got.Classes[1].Reason)
	require.Len(t, got.Series, 5)
	require.Equal(t, `{__name__="up", job="b"}`, got.Series[1].Series)
	require.Len(t, got.Warnings, 1)
	require.Contains(t, got.Warnings[0], "class critical: errors_total is read over 1m0s")
	require.Contains(t, errs, "sluice: classes: warning: class critical: errors_total is read over 1m0s")

	code, out, errs = classes(t, "", "--rules", rules, "--scrape-interval", "0s", `errors_total{a="b"}`, "errors_total")
	require.Equal(t, exitOK, code)
	require.Empty(t, errs)
	require.Regexp(t, `^class +series +reason
critical +\{__name__="errors_total", a="b"\} +alert Errors in .*
critical +\{__name__="errors_total"\} +alert Errors in .*
$`, out)
}

func TestClassesOfACapture(t *testing.T) {
	load := filepath.Join(t.TempDir(), "load.rw")
	require.NoError(t, os.WriteFile(load, recording(t), 0o600))
	code, out, errs := classes(t, "", "--capture", load)
	require.Equal(t, exitOK, code, errs)
	require.Regexp(t, `(?m)^critical +1 +match: .*instance="a"`, out)
	code, out, errs = classes(t, "", "--capture", load, "--all")
	require.Equal(t, exitOK, code, errs)
	require.Regexp(t, `(?m)^critical +\{__name__="up", instance="a", job="b"\} +match: `, out)
}

// Rules that a gateway goes without do not keep the classes from being told.
func TestClassesOfRulesThatCannotBeRead(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "rules.yml")
	require.NoError(t, os.WriteFile(rules, []byte("groups: [{name: a, rules: [{alert: A, expr: 'up =='}, {alert: B, expr: 'good > 1'}]}]"), 0o600))
	other := rules + ".other"
	require.NoError(t, os.WriteFile(other, []byte("rules: [{alert: C, expr: 'other > 1'}]"), 0o600))
	code, out, errs := classes(t, "", "--rules", rules, "--rules", other, "good", "other")
	require.Equal(t, exitOK, code, errs)
	require.Regexp(t, `critical +\{__name__="good"\} +alert B in`, out)
	require.Regexp(t, `normal +\{__name__="other"\}`, out)
	require.Contains(t, errs, "sluice: classes: warning: read "+rules+": alert A of group a: parse query")
	require.Contains(t, errs, "sluice: classes: warning: "+other+" has no list groups at the top")
}

func TestClassesOfAConfiguration(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sluice.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
adaptive_sampling:
  protect: ['{job="billing"}']
backends:
- name: a
  remote_write: {url: http://localhost:1/write}
- name: b
  remote_write: {url: http://localhost:2/write}
  adaptive_sampling: {protect: ['{job="shop"}']}
`), 0o600))
	for _, c := range []struct {
		backend []string
		series  string
	}{
		{nil, `x{job="billing"}`},
		{[]string{"--backend", "a"}, `x{job="billing"}`},
		{[]string{"--backend", "b"}, `x{job="shop"}`},
	} {
		code, out, errs := classes(t, file, append(c.backend, c.series)...)
		require.Equal(t, exitOK, code, errs)
		require.Contains(t, out, "protected", c.backend)
	}
	code, _, errs := classes(t, file, "--backend", "c", "up")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "there are a, b")
}

func TestClassesRefusals(t *testing.T) {
	damaged := filepath.Join(t.TempDir(), "damaged.rw")
	require.NoError(t, os.WriteFile(damaged, []byte("no capture at all"), 0o600))
	for name, c := range map[string]struct {
		config string
		args   []string
		code   int
		want   string
	}{
		"nothing to tell":        {"", nil, exitUsage, "which series?"},
		"no series":              {"", []string{"up{"}, exitUsage, "is no series such as"},
		"no capture":             {"", []string{"--capture", damaged + "x"}, exitError, "--capture: open"},
		"no rules":               {"", []string{"--rules", damaged + ".yml", "up"}, exitError, "--rules: stat "},
		"damaged capture":        {"", []string{"--capture", damaged}, exitError, "damaged capture"},
		"no configuration":       {damaged + ".yaml", []string{"up"}, exitError, "damaged.rw.yaml"},
		"backend without a file": {"", []string{"--backend", "a", "up"}, exitUsage, "--backend needs --config.file"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := classes(t, c.config, c.args...)
			require.Equal(t, c.code, code, errs)
			require.Contains(t, errs, c.want)
			require.Contains(t, errs, "sluice: classes: ")
			require.Empty(t, out)
		})
	}
}
