package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// sluice runs the program with a command line.
func sluice(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestConfigInit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sluice.yaml")
	code, out, errs := sluice(t, "config", "init", "--output="+path)
	require.Zero(t, code, errs)
	require.Equal(t, path+": written. Next: edit it, then\n  sluice check --config.file="+path+"\n", out)

	code, out, errs = sluice(t, "check", "--config.file="+path)
	require.Zero(t, code, errs)
	require.Contains(t, out, "valid, 2 backends")

	code, _, errs = sluice(t, "config", "init", "--output="+path)
	require.Equal(t, exitError, code)
	require.Equal(t, "sluice: config init: "+path+" is there already and is not overwritten; name another file with --output\n", errs)

	written, err := os.ReadFile(path)
	require.NoError(t, err)
	code, out, _ = sluice(t, "config", "init")
	require.Zero(t, code)
	require.Equal(t, string(written), out)
}

func TestConfigShow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sluice.yaml")
	require.NoError(t, os.WriteFile(path, []byte(`shutdown_timeout: 5s
own_metrics: {}
lease: {ttl: 7s, local: {}}
backends: [{name: main, remote_write: {url: "http://u:sesame@h/w", basic_auth: {username: a, password: sesame}}}]
`), 0o600))
	code, out, errs := sluice(t, "config", "show", "--config.file="+path)
	require.Zero(t, code, errs)
	require.Contains(t, out, "\nshutdown_timeout: 5s\n")
	require.Contains(t, out, "\norphan_retention: 1h # default\n")
	require.Contains(t, out, "timeout: 30s # default\n")
	require.Contains(t, out, "own_metrics:\n  interval: 15s # default\n")
	require.Contains(t, out, "lease:\n  ttl: 7s\n  on_lock_unavailable: stop # default\n")
	require.NotContains(t, out, "sesame")

	code, out, _ = sluice(t, "config", "show")
	require.Zero(t, code)
	require.Contains(t, out, "- name: local\n")

	code, _, errs = sluice(t, "config", "show", "--config.file="+path+".none")
	require.Equal(t, exitError, code)
	require.Contains(t, errs, "no such file")
}

func TestConfigSchema(t *testing.T) {
	code, out, _ := sluice(t, "config", "schema")
	require.Zero(t, code)
	require.Contains(t, out, `"$schema": "https://json-schema.org/draft/2020-12/schema"`)
}

func TestConfigConvert(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "prometheus.yml"), filepath.Join(dir, "sluice.yaml")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pw"), []byte("x"), 0o600))
	require.NoError(t, os.WriteFile(from, []byte("remote_write:\n- {url: 'http://h/w', send_exemplars: true, basic_auth: {username: a, password_file: pw}}\n"), 0o600))
	code, out, errs := sluice(t, "config", "convert", from, "--output="+to, "--gateway=http://gate:9201")
	require.Zero(t, code, errs)
	require.Equal(t, to+": written. In "+from+" this takes the place of remote_write:\n\nremote_write:\n  - url: http://gate:9201/api/v1/write\n    send_exemplars: true\n", out)
	code, _, errs = sluice(t, "check", "--config.file="+to)
	require.Zero(t, code, errs)

	code, out, _ = sluice(t, "config", "convert", "--from="+from)
	require.Zero(t, code)
	require.Contains(t, out, "backends:\n  - name: h\n")

	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{nil, exitUsage, "which file?"},
		{[]string{from, "--from=" + from}, exitUsage, "given twice"},
		{[]string{from, "--gateway=gate"}, exitUsage, "is no URL"},
		{[]string{from + ".none"}, exitError, "no such file"},
		{[]string{from, "--output=" + to}, exitError, "is not overwritten"},
	} {
		code, _, errs := sluice(t, append([]string{"config", "convert"}, test.args...)...)
		require.Equal(t, test.code, code, test.args)
		require.Contains(t, errs, test.says)
	}
}
