package thinning_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// recordOf is a record of 2000 samples, as the lane's reader gives it.
func recordOf(t testing.TB, s *station) journal.Record {
	w := newWorld(1, worldOptions{version: series.V2, few: true})
	w.actors = many(w.actors, 2000)
	var list []scrape
	for _, a := range w.actors {
		f, _ := w.step(a, time.Now().UnixMilli())
		if len(f) > 0 {
			list = append(list, scrape{a: a, floats: f})
		}
	}
	b := makeBatch(series.V2, list)
	b.Received = time.Now().UnixMilli()
	require.NotNil(t, s.thinner)
	return journal.Record{Batch: b, Counts: b.Counts, Start: journal.Position{Segment: 1}, End: journal.Position{Segment: 1, Offset: 1}}
}

// At rate 1 a record costs a lock and a few additions, whatever is in it.
func TestFullRateAllocatesNothing(t *testing.T) {
	s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour})
	defer s.stop()
	rec := recordOf(t, s)
	defer rec.Batch.Release()
	n := testing.AllocsPerRun(100, func() {
		out, err := s.thinner.Thin(&rec, nil)
		require.NoError(t, err)
		require.Same(t, rec.Batch, out.Batch)
		out.Batch.Release()
	})
	require.LessOrEqual(t, n, 1.0)
}

func BenchmarkThinner_FullRate(b *testing.B) {
	s := newStation(b, vfs.NewMem(), stationOptions{window: time.Hour})
	defer s.stop()
	rec := recordOf(b, s)
	defer rec.Batch.Release()
	b.ReportAllocs()
	for b.Loop() {
		out, err := s.thinner.Thin(&rec, nil)
		if err != nil {
			b.Fatal(err)
		}
		out.Batch.Release()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rec.Counts.Samples), "ns/sample")
}
