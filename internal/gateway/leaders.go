package gateway

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/probe"
)

// leaders says which clusters this gateway probes. Without a Locker it is all of them.
type leaders struct {
	locker  lock.Locker
	records lock.Recorder // where gateways tell each other the lag; nil where the kind of leases has none
	fence   *lock.Fence
	config  *config.Lease
	logger  *slog.Logger
	now     func() time.Time
	ended   func(context.Context) error // ends the tracing

	mu       sync.Mutex
	clusters map[string]*standing // by cluster
}

// standing is the probing of one cluster: who does it, as far as this gateway knows.
type standing struct {
	lease  lock.Lease       // nil: this gateway has none
	blind  bool             // it probes because nobody says who does
	other  probe.Leadership // who does, without a lease
	record lagRecord
}

// newLeaders opens the leases of the configuration.
func (g *Gateway) newLeaders(c *config.Lease) (*leaders, error) {
	l := &leaders{config: c, clusters: map[string]*standing{}, logger: g.o.Logger.With("component", "lease"), now: g.o.Now}
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
	l.records, _ = store.(lock.Recorder)
	l.fence = lock.NewFence("probe_series", m)
	l.locker = lock.New(store, lock.EngineOptions{
		Instance: g.address(),
		Metrics:  m,
		Logger:   l.logger,
		Tracer:   tracer,
		Now:      g.o.Now,
	})
	return l, nil
}

// Leadership implements probe.Leader.
func (l *leaders) Leadership(cluster string) probe.Leadership {
	if l.locker == nil {
		return probe.Leadership{Leads: true}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.standing(cluster)
	switch {
	case o.lease != nil && o.lease.Valid():
		return probe.Leadership{Leads: true}
	case o.lease != nil:
		return probe.Leadership{UnknownSince: o.lease.Deadline(), Why: "the lease of this gateway has just ended"}
	}
	who := o.other
	who.Leads = o.blind
	return who
}

// standing is how a cluster stands. The caller holds mu.
func (l *leaders) standing(cluster string) *standing {
	o := l.clusters[cluster]
	if o == nil {
		o = &standing{other: probe.Leadership{UnknownSince: l.now()}}
		l.clusters[cluster] = o
	}
	return o
}

// change changes what is known of a cluster.
func (l *leaders) change(cluster string, f func(*standing)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l.standing(cluster))
}

// held is the lease for probing the cluster, nil for none, and whether it is probed anyway.
func (l *leaders) held(cluster string) (lease lock.Lease, blind bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.standing(cluster)
	return o.lease, o.blind
}

// probeLease is the name of the lease for probing a cluster.
func probeLease(cluster string) string { return "probe/" + cluster }

// campaign holds the lease for probing the cluster whenever it can be had, until ctx ends.
func (l *leaders) campaign(ctx context.Context, cluster string) {
	if l.locker == nil {
		return
	}
	ttl := time.Duration(l.config.TTL)
	for failures := 0; ctx.Err() == nil; {
		lease, err := l.locker.TryAcquire(ctx, probeLease(cluster), lock.Options{TTL: ttl})
		switch {
		case err == nil:
			failures = 0
			l.lead(ctx, cluster, lease)
			continue
		case errors.Is(err, lock.ErrHeld):
			if failures > 0 {
				l.logger.Info("It is known again who probes a cluster", "cluster", cluster)
			}
			failures = 0
			l.follow(cluster, err)
		case ctx.Err() == nil:
			if failures++; failures == 1 {
				l.logger.Warn("It cannot be found out who probes a cluster", "cluster", cluster, "probes_anyway", l.runsBlind(), "err", err)
			}
			l.unknown(cluster, err)
		}
		wait(ctx, pause(ttl, failures, errors.Is(err, lock.ErrRefused)))
	}
}

func (l *leaders) runsBlind() bool { return l.config.OnUnavailable == config.UnavailableRun }

// follow notes that another gateway leads.
func (l *leaders) follow(cluster string, err error) {
	var held *lock.HeldError
	by := ""
	if errors.As(err, &held) {
		by = held.By.Instance
	}
	l.change(cluster, func(o *standing) { o.blind, o.other = false, probe.Leadership{By: by} })
}

// unknown notes that nobody says who leads.
func (l *leaders) unknown(cluster string, err error) {
	l.change(cluster, func(o *standing) {
		o.blind = l.runsBlind()
		o.other.By, o.other.Why = "", err.Error()
		if o.other.UnknownSince.IsZero() {
			o.other.UnknownSince = l.now()
		}
	})
}

// The pauses between attempts to get a lease. A held one is asked for often, since that is
// how long nobody probes when its holder dies. A store that is not there is asked less
// often, and one that refuses, which somebody has to mend, much less.
const (
	longestSilence = 800 * time.Millisecond
	longestRefusal = 10 * time.Second
)

func pause(ttl time.Duration, failures int, refused bool) time.Duration {
	if failures == 0 {
		return jitter(ttl / 10)
	}
	longest := longestSilence
	if refused {
		longest = longestRefusal
	}
	return jitter(min(ttl/10<<min(failures-1, 10), longest))
}

// jitter is between three quarters of d and d, so that gateways do not ask all at once.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/4+1) }

// lead probes as long as the lease holds.
func (l *leaders) lead(ctx context.Context, cluster string, lease lock.Lease) {
	l.change(cluster, func(o *standing) {
		o.lease, o.blind, o.other = lease, false, probe.Leadership{}
		o.record.unread()
	})
	l.logger.Info("This gateway probes the cluster", "cluster", cluster, "token", lease.Token())
	select {
	case <-lease.Done():
		l.change(cluster, func(o *standing) {
			o.lease, o.other = nil, probe.Leadership{UnknownSince: l.now(), Why: lease.Err().Error()}
		})
		l.logger.Warn("This gateway does not probe the cluster any more", "cluster", cluster, "why", lease.Err())
	case <-ctx.Done():
		l.change(cluster, func(o *standing) { o.lease = nil })
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

var (
	errNotLeading = errors.New("another gateway probes the cluster, what this one found is thrown away")
	errOvertaken  = errors.New("the lease for probing the cluster has ended, or another gateway has got it since; what this one found is thrown away")
)

// admit refuses what was found under a lease that has ended, or whose token is below the
// highest that is known for the cluster, here or in the store of the leases: it is asked
// before each write.
func (l *leaders) admit(ctx context.Context, c *probe.Cluster) error {
	if l.locker == nil {
		return nil
	}
	lease, blind := l.held(c.Name())
	switch {
	case lease == nil && blind:
		return nil // there is no token to compare
	case lease == nil:
		return errNotLeading
	}
	l.publish(ctx, c, lease)
	if !l.fence.Admit(c.Name(), lease) {
		return errOvertaken
	}
	return nil
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
