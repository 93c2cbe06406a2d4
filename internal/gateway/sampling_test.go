package gateway

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

const (
	sampledBackend = `
  - name: a
    remote_write: {url: "http://127.0.0.1:1/w", out_of_order_time_window: 1h}
`
	plainBackend = `
  - name: a
    adaptive_sampling: {enabled: false}
    remote_write: {url: "http://127.0.0.1:1/w", out_of_order_time_window: 1h}
`
	anotherBackend = `
  - name: b
    remote_write: {url: "http://127.0.0.1:1/w", out_of_order_time_window: 1h}
`
)

func backendsOf(t *testing.T, list ...string) *config.Config {
	t.Helper()
	text := "adaptive_sampling: {backfill: true}\nbackends:"
	for _, b := range list {
		text += b
	}
	c, err := config.Parse("sluice.yaml", []byte(text))
	require.NoError(t, err)
	return c
}

// openSession leaves a ledger of backend a with a session that is open.
func openSession(t *testing.T, storage string) {
	t.Helper()
	l, err := ledger.Open(ledger.Options{
		Dir: ledgerDir(storage), Backend: "a", FS: vfs.OS{}, Backfill: true, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	require.NoError(t, err)
	_, err = l.Resume(ledger.Resumption{})
	require.NoError(t, err)
	at := journal.Position{Segment: 1000}
	require.NoError(t, l.Begin(ledger.Session{From: at, Rebuild: at, Digest: "then", Config: []byte("then"), Setting: ledger.Setting{At: at, Rate: 0.5}}))
	require.NoError(t, l.Close())
}

// A reload that is refused leaves the session of a backend open that it was to sample no
// more; one that is applied ends it.
func TestReload_EndsSamplingOnceItIsCertain(t *testing.T) {
	storage := t.TempDir()
	openSession(t, storage)
	next := backendsOf(t, sampledBackend)
	g := running(t, storage, &next)
	open := func() int {
		v, err := ledger.Read(vfs.OS{}, ledgerDir(storage), "a")
		require.NoError(t, err)
		return len(v.Entries)
	}
	thinner := func() *thinning.Thinner { return (*g.lines.Load())[0].connected.Load().thinner }
	require.Equal(t, 1, open())

	// The ledger of the other backend cannot be read, so that it cannot be connected.
	broken := filepath.Join(storage, "ledger", "b.0000000001.ledger")
	require.NoError(t, os.WriteFile(broken, nil, 0o644))
	require.NoError(t, os.Truncate(broken, 2<<30)) // larger than any ledger
	next = backendsOf(t, plainBackend, anotherBackend)
	require.ErrorContains(t, g.Reload(), "cannot be connected")
	require.Equal(t, 1, open(), "the session goes on")
	require.NotNil(t, thinner())

	require.NoError(t, os.Remove(broken))
	require.NoError(t, g.Reload())
	require.Zero(t, open())
	require.Nil(t, thinner())
}

// A backend whose lane was halted for a reload goes on although the reload is refused, and
// although its lane could not be started again at first.
func TestReload_GoesOnWithTheBackendsOfBefore(t *testing.T) {
	storage := t.TempDir()
	next := backendsOf(t, sampledBackend)
	g := running(t, storage, &next)
	line := (*g.lines.Load())[0]
	before := line.connected.Load()

	// Neither ledger can be read, so that neither backend can be connected.
	var broken []string
	require.NoError(t, os.MkdirAll(ledgerDir(storage), 0o755))
	for _, backend := range []string{"a", "b"} {
		file := filepath.Join(ledgerDir(storage), backend+".0000000009.ledger")
		require.NoError(t, os.WriteFile(file, nil, 0o644))
		require.NoError(t, os.Truncate(file, 2<<30)) // larger than any ledger
		broken = append(broken, file)
	}
	next = backendsOf(t, plainBackend, anotherBackend)
	require.ErrorContains(t, g.Reload(), "nor those of before, for now")
	require.Same(t, line, (*g.lines.Load())[0])
	require.Same(t, before, line.connected.Load())

	for _, file := range broken {
		require.NoError(t, os.Remove(file))
	}
	require.Eventually(t, func() bool { return line.connected.Load() != before }, 30*time.Second, 10*time.Millisecond)
	require.NoError(t, g.Reload())
	require.Len(t, *g.lines.Load(), 2)
}
