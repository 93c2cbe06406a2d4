package gateway

import (
	"context"
	"slices"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// keepSeries moves the series table's time on and evicts what was not seen for long.
func (g *Gateway) keepSeries(ctx context.Context) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		g.table.Tick(uint32(g.o.Now().Unix()))
		if n%6 == 0 {
			g.evict()
		}
	}
}

// evict forgets idle series, except where a batch with their ids is still on its way: an
// id must not be used again before, nor while anybody keeps state of the old series by it.
func (g *Gateway) evict() {
	// A backend that is carried over by a reload is in one of its lists, so none is missed.
	g.reloading.Lock()
	defer g.reloading.Unlock()
	before := g.o.Now().Add(-time.Duration(g.config.Series.IdleAfter)).Unix()
	// A series is marked with a tick of ten seconds, and its request is on the way to
	// the journal for as long as admission allows.
	const slack = 60
	var ids []series.ID
	// Nobody knows of the ids of a request that is on its way to the journal.
	_ = g.ingester.Exclusive(func() error {
		if ms, ok := g.journal.IDsOldest(); ok {
			before = min(before, ms/1000-slack)
		}
		ids = g.table.Evict(uint32(max(before, 0)))
		return nil
	})
	if len(ids) == 0 {
		return
	}
	g.metrics.evicted.Add(float64(len(ids)))
	for _, l := range *g.lines.Load() {
		l.forget(ids)
	}
	g.table.Free(ids)
}

// forgetter keeps state by series id. When Forget returns, it has none of these ids any
// more; afterwards they may come as those of other series.
type forgetter interface{ Forget(ids []series.ID) }

// forget tells all of the line that keep state by series id.
func (l *line) forget(ids []series.ID) {
	if f, ok := l.backend.(forgetter); ok {
		f.Forget(ids)
	}
	if t := l.connected.Load().thinner; t != nil {
		t.Forget(ids)
	}
}

// noteOrphans starts the time of stored cursors whose backends are not configured, and
// ends that of those that are again. g.reloading is held.
func (g *Gateway) noteOrphans() {
	lines := *g.lines.Load()
	stored := g.journal.Cursors()
	for _, name := range stored {
		if slices.ContainsFunc(lines, func(l *line) bool { return l.config.Name == name }) {
			delete(g.orphans, name)
			continue
		}
		if _, ok := g.orphans[name]; !ok {
			g.orphans[name] = g.o.Now()
			g.o.Logger.Warn("A backend is no longer configured; its place in the journal is kept for a while. Files of its own, such as an embedded store, stay until you delete them", "backend", name, "for", time.Duration(g.config.OrphanRetention))
		}
	}
}

// keepOrphans drops the cursors of backends that were removed and did not come back.
func (g *Gateway) keepOrphans(ctx context.Context) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		g.dropOrphans()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (g *Gateway) dropOrphans() {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	for name, since := range g.orphans {
		if g.o.Now().Sub(since) < time.Duration(g.config.OrphanRetention) {
			continue
		}
		st, lag, err := g.journal.DropCursor(name)
		if err != nil {
			g.o.Logger.Error("The cursor of a removed backend cannot be dropped", "backend", name, "err", err)
			continue
		}
		delete(g.orphans, name)
		g.journal.Retain(thinning.Owner(name), journal.Position{})
		if err := ledger.Remove(vfs.OS{}, ledgerDir(g.o.StoragePath), name); err != nil {
			g.o.Logger.Warn("The ledger of a removed backend cannot be deleted", "backend", name, "err", err)
		}
		g.metrics.orphaned.Add(float64(lag.Counts.Samples + lag.Counts.Histograms))
		g.o.Logger.Warn("Dropped the cursor of a removed backend; what it was not sent is given up",
			"backend", name, "samples", lag.Counts.Samples, "histograms", lag.Counts.Histograms, "exemplars", lag.Counts.Exemplars,
			"batches", lag.Records, "delivered_samples", st.Totals.Delivered.Samples)
	}
}
