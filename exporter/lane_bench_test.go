package exporter_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/exporter/exportertest"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// loop is a cursor that hands out the same batches round after round from memory.
type loop struct {
	journal.Cursor
	batches []*series.Batch
	left    chan int // how many records there are to be read
	n       int
	todo    int
	state   journal.State
}

func (c *loop) FloorRaised() <-chan struct{} { return nil }

func (c *loop) Next(ctx context.Context, wait bool) (journal.Record, bool, error) {
	if c.todo == 0 {
		if !wait {
			return journal.Record{}, false, nil
		}
		select {
		case c.todo = <-c.left:
		case <-ctx.Done():
			return journal.Record{}, false, ctx.Err()
		}
	}
	c.todo--
	b := c.batches[c.n%len(c.batches)]
	b.Retain()
	start := journal.Position{Segment: 1, Offset: int64(c.n) * 1000}
	c.n++
	return journal.Record{Batch: b, Start: start, End: journal.Position{Segment: 1, Offset: start.Offset + 1000}, Counts: b.Counts}, true, nil
}

func (c *loop) Recount(context.Context, func(*series.Batch) (series.Counts, error)) error { return nil }

func (c *loop) Damaged() series.Counts { return series.Counts{} }

func (c *loop) Read() journal.Position { return journal.Position{} }

func (c *loop) Commit(st journal.State) error { c.state = st; return nil }

func (c *loop) Committed() journal.State { return c.state }

func (c *loop) Lag() journal.Lag { return journal.Lag{} }

func (c *loop) Floor() journal.Position { return journal.Position{} }

func (c *loop) PositionAt(int64, time.Time) journal.Position { return journal.Position{} }

// discard is a backend that takes everything at no cost.
type discard struct{ done chan int }

type discarded struct {
	discard
	p *exporter.Parcel
}

func (b discard) Prepare(p *exporter.Parcel) (exporter.Delivery, error) { return discarded{b, p}, nil }
func (discard) Probe(context.Context) error                             { return nil }
func (discard) Close() error                                            { return nil }
func (d discarded) Tally(k int) exporter.Tally {
	return exporter.Tally{Sent: d.p.Parts[k].Batch.Counts}
}
func (d discarded) Close() {}
func (d discarded) Send(context.Context, int) (exporter.Receipt, error) {
	d.done <- len(d.p.Parts)
	return exporter.Receipt{}, nil
}

// wholly takes every batch as it is.
type wholly struct{}

func (wholly) Pick(b *series.Batch) (series.Set, int, error) { return nil, len(b.IDs), nil }
func (wholly) Count(b *series.Batch) (series.Counts, error)  { return b.Counts, nil }

// laneOf runs a lane over batches of n series out of 100,000; deliver makes it deliver so
// many batches.
func laneOf(t testing.TB, n int) (deliver func(int)) {
	const all = 100_000
	c := &loop{left: make(chan int)}
	next := 0
	for range all / n {
		message := exportertest.Message(t, series.V1, round("m", 1, 1)...)
		b := exportertest.Batch(t, series.V1, message, nil)
		b.IDs = make([]series.ID, n)
		for i := range b.IDs {
			b.IDs[i] = series.Overflow + series.ID(next)
			next++
		}
		b.Series, b.Counts = n, samples(n)
		c.batches = append(c.batches, b)
	}
	d := discard{make(chan int, 100)}
	l := exporter.New(exporter.Options{
		Name: "a", Config: exporter.DefaultLaneConfig(), Backend: d, Cursor: c, Picker: wholly{},
		Metrics: exporter.NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Now: time.Now, StopGrace: time.Second,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return func(k int) {
		c.left <- k
		for k > 0 {
			k -= <-d.done
		}
	}
}

func BenchmarkLane(b *testing.B) {
	for _, n := range []int{100, 2000} {
		b.Run(fmt.Sprintf("%d series a batch", n), func(b *testing.B) {
			deliver := laneOf(b, n)
			deliver(100_000 / n)
			b.ReportAllocs()
			b.ResetTimer()
			deliver(b.N)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/sample")
		})
	}
}

// What a whole batch out of the tail costs a lane in allocations does not depend on what
// is in it.
func TestWholeBatchesAllocateLittle(t *testing.T) {
	for _, n := range []int{100, 2000} {
		deliver := laneOf(t, n)
		deliver(1000)
		const batches = 5000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		deliver(batches)
		runtime.ReadMemStats(&after)
		require.LessOrEqual(t, float64(after.Mallocs-before.Mallocs)/batches, 12.0, "%d series", n)
	}
}
