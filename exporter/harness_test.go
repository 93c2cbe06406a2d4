package exporter_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/exporter/exportertest"
	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/router"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// station is a journal and a router, as the gateway puts them together.
type station struct {
	t       testing.TB
	fs      vfs.FS
	log     *log
	journal *disk.Journal
	router  *router.Router
	list    []router.Backend
	lanes   []*running // by the router's list; nil where there is none
	dir     string     // of dead letters
	config  disk.Config
	gate    sync.RWMutex // held for reading by appends

	stopJournal context.CancelFunc
	journalDone chan struct{}
}

// running is a lane with its Run.
type running struct {
	*exporter.Lane
	name    string
	backend *exportertest.Backend
	cursor  journal.Cursor
	metrics *prometheus.Registry
	cancel  context.CancelFunc
	done    chan error
}

type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// lines counts the lines that contain part.
func (l *log) lines(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// open makes a station over fs with the named backends. A name may have a selector
// behind a space.
func open(t testing.TB, fs vfs.FS, change func(*disk.Config), names ...string) *station {
	s := &station{t: t, fs: fs, log: &log{}, dir: t.TempDir(), config: disk.DefaultConfig()}
	s.config.RetainBehind = 0
	if change != nil {
		change(&s.config)
	}
	s.start(names...)
	return s
}

func (s *station) start(names ...string) {
	var err error
	logger := slog.New(slog.NewTextHandler(s.log, nil))
	s.journal, err = disk.Open(disk.Options{Dir: "/data", Config: s.config, FS: s.fs, Logger: logger})
	require.NoError(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	s.stopJournal, s.journalDone = cancel, make(chan struct{})
	go func() {
		defer close(s.journalDone)
		_ = s.journal.Run(ctx)
	}()
	s.router = router.New(series.NewTable(1<<20), 1)
	s.route(names...)
}

// route replaces the list of backends.
func (s *station) route(names ...string) {
	s.list, s.lanes = nil, make([]*running, len(names))
	var backends []journal.Backend
	for _, name := range names {
		name, selector, _ := strings.Cut(name, " ")
		b := router.Backend{Name: name, Digest: selector}
		if selector != "" {
			ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
			require.NoError(s.t, err)
			b.Selectors = [][]*labels.Matcher{ms}
		}
		s.list = append(s.list, b)
		backends = append(backends, journal.Backend{Name: name, Digest: selector})
	}
	_, err := s.router.SetBackends(s.list)
	require.NoError(s.t, err)
	_, err = s.journal.SetBackends(backends)
	require.NoError(s.t, err)
}

// connect makes the lane of a backend, without running it.
func (s *station) connect(name string, b *exportertest.Backend, change func(*exporter.Options)) *running {
	cursor, err := s.journal.OpenCursor(name)
	require.NoError(s.t, err)
	r := &running{name: name, backend: b, cursor: cursor, metrics: prometheus.NewRegistry()}
	o := exporter.Options{
		Name:        name,
		Config:      exporter.DefaultLaneConfig(),
		Backend:     b,
		Cursor:      cursor,
		Picker:      router.NewPicker(s.router, name, nil),
		DeadLetters: exporter.NewDeadLetters(s.dir, 1<<20, time.Now),
		Metrics:     exporter.NewMetrics(r.metrics),
		Logger:      slog.New(slog.NewTextHandler(s.log, nil)).With("backend", name),
		Now:         time.Now,
		StopGrace:   time.Second,
	}
	if change != nil {
		change(&o)
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	r.Lane = exporter.New(o)
	r.metrics.MustRegister(r.Lane)
	for i := range s.list {
		if s.list[i].Name == name {
			s.lanes[i] = r
		}
	}
	return r
}

// lane makes the lane of a backend and runs it.
func (s *station) lane(name string, b *exportertest.Backend, change func(*exporter.Options)) *running {
	r := s.connect(name, b, change)
	r.run()
	return r
}

func (r *running) run() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.done = cancel, make(chan error, 1)
	go func() { r.done <- r.Run(ctx) }()
}

// stop ends the lane's Run.
func (r *running) stop() error {
	if r.done == nil {
		return nil
	}
	r.cancel()
	err := <-r.done
	r.done = nil
	return err
}

// close stops the lanes and the journal.
func (s *station) close() {
	for _, r := range s.lanes {
		if r != nil {
			require.NoError(s.t, r.stop())
			require.NoError(s.t, r.backend.Close())
			require.NoError(s.t, r.cursor.Close())
		}
	}
	s.stopJournal()
	<-s.journalDone
	require.NoError(s.t, s.journal.Close())
}

// append brings a request into the journal as the receiver does.
func (s *station) append(v series.Version, list ...exportertest.Series) error {
	return s.appendMessage(v, exportertest.Message(s.t, v, list...))
}

func (s *station) appendMessage(v series.Version, message []byte) error {
	b := exportertest.Batch(s.t, v, message, nil)
	defer b.Release()
	var m remotewrite.Message
	require.NoError(s.t, m.Index(v, message, s.router.Seed()))
	s.gate.RLock()
	defer s.gate.RUnlock()
	var res router.Resolution
	s.router.Resolve(&m, &res)
	b.IDs, b.Epoch, b.Routed = res.IDs, res.Epoch, res.Routed
	b.Received = time.Now().UnixMilli()
	return s.appendBatch(b)
}

// appendBatch appends a batch that is ready.
func (s *station) appendBatch(b *series.Batch) error {
	if err := s.journal.Append(context.Background(), b); err != nil {
		return err
	}
	for i, r := range s.lanes {
		c := b.Counts
		if b.Routed != nil {
			c = b.Routed[i]
		}
		if r != nil {
			r.Routed(c)
		}
	}
	return nil
}

// round is a request with one sample at the time for each of n series.
func round(name string, n int, at int64) []exportertest.Series {
	list := make([]exportertest.Series, n)
	for i := range list {
		list[i] = exportertest.Series{
			Labels:  labelsOf(name, i),
			Samples: []exportertest.Sample{{Time: at, Value: float64(at) + float64(i)}},
		}
	}
	return list
}

func labelsOf(name string, i int) labels.Labels {
	return exportertest.Named(name, "i", fmt.Sprint(i))
}

func nameOf(name string, i int) string { return labelsOf(name, i).String() }

// feed appends a round.
func (s *station) feed(name string, n int, at int64) {
	s.t.Helper()
	require.NoError(s.t, s.append(series.V1, round(name, n, at)...))
}

// rest waits until the lane has settled everything, at most for d, and checks its books.
func (r *running) rest(t testing.TB, d time.Duration) exporter.Balance {
	t.Helper()
	for until := time.Now().Add(d); r.Balance().Batches > 0; {
		require.True(t, time.Now().Before(until), "not at rest after %s: %+v, %s", d, r.Balance(), r.State())
		time.Sleep(10 * time.Millisecond)
	}
	b := r.check(t)
	require.Zero(t, b.InJournal)
	require.Zero(t, b.Bytes)
	require.True(t, b.Oldest.IsZero())
	return b
}

// check checks the equation and what the backend noticed.
func (r *running) check(t testing.TB) exporter.Balance {
	t.Helper()
	b := r.Balance()
	sum := settled(b.Totals)
	sum.Add(b.InJournal)
	require.Equal(t, b.Routed, sum, "routed = settled + in journal: %+v", b)
	require.Empty(t, r.backend.Violations())
	if r.done != nil {
		for _, k := range []string{"samples", "histograms", "exemplars"} {
			require.Zero(t, r.metric(t, "sluice_conservation_error_samples", "kind", k))
		}
	}
	return b
}

func settled(t journal.Totals) series.Counts {
	c := t.Delivered
	for _, r := range t.Rejected {
		c.Add(r)
	}
	for _, g := range t.GivenUp {
		c.Add(g)
	}
	return c
}

func samples(n int) series.Counts { return series.Counts{Samples: uint64(n)} }

// metric is the value of a metric of the lane with the given pair among its labels, the
// sum where there are several, or NaN where there is none.
func (r *running) metric(t testing.TB, name string, pair ...string) float64 {
	t.Helper()
	families, err := r.metrics.Gather()
	require.NoError(t, err)
	sum, found := 0.0, false
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			ok := len(pair) == 0
			for _, l := range m.GetLabel() {
				ok = ok || l.GetName() == pair[0] && l.GetValue() == pair[1]
			}
			if ok {
				found = true
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	if !found {
		return math.NaN()
	}
	return sum
}

func (s *station) letters(name string) string { return filepath.Join(s.dir, name+".jsonl") }

// bubble runs a test with a clock of its own.
func bubble(t *testing.T, f func(t *testing.T)) { synctest.Test(t, f) }

func shards(least, most int) func(*exporter.Options) {
	return func(o *exporter.Options) { o.Config.MinShards, o.Config.MaxShards = least, most }
}

func both(list ...func(*exporter.Options)) func(*exporter.Options) {
	return func(o *exporter.Options) {
		for _, f := range list {
			f(o)
		}
	}
}

func backlog(bytes int, age time.Duration) func(*exporter.Options) {
	return func(o *exporter.Options) {
		o.Backlog = exporter.Backlog{Bytes: bytesize.Size(bytes), Age: model.Duration(age)}
	}
}

func small(n int) func(*exporter.Options) {
	return func(o *exporter.Options) { o.Config.MaxSamplesPerSend = n }
}

// fail is an answer without effect.
func fail(c exporter.Class, status int) exportertest.Script {
	return func(context.Context, *exportertest.Attempt) (exporter.Receipt, error) {
		return exporter.Receipt{}, &exporter.Error{Class: c, Status: status, Message: "no"}
	}
}

// sequence answers with one script after the other, and with the last for ever.
func sequence(list ...exportertest.Script) exportertest.Script {
	return func(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
		return list[min(a.Number, len(list)-1)](ctx, a)
	}
}

func accept(_ context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
	a.Write()
	return exporter.Receipt{}, nil
}

// pause is a time in a bubble for everything to come to rest but what waits for longer.
func pause(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
