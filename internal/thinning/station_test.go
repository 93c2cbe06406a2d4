package thinning_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/router"
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const companionName = "sluice_sampling_interval_seconds"

// written is a log.
type written struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *written) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *written) lines(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

func (l *written) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// sink is a backend that takes so many samples a second and remembers all of them.
type sink struct {
	mu    sync.Mutex
	rate  float64 // samples a second; 0: no limit
	down  bool
	free  time.Time
	got   store
	live  map[string]int64 // newest time by series, of what came in the order of the journal
	wrong []string
	told  []message // of the companion series
	sends int
	fresh int64 // newest time that came, Unix ms
	last  time.Time
}

func newSink() *sink { return &sink{got: store{}, live: map[string]int64{}} }

func (s *sink) set(rate float64, down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rate, s.down = rate, down
}

// port is the way of one process to the sink.
type port struct {
	sink   *sink
	mu     sync.Mutex
	closed bool
	beside map[*series.Batch]bool // on the way outside of the order
}

type parcel struct {
	port *port
	p    *exporter.Parcel
	n    series.Counts
	list []message
	live []bool
}

func (p *port) Prepare(x *exporter.Parcel) (exporter.Delivery, error) {
	d := &parcel{port: p, p: x}
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range x.Parts {
		d.n.Add(d.Tally(k).Sent)
		for _, m := range chosen(x.Parts[k].Batch, x.Parts[k].Take) {
			d.list = append(d.list, m)
			d.live = append(d.live, !p.beside[x.Parts[k].Batch])
		}
	}
	return d, nil
}

func (p *port) Probe(context.Context) error { return nil }
func (p *port) Close() error                { return nil }

func (d *parcel) Close() {}

func (d *parcel) Tally(k int) exporter.Tally {
	var t exporter.Tally
	for _, m := range chosen(d.p.Parts[k].Batch, d.p.Parts[k].Take) {
		t.Sent.Add(countsOf(m.points))
		t.Sent.Exemplars += uint64(len(m.exemplars))
	}
	return t
}

// chosen are the messages of a batch that are in a set.
func chosen(b *series.Batch, take series.Set) (list []message) {
	body, err := s2.Decode(nil, b.Body)
	if err != nil {
		panic(err)
	}
	t := panics{}
	all := decodeV2
	if b.Version == series.V1 {
		all = decodeV1
	}
	for i, m := range all(t, body) {
		if take.Has(i) {
			list = append(list, m)
		}
	}
	return list
}

type panics struct{}

func (panics) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (panics) FailNow()                          { panic("failed") }

func (d *parcel) Send(ctx context.Context, _ int) (exporter.Receipt, error) {
	s := d.port.sink
	s.mu.Lock()
	s.sends++
	if s.down {
		s.mu.Unlock()
		return exporter.Receipt{}, &exporter.Error{Class: exporter.Retry, Status: 503}
	}
	now := time.Now()
	if s.free.Before(now) {
		s.free = now
	}
	if s.rate > 0 {
		s.free = s.free.Add(time.Duration(float64(d.n.Samples+d.n.Histograms) / s.rate * float64(time.Second)))
	}
	wait := s.free.Sub(now)
	s.mu.Unlock()
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return exporter.Receipt{}, &exporter.Error{Class: exporter.Retry, Unknown: true, Err: ctx.Err()}
		}
	}
	d.port.mu.Lock()
	defer d.port.mu.Unlock()
	if d.port.closed {
		return exporter.Receipt{}, &exporter.Error{Class: exporter.Retry, Status: 503}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return exporter.Receipt{}, &exporter.Error{Class: exporter.Retry, Status: 503}
	}
	d.write(s)
	return exporter.Receipt{}, nil
}

// write takes what was sent; both locks are held.
func (d *parcel) write(s *sink) {
	for k, m := range d.list {
		if strings.Contains(m.labels, companionName) {
			s.told = append(s.told, m)
			continue
		}
		s.got.add([]message{m})
		for _, p := range m.points {
			if p.time > s.fresh {
				s.fresh, s.last = p.time, time.Now()
			}
			if !d.live[k] {
				continue
			}
			if again := s.got[fmt.Sprint(m.labels, p)] > 1; s.live[m.labels] > p.time && !again {
				s.wrong = append(s.wrong, fmt.Sprintf("series %s: %s came behind %d", m.labels, p, s.live[m.labels]-someTime))
			}
			s.live[m.labels] = p.time
		}
	}
}

