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

// withholding is a Sampling that sends nothing.
type withholding struct{}

func (withholding) Thin(rec *journal.Record, _ series.Set) (exporter.Thinned, error) {
	return exporter.Thinned{Withheld: rec.Counts}, nil
}
func (withholding) Pass(journal.Position, journal.Position, bool) error  { return nil }
func (withholding) Lend(journal.Position, journal.Position, journal.Lag) {}
func (withholding) Observe(exporter.Signals)                             {}
func (withholding) FreshFirst() time.Duration                            { return 0 }
func (withholding) MaxInFlight() int                                     { return 0 }
func (withholding) Kept() float64                                        { return 1 }
func (withholding) Settle(_, _ journal.State) (series.Counts, string, error) {
	return series.Counts{}, "", nil
}

// giveBack is a batch of n samples that are given back.
func giveBack(t *testing.T, r *running, n int, g exporter.Return) series.Counts {
	t.Helper()
	g.Batch = exportertest.Batch(t, series.V1, exportertest.Message(t, series.V1, round("m", n, 1000)...), nil)
	defer g.Batch.Release()
	refused, err := r.Restore(context.Background(), g)
	require.NoError(t, err)
	return refused
}

// What is given back enters the books as far as it was owed, whatever becomes of it: what
// comes beyond that is there twice, and not in the books twice.
func TestRestore_NoMoreThanIsOwed(t *testing.T) {
	refuse := fail(exporter.Rejected, 400)
	for _, c := range []struct {
		name                string
		script              exportertest.Script
		owed                []int // of batches of 8 samples; 10 are withheld
		delivered, rejected int
		restored, again     int
	}{
		{"as much", accept, []int{8}, 8, 0, 8, 0},
		{"the batch has more than was owed of it", accept, []int{3, 4}, 7, 0, 7, 9},
		{"nothing of it was owed", accept, []int{0}, 0, 0, 0, 8},
		{"all of it refused", refuse, []int{8}, 0, 8, 8, 0},
		{"more delivered than is outstanding", accept, []int{8, 8}, 10, 0, 10, 6},
		{"more refused than is outstanding", refuse, []int{8, 8}, 0, 10, 10, 0},
		{"refused, and nothing of it owed", refuse, []int{0}, 0, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := open(t, vfs.NewMem(), nil, "a")
				defer s.close()
				r := s.lane("a", exportertest.NewBackend(c.script), func(o *exporter.Options) { o.Sampling = withholding{} })
				s.feed("m", 10, 1000)
				pause(2 * time.Second)
				for k, owed := range c.owed {
					refused := giveBack(t, r, 8, exporter.Return{UpTo: s.journal.Tail(), More: k+1 < len(c.owed), Owed: samples(owed)})
					if c.rejected > 0 {
						require.Equal(t, samples(8), refused)
					}
				}
				pause(2 * time.Second)
				b := r.Balance()
				require.Equal(t, samples(c.delivered), b.Totals.Delivered)
				var rejected series.Counts
				for _, n := range b.Totals.Rejected {
					rejected.Add(n)
				}
				require.Equal(t, samples(c.rejected), rejected)
				require.Equal(t, samples(10), b.Totals.Withheld)
				require.Equal(t, samples(c.restored), b.Totals.Restored)
				require.Equal(t, samples(c.again), b.Totals.Redelivered)
				require.Equal(t, b.Routed, b.Totals.Settled())
				require.Equal(t, b.Totals, r.cursor.Committed().Totals, "as it is committed")
			})
		})
	}
}

// It is written down how far may have been given back, and no further: what lies before that
// counts as given a second time after a crash.
func TestRestore_HorizonIsNear(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		r := s.lane("a", exportertest.NewBackend(accept), func(o *exporter.Options) { o.Sampling = withholding{} })
		var places []journal.Position
		for n := range 10 {
			s.feed("m", 10, int64(1000*(n+1)))
			places = append(places, s.journal.Tail())
		}
		pause(2 * time.Second)
		for _, at := range places {
			giveBack(t, r, 10, exporter.Return{UpTo: at, Owed: samples(10)})
			require.Equal(t, at, r.cursor.Committed().Restore.Horizon)
			pause(300 * time.Millisecond)
		}
		before := r.cursor.Committed()
		s.feed("m", 10, 20_000)
		for range 100 { // much at once is not written down each time
			giveBack(t, r, 10, exporter.Return{UpTo: s.journal.Tail(), Owed: samples(0)})
			s.feed("m", 1, 20_000)
		}
		require.NotEqual(t, before, r.cursor.Committed())
		require.True(t, s.journal.Tail().Before(r.cursor.Committed().Restore.Horizon))
	})
}

// What was given back for a place that was not reached is given again, and is in the books
// once.
func TestRestore_Forgo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		r := s.lane("a", exportertest.NewBackend(accept), func(o *exporter.Options) { o.Sampling = withholding{} })
		s.feed("m", 10, 1000)
		pause(2 * time.Second)
		for range 2 {
			giveBack(t, r, 4, exporter.Return{UpTo: s.journal.Tail(), More: true, Owed: samples(4)})
			r.Forgo()
		}
		require.Zero(t, r.Balance().Totals.Restored)
		giveBack(t, r, 4, exporter.Return{UpTo: s.journal.Tail(), Owed: samples(4)})
		pause(2 * time.Second)
		b := r.Balance()
		require.Equal(t, samples(4), b.Totals.Delivered)
		require.Equal(t, samples(4), b.Totals.Restored)
		require.Equal(t, samples(4), b.Totals.Redelivered, "it may have been there before")
		require.Equal(t, s.journal.Tail(), r.cursor.Committed().Restore.Position)
	})
}

// syncing is a backend that keeps what it takes on this machine.
type syncing struct {
	*exportertest.Backend
	syncs *atomic.Int64
}

func (s syncing) Sync() error {
	s.syncs.Add(1)
	return nil
}

// What was given back survives a loss of power before the cursor says that it was given back,
// also where nothing else is delivered meanwhile.
func TestRestore_SyncedBeforeItIsCommitted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		var syncs atomic.Int64
		r := s.lane("a", exportertest.NewBackend(accept), func(o *exporter.Options) {
			o.Sampling, o.Durable = withholding{}, true
			o.Backend = syncing{o.Backend.(*exportertest.Backend), &syncs}
		})
		s.feed("m", 10, 1000)
		pause(2 * time.Second)
		before := syncs.Load()
		giveBack(t, r, 10, exporter.Return{UpTo: s.journal.Tail(), Owed: samples(10)})
		pause(2 * time.Second)
		require.Equal(t, s.journal.Tail(), r.cursor.Committed().Restore.Position)
		require.Greater(t, syncs.Load(), before, "the backend may lose what the cursor says that it has")
	})
}
