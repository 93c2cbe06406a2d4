package main

import (
	"bytes"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDemoCommand(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	tests := map[string]struct {
		args   []string
		code   int
		stderr string
	}{
		"a configuration": {[]string{"--config.file=x.yaml"}, exitUsage, "the demo has its own configuration"},
		"TLS":             {[]string{"--web.config.file=x.yaml"}, exitUsage, "cannot stand beside it"},
		"port in use":     {[]string{"--web.listen-address=" + l.Addr().String()}, exitError, "choose another with --web.listen-address"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			require.Equal(t, test.code, run(append([]string{"demo"}, test.args...), &stdout, &stderr))
			require.Contains(t, stderr.String(), test.stderr)
			require.Empty(t, stdout.String())
		})
	}
}