// shim is a lane that tells the port what comes outside of the order.
type shim struct {
	*exporter.Lane
	port *port
	// before is called before a batch is given back; nil: not.
	before func(upTo journal.Position, more bool)
	// refuse says which batches that are inserted the lane is too busy for; nil: none.
	refuse func(b *series.Batch) bool
}

func (l *shim) Insert(ctx context.Context, b *series.Batch) error {
	if l.refuse != nil && l.refuse(b) {
		return exporter.ErrBusy
	}
	return l.Lane.Insert(ctx, b)
}

func (l *shim) Restore(ctx context.Context, give exporter.Return) (series.Counts, error) {
	b := give.Batch
	if b != nil {
		l.port.mu.Lock()
		l.port.beside[b] = true
		l.port.mu.Unlock()
	}
	if l.before != nil {
		l.before(give.UpTo, give.More)
	}
	refused, err := l.Lane.Restore(ctx, give)
	if b != nil {
		l.port.mu.Lock()
		delete(l.port.beside, b)
		l.port.mu.Unlock()
	}
	return refused, err
}

// station is a gateway with one backend, as far as sampling is concerned.
type station struct {
	t      testing.TB
	fs     vfs.FS
	o      stationOptions
	sink   *sink
	port   *port
	log    *written
	config sampler.Config

	journal *disk.Journal
	router  *router.Router
	cursor  journal.Cursor
	ledger  *ledger.Ledger
	thinner *thinning.Thinner
	lane    *exporter.Lane
	shim    *shim
	metrics *prometheus.Registry

	// What a Thinner is given of those before it in the process.
	steering thinning.Steering
	earlier  []thinning.Decisions

	stop func()
}

type stationOptions struct {
	config  func(*sampler.Config)
	disk    func(*disk.Config)
	ledger  func(*ledger.Options)
	lane    func(*exporter.Options)
	window  time.Duration
	journal func(thinning.Journal) thinning.Journal // as the Thinner sees it; nil: as it is
	none    bool                                    // no sampling at all
	memory  func() (float64, bool)
	replica func() (float64, bool)
}

// quickly has a controller that sees lag soon.
func quickly(c *sampler.Config) {
	c.Backfill, c.BackfillShare = true, 1
	c.Thresholds.QueueAgeSeconds = 4
}

func newStation(t testing.TB, fs vfs.FS, o stationOptions) *station {
	s := &station{t: t, fs: fs, o: o, sink: newSink(), log: &written{}}
	s.start()
	return s
}

func (s *station) start() {
	s.config = sampler.DefaultConfig()
	quickly(&s.config)
	for i := range s.config.Classes {
		s.config.Classes[i].FromRules = nil
	}
	if s.o.config != nil {
		s.o.config(&s.config)
	}
	require.NoError(s.t, s.config.Validate())
	logger := slog.New(slog.NewTextHandler(s.log, nil))
	dc := disk.DefaultConfig()
	dc.RetainBehind = 0
	if s.o.disk != nil {
		s.o.disk(&dc)
	}
	needed := map[string]journal.Position{}
	v, err := ledger.Read(s.fs, "/ledger", "main")
	require.NoError(s.t, err)
	if from, ok := v.Needed(); ok {
		needed[thinning.Owner("main")] = from
	}
	s.journal, err = disk.Open(disk.Options{Dir: "/data", Config: dc, FS: s.fs, Logger: logger, Retain: needed})
	require.NoError(s.t, err)
	s.router = router.New(series.NewTable(1<<20), 1)
	_, err = s.router.SetBackends([]router.Backend{{Name: "main"}})
	require.NoError(s.t, err)
	_, err = s.journal.SetBackends([]journal.Backend{{Name: "main"}})
	require.NoError(s.t, err)
	s.cursor, err = s.journal.OpenCursor("main")
	require.NoError(s.t, err)
	s.metrics = prometheus.NewRegistry()
	s.port = &port{sink: s.sink, beside: map[*series.Batch]bool{}}
	if !s.o.none {
		s.sampling(logger)
	}
	o := exporter.Options{
		Name: "main", Config: exporter.DefaultLaneConfig(), Backend: s.port, Cursor: s.cursor,
		Picker:      router.NewPicker(s.router, "main", nil),
		DeadLetters: exporter.NewDeadLetters(s.t.TempDir(), 1<<20, time.Now),
		Metrics:     exporter.NewMetrics(s.metrics), Logger: logger, Now: time.Now, StopGrace: time.Second,
	}
	if s.thinner != nil {
		o.Sampling = s.thinner
	}
	if s.o.lane != nil {
		s.o.lane(&o)
	}
	s.lane = exporter.New(o)
	s.metrics.MustRegister(s.lane)
	s.shim = &shim{Lane: s.lane, port: s.port}
	s.run()
}

