package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/router"
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// stopGrace is how long requests in flight may take to end when their lane is replaced or
// stopped.
const stopGrace = 5 * time.Second

// reconnectEvery is how often a lane that cannot be started is tried again.
const reconnectEvery = 10 * time.Second

// line is one backend in operation: the backend, and the connection of the journal to it.
type line struct {
	config   *config.Backend
	registry *prometheus.Registry // of the backend
	backend  exporter.Backend
	logger   *slog.Logger
	resolved *sampler.Resolved // nil where nothing is ever withheld
	ledger   *ledger.Ledger    // of what is withheld; nil before it is needed
	// connected is set before the line is listed, and replaced when its lane failed.
	connected atomic.Pointer[connection]
	cancel    context.CancelFunc
	done      chan struct{}
}

// connection is a cursor and the lane that reads from it.
type connection struct {
	cursor   journal.Cursor
	lane     *exporter.Lane
	thinner  *thinning.Thinner    // nil where nothing is ever withheld
	before   thinning.Steering    // of the thinner that this one, or none, takes the place of
	registry *prometheus.Registry // of the lane
}

func (l *line) lane() *exporter.Lane { return l.connected.Load().lane }

// open opens the backend that the configuration describes.
func (g *Gateway) open(c *config.Backend) (*line, error) {
	l := &line{config: c, registry: prometheus.NewRegistry(), logger: g.o.Logger.With("backend", c.Name)}
	b, err := c.Open(config.OpenOptions{
		Dir:        g.o.StoragePath,
		Instance:   g.address(),
		Process:    g.process,
		Metadata:   g.metadata,
		Logger:     g.o.Logger,
		Registerer: l.registry,
	})
	if err != nil {
		return nil, err
	}
	l.backend = b
	return l, nil
}

// close closes the backend and what belongs to it.
func (l *line) close() error {
	return errors.Join(l.backend.Close(), l.closeLedger())
}

func (l *line) closeLedger() error {
	if l.ledger == nil {
		return nil
	}
	err := l.ledger.Close()
	l.ledger = nil
	return err
}

// connect opens the line's cursor and makes its lane.
func (g *Gateway) connect(l *line) error {
	cursor, err := g.journal.OpenCursor(l.config.Name)
	if err != nil {
		return fmt.Errorf("backend %s: %w", l.config.Name, err)
	}
	c := &connection{cursor: cursor, registry: prometheus.NewRegistry(), before: g.steering(l)}
	if c.thinner, err = g.sampling(l, cursor, c.before); err != nil {
		return errors.Join(err, cursor.Close())
	}
	c.lane = exporter.New(exporter.Options{
		Name:        l.config.Name,
		Config:      l.config.Lane(),
		Backend:     l.backend,
		Cursor:      cursor,
		Picker:      router.NewPicker(g.router, l.config.Name, g.metadata),
		Sampling:    c.sampling(),
		DeadLetters: g.deadLetters,
		Tap:         g.taps.of(l.config.Name),
		Metrics:     exporter.NewMetrics(c.registry),
		Logger:      l.logger,
		Now:         g.o.Now,
		Durable:     g.o.Config.Journal.Durability == disk.DurabilityFsync,
		StopGrace:   stopGrace,
	})
	c.registry.MustRegister(c.lane)
	if c.thinner != nil {
		c.registry.MustRegister(c.thinner)
	}
	l.connected.Store(c)
	return nil
}

// run starts the lane, and starts it again when it fails, until the line is cancelled.
// halted is why the lane cannot be started as it is connected: then it is connected anew
// first. Nil: it can.
func (g *Gateway) run(l *line, halted error) {
	ctx, cancel := context.WithCancel(g.running)
	l.cancel, l.done = cancel, make(chan struct{})
	go func() {
		defer close(l.done)
		for err := halted; ; err = nil {
			if err == nil {
				err = l.connected.Load().run(ctx)
			}
			if ctx.Err() != nil {
				if err != nil {
					l.logger.Error("The lane ended with an error; what it could not commit is sent again after a restart", "err", err)
				}
				return
			}
			l.logger.Error("The lane failed; it starts again", "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			for {
				err := g.reconnect(l)
				if err == nil {
					break
				}
				l.logger.Error("The lane cannot be started again; it is tried again", "err", err)
				if wait(ctx, reconnectEvery); ctx.Err() != nil {
					return
				}
			}
		}
	}()
}

func (g *Gateway) reconnect(l *line) error {
	return g.ingester.Exclusive(func() error {
		if err := l.connected.Load().cursor.Close(); err != nil {
			return err
		}
		if err := g.connect(l); err != nil {
			return err
		}
		l.lane().SetBacklog(backlog(l.config.MaxBacklog, len(*g.lines.Load()), &g.o.Config.Journal))
		return nil
	})
}

// halt stops the lane and closes its cursor and its ledger, which its successor opens as
// the configuration then says.
func (l *line) halt() error {
	l.cancel()
	<-l.done
	return errors.Join(l.connected.Load().cursor.Close(), l.closeLedger())
}

