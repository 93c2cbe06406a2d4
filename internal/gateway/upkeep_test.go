package gateway

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/receiver"
)

// remembering is a backend that keeps state by series id.
type remembering struct {
	exporter.Backend
	forget func(ids []series.ID)
}

func (r *remembering) Forget(ids []series.ID) { r.forget(ids) }

// insert gives the n-th series an id. It is seen now.
func (g *Gateway) insert(t *testing.T, n uint64) series.ID {
	t.Helper()
	ids := make([]series.ID, 1)
	key := series.Key{Hi: n, Lo: n}
	require.Zero(t, g.table.Insert(series.Decision{Epoch: g.table.Epoch()}, []series.Entry{{Key: key, Canonical: key}}, ids))
	return ids[0]
}

// A series that is idle loses its id, which is used again only after everybody who keeps
// state by it has forgotten it, and not while the journal has it in a batch.
func TestEvict(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	j, err := disk.Open(disk.Options{Dir: "/j", Config: disk.DefaultConfig(), FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx) }()
	defer func() {
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, j.Close())
	}()

	table := series.NewTable(100)
	g := &Gateway{
		o:        Options{Now: func() time.Time { return now }},
		config:   config.Default(),
		ingester: receiver.NewIngester(receiver.IngestOptions{Config: config.Default().Receiver}),
		journal:  j,
		table:    table,
		metrics:  newMetrics(prometheus.NewRegistry(), table, remotewrite.NewMetadataCache(remotewrite.MetadataCacheOptions{})),
	}
	tick := func() { table.Tick(uint32(now.Unix())) }
	tick()
	var forgotten []series.ID
	l := &line{backend: &remembering{forget: func(ids []series.ID) {
		forgotten = append(forgotten, ids...)
		require.NotContains(t, ids, g.insert(t, 1000+uint64(len(forgotten))), "used again while somebody still keeps state by it")
	}}}
	l.connected.Store(&connection{lane: new(exporter.Lane)})
	plain := &line{backend: struct{ exporter.Backend }{}}
	plain.connected.Store(&connection{lane: new(exporter.Lane)})
	g.lines.Store(&[]*line{plain, l})

	old := g.insert(t, 1)
	cursor, err := j.OpenCursor("a")
	require.NoError(t, err)
	buf := series.NewBuffer(1)
	buf.B = append(buf.B, 0)
	b := series.NewBatch(buf)
	b.Received, b.Series, b.IDs = now.UnixMilli(), 1, []series.ID{old}
	require.NoError(t, j.Append(ctx, b))
	b.Release()

	now = now.Add(time.Duration(g.config.Series.IdleAfter) + time.Hour)
	tick()
	g.evict()
	require.Empty(t, forgotten, "a batch with it is on its way")

	rec, ok, err := cursor.Next(ctx, false)
	require.NoError(t, err)
	require.True(t, ok)
	rec.Batch.Release()
	require.NoError(t, cursor.Commit(journal.State{Position: rec.End}))
	g.evict()
	require.Equal(t, []series.ID{old}, forgotten)
	require.Equal(t, 1.0, testutil.ToFloat64(g.metrics.evicted))
	require.Equal(t, old, g.insert(t, 2), "free now")
	g.evict()
	require.Equal(t, []series.ID{old}, forgotten)
}
