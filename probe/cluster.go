package probe

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// boundCounts is from which lag on a lower bound steers as if it were the lag.
const boundCounts = time.Minute

// followerTick is how often a gateway that does not probe looks whether it is to.
const followerTick = 100 * time.Millisecond

// Leader says which gateway is the one that probes a cluster. Its method may be called from
// several goroutines, often, and must not block.
type Leader interface {
	Leadership(cluster string) Leadership
}

// Leadership is who probes a cluster: this gateway, another one, or it is not known who.
type Leadership struct {
	// Leads: this gateway.
	Leads bool
	// By is the name of the other gateway that does; empty where the store of leases does
	// not say.
	By string
	// UnknownSince is from when on nobody has said who does; zero: it is known.
	UnknownSince time.Time
	// Why is why it is not known, the error of the store of leases.
	Why string
}

// Known reports whether somebody is known to probe the cluster.
func (l Leadership) Known() bool { return l.Leads || l.UnknownSince.IsZero() }

// Options make a Cluster.
type Options struct {
	// Name is the label cluster.
	Name string
	// Interval is the time between two probes of a target, Timeout the limit of one.
	Interval, Timeout time.Duration
	// MaxLag is beyond which lag a replica is not read from.
	MaxLag time.Duration
	// Probers are the targets. The Cluster closes them at the end of Run.
	Probers []Prober
	// Leader decides who probes; nil: this gateway does.
	Leader Leader
	Logger *slog.Logger
	// Metrics takes durations and skipped probes; nil in tests.
	Metrics *Metrics
}

// Cluster probes the targets of one cluster and joins what they say. Its methods may be
// called from several goroutines.
type Cluster struct {
	o Options

	mu      sync.Mutex
	picture *picture
	// term is raised whenever leadership is lost, so that a probe that was under way
	// then is not taken for one of the next time.
	term    uint64
	leading bool
}

// New makes a Cluster. It starts nothing.
func New(o Options) *Cluster { return &Cluster{o: o} }

// Name is the cluster's name.
func (c *Cluster) Name() string { return c.o.Name }

// Run probes until the context ends, and returns when all that it started has returned
// and the probers are closed. It is called once.
func (c *Cluster) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for i := range c.o.Probers {
		all.Go(func() { c.watch(ctx, i) })
	}
	all.Wait()
	c.o.Metrics.forget(c.o.Name)
	return c.closeProbers()
}

// Once probes every target once or, where lag takes two looks at the head, so often as
// ticks is, one interval apart, and closes the probers. It is for a command that prints
// one picture; use it instead of Run.
func (c *Cluster) Once(ctx context.Context, ticks int) (*Snapshot, error) {
	for n := range ticks {
		if n > 0 && !sleep(ctx, c.o.Interval) {
			break
		}
		var all sync.WaitGroup
		for i := range c.o.Probers {
			all.Go(func() { c.probe(ctx, i) })
		}
		all.Wait()
	}
	return c.Snapshot(), c.closeProbers()
}

func (c *Cluster) closeProbers() error {
	var errs []error
	for _, p := range c.o.Probers {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// watch probes one target on a tick. A tick that comes while a probe still runs is
// skipped and counted.
func (c *Cluster) watch(ctx context.Context, i int) {
	next := time.Now().Add(rand.N(c.o.Interval))
	for sleep(ctx, time.Until(next)) {
		if !c.probe(ctx, i) {
			next = time.Now().Add(min(c.o.Interval, followerTick))
			continue
		}
		for next = next.Add(c.o.Interval); time.Until(next) < 0; next = next.Add(c.o.Interval) {
			c.o.Metrics.skip(c.o.Name, c.o.Probers[i])
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// probe reads one target, unless another gateway leads: then it is false.
func (c *Cluster) probe(ctx context.Context, i int) bool {
	term, leadership := c.lead()
	if !leadership.Leads {
		return false
	}
	prober := c.o.Probers[i]
	bounded, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	o := outcome{start: time.Now()}
	o.reading, o.err = prober.Probe(bounded)
	o.end = time.Now()
	if ctx.Err() != nil {
		return true
	}
	c.o.Metrics.observe(c.o.Name, prober, o)
	for _, ch := range c.take(i, term, o) {
		level := slog.LevelInfo
		if ch.warn {
			level = slog.LevelWarn
		}
		c.o.Logger.Log(ctx, level, ch.text, ch.fields...)
	}
	return true
}

// lead looks whether this gateway leads. When it just stopped, what it knew is
// forgotten; when it just began, it begins with nothing.
func (c *Cluster) lead() (term uint64, now Leadership) {
	now = Leadership{Leads: true}
	if c.o.Leader != nil {
		now = c.o.Leader.Leadership(c.o.Name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Leads != c.leading || c.picture == nil {
		c.leading = now.Leads
		c.term++
		c.picture = newPicture(c.o, time.Now())
	}
	return c.term, now
}

// take puts the outcome into the picture, if the term is still that of the probe.
func (c *Cluster) take(i int, term uint64, o outcome) []change {
	now, leadership := c.lead()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !leadership.Leads || now != term || c.term != term {
		return nil
	}
	c.picture.observe(i, o)
	return c.picture.told()
}

// Snapshot is what is known now. While another gateway leads there is nothing in it, and
// there is nothing to say about that either: no target is gone, another one watches.
func (c *Cluster) Snapshot() *Snapshot {
	_, leadership := c.lead()
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !leadership.Leads {
		return &Snapshot{Cluster: c.o.Name, At: now, MaxLag: c.o.MaxLag, Leadership: leadership}
	}
	s := c.picture.snapshot(now)
	s.Leadership = leadership
	return s
}

// Lag is what steers: the lag of the worst replica, less a delay that is configured on
// purpose. It is unknown while that of any replica is, however long it has not answered:
// one that is gone for good has to be taken out of the configuration. It is unknown, too,
// while it is only known to be a short time or more, when there is no replica, and while
// another gateway leads.
func (c *Cluster) Lag() (lag time.Duration, known bool) { return c.Snapshot().worstLag() }

// Ready reports whether this gateway leads and has asked each target at least once, so that
// there is a whole picture; or has had the time to.
func (c *Cluster) Ready() bool {
	s := c.Snapshot()
	for i := range s.Targets {
		if !s.Targets[i].Probed && s.At.Sub(s.Since) < 2*c.o.Interval {
			return false
		}
	}
	return s.Leading
}
