package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// takes is a server that takes remote write 2.0.
func takes(t *testing.T, status int) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", "0")
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestCheckTalksToBackends(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sluice.yaml")
	good, bad := takes(t, http.StatusNoContent), takes(t, http.StatusUnauthorized)
	write := func(url string) {
		require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, "backends: [{name: main, remote_write: {url: %q}}, {name: own, tsdb: {}}]", url), 0o600))
	}
	check := func() (int, string) {
		code, out, errs := sluice(t, "check", "--probe", "--config.file="+path, "--storage.path="+filepath.Join(dir, "data"))
		require.Empty(t, errs)
		out = regexp.MustCompile(`connected to \S+ in \S+`).ReplaceAllString(out, "connected")
		_, out, _ = strings.Cut(out, "takes all series\n  own: tsdb, takes all series\n")
		return code, out
	}
	write(good)
	code, out := check()
	require.Zero(t, code)
	require.Equal(t, `ok    main  tcp       connected
ok    main  auth      none configured, none asked for
ok    main  protocol  remote write 2.0
ok    main  clock     no difference
ok    own   store     `+filepath.Join(dir, "data", "own")+` will be made
`, out)

	write(bad)
	code, out = check()
	require.Equal(t, exitError, code)
	require.Equal(t, `ok    main  tcp    connected
FAIL  main  auth   denied: status 401; see basic_auth, authorization, oauth2, headers and tls_config
ok    own   store  `+filepath.Join(dir, "data", "own")+` will be made
`, out)

	elsewhere := filepath.Join(dir, "elsewhere")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, "backends: [{name: own, tsdb: {path: %q}}]", elsewhere), 0o600))
	code, out, errs := sluice(t, "check", "--probe", "--config.file="+path, "--storage.path="+filepath.Join(dir, "data"))
	require.Zero(t, code, errs)
	require.Contains(t, out, "ok    own  store  "+elsewhere+" will be made\n")

	require.NoError(t, os.WriteFile(path, []byte("backends: [{name: main}]"), 0o600))
	code, _, errs = sluice(t, "check", "--probe", "--config.file="+path)
	require.Equal(t, exitError, code)
	require.Contains(t, errs, "no destination")
}
