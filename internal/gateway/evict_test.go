package gateway

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/receiver"
	"github.com/sluice-metrics/sluice/router"
)

// heldUp is a journal that does not write before it may.
type heldUp struct {
	batches chan *series.Batch
	open    chan struct{}
}

func (h *heldUp) Append(_ context.Context, b *series.Batch) error {
	b.Retain()
	h.batches <- b
	<-h.open
	return nil
}

// A request that is on its way to a slow journal keeps the ids of its series.
func TestEvict_NotWhatIsOnTheWayToTheJournal(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	j, err := disk.Open(disk.Options{Dir: "/j", Config: disk.DefaultConfig(), FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer func() { require.NoError(t, j.Close()) }()
	table := series.NewTable(100)
	clock := func() time.Time { return now }
	r := router.New(table, 1)
	match := func(v string) [][]*labels.Matcher {
		return [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchEqual, "__name__", v)}}
	}
	_, err = r.SetBackends([]router.Backend{{Name: "a", Selectors: match("a")}, {Name: "b", Selectors: match("b")}})
	require.NoError(t, err)
	slow := &heldUp{batches: make(chan *series.Batch, 2), open: make(chan struct{})}
	md := remotewrite.NewMetadataCache(remotewrite.MetadataCacheOptions{})
	c := config.Default()
	c.Series.IdleAfter = 5e9
	in := receiver.NewIngester(receiver.IngestOptions{
		Config: c.Receiver, Resolver: r, Journal: slow, Metadata: md, Metrics: receiver.NewMetrics(prometheus.NewRegistry()),
		Now: clock, Appended: func(*series.Batch) {},
	})
	g := &Gateway{
		o: Options{Now: clock}, config: c, journal: j, table: table, ingester: in, router: r,
		metrics: newMetrics(prometheus.NewRegistry(), table, md),
	}
	plain := &line{backend: struct{ exporter.Backend }{}}
	plain.connected.Store(&connection{lane: new(exporter.Lane)})
	g.lines.Store(&[]*line{plain})
	table.Tick(uint32(now.Unix()))
	done := make(chan error, 3)
	send := func(name string) {
		w := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: []prompb.Label{{Name: "__name__", Value: name}}, Samples: []prompb.Sample{{Value: 1, Timestamp: now.UnixMilli()}}}}}
		plain, err := w.Marshal()
		require.NoError(t, err)
		buf := series.NewBuffer(100)
		buf.B = append(buf.B, snappy.Encode(nil, plain)...)
		go func() {
			_, err := in.Ingest(context.Background(), receiver.Request{Version: series.V1, Body: buf})
			done <- err
		}()
	}
	send("a")
	a := <-slow.batches
	now = now.Add(20 * time.Second) // the disk takes its time
	table.Tick(uint32(now.Unix()))
	evicted := make(chan struct{})
	go func() { g.evict(); close(evicted) }()
	select {
	case <-evicted:
	case <-time.After(100 * time.Millisecond): // it waits for the request: as good
	}
	send("b")
	select {
	case b := <-slow.batches:
		defer b.Release()
		require.NotEqual(t, a.IDs, b.IDs, "two series of one id")
	case <-time.After(100 * time.Millisecond):
	}
	set, n, err := router.NewPicker(r, "a", nil).Pick(a)
	require.NoError(t, err)
	require.True(t, set == nil || n == 1, "backend a does not get its series")
	a.Release()
	close(slow.open)
	for range 2 {
		require.NoError(t, <-done)
	}
	<-evicted
}
