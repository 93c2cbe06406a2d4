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
	"github.com/sluice-metrics/sluice/lock"
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
	old := *g.watching.Load()
	for _, w := range old {
		if !slices.Contains(list, w) {
			w.cancel()
			defer func() { <-w.done }()
		}
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
	m := probe.NewMetrics(w.registry, func() []*probe.Cluster { return []*probe.Cluster{w.cluster} })
	w.cluster = probe.New(probe.Options{
		Name:     c.Name,
		Interval: time.Duration(c.Interval),
		Timeout:  time.Duration(c.Timeout),
		MaxLag:   time.Duration(c.MaxLag),
		Probers:  probers,
		Leader:   g.leaders,
		Logger:   g.o.Logger.With("component", "probe", "cluster", c.Name),
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
		Active: func() bool { return g.leaders.Leading(w.config.Name) },
		Write:  g.writeOwn,
		Logger: g.o.Logger.With("component", "probe", "cluster", w.config.Name),
		Now:    g.o.Now,
	})
	go func() {
		defer close(w.done)
		var wg sync.WaitGroup
		wg.Go(func() { g.leaders.campaign(ctx, w.config.Name) })
		wg.Go(func() { _ = series.Run(ctx) })
		if err := w.cluster.Run(ctx); err != nil {
			g.o.Logger.Warn("Closing the connections of a cluster that is not probed any more", "cluster", w.config.Name, "err", err)
		}
		wg.Wait()
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

// replicaLag is how far the replicas of a cluster lag.
func (g *Gateway) replicaLag(name string) (seconds float64, known bool) {
	for _, w := range *g.watching.Load() {
		if w.config.Name == name {
			lag, known := w.cluster.Lag()
			return lag.Seconds(), known
		}
	}
	return 0, false
}

// leaders says which clusters this gateway probes. Without a Locker it is all of them.
type leaders struct {
	locker lock.Locker
	config *config.Lease
	logger *slog.Logger
	ended  func(context.Context) error // ends the tracing

	mu      sync.Mutex
	leading map[string]func() bool
}

// newLeaders opens the leases of the configuration.
func (g *Gateway) newLeaders(c *config.Lease) (*leaders, error) {
	l := &leaders{config: c, leading: map[string]func() bool{}, logger: g.o.Logger.With("component", "lease")}
	if c == nil {
		return l, nil
	}
	tracer, ended, err := g.tracer(g.config.Tracing)
	if err != nil {
		return nil, err
	}
	l.ended = ended
	m, err := lock.NewMetrics(g.registry)
	if err != nil {
		return nil, err
	}
	store, err := c.Store(config.LeaseOptions{Registerer: g.registry, HikariCP: g.config.Compat.HikariCP, Now: g.o.Now})
	if err != nil {
		return nil, err
	}
	l.locker = lock.New(store, lock.EngineOptions{
		Instance: g.address(),
		Metrics:  m,
		Logger:   l.logger,
		Tracer:   tracer,
		Now:      g.o.Now,
	})
	return l, nil
}

// Leading implements probe.Leader.
func (l *leaders) Leading(cluster string) bool {
	if l.locker == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	leads := l.leading[cluster]
	return leads != nil && leads()
}

func (l *leaders) set(cluster string, leads func() bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leading[cluster] = leads
}

// probeLease is the name of the lease for probing a cluster.
func probeLease(cluster string) string { return "probe/" + cluster }

// campaign holds the lease for probing the cluster whenever it can be had, until ctx ends.
func (l *leaders) campaign(ctx context.Context, cluster string) {
	if l.locker == nil {
		return
	}
	defer l.set(cluster, nil)
	ttl := time.Duration(l.config.TTL)
	blind := false
	for ctx.Err() == nil {
		lease, err := l.locker.TryAcquire(ctx, probeLease(cluster), lock.Options{TTL: ttl})
		switch {
		case err == nil:
			blind = false
			l.lead(ctx, cluster, lease)
			continue
		case errors.Is(err, lock.ErrHeld):
			blind = false
			l.set(cluster, nil)
		case ctx.Err() == nil && !blind:
			blind = true
			run := l.config.OnUnavailable == config.UnavailableRun
			l.logger.Warn("It cannot be found out who probes a cluster", "cluster", cluster, "probes_anyway", run, "err", err)
			if run {
				l.set(cluster, func() bool { return true })
			}
		}
		wait(ctx, ttl/4)
	}
}

// lead probes as long as the lease holds.
func (l *leaders) lead(ctx context.Context, cluster string, lease lock.Lease) {
	l.set(cluster, lease.Valid)
	l.logger.Info("This gateway probes the cluster", "cluster", cluster, "token", lease.Token())
	select {
	case <-lease.Done():
		l.set(cluster, nil)
		l.logger.Warn("This gateway does not probe the cluster any more", "cluster", cluster, "why", lease.Err())
	case <-ctx.Done():
		l.set(cluster, nil)
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(l.config.TTL))
		defer cancel()
		if err := lease.Release(ending); err != nil {
			l.logger.Warn("The lease for probing a cluster ends by itself", "cluster", cluster, "err", err)
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// close ends all leases.
func (l *leaders) close() error {
	if l.locker == nil {
		return nil
	}
	ending, cancel := context.WithTimeout(context.Background(), time.Duration(l.config.TTL))
	defer cancel()
	return errors.Join(l.locker.Close(), l.ended(ending))
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