// start opens all backends and starts their lanes.
func (g *Gateway) start() error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	var lines []*line
	for i := range g.config.Backends {
		c := &g.config.Backends[i]
		g.ready.set("opening backend " + c.Name)
		l, err := g.open(c)
		if err == nil {
			lines = append(lines, l)
			l.resolved, err = g.resolve(g.config, c)
		}
		if err != nil {
			return errors.Join(err, closeBackends(lines))
		}
	}
	if err := g.switchTo(lines, lines); err != nil {
		return errors.Join(err, closeBackends(lines))
	}
	g.noteOrphans()
	g.site.SetRoutes(g.routes())
	return nil
}

func closeBackends(lines []*line) error {
	var errs []error
	for _, l := range lines {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

// switchTo makes lines the list of backends, for router, journal and books at one
// position of the journal, and starts the lanes of fresh, which are part of lines and not
// connected.
func (g *Gateway) switchTo(lines, fresh []*line) error {
	err := g.ingester.Exclusive(func() error {
		err := g.list(lines)
		for _, l := range fresh {
			if err == nil {
				err = g.connect(l)
			}
		}
		for _, l := range fresh {
			if err == nil {
				err = g.endSampling(l)
			}
		}
		if err != nil {
			// Requests go on as soon as this returns: what counts them and the books must
			// have the same list.
			return errors.Join(err, g.list(*g.lines.Load()))
		}
		for _, l := range lines {
			l.lane().SetBacklog(backlog(l.config.MaxBacklog, len(lines), &g.o.Config.Journal))
		}
		g.lines.Store(&lines)
		return nil
	})
	if err != nil {
		return err
	}
	for _, l := range fresh {
		g.run(l, nil)
	}
	return nil
}

// list makes lines the list of the router and of the journal.
func (g *Gateway) list(lines []*line) error {
	var routes []router.Backend
	var backends []journal.Backend
	for _, l := range lines {
		c := l.config
		routes = append(routes, router.Backend{Name: c.Name, Selectors: c.Selectors(), Digest: c.Digest()})
		backends = append(backends, journal.Backend{Name: c.Name, Digest: c.Digest()})
	}
	if _, err := g.router.SetBackends(routes); err != nil {
		return err
	}
	_, err := g.journal.SetBackends(backends)
	return err
}

// backlog is the bound in force for a backend that is one of n. Where a full journal
// refuses all senders, a backend among several is bounded also when it is not
// configured to be: else one that is down would stop the others.
func backlog(configured exporter.Backlog, n int, j *disk.Config) exporter.Backlog {
	if n > 1 && configured == (exporter.Backlog{}) && j.OnFull == disk.OnFullRefuse {
		configured.Bytes = j.MaxDisk / 4 * 3
	}
	return configured
}

// Reload reads the configuration again and brings the backends in line with it. Either
// all of it is applied or nothing.
func (g *Gateway) Reload() error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	err := g.reload()
	g.metrics.reloaded(err == nil, g.o.Now())
	if err != nil {
		g.o.Logger.Error("Reload refused; the configuration in force stays", "err", err)
		return err
	}
	g.o.Logger.Info("Reloaded the configuration", "backends", len(g.config.Backends))
	return nil
}

func (g *Gateway) reload() error {
	if g.o.Load == nil {
		return errors.New("there is no configuration file to read again: start with --config.file")
	}
	if reason := g.ready.get(); reason != "" {
		return fmt.Errorf("not now: %s", reason)
	}
	next, err := g.o.Load()
	if err != nil {
		return err
	}
	if err := needsRestart(g.config, next); err != nil {
		return err
	}
	clusters, freshClusters, err := g.planWatch(next)
	if err != nil {
		return err
	}
	p, err := g.plan(next)
	if err != nil {
		return err
	}
	for _, l := range p.halted {
		if err := l.halt(); err != nil {
			l.logger.Error("Closing the cursor of a replaced lane", "err", err)
		}
	}
	if err := g.switchTo(p.lines, p.fresh); err != nil {
		return errors.Join(fmt.Errorf("the new backends cannot be connected: %w", err), g.fallBack(p))
	}
	g.site.SetRoutes(g.routes()) // before what they lead to is closed
	for _, l := range p.retired {
		if err := l.close(); err != nil {
			l.logger.Error("Closing a backend that was removed or replaced", "err", err)
		}
	}
	g.watch(clusters, freshClusters)
	g.config = next
	g.noteOrphans()
	return nil
}

// needsRestart reports what a reload cannot change.
func needsRestart(old, next *config.Config) error {
	var errs []error
	check := func(name string, a, b any) {
		if !reflect.DeepEqual(a, b) {
			errs = append(errs, fmt.Errorf("%s: a change takes a restart", name))
		}
	}
	check("receiver", old.Receiver, next.Receiver)
	check("journal", old.Journal, next.Journal)
	check("series", old.Series, next.Series)
	check("own_metrics", old.OwnMetrics, next.OwnMetrics)
	check("lease", old.Lease, next.Lease)
	check("ha", old.HA, next.HA)
	check("tracing", old.Tracing, next.Tracing)
	check("compat", old.Compat, next.Compat)
	return errors.Join(errs...)
}

// plan is what a reload is going to do, with everything done that can fail.
type plan struct {
	lines   []*line // the new list
	fresh   []*line // those of it that have to be connected
	halted  []*line // lanes to stop first
	retired []*line // backends to close at the end
	opened  []*line // backends that were opened for the plan
}

func (g *Gateway) plan(next *config.Config) (*plan, error) {
	p := &plan{}
	old := *g.lines.Load()
	kept := map[*line]bool{}
	for i := range next.Backends {
		c := &next.Backends[i]
		k := slices.IndexFunc(old, func(l *line) bool { return l.config.Name == c.Name })
		resolved, err := g.resolve(next, c)
		if err != nil {
			return nil, errors.Join(err, closeBackends(p.opened))
		}
		if k >= 0 && c.SameDelivery(old[k].config) {
			l := old[k]
			kept[l] = true
			if c.Digest() != l.config.Digest() || !sameSampling(resolved, l.resolved) || !reflect.DeepEqual(c.LagFrom, l.config.LagFrom) {
				p.halted = append(p.halted, l)
				l = &line{config: c, registry: l.registry, backend: l.backend, logger: l.logger, resolved: resolved}
				p.fresh = append(p.fresh, l)
			}
			p.lines = append(p.lines, l)
			continue
		}
		if k >= 0 && c.Kind() == old[k].config.Kind() && !c.Reopenable() {
			return nil, errors.Join(fmt.Errorf("backends[%d].%s: a change of a store takes a restart", i, c.Kind()), closeBackends(p.opened))
		}
		l, err := g.open(c)
		if err != nil {
			return nil, errors.Join(err, closeBackends(p.opened))
		}
		l.resolved = resolved
		p.opened = append(p.opened, l)
		p.fresh = append(p.fresh, l)
		p.lines = append(p.lines, l)
	}
	for _, l := range old {
		if !kept[l] {
			p.halted = append(p.halted, l)
			p.retired = append(p.retired, l)
		}
	}
	return p, nil
}

func sameSampling(a, b *sampler.Resolved) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Digest == b.Digest
}

