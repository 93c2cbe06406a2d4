// Package gateway builds the graph of a running Sluice out of its configuration, and owns
// its life: start, reload, and a stop that loses nothing.
package gateway

import (
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/ownmetrics"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/receiver"
	"github.com/sluice-metrics/sluice/router"
	"github.com/sluice-metrics/sluice/sampler/ledger"
	"github.com/sluice-metrics/sluice/web"
)

// Options is what a Gateway is made of.
type Options struct {
	Config *config.Config
	// Load reads the configuration again for a reload; nil where there is no file.
	Load func() (*config.Config, error)
	// StoragePath is the directory of everything that is kept.
	StoragePath string
	Listener    net.Listener
	// Scheme is http, or https where Serve speaks TLS.
	Scheme string
	// Serve serves the listener until the server is shut down.
	Serve func(net.Listener, *http.Server) error
	// Certificate reads the certificates, as PEM, that Serve shows to clients; nil where
	// it shows none.
	Certificate func() ([]byte, error)
	// Flags are the flags in force, as they would be given.
	Flags  []string
	Logger *slog.Logger
	Now    func() time.Time
}

// deadLetterBound is the size at which a file of dead letters is put aside.
const deadLetterBound = 16 << 20

// mostLent bounds the requests, opened, that wait for the readers of lanes. It is room for a
// dozen of two thousand series with many labels: half of it was too little for what eight
// senders bring at once.
const mostLent = 16 << 20

// Gateway is one running Sluice.
type Gateway struct {
	o        Options
	registry *prometheus.Registry
	metrics  *metrics

	journal     *disk.Journal
	table       *series.Table
	router      *router.Router
	metadata    *remotewrite.MetadataCache
	ingester    *receiver.Ingester
	receiver    *receiver.Handler
	senders     *receiver.Senders
	deadLetters *exporter.DeadLetters

	thinners *thinning.Metrics
	decided  map[string][]decided       // by backend; guarded by ingester.Exclusive
	watching atomic.Pointer[[]*watched] // clusters
	leaders  *leaders
	pairs    *pairs // nil where there are no HA pairs
	ledgers  *ledger.Metrics
	shelf    *remotewrite.Shelf

	taps  *taps
	page  *page
	site  *web.Site
	ready readiness
	// process is the word by which this gateway knows what it sent itself.
	process string

	reloading sync.Mutex // held by Reload and by start and stop
	config    *config.Config
	lines     atomic.Pointer[[]*line] // in the order of the router's and the journal's lists
	orphans   map[string]time.Time    // when a stored cursor lost its backend
	running   context.Context         // of the lanes; set by Run
	probing   context.Context         // of the clusters; set by Run
}

// New opens the journal and builds everything that does not need a backend. It starts
// nothing; after New without an error, Run has to be called.
func New(o Options) (*Gateway, error) {
	page := newPage(&o)
	g := &Gateway{
		o:        o,
		page:     page,
		registry: prometheus.NewRegistry(),
		config:   o.Config,
		orphans:  map[string]time.Time{},
		decided:  map[string][]decided{},
		taps:     newTaps(),
		process:  cryptorand.Text(),
		shelf:    remotewrite.NewShelf(mostLent),
		table:    series.NewTable(o.Config.Series.Max),
		metadata: remotewrite.NewMetadataCache(remotewrite.MetadataCacheOptions{}),
		deadLetters: exporter.NewDeadLetters(filepath.Join(o.StoragePath, "dead-letters"),
			deadLetterBound, o.Now),
	}
	g.lines.Store(new([]*line))
	g.watching.Store(new([]*watched))
	g.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), versioncollector.NewCollector("sluice"), newCertificate(o.Certificate))
	g.metrics = newMetrics(g.registry, g.table, g.metadata)
	g.table.Tick(uint32(o.Now().Unix()))

	var err error
	g.thinners = thinning.NewMetrics(g.registry)
	if g.ledgers, err = ledger.NewMetrics(g.registry); err != nil {
		return nil, err
	}
	if g.leaders, err = g.newLeaders(o.Config.Lease); err != nil {
		return nil, err
	}
	if g.pairs, err = g.newPairs(o.Config); err != nil {
		return nil, err
	}
	retain, err := owed(o.StoragePath)
	if err != nil {
		return nil, err
	}
	j, err := disk.Open(disk.Options{
		Retain:     retain,
		Dir:        filepath.Join(o.StoragePath, "journal"),
		Config:     o.Config.Journal,
		FS:         vfs.OS{},
		Logger:     o.Logger.With("component", "journal"),
		Registerer: g.registry,
	})
	if err != nil {
		return nil, err
	}
	g.journal = j
	g.router = router.New(g.table, rand.Uint64())
	rm := receiver.NewMetrics(g.registry)
	g.ingester = receiver.NewIngester(receiver.IngestOptions{
		Config:   o.Config.Receiver,
		Resolver: g.router,
		Journal:  j,
		Metadata: g.metadata,
		Appended: g.appended,
		Shelf:    g.shelf,
		Pairs:    g.pairs.judge(),
		Metrics:  rm,
		Now:      o.Now,
	})
	g.senders = receiver.NewSenders(o.Now)
	g.receiver = receiver.NewHandler(receiver.Options{
		Process:  g.process,
		Config:   o.Config.Receiver,
		Ingester: g.ingester,
		Senders:  g.senders,
		Metrics:  rm,
		Logger:   o.Logger.With("component", "receiver"),
		Now:      o.Now,
	})
	g.ready.set("starting")
	g.site = page.site(g)
	return g, nil
}

