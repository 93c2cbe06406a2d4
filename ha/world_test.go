package ha

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// backend is what all gateways deliver to. It takes what a Prometheus would.
type backend struct {
	mu      sync.Mutex
	points  map[string][]point
	trouble []string
}

type point struct {
	at    int64
	value float64
	by    string
}

func (b *backend) take(t testing.TB, by string, v series.Version, plain []byte) {
	t.Helper()
	var m remotewrite.Message
	require.NoError(t, m.Scan(v, plain))
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range m.Series {
		ls, err := m.AppendLabels(nil, i)
		require.NoError(t, err)
		key := ""
		for _, l := range ls {
			require.NotEqual(t, "__replica__", string(l.Name))
			key += fmt.Sprintf("%s=%s,", l.Name, l.Value)
		}
		for _, s := range m.AppendSamples(nil, i) {
			p := point{s.Time, s.Value, by}
			if have := b.points[key]; len(have) > 0 {
				last := have[len(have)-1]
				if last.at >= p.at {
					b.trouble = append(b.trouble, fmt.Sprintf("%s: %v after %v", key, p, last))
				}
				if last.value > p.value {
					b.trouble = append(b.trouble, fmt.Sprintf("%s: false reset: %v after %v", key, p, last))
				}
			}
			b.points[key] = append(b.points[key], p)
		}
	}
}

// gap is the longest time between two samples of a series.
func (b *backend) gap() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	longest := int64(0)
	for _, ps := range b.points {
		for i := 1; i < len(ps); i++ {
			longest = max(longest, ps[i].at-ps[i-1].at)
		}
	}
	return time.Duration(longest) * time.Millisecond
}

func (b *backend) count() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ps := range b.points {
		n += len(ps)
	}
	return n
}

// gateway is a Tracker with as much of a gateway around it as a test needs.
type gateway struct {
	t        testing.TB
	name     string
	config   Config
	store    Store
	backend  *backend
	registry *prometheus.Registry
	broken   atomic.Bool // its journal takes nothing

	tracker atomic.Pointer[Tracker] // nil while it is down
	stop    func()
}

func (g *gateway) start() {
	g.registry = prometheus.NewRegistry()
	tracker, err := New(Options{
		Config: g.config, Store: g.store, Logger: slog.New(slog.DiscardHandler), Registerer: g.registry, Now: time.Now,
		Append: func(_ context.Context, v series.Version, body []byte) error {
			if g.broken.Load() {
				return errors.New("journal is full")
			}
			plain, err := s2.Decode(nil, body)
			require.NoError(g.t, err)
			g.backend.take(g.t, g.name+" held", v, plain)
			return nil
		},
	})
	require.NoError(g.t, err)
	g.tracker.Store(tracker)
	ctx, cancel := context.WithCancel(g.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { tracker.Run(ctx) })
	g.stop = func() { g.tracker.Store(nil); cancel(); wg.Wait() }
}

var errDown = errors.New("gateway is down")

// admit asks the store where that is needed.
func admit(ctx context.Context, tracker *Tracker, r Request) (*Admission, error) {
	for {
		a, err := tracker.Admit(r)
		if !errors.As(err, &r.Settled) {
			return a, err
		}
		if err := r.Settled.Settle(ctx); err != nil {
			return nil, err
		}
	}
}

// write does what the receiver does.
func (g *gateway) write(v series.Version, plain []byte) (deduplicated series.Counts, err error) {
	tracker := g.tracker.Load()
	if tracker == nil {
		return series.Counts{}, errDown
	}
	a, err := admit(g.t.Context(), tracker, Request{Version: v, Plain: plain, Message: &remotewrite.Message{}})
	if err != nil {
		return series.Counts{}, err
	}
	if a == nil {
		g.backend.take(g.t, g.name, v, plain)
		return series.Counts{}, nil
	}
	if err := a.Check(); err != nil {
		a.Done(false)
		return series.Counts{}, err
	}
	if g.broken.Load() {
		a.Done(false)
		return series.Counts{}, errors.New("journal is full")
	}
	g.backend.take(g.t, g.name, v, a.Body)
	a.Done(true)
	return a.Deduplicated, nil
}

