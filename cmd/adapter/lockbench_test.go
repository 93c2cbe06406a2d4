package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/stretchr/testify/require"
)

func TestLockbenchCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "leases.yaml")
	require.NoError(t, os.WriteFile(file, []byte("leases: [{name: main, local: {}}]"), 0o600))
	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	require.NoError(t, os.WriteFile(wrong, []byte("leases: [{name: main}]"), 0o600))
	tests := map[string]struct {
		args        []string
		code        int
		out, stderr string
	}{
		"nothing but the local kind": {[]string{"--acquisitions", "20", "--ttl", "300ms"}, exitOK, "local", "measuring local"},
		"a file":                     {[]string{"--config", file, "--acquisitions", "20", "--ttl", "300ms", "--format", "json"}, exitOK, `"name": "main"`, ""},
		"html":                       {[]string{"--acquisitions", "20", "--ttl", "300ms", "--format", "html"}, exitOK, "<svg", ""},
		"file is wrong":              {[]string{"--config", wrong}, exitError, "", "wrong.yaml:1:10: leases[0]: 0 kinds"},
		"no file":                    {[]string{"--config", file + "x"}, exitError, "", "--config: open"},
		"file and flag":              {[]string{"--config", file, "--redis", "h:1"}, exitUsage, "", "cannot stand beside it"},
		"unreachable":                {[]string{"--redis", "127.0.0.1:1", "--acquisitions", "20", "--ttl", "300ms"}, exitError, "local", "redis could not be measured"},
		"kind without server":        {[]string{"--kind", "etcd"}, exitUsage, "", `no server was named for the kind "etcd"`},
		"address":                    {[]string{"--redis", "h"}, exitUsage, "", `"h" is not host:port`},
		"two redis":                  {[]string{"--redis", "h:1,h:2"}, exitUsage, "", "list 3 or more independent Redis"},
		"ttl":                        {[]string{"--ttl", "1ms"}, exitUsage, "", "--ttl: must be 300ms or more"},
		"acquisitions":               {[]string{"--acquisitions", "0"}, exitUsage, "", "must be 1 or more"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			app := kingpin.New("sluice", "")
			cmd, run := lockbenchCommand(app)
			picked, err := app.Parse(append([]string{"lockbench"}, test.args...))
			require.NoError(t, err)
			require.Equal(t, cmd.FullCommand(), picked)
			var stdout, stderr bytes.Buffer
			require.Equal(t, test.code, run(&stdout, &stderr), stderr.String())
			require.Contains(t, stdout.String(), test.out)
			require.Contains(t, stderr.String(), test.stderr)
		})
	}
}
