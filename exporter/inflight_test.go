package exporter_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/exporter/exportertest"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// bounded is a sampling that withholds nothing and bounds what is in flight.
type bounded struct{ samples atomic.Int64 }

func (*bounded) Thin(rec *journal.Record, take series.Set) (exporter.Thinned, error) {
	rec.Batch.Retain()
	return exporter.Thinned{Batch: rec.Batch, Take: take, Counts: rec.Counts}, nil
}
func (*bounded) Pass(journal.Position, journal.Position, bool) error  { return nil }
func (*bounded) Lend(journal.Position, journal.Position, journal.Lag) {}
func (*bounded) Observe(exporter.Signals)                             {}
func (*bounded) FreshFirst() time.Duration                            { return 0 }
func (b *bounded) MaxInFlight() int                                   { return int(b.samples.Load()) }
func (*bounded) Kept() float64                                        { return 1 }
func (*bounded) Settle(_, _ journal.State) (series.Counts, string, error) {
	return series.Counts{}, "", nil
}

// What is bounded is what is in flight: parcels get as small as records are, and as few as
// there is room for, but one is always sent.
func TestSamplesInFlightAreBounded(t *testing.T) {
	for name, tc := range map[string]struct{ bound, parcels, samples int }{
		"without a bound":         {0, 8, 800},
		"a few records":           {250, 3, 300},
		"less than a record":      {10, 1, 100},
		"more than what is there": {1 << 20, 8, 800},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := open(t, vfs.NewMem(), nil, "a")
				defer s.close()
				b := &bounded{}
				b.samples.Store(int64(tc.bound))
				release := make(chan struct{})
				var flying, parcels atomic.Int64
				backend := exportertest.NewBackend(func(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
					n := int64(a.Counts.Samples)
					flying.Add(n)
					parcels.Add(1)
					<-release
					flying.Add(-n)
					return accept(ctx, a)
				})
				l := s.lane("a", backend, both(shards(8, 8), small(100), func(o *exporter.Options) { o.Sampling = b }))
				for i := range int64(8) {
					s.feed(string(rune('a'+i)), 100, 1) // series of their own, so that nothing waits for another
				}
				pause(time.Second)
				require.EqualValues(t, tc.samples, flying.Load())
				require.EqualValues(t, tc.parcels, parcels.Load())
				close(release)
				require.Equal(t, samples(800), l.rest(t, time.Minute).Totals.Delivered)
			})
		})
	}
}

// A bound that is lifted lets what waits go at once.
func TestABoundThatIsLifted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		b := &bounded{}
		b.samples.Store(1)
		release := make(chan struct{})
		backend := exportertest.NewBackend(func(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
			<-release
			return accept(ctx, a)
		})
		l := s.lane("a", backend, both(shards(4, 4), small(100), func(o *exporter.Options) { o.Sampling = b }))
		for i := range int64(4) {
			s.feed(string(rune('a'+i)), 100, 1)
		}
		pause(time.Second)
		require.Equal(t, 1, backend.Peak())
		b.samples.Store(0)
		pause(time.Second)
		require.Equal(t, 4, backend.Peak())
		close(release)
		require.Equal(t, samples(400), l.rest(t, time.Minute).Totals.Delivered)
	})
}
