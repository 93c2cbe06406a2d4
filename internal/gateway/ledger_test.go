package gateway

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// running runs a gateway that loads what next points to.
func running(t *testing.T, storage string, next **config.Config) *Gateway {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g, err := New(Options{
		Config:      *next,
		Load:        func() (*config.Config, error) { return *next, nil },
		StoragePath: storage,
		Listener:    listener,
		Scheme:      "http",
		Serve:       func(l net.Listener, s *http.Server) error { return s.Serve(l) },
		Logger:      slog.New(slog.DiscardHandler),
		Now:         time.Now,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	require.Eventually(t, func() bool { return g.ready.get() == "" }, 10*time.Second, time.Millisecond)
	return g
}

// What was withheld is told also of a backend that is not sampled any more.
func TestLedger_OfABackendThatIsNotSampledAnyMore(t *testing.T) {
	storage := t.TempDir()
	l, err := ledger.Open(ledger.Options{
		Dir: ledgerDir(storage), Backend: "a", FS: vfs.OS{}, Backfill: true, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	require.NoError(t, err)
	_, err = l.Resume(ledger.Resumption{})
	require.NoError(t, err)
	from, to := journal.Position{Segment: 1, Offset: 100}, journal.Position{Segment: 1, Offset: 200}
	require.NoError(t, l.Begin(ledger.Session{From: from, Rebuild: from, Digest: "then", Config: []byte("then"), Setting: ledger.Setting{Rate: 0.5}}))
	tally := ledger.Tally{
		Taken: series.Counts{Samples: 10}, Withheld: series.Counts{Samples: 7},
		Min: ledger.TimeOf(time.Now().Add(-time.Minute)), Max: ledger.TimeOf(time.Now().Add(-time.Second)),
	}
	_, err = l.Settle(ledger.Settlement{Mark: ledger.Mark{Position: to}, Committed: ledger.Mark{Position: to}, Deltas: []ledger.Delta{{At: from, Tally: tally}}})
	require.NoError(t, err)
	require.NoError(t, l.End(to))
	require.NoError(t, l.Close())

	next := backendsOf(t, plainBackend)
	g := running(t, storage, &next)
	ask := func(query string, into any) {
		w := httptest.NewRecorder()
		g.missing(w, httptest.NewRequest(http.MethodGet, "/api/v1/ledger"+query, nil))
		require.Equal(t, http.StatusOK, w.Code, w.Body.String())
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), into))
	}
	var ranged struct{ Backends []Account }
	ask("?from=2020-01-01T00:00:00Z", &ranged)
	require.Len(t, ranged.Backends, 1)
	a := ranged.Backends[0]
	require.False(t, a.Sampling)
	require.Len(t, a.Missing, 1)
	require.Equal(t, uint64(7), a.Missing[0].Outstanding.Samples)
	require.Equal(t, uint64(7), a.Debt.Samples)
	var all struct{ Backends []ledger.View }
	ask("", &all)
	require.Len(t, all.Backends[0].Entries, 1)
}

// A reload hands on what the thinner before knew and decided by.
func TestReload_HandsOnWhatIsKnown(t *testing.T) {
	next := backendsOf(t, sampledBackend)
	g := running(t, t.TempDir(), &next)
	thinner := func() *thinning.Thinner { return (*g.lines.Load())[0].connected.Load().thinner }
	first := thinner()
	for n := range mostDecided + 2 {
		c, err := config.Parse("sluice.yaml", []byte("adaptive_sampling: {backfill: true, key_frame_min: "+(time.Duration(11+n)*time.Second).String()+"}\nbackends:"+sampledBackend))
		require.NoError(t, err)
		next = c
		require.NoError(t, g.Reload())
		require.NotSame(t, first, thinner())
	}
	list := g.earlier((*g.lines.Load())[0])
	require.Len(t, list, mostDecided, "no more are kept")
	require.Equal(t, thinner().Decisions().Digest, list[mostDecided-1].Digest)
	next = backendsOf(t, plainBackend)
	require.NoError(t, g.Reload())
	require.Nil(t, thinner())
}
