package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestServedCertificate(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	write("server.crt", "from a file")
	require.Nil(t, servedCertificate(""))
	require.Nil(t, servedCertificate(write("plain.yml", "basic_auth_users: {a: b}\n")))
	for text, want := range map[string]string{
		"tls_server_config: {cert_file: server.crt, key_file: k}":                                 "from a file",
		"tls_server_config: {cert_file: '" + filepath.Join(dir, "server.crt") + "', key_file: k}": "from a file",
		"tls_server_config: {cert: in place, key: k}":                                             "in place",
	} {
		got, err := servedCertificate(write("web.yml", text))()
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	_, err := servedCertificate(write("web.yml", "tls_server_config: {cert_file: none.crt}"))()
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = servedCertificate(write("web.yml", "tls_server_config: {key_file: k}"))()
	require.ErrorContains(t, err, "names no certificate")
}