func (g *gateway) metric(name string, labels ...string) float64 {
	families, err := g.registry.Gather()
	require.NoError(g.t, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	next:
		for _, m := range f.GetMetric() {
			for i := 0; i < len(labels); i += 2 {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				if !found {
					continue next
				}
			}
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sum
}

// prom is a Prometheus that scrapes a counter that grows with time and sends each scrape,
// again and again until it is taken.
type prom struct {
	replica  string
	to       *gateway
	interval time.Duration
	offset   time.Duration
	series   int

	mu    sync.Mutex
	alive bool
	queue []int64
}

func (p *prom) run(ctx context.Context) {
	sleep := func(d time.Duration) bool {
		select {
		case <-time.After(d):
			return ctx.Err() == nil
		case <-ctx.Done():
			return false
		}
	}
	if !sleep(p.offset) {
		return
	}
	next := time.Now()
	for sleep(time.Until(next)) {
		next = next.Add(p.interval)
		p.mu.Lock()
		if p.alive {
			p.queue = append(p.queue, time.Now().UnixMilli())
		}
		queue := p.queue
		p.mu.Unlock()
		for len(queue) > 0 && p.isAlive() {
			if !p.send(queue[0]) {
				break // with the next scrape
			}
			queue = queue[1:]
		}
		p.mu.Lock()
		p.queue = queue
		p.mu.Unlock()
	}
}

func (p *prom) isAlive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.alive
}

func (p *prom) send(at int64) bool {
	var rows []row
	for i := range p.series {
		rows = append(rows, row{labels: []string{"__name__", "c", "__replica__", p.replica, "cluster", "x", "i", fmt.Sprint(i)}, samples: []int64{at}})
	}
	_, err := p.to.write(series.V1, requestV1(p.to.t, rows...))
	return err == nil
}

func (p *prom) set(alive bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alive = alive
	p.queue = nil // what a killed one had not sent stays unsent here
}

// failing is a Store that may be cut off.
type failing struct {
	Store
	mu  sync.Mutex
	off bool
}

func (f *failing) cut(off bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off = off
}

// move puts another store in the place of the present one.
func (f *failing) move(to Store) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Store = to
}

func (f *failing) get(ctx context.Context) (Store, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return nil, errors.New("cut off")
	}
	return f.Store, ctx.Err()
}

func (f *failing) ReadRecord(ctx context.Context, name string) ([]byte, uint64, error) {
	store, err := f.get(ctx)
	if err != nil {
		return nil, 0, err
	}
	time.Sleep(2 * time.Millisecond)
	return store.ReadRecord(ctx, name)
}

func (f *failing) SwapRecord(ctx context.Context, name string, revision uint64, value []byte) (uint64, bool, error) {
	store, err := f.get(ctx)
	if err != nil {
		return 0, false, err
	}
	time.Sleep(2 * time.Millisecond)
	return store.SwapRecord(ctx, name, revision, value)
}

func testConfig() Config {
	c := DefaultConfig()
	c.Enabled, c.BufferBytes = true, bytesize.MiB
	return c
}

// world is two gateways with a Prometheus each.
type world struct {
	backend  *backend
	stores   [2]*failing
	gateways [2]*gateway
	proms    [2]*prom
}

const scrape = 5 * time.Second

func newWorld(t *testing.T, c Config) *world {
	t.Helper()
	w := &world{backend: &backend{points: map[string][]point{}}}
	shared := NewMemory()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range w.gateways {
		w.stores[i] = &failing{Store: shared}
		w.gateways[i] = &gateway{t: t, name: fmt.Sprintf("gateway %d", i), config: c, store: w.stores[i], backend: w.backend}
		w.gateways[i].start()
		w.proms[i] = &prom{replica: string(rune('a' + i)), to: w.gateways[i], interval: scrape, offset: time.Duration(i) * 1700 * time.Millisecond, series: 3, alive: true}
		wg.Go(func() { w.proms[i].run(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		for _, g := range w.gateways {
			if g.tracker.Load() != nil {
				g.stop()
			}
		}
	})
	return w
}

// elected is the replica that the shared record names.
func (w *world) elected(t *testing.T) int {
	t.Helper()
	value, revision, err := w.stores[0].Store.ReadRecord(t.Context(), recordName("x"))
	require.NoError(t, err)
	require.NotZero(t, revision)
	r, err := decodeRecord(value)
	require.NoError(t, err)
	return int(r.Replica[0] - 'a')
}

func (w *world) requireSound(t *testing.T) {
	t.Helper()
	require.Empty(t, w.backend.trouble)
	require.LessOrEqual(t, w.backend.gap(), 2*scrape, "one scrape may be missing, not two")
	require.Len(t, w.backend.points, 3)
}
