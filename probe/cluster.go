package probe

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// goneAfter is how long a replica that does not answer makes the cluster's lag unknown.
// After that it counts as gone: what is left of the cluster is what steers.
const goneAfter = time.Minute

// Leader says whether this gateway is the one that probes a cluster. Its method may be
// called from several goroutines, often, and must not block.
type Leader interface {
	Leading(cluster string) bool
}

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
		c.probe(ctx, i)
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

// probe reads one target, unless another gateway leads.
func (c *Cluster) probe(ctx context.Context, i int) {
	term, leading := c.lead()
	if !leading {
		return
	}
	prober := c.o.Probers[i]
	bounded, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	o := outcome{start: time.Now()}
	o.reading, o.err = prober.Probe(bounded)
	o.end = time.Now()
	if ctx.Err() != nil {
		return
	}
	c.o.Metrics.observe(c.o.Name, prober, o)
	for _, ch := range c.take(i, term, o) {
		level := slog.LevelInfo
		if ch.warn {
			level = slog.LevelWarn
		}
		c.o.Logger.Log(ctx, level, ch.text, ch.fields...)
	}
}

// lead looks whether this gateway leads. When it just stopped, what it knew is
// forgotten; when it just began, it begins with nothing.
func (c *Cluster) lead() (term uint64, leading bool) {
	leading = c.o.Leader == nil || c.o.Leader.Leading(c.o.Name)
	c.mu.Lock()
	defer c.mu.Unlock()
	if leading != c.leading || c.picture == nil {
		c.leading = leading
		c.term++
		c.picture = newPicture(c.o, time.Now())
	}
	return c.term, leading
}

// take puts the outcome into the picture, if the term is still that of the probe.
func (c *Cluster) take(i int, term uint64, o outcome) []change {
	now, leading := c.lead()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !leading || now != term || c.term != term {
		return nil
	}
	c.picture.observe(i, o)
	return c.picture.told()
}

// Snapshot is what is known now. While another gateway leads there is nothing in it, and
// there is nothing to say about that either: no target is gone, another one watches.
func (c *Cluster) Snapshot() *Snapshot {
	_, leading := c.lead()
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !leading {
		return &Snapshot{Cluster: c.o.Name, At: now, MaxLag: c.o.MaxLag}
	}
	return c.picture.snapshot(now)
}

// Lag is what steers: the lag of the worst replica, less a delay that is configured on
// purpose. It is unknown while that of any replica is, or is only known to be a short time
// or more; but one that has not answered for a minute counts as gone. It is unknown when
// there is no replica left, and while another gateway leads.
func (c *Cluster) Lag() (lag time.Duration, known bool) {
	return c.Snapshot().worstLag(goneAfter)
}
