// Package ha believes one replica at a time of each pair of Prometheus servers that scrape
// the same targets. The gateways agree through a record per pair in a shared store, which
// is written by compare-and-swap only, and always before the samples that it speaks of go
// into a journal. Samples of replicas that are not elected are held back in memory, so
// that an election leaves no more than one scrape out.
package ha

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Options is what a Tracker is made of.
type Options struct {
	Config Config
	// Store is shared by all gateways that get replicas of the same pairs. The Tracker
	// does not close it.
	Store Store
	// Append puts a request that was held back into the pipeline: a snappy block without
	// replica labels, which it owns from then on. An error that is ErrRefused says that it
	// will never be taken; any other one, that it may be tried again. It is called by Run.
	Append func(ctx context.Context, v series.Version, body []byte) error
	Logger *slog.Logger
	// Registerer takes the metrics. It may be nil in tests.
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// ErrRefused is what Options.Append returns for a request that will never be taken.
var ErrRefused = errors.New("the request is not acceptable")

// Tracker knows which replicas are elected and elects others. Its methods may be called
// from several goroutines.
type Tracker struct {
	o       Options
	metrics *metrics
	buffer  *buffer
	wake    chan struct{} // that a handover is to be begun
	// round is about how long it takes to read all records, in ns: the longest of late.
	round atomic.Int64
	// slowSaid is when the log last had it that a round takes long. Run alone uses it.
	slowSaid time.Time

	mu       sync.Mutex
	clusters map[string]*cluster
	// failed is when the store did not answer last, zero when it has answered since.
	failed time.Time
}

// New returns a Tracker; it starts nothing.
func New(o Options) (*Tracker, error) {
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	return &Tracker{
		o:        o,
		metrics:  m,
		buffer:   &buffer{limit: int64(o.Config.BufferBytes), metrics: m, count: map[member]int{}},
		wake:     make(chan struct{}, 1),
		clusters: map[string]*cluster{},
	}, nil
}

const (
	// storeTimeout bounds each call of the store: requests wait for it.
	storeTimeout = time.Second
	// idleAfter is when a cluster that nothing was received of is forgotten.
	idleAfter = time.Hour
	// parallelReads is how many records are read at the same time. More would wait for the
	// connections of a small pool, and that wait counts for storeTimeout.
	parallelReads = 8
	// missedLooks is how many looks in a row pass a cluster by whose exchange is in use.
	missedLooks = 3
	// noticeEvery is the least time between two lines of the log that say the same.
	noticeEvery = 10 * time.Minute
)

// tick is the time between two looks at the records.
func (t *Tracker) tick() time.Duration {
	return min(max(time.Duration(t.o.Config.FailoverTimeout)/20, 50*time.Millisecond), time.Second)
}

// Run looks at the records, elects a replica where the elected one is silent, and appends
// what was held back of those that were elected. It ends soon after ctx, when what is being
// appended is; what else is held back is lost then.
func (t *Tracker) Run(ctx context.Context) {
	var handovers sync.WaitGroup
	defer handovers.Wait()
	ticker := time.NewTicker(t.tick())
	defer ticker.Stop()
	for {
		for _, c := range t.list() {
			if c.begin() {
				handovers.Go(func() { t.handOver(ctx, c) })
			}
		}
		if ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
			continue
		case <-t.wake:
			continue
		case <-ticker.C:
		}
		t.look(ctx)
	}
}

