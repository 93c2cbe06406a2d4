package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/stretchr/testify/require"
)

func TestFidelityCommand(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	damaged := file("damaged.rw", "no capture at all")
	queries := file("queries.yaml", "queries: [{expr: up}]")
	rules := file("rules.yml", "groups: [{name: a, rules: [{alert: Down, expr: up == 0}]}]")
	missing := filepath.Join(dir, "missing")
	tests := map[string]struct {
		args []string
		code int
		want string
	}{
		"rate above 1":    {[]string{"--capture", damaged, "--queries", queries, "--rules", rules, "--rates", "0.5,2"}, exitUsage, `--rates: "2" is no share above 0 and up to 1`},
		"rate no number":  {[]string{"--capture", damaged, "--queries", queries, "--rules", rules, "--rates", "half"}, exitUsage, `"half"`},
		"rate NaN":        {[]string{"--capture", damaged, "--queries", queries, "--rules", rules, "--rates", "NaN"}, exitUsage, `"NaN"`},
		"rate twice":      {[]string{"--capture", damaged, "--queries", queries, "--rules", rules, "--rates", "0.5, 0.5"}, exitUsage, "stands there twice"},
		"unknown method":  {[]string{"--capture", damaged, "--queries", queries, "--rules", rules, "--method", "swing"}, exitUsage, `--method: "swing" is none of [frames aligned random]`},
		"method twice":    {[]string{"--capture", damaged, "--queries", queries, "--rules", rules, "--method", "random,random"}, exitUsage, "stands there twice"},
		"no capture":      {[]string{"--capture", missing, "--queries", queries, "--rules", rules}, exitError, "--capture: open"},
		"no queries":      {[]string{"--capture", damaged, "--queries", missing, "--rules", rules}, exitError, "--queries: open"},
		"no rules":        {[]string{"--capture", damaged, "--queries", queries, "--rules", missing}, exitError, "--rules: open"},
		"wrong queries":   {[]string{"--capture", damaged, "--queries", rules, "--rules", rules}, exitError, "--queries: "},
		"wrong rules":     {[]string{"--capture", damaged, "--queries", queries, "--rules", queries}, exitError, "--rules: "},
		"damaged capture": {[]string{"--capture", damaged, "--queries", queries, "--rules", rules, "--classes", "page"}, exitError, "damaged.rw: damaged capture: record 1 at byte 0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			app := kingpin.New("sluice", "")
			cmd, run := fidelityCommand(app)
			picked, err := app.Parse(append([]string{"fidelity"}, test.args...))
			require.NoError(t, err)
			require.Equal(t, cmd.FullCommand(), picked)
			var stdout, stderr bytes.Buffer
			require.Equal(t, test.code, run(&stdout, &stderr))
			require.Contains(t, stderr.String(), test.want)
			require.Contains(t, stderr.String(), "sluice: fidelity: ")
			require.Empty(t, stdout.String())
		})
	}
}