func (s *station) sampling(logger *slog.Logger) {
	lo := ledger.Options{
		Dir: "/ledger", Backend: "main", FS: s.fs, Logger: logger, Now: time.Now, Backfill: s.config.Backfill && s.o.window > 0,
	}
	if s.o.ledger != nil {
		s.o.ledger(&lo)
	}
	var err error
	s.ledger, err = ledger.Open(lo)
	require.NoError(s.t, err)
	st := s.cursor.Committed()
	_, err = s.ledger.Resume(ledger.Resumption{
		Mark: ledger.Mark{Position: st.Position, Restore: st.Restore.Position}, Withheld: &st.Totals.Withheld,
	})
	require.NoError(s.t, err)
	r, err := sampler.Resolve(s.config)
	require.NoError(s.t, err)
	var j thinning.Journal = s.journal
	if s.o.journal != nil {
		j = s.o.journal(j)
	}
	s.thinner, err = thinning.New(thinning.Options{
		Backend: "main", Config: s.config, Describer: r.Describer, Digest: r.Decisions, Text: r.Text, Ledger: s.ledger,
		Journal: j, Picker: func() thinning.Picker { return router.NewPicker(s.router, "main", nil) },
		Window: s.o.window, Restored: st.Restore.Position, Metrics: thinning.NewMetrics(s.metrics), Logger: logger, Now: time.Now,
		Memory: s.o.memory, ReplicaLag: s.o.replica, Steering: s.steering, Earlier: s.earlier,
	})
	require.NoError(s.t, err)
	s.metrics.MustRegister(s.thinner)
}

func (s *station) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.journal.Run(ctx) })
	laneDone := make(chan error, 1)
	running, stopLane := context.WithCancel(context.Background())
	wg.Go(func() { laneDone <- s.lane.Run(running) })
	if s.thinner != nil {
		wg.Go(func() { s.thinner.Run(running, s.shim) })
	}
	s.stop = func() {
		stopLane()
		<-laneDone
		cancel()
		wg.Wait()
		_ = s.cursor.Close()
		if s.ledger != nil {
			_ = s.ledger.Close()
		}
		_ = s.journal.Close()
	}
}

// restart stops everything and starts it again, with other options.
func (s *station) restart(change func(*stationOptions)) {
	s.stop()
	s.ledger, s.thinner = nil, nil
	if change != nil {
		change(&s.o)
	}
	s.start()
}

// reload is a restart in one process.
func (s *station) reload(change func(*stationOptions)) {
	old := s.thinner
	s.earlier = append(s.earlier, old.Decisions())
	s.restart(func(o *stationOptions) {
		s.steering = old.Steering()
		change(o)
	})
	s.steering = thinning.Steering{}
}

// kill ends the process at once, and starts another one on what it leaves.
func (s *station) kill() {
	s.port.mu.Lock()
	s.port.closed = true
	left := s.fs.(*vfs.Mem).KillClone()
	s.port.mu.Unlock()
	s.stop()
	s.fs, s.ledger, s.thinner, s.earlier = left, nil, nil, nil
	s.start()
}

