package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/internal/ownmetrics"
	"github.com/sluice-metrics/sluice/probe"
)

// probeSeriesEvery is how often what the probes found goes into the pipeline.
const probeSeriesEvery = 5 * time.Second

// watched is one cluster that is probed.
type watched struct {
	config   *config.Cluster
	cluster  *probe.Cluster
	registry *prometheus.Registry
	cancel   context.CancelFunc
	done     chan struct{}
}

// planWatch makes what is probed by a configuration: the list of all clusters, and those
// of it that are not running.
func (g *Gateway) planWatch(c *config.Config) (list, fresh []*watched, err error) {
	old := *g.watching.Load()
	for i := range c.Clusters {
		cl := &c.Clusters[i]
		k := slices.IndexFunc(old, func(w *watched) bool { return reflect.DeepEqual(w.config, cl) })
		if k >= 0 {
			list = append(list, old[k])
			continue
		}
		w, err := g.newWatched(cl)
		if err != nil {
			return nil, nil, err
		}
		list, fresh = append(list, w), append(fresh, w)
	}
	return list, fresh, nil
}

// watch probes the clusters of a plan and no others. g.reloading is held, or nothing runs
// yet.
func (g *Gateway) watch(list, fresh []*watched) {
	var ending []*watched
	for _, w := range *g.watching.Load() {
		if !slices.Contains(list, w) {
			w.cancel()
			ending = append(ending, w)
		}
	}
	for _, w := range ending {
		<-w.done // before another one of the same name begins
	}
	for _, w := range fresh {
		g.startWatched(g.probing, w)
	}
	g.watching.Store(&list)
}

func (g *Gateway) newWatched(c *config.Cluster) (*watched, error) {
	probers, err := c.Probers()
	if err != nil {
		return nil, err
	}
	w := &watched{config: c, registry: prometheus.NewRegistry(), done: make(chan struct{})}
	m := probe.NewMetrics(prometheus.WrapRegistererWithPrefix(g.o.Config.Compat.ProbePrefix, w.registry), func() []*probe.Cluster { return []*probe.Cluster{w.cluster} })
	w.cluster = probe.New(probe.Options{
		Name:     c.Name,
		Interval: time.Duration(c.Interval),
		Timeout:  time.Duration(c.Timeout),
		MaxLag:   time.Duration(c.MaxLag),
		Probers:  probers,
		Leader:   g.leaders,
		Logger:   g.o.Logger.With("component", "probe"),
		Metrics:  m,
	})
	return w, nil
}

func (g *Gateway) startWatched(ctx context.Context, w *watched) {
	ctx, w.cancel = context.WithCancel(ctx)
	series := ownmetrics.New(ownmetrics.Options{
		Gatherer: w.registry,
		Job:      "sluice",
		Interval: probeSeriesEvery,
		// A gateway that does not lead says nothing, not even that something ended.
		Active: w.cluster.Ready,
		Ends:   true,
		Write: func(ctx context.Context, body []byte) error {
			if err := g.leaders.admit(ctx, w.cluster); err != nil {
				return err
			}
			return g.writeOwn(ctx, body)
		},
		Logger: g.o.Logger.With("component", "probe", "cluster", w.config.Name),
		Now:    g.o.Now,
	})
	go func() {
		defer close(w.done)
		// What marks the end of the series needs the lease: that ends after them.
		leading, resign := context.WithCancel(context.WithoutCancel(ctx))
		var wg sync.WaitGroup
		wg.Go(func() { g.leaders.campaign(leading, w.config.Name) })
		wg.Go(func() {
			if err := w.cluster.Run(leading); err != nil {
				g.o.Logger.Warn("Closing the connections of a cluster that is not probed any more", "cluster", w.config.Name, "err", err)
			}
		})
		var sharing sync.WaitGroup
		sharing.Go(func() { g.leaders.share(leading, w.cluster) })
		_ = series.Run(ctx)
		resign()
		wg.Wait()
		sharing.Wait()
	}()
}

// clusters are those that are probed at present.
func (g *Gateway) clusters() []*probe.Cluster {
	var list []*probe.Cluster
	for _, w := range *g.watching.Load() {
		list = append(list, w.cluster)
	}
	return list
}

// replicaLag is how far the replicas of a cluster lag, as the gateway that probes it knows.
// Where leases are of a kind that cannot tell the others, and another gateway probes, it is
// no signal for this one: known, and 0.
func (g *Gateway) replicaLag(name string) (seconds float64, known bool) {
	for _, w := range *g.watching.Load() {
		if w.config.Name != name {
			continue
		}
		who := g.leaders.Leadership(name)
		switch {
		case who.Leads:
			lag, known := w.cluster.Lag()
			return lag.Seconds(), known
		case g.leaders.records == nil:
			return 0, who.Known()
		}
		return g.leaders.lag(name)
	}
	return 0, false
}

// unwatch stops probing. No reload may be under way.
func (g *Gateway) unwatch() {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	for _, w := range *g.watching.Load() {
		w.cancel()
	}
	for _, w := range *g.watching.Load() {
		<-w.done
	}
}

// ProbeOnce probes all clusters of a configuration without being a gateway, often enough
// to tell lag.
func ProbeOnce(ctx context.Context, c *config.Config, logger *slog.Logger) ([]*probe.Snapshot, error) {
	if len(c.Clusters) == 0 {
		return nil, errors.New("the configuration has no clusters")
	}
	const ticks = 3
	list := make([]*probe.Snapshot, len(c.Clusters))
	errs := make([]error, len(c.Clusters))
	var wg sync.WaitGroup
	for i := range c.Clusters {
		cl := &c.Clusters[i]
		wg.Go(func() {
			probers, err := cl.Probers()
			if err != nil {
				errs[i] = err
				return
			}
			list[i], err = probe.New(probe.Options{
				Name: cl.Name, Interval: time.Duration(cl.Interval), Timeout: time.Duration(cl.Timeout),
				MaxLag: time.Duration(cl.MaxLag), Probers: probers, Logger: logger,
			}).Once(ctx, ticks)
			if err != nil {
				errs[i] = fmt.Errorf("cluster %s: %w", cl.Name, err)
			}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(list, func(s *probe.Snapshot) bool { return s == nil }), errors.Join(errs...)
}
