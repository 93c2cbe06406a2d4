package disk_test

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

const (
	benchBody    = 136_000
	benchSamples = 2_000 // in a body
)

func openBench(tb testing.TB, change ...func(*disk.Config)) *running {
	tb.Helper()
	r := openBenchIn(tb, tb.TempDir(), change...)
	tb.Cleanup(func() { require.NoError(tb, r.stop()) })
	return r
}

func openBenchIn(tb testing.TB, dir string, change ...func(*disk.Config)) *running {
	tb.Helper()
	c := disk.DefaultConfig()
	c.RetainBehind = 0
	for _, f := range change {
		f(&c)
	}
	j, err := disk.Open(disk.Options{Dir: dir, Config: c, FS: vfs.OS{}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(tb, err)
	return run(j)
}

// cpu is the user and system time of this process.
func cpu(tb testing.TB) time.Duration {
	var u syscall.Rusage
	require.NoError(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func reportPerSample(b *testing.B, begin time.Duration) {
	b.ReportMetric(float64(cpu(b)-begin)/float64(b.N)/benchSamples, "cpu-ns/sample")
}

// BenchmarkAppend is the journal's share of receiving, with 8 senders.
func BenchmarkAppend(b *testing.B) {
	for _, mode := range []disk.Durability{disk.DurabilityWrite, disk.DurabilityFsync} {
		b.Run(string(mode), func(b *testing.B) {
			j := openBench(b, func(c *disk.Config) { c.Durability = mode; c.MaxDisk = math.MaxInt64 })
			body := make([]byte, benchBody)
			fill(body, 1)
			b.SetBytes(benchBody)
			b.ReportAllocs()
			b.SetParallelism(4)
			begin := cpu(b)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				buf := series.NewBuffer(benchBody)
				buf.B = append(buf.B, body...)
				batch := series.NewBatch(buf)
				defer batch.Release()
				for pb.Next() {
					if err := j.Append(context.Background(), batch); err != nil {
						b.Error(err)
						return
					}
				}
			})
			reportPerSample(b, begin)
		})
	}
}

// BenchmarkThrough is append, read from the tail and commit every 64 records, by one
// goroutine.
func BenchmarkThrough(b *testing.B) {
	j := openBench(b)
	c := openCursor(b, j, "a")
	batch := newBatch(1, benchBody)
	defer batch.Release()
	b.SetBytes(benchBody)
	b.ReportAllocs()
	begin := cpu(b)
	for n := 0; b.Loop(); n++ {
		require.NoError(b, j.Append(context.Background(), batch))
		rec, _, err := c.Next(context.Background(), true)
		require.NoError(b, err)
		rec.Batch.Release()
		if n%64 == 0 {
			require.NoError(b, c.Commit(journal.State{Position: rec.End}))
		}
	}
	reportPerSample(b, begin)
}

// BenchmarkReadDisk is what a backend that is behind costs.
func BenchmarkReadDisk(b *testing.B) {
	const records = 400
	j := openBench(b, noTail)
	name := "a"
	c := openCursor(b, j, name)
	batch := newBatch(1, benchBody)
	for range records {
		require.NoError(b, j.Append(context.Background(), batch))
	}
	batch.Release()
	b.SetBytes(benchBody)
	b.ReportAllocs()
	begin := cpu(b)
	for n := 0; b.Loop(); n++ {
		if n%records == 0 {
			require.NoError(b, c.Close())
			c = openCursor(b, j, name)
		}
		rec, ok, err := c.Next(context.Background(), false)
		if !ok || err != nil {
			b.Fatal(ok, err)
		}
		rec.Batch.Release()
	}
	reportPerSample(b, begin)
}

// BenchmarkOpen is how long a start takes to find out what the journal holds, by size of
// the requests in it.
func BenchmarkOpen(b *testing.B) {
	const total = 1 << 30
	for name, body := range map[string]int{"136KB": benchBody, "10KB": 10_000, "1KB": 1_000} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			j := openBenchIn(b, dir, noTail)
			atTail(b, j, "a")
			batch := newBatch(1, body)
			var work sync.WaitGroup
			for range 8 { // so that the writer has groups
				work.Go(func() {
					for range total / body / 8 {
						if err := j.Append(context.Background(), batch); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			work.Wait()
			batch.Release()
			require.NoError(b, j.stop())
			for b.Loop() {
				require.NoError(b, openBenchIn(b, dir).stop())
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/GiB")
		})
	}
}