// look is what is done at each tick.
func (t *Tracker) look(ctx context.Context) {
	began := t.o.Now()
	complete := t.readAll(ctx)
	now := t.o.Now()
	if complete {
		t.took(now.Sub(began), now)
	}
	// Asked before the sweep, which holds the buffer: elsewhere a cluster is locked first.
	needs := map[string]need{}
	for _, c := range t.list() {
		needs[c.name] = c.need(now)
	}
	t.buffer.sweep(func(e *entry) (Reason, bool) {
		n, known := needs[e.key.cluster] // one that is not has come since
		if !known {
			return "", false
		}
		return n.outdated(e)
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, c := range t.clusters {
		if c.idle(now) {
			delete(t.clusters, name)
			t.metrics.forget(name)
		}
	}
}

// readAll reads the records, some at a time, and elects where it is due. It ends early, and
// returns false, when the store does not answer: the others would only wait for the same.
func (t *Tracker) readAll(ctx context.Context) (complete bool) {
	list := t.list()
	looked := make(map[*cluster]time.Time, len(list))
	for _, c := range list {
		looked[c] = c.lookedAt()
	}
	// The oldest go first, so that each has its turn though rounds end early.
	slices.SortFunc(list, func(a, b *cluster) int { return looked[a].Compare(looked[b]) })
	todo := make(chan *cluster, len(list))
	for _, c := range list {
		todo <- c
	}
	close(todo)
	var failed atomic.Bool
	var readers sync.WaitGroup
	for range min(parallelReads, len(list)) {
		readers.Go(func() {
			for c := range todo {
				if failed.Load() {
					return
				}
				if err := t.visit(ctx, c); err != nil && !errors.Is(err, errUnreadable) {
					failed.Store(true)
				}
			}
		})
	}
	readers.Wait()
	return !failed.Load()
}

// took takes down how long a round took in which the store answered. Longer ones are
// forgotten slowly, because not all take the same.
func (t *Tracker) took(d time.Duration, now time.Time) {
	t.round.Store(max(int64(d), t.round.Load()*7/8))
	limit := t.refreshEvery()
	if d <= limit || !t.slowSaid.IsZero() && now.Sub(t.slowSaid) < noticeEvery {
		return
	}
	t.slowSaid = now
	t.o.Logger.Warn("Reading the records of all HA clusters takes long; failovers take longer by twice that", "took", d, "expected_at_most", limit)
}

// spread is what the rounds' length may add to the time between two reads of a record: its
// turn may come early in one round and late in the next.
func (t *Tracker) spread() time.Duration { return 2 * time.Duration(t.round.Load()) }

func (t *Tracker) list() []*cluster {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*cluster, 0, len(t.clusters))
	for _, c := range t.clusters {
		list = append(list, c)
	}
	return list
}

// cluster returns the state of the named cluster; nil when there are too many.
func (t *Tracker) cluster(name string, now time.Time) *cluster {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.clusters[name]
	if c == nil {
		if len(t.clusters) >= t.o.Config.MaxClusters {
			return nil
		}
		c = newCluster(t, name)
		t.clusters[name] = c
	}
	c.touch(now)
	return c
}

// away reports whether the store failed a moment ago, so that asking it again would only
// take time. The look at each tick finds out when it is back.
func (t *Tracker) away(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.failed.IsZero() && now.Sub(t.failed) < storeTimeout+3*t.tick()
}

// asked notes how a call of the store for the caller with ctx ended. Where the caller has
// gone, that says nothing of the store.
func (t *Tracker) asked(ctx context.Context, err error) {
	if err != nil && ctx.Err() != nil {
		return
	}
	t.mu.Lock()
	was := !t.failed.IsZero()
	if err != nil {
		t.failed = t.o.Now()
	} else {
		t.failed = time.Time{}
	}
	t.mu.Unlock()
	switch {
	case err != nil && !was:
		t.o.Logger.Warn("The store of HA elections does not answer; no replica can be elected", "elected_replicas", t.o.Config.OnStoreUnavailable, "err", err)
	case err == nil && was:
		t.o.Logger.Info("The store of HA elections answers again")
	}
}

// errUnavailable is why nothing is known of a record at present.
var errUnavailable = errors.New("the store of HA elections does not answer")

// errUnreadable is why nothing is known of one record, of a store that answers.
var errUnreadable = errors.New("the store of HA elections has something else in the place of a record")

// read reads a cluster's record. The caller holds the cluster's exchange.
func (t *Tracker) read(ctx context.Context, c *cluster) error {
	limited, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	value, revision, err := t.o.Store.ReadRecord(limited, recordName(c.name))
	t.asked(ctx, err)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnavailable, err)
	}
	var r Record
	if revision != 0 {
		if r, err = decodeRecord(value); err != nil {
			c.cannotDecode(err)
			return fmt.Errorf("%w: %w", errUnreadable, err)
		}
	}
	c.learn(r, revision)
	return nil
}

// swap writes a cluster's record. The caller holds the cluster's exchange.
func (t *Tracker) swap(ctx context.Context, c *cluster, next Record) (swapped bool, err error) {
	limited, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	sent := t.o.Now()
	revision, swapped, err := t.o.Store.SwapRecord(limited, recordName(c.name), c.at(), next.encode())
	t.asked(ctx, err)
	switch {
	case err != nil:
		t.metrics.cas.WithLabelValues(casError).Inc()
		return false, fmt.Errorf("%w: %w", errUnavailable, err)
	case !swapped:
		t.metrics.cas.WithLabelValues(casConflict).Inc()
		return false, nil
	}
	t.metrics.cas.WithLabelValues(casSuccess).Inc()
	c.wrote(next, revision, sent)
	return true, nil
}
