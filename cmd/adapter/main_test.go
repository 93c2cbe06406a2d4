package main

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/config"
)

func TestStartAndReloadWarn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	require.NoError(t, os.WriteFile(file, []byte("adaptive_sampling: {backfill: true}\nbackends: [{name: main, remote_write: {url: 'http://h/w'}}]"), 0o600))
	const text = "backend main: nothing is ever given back to it"

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	code, _, errs := sluice(t, "--config.file="+file, "--web.listen-address="+taken.Addr().String())
	require.Equal(t, exitError, code)
	require.Contains(t, errs, text)

	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	c, err := warning(logger, func() (*config.Config, error) { return config.Load(file) })()
	require.NoError(t, err)
	require.Len(t, c.Backends, 1)
	require.Contains(t, log.String(), text)

	broken := errors.New("broken")
	_, err = warning(logger, func() (*config.Config, error) { return nil, broken })()
	require.ErrorIs(t, err, broken)
	require.Nil(t, warning(logger, nil), "there is nothing to load again")
}