// Run serves until ctx ends, then stops in order: no new requests, backends drained
// within shutdown_timeout, cursors committed, journal closed, and the server last. It
// returns what made it stop before ctx ended.
func (g *Gateway) Run(ctx context.Context) error {
	server := &http.Server{
		Handler:           g.site,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute,
		ErrorLog:          slog.NewLogLogger(g.o.Logger.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 2)
	go func() { failed <- g.o.Serve(g.o.Listener, server) }()

	journalCtx, stopJournal := context.WithCancel(context.Background())
	journalDone := make(chan struct{})
	go func() {
		defer close(journalDone)
		if err := g.journal.Run(journalCtx); err != nil {
			failed <- fmt.Errorf("journal: %w", err)
		}
	}()

	lanes, stopLanes := context.WithCancel(context.Background())
	g.running = lanes
	err := g.start()
	probing, stopProbing := context.WithCancel(context.Background())
	g.probing = probing
	if err == nil {
		var clusters []*watched
		if clusters, _, err = g.planWatch(g.config); err == nil {
			g.watch(clusters, clusters)
		}
	}
	var tasks sync.WaitGroup
	if err == nil {
		tasksCtx, stopTasks := context.WithCancel(ctx)
		g.runTasks(tasksCtx, &tasks)
		g.ready.set("")
		g.o.Logger.Info("Ready", "remote_write", g.writeURL(), "page", g.pageURL())
		select {
		case <-ctx.Done():
		case err = <-failed:
		}
		stopTasks()
	}

	g.o.Logger.Info("Stopping: new requests are refused")
	g.ready.set("shutting down")
	// Nothing of the gateway's own is written behind the last requests of senders.
	close(g.taps.ends)
	stopProbing()
	g.unwatch()
	g.receiver.Close()
	tasks.Wait()
	g.reloading.Lock()
	defer g.reloading.Unlock()
	g.drain()
	stopLanes()
	err = errors.Join(err, g.closeLines())
	stopJournal()
	<-journalDone
	err = errors.Join(err, g.journal.Close())
	if lerr := g.leaders.close(); lerr != nil {
		g.o.Logger.Warn("Closing the leases", "err", lerr)
	}
	ending, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if serr := server.Shutdown(ending); serr != nil {
		_ = server.Close() // somebody keeps a connection busy; there is nothing left to wait for
	}
	err = errors.Join(err, g.pairs.close())
	g.o.Logger.Info("Stopped")
	return err
}

// runTasks starts what is done regularly beside the pipeline.
func (g *Gateway) runTasks(ctx context.Context, wg *sync.WaitGroup) {
	wg.Go(func() { g.announce(ctx) })
	wg.Go(func() { g.keepSeries(ctx) })
	wg.Go(func() { g.keepOrphans(ctx) })
	wg.Go(func() { g.site.Run(ctx) })
	wg.Go(func() { g.pairs.run(ctx) })
	if g.config.OwnMetrics == nil {
		return
	}
	w := ownmetrics.New(ownmetrics.Options{
		Gatherer: pipeline{g},
		Job:      "sluice",
		Instance: g.address(),
		Interval: time.Duration(g.config.OwnMetrics.Interval),
		Write:    g.writeOwn,
		Logger:   g.o.Logger.With("component", "own_metrics"),
		Now:      g.o.Now,
	})
	wg.Go(func() { _ = w.Run(ctx) })
}

func (g *Gateway) writeOwn(ctx context.Context, body []byte) error {
	buf := series.NewBuffer(len(body))
	buf.B = append(buf.B, body...)
	result, err := g.ingester.Ingest(ctx, receiver.Request{Version: series.V2, Body: buf, Sender: g.senders.Own()})
	if err == nil && !result.Refused.Zero() {
		err = errors.New(result.Text())
	}
	return err
}

// appended enters a batch into the books of every backend that takes some of it. The
// ingester calls it while the list of backends cannot change.
func (g *Gateway) appended(b *series.Batch) {
	g.page.took(b.Counts)
	for i, l := range *g.lines.Load() {
		c := b.Counts
		if b.Routed != nil {
			c = b.Routed[i]
		}
		l.lane().Routed(c)
	}
}

func (g *Gateway) configText() string {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	return g.config.String()
}

// address is where the gateway is reached: with the machine's name where it listens on all
// of its addresses.
func (g *Gateway) address() string {
	addr, ok := g.o.Listener.Addr().(*net.TCPAddr)
	if !ok || !addr.IP.IsUnspecified() {
		return g.o.Listener.Addr().String()
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return net.JoinHostPort(host, strconv.Itoa(addr.Port))
}

func (g *Gateway) pageURL() string  { return g.o.Scheme + "://" + g.address() + "/" }
func (g *Gateway) writeURL() string { return g.pageURL() + "api/v1/write" }

// readiness is why the gateway is not ready; empty when it is.
type readiness struct{ reason atomic.Pointer[string] }

func (r *readiness) set(reason string) { r.reason.Store(&reason) }
func (r *readiness) get() string       { return *r.reason.Load() }
