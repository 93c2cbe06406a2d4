// Package tsdb is the backend that keeps samples itself: a Prometheus TSDB in a
// directory of this machine, with the Prometheus query API over it.
//
// The store tells of each sample whether it took it, so that a delivery never fails
// because of single samples: what was refused is told by Refused. A lane gains little
// by more than one shard here, and nothing by more than two: appending is bound by one
// log that is written in turns.
//
// What a Send has taken survives a crash of the process at once, and a loss of power
// once Sync has returned.
package tsdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
)

// Options is what Open needs.
type Options struct {
	// Name is the backend's name; it stands in the label "backend" of all metrics and
	// in log lines.
	Name string
	// Config has been validated.
	Config Config
	// Dir is the directory of the store where Config.Path names none.
	Dir string
	// Metadata is served by the query API. It may be nil in tests; no metric has
	// metadata then.
	Metadata MetadataStore
	// Logger is where the store and the query engine log to.
	Logger *slog.Logger
	// Registerer takes the metrics of the store, of the query engine and of this
	// package until Close. It may be nil in tests.
	Registerer prometheus.Registerer
}

// Backend is an open store. All methods may be called from several goroutines.
type Backend struct {
	name      string
	dir       string
	logger    *slog.Logger
	db        *tsdb.DB
	into      appendable // db
	exemplars bool       // some are kept
	starts    bool       // start timestamps are kept
	gate      *gate
	refs      refs
	gen       atomic.Uint32 // of the last appender
	metrics   *metrics
	registry  *registry
	query     *queryAPI
	complain  complaints
	syncer    syncer

	appenders sync.Pool // *appender
	bodies    sync.Pool // *body
}

var _ exporter.Backend = (*Backend)(nil)

// appendable is what samples (the second form) and exemplars (the first) go into.
type appendable interface {
	storage.Appendable
	storage.AppendableV2
}

// Open opens the store, making it where there is none, and replays its log, which
// takes about a minute for a few million series. The caller closes the Backend.
func Open(o Options) (*Backend, error) {
	dir := o.Config.Path
	if dir == "" {
		dir = o.Dir
	}
	if dir == "" {
		return nil, errors.New("embedded store: no directory: set tsdb.path")
	}
	logger := o.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	logger = logger.With("backend", o.Name)
	reg := newRegistry(o.Name, o.Registerer)

	start := time.Now()
	quiet := slog.New(quieter{logger.Handler()}).With("component", "tsdb")
	db, err := tsdb.Open(dir, quiet, reg, storeOptions(o.Config), nil)
	if err != nil {
		reg.unregisterAll()
		return nil, fmt.Errorf("embedded store in %s (tsdb.path moves it): %w", dir, err)
	}
	b := &Backend{
		name:      o.Name,
		dir:       dir,
		logger:    logger,
		db:        db,
		into:      db,
		exemplars: o.Config.MaxExemplars > 0,
		starts:    o.Config.StartTimestamps,
		gate:      newGate(),
		metrics:   newMetrics(reg),
		registry:  reg,
		complain:  complaints{logger: logger},
	}
	b.query = newQueryAPI(b, o)
	logger.Info("Embedded store opened", "dir", dir, "series", db.Head().NumSeries(), "blocks", len(db.Blocks()), "duration", time.Since(start))
	return b, nil
}

// storeOptions is Prometheus' options but for what is said here.
func storeOptions(c Config) *tsdb.Options {
	o := tsdb.DefaultOptions()
	o.RetentionDuration = time.Duration(c.Retention).Milliseconds()
	o.MaxBytes = int64(c.RetentionSize)
	// Blocks grow up to a tenth of the retention, at most a month: larger ones are
	// cheaper to query, but a block goes as a whole.
	o.MaxBlockDuration = max(o.MinBlockDuration, min((31*24*time.Hour).Milliseconds(), o.RetentionDuration/10))
	o.OutOfOrderTimeWindow = time.Duration(c.OutOfOrderTimeWindow).Milliseconds()
	o.EnableExemplarStorage = c.MaxExemplars > 0
	o.MaxExemplars = int64(c.MaxExemplars)
	if c.StartTimestamps {
		o.EnableSTStorage = true
		o.EnableHistogramSTEncoding = true
		o.FloatChunkEncoding = chunkenc.EncXOR2
	}
	o.WALCompression = compression.Snappy
	// One or two goroutines append, so that 16384 stripes against lock contention
	// would be memory for nothing.
	o.StripeSize = 1 << 11
	// Full chunks are written out by compaction and by the appender in runs that are
	// far smaller than the default buffer of 4 MiB.
	o.HeadChunksWriteBufferSize = 512 << 10
	// Isolation stays on. It is more than a snapshot for queries: compaction waits by it
	// for appenders that may still write into the time range it takes out of the head.
	o.IsolationDisabled = false
	return o
}

// Prepare decodes the parts that are taken only partly, to count what is taken; the
// others are decoded when they are sent.
func (b *Backend) Prepare(p *exporter.Parcel) (exporter.Delivery, error) {
	d := &delivery{b: b, parts: make([]part, len(p.Parts))}
	for i := range p.Parts {
		if err := d.prepare(i, p.Parts[i]); err != nil {
			d.Close()
			return nil, fmt.Errorf("embedded store %s: %w", b.name, err)
		}
	}
	return d, nil
}

// Probe reports whether the store is open: it never denies anything.
func (b *Backend) Probe(context.Context) error {
	if !b.gate.enter() {
		return errClosed
	}
	b.gate.leave()
	return nil
}

// Forget is told which ids stand for no series any more, before one of them stands for
// another series, and when no parcel with them is on its way. Two calls at a time hold
// no id in common. It costs a few nanoseconds an id.
func (b *Backend) Forget(ids []series.ID) { b.refs.forget(ids) }

// Close refuses further deliveries and queries, cancels the queries that run, waits
// for both and closes the store.
func (b *Backend) Close() error {
	if !b.gate.close() {
		return nil
	}
	err := b.db.Close()
	b.registry.unregisterAll()
	if err != nil {
		return fmt.Errorf("embedded store %s: close %s: %w", b.name, b.dir, err)
	}
	return nil
}

var errClosed = errors.New("the embedded store is closed")

// maxAhead is how far ahead of the clock a sample may be; Prometheus' limit for remote
// write.
const maxAhead = 10 * time.Minute