var errHalted = errors.New("it was halted for a reload, and could not be started again when that was refused")

// fallBack connects the lines of before a failed reload again. Where that fails too, it is
// tried for each until it succeeds, and an error says so.
func (g *Gateway) fallBack(p *plan) error {
	for _, l := range p.fresh {
		if c := l.connected.Load(); c != nil {
			_ = c.cursor.Close() // it was not read; there is nothing to lose
		}
		_ = l.closeLedger()
	}
	err := g.switchTo(*g.lines.Load(), p.halted)
	if err != nil {
		err = fmt.Errorf("nor those of before, for now: %w", err)
		for _, l := range p.halted {
			g.run(l, errHalted)
		}
	}
	return errors.Join(err, closeBackends(p.opened))
}

// drain waits until every backend that takes data has everything, at most for
// shutdown_timeout.
func (g *Gateway) drain() {
	lines := *g.lines.Load()
	deadline := g.o.Now().Add(time.Duration(g.config.ShutdownTimeout))
	for g.o.Now().Before(deadline) {
		if !slices.ContainsFunc(lines, func(l *line) bool { return l.lane().Draining() }) {
			break
		}
		time.Sleep(50 * time.Millisecond) // counts of several lanes: there is no one event
	}
}

// lost sums up the samples and histograms of all reasons.
func lost(by map[string]series.Counts) (n uint64) {
	for _, c := range by {
		n += c.Samples + c.Histograms
	}
	return n
}

// closeLines stops all lanes, says what each leaves, and closes the backends.
func (g *Gateway) closeLines() error {
	lines := *g.lines.Load()
	var errs []error
	for _, l := range lines {
		l.cancel()
	}
	for _, l := range lines {
		<-l.done
		if b := l.lane().Balance(); b.Batches > 0 {
			l.logger.Warn("Stays in the journal for the next start", "batches", b.Batches, "samples", b.InJournal.Samples, "histograms", b.InJournal.Histograms, "bytes", b.Bytes, "oldest", b.Oldest.UTC().Format(time.RFC3339))
		} else {
			l.logger.Info("Nothing is left in the journal for this backend", "delivered", b.Totals.Delivered.Samples+b.Totals.Delivered.Histograms, "rejected", lost(b.Totals.Rejected), "given_up", lost(b.Totals.GivenUp))
		}
		errs = append(errs, l.connected.Load().cursor.Close())
	}
	return errors.Join(append(errs, closeBackends(lines))...)
}