// append brings a request into the journal as the receiver does.
func (s *station) append(v series.Version, list []scrape) {
	body := encodeV2
	if v == series.V1 {
		body = encodeV1
	}
	b := batchOf(v, body(list), list)
	defer b.Release()
	require.NoError(s.t, s.appendBatch(b))
}

func (s *station) appendBatch(b *series.Batch) error {
	plain, err := s2.Decode(nil, b.Body)
	require.NoError(s.t, err)
	var m remotewrite.Message
	require.NoError(s.t, m.Index(b.Version, plain, s.router.Seed()))
	var res router.Resolution
	s.router.Resolve(&m, &res)
	b.IDs, b.Epoch, b.Routed = slices.Clone(res.IDs), res.Epoch, res.Routed
	b.Received = time.Now().UnixMilli()
	if err := s.journal.Append(context.Background(), b); err != nil {
		return err
	}
	s.lane.Routed(b.Counts)
	return nil
}

// check checks the books, and what reached the backend so far.
func (s *station) check(l *load) exporter.Balance {
	s.t.Helper()
	b := s.lane.Balance()
	sum := b.Totals.Settled()
	sum.Add(b.InJournal)
	require.Equal(s.t, b.Routed, sum, "routed = settled + in journal: %+v", b)
	require.Equal(s.t, l.n, b.Routed)
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	require.Empty(s.t, s.sink.wrong)
	for x := range s.sink.got {
		if l.input[x] == 0 {
			require.Fail(s.t, "sent and never received", "%s", x)
		}
	}
	return b
}

// rest waits until nothing is in the journal and nothing owed.
func (s *station) rest(l *load, d time.Duration) exporter.Balance {
	s.t.Helper()
	for end := time.Now().Add(d); ; time.Sleep(time.Second) {
		b := s.lane.Balance()
		if b.Batches == 0 && (s.thinner == nil || s.owed() == 0) {
			break
		}
		require.True(s.t, time.Now().Before(end), "not at rest: %+v\n%+v\n%s", b, s.ledger.View(), s.log)
	}
	time.Sleep(2 * time.Second)
	synctest.Wait()
	return s.check(l)
}

// owed is how many entries of the ledger are not closed.
func (s *station) owed() (n int) {
	for _, e := range s.ledger.Entries() {
		if e.Closed == 0 {
			n++
		}
	}
	return n
}

// equal checks that the backend has what was received; repeats is how much of it may be
// there twice.
func (s *station) equal(l *load, repeats uint64) {
	s.t.Helper()
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	var missing []string
	twice := uint64(0)
	for x, n := range l.input {
		switch got := s.sink.got[x]; {
		case got < n:
			missing = append(missing, x)
		case got > n:
			twice += uint64(got - n)
			if repeats == 0 {
				require.Equal(s.t, n, got, "%s", x)
			}
		}
	}
	slices.Sort(missing)
	require.Empty(s.t, missing[:min(len(missing), 5)], "%d of %d are missing", len(missing), len(l.input))
	require.LessOrEqual(s.t, twice, repeats)
}

// loss is the sum of what the books say is lost.
func lossOf(b exporter.Balance) (n series.Counts) {
	for _, c := range b.Totals.GivenUp {
		n.Add(c)
	}
	for _, c := range b.Totals.Rejected {
		n.Add(c)
	}
	return n
}

func (s *station) awaitThinned(l *load, below float64) {
	s.t.Helper()
	for end := time.Now().Add(10 * time.Minute); s.thinner.Kept() >= below; {
		require.True(s.t, time.Now().Before(end), "not thinned: %+v", s.thinner.View())
		l.round(s)
		time.Sleep(scrapeEvery)
	}
}

func bubble(t *testing.T, f func(t *testing.T)) { synctest.Test(t, f) }

type position = journal.Position

// many copies actors until there are n, each a series of its own.
func many(actors []*actor, n int) []*actor {
	known := len(actors)
	for i := 0; len(actors) < n; i++ {
		a := *actors[i%known] // a second label z would make the series unknown to the sampler
		a.labels = append(slices.Clone(a.labels), prompb.Label{Name: "z", Value: fmt.Sprint(len(actors))})
		a.h = a.h.Copy()
		actors = append(actors, &a)
	}
	return actors
}
