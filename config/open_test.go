package config

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOpenBuildsEachKind(t *testing.T) {
	hits := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hits++
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	c := mustParse(t, "backends: [{name: near, tsdb: {}}, {name: far, remote_write: {protocol: rw1, url: '"+server.URL+"'}}]")
	require.Len(t, c.Backends, len(kinds()), "every kind is opened here")

	dir := t.TempDir()
	registry := prometheus.NewRegistry()
	for i := range c.Backends {
		b, err := c.Backends[i].Open(OpenOptions{Dir: dir, Registerer: registry})
		require.NoError(t, err)
		require.NoError(t, b.Probe(context.Background()))
		require.NoError(t, b.Close())
	}
	require.DirExists(t, filepath.Join(dir, "near"))
	require.Equal(t, 1, hits)
}

func TestOpenNamesTheBackendThatFails(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "near"), nil, 0o600))
	c := mustParse(t, "backends: [{name: near, tsdb: {}}]")
	b, err := c.Backends[0].Open(OpenOptions{Dir: dir})
	require.ErrorContains(t, err, `open backend "near"`)
	require.Nil(t, b)
}
