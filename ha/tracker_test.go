package ha

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

// write does what the receiver does.
func (g *gateway) write(v series.Version, plain []byte) (deduplicated series.Counts, err error) {
	tracker := g.tracker.Load()
	if tracker == nil {
		return series.Counts{}, errDown
	}
	var m remotewrite.Message
	a, err := tracker.Admit(g.t.Context(), Request{Version: v, Plain: plain, Message: &m})
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

func TestFailover_ElectedPrometheusDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		time.Sleep(time.Minute)
		first := w.elected(t)
		w.proms[first].set(false)
		time.Sleep(time.Minute)
		require.Equal(t, 1-first, w.elected(t))
		w.proms[first].set(true)
		time.Sleep(time.Minute)
		require.Equal(t, 1-first, w.elected(t), "who comes back is not elected for that")
		w.requireSound(t)
		g := w.gateways[1-first]
		require.Equal(t, 1.0, g.metric("ha_elections_total", "cluster", "x"))
		require.Equal(t, 1.0, g.metric("ha_elected_replica_info", "cluster", "x", "replica", w.proms[1-first].replica))
		require.Zero(t, g.metric("ha_elected_replica_info", "replica", w.proms[first].replica))
		require.Positive(t, g.metric("ha_dropped_samples_total", "reason", string(ReasonNotElected)))
		require.Zero(t, g.metric("ha_buffer_overflow_total"))
		require.InDelta(t, float64(time.Now().Unix()), g.metric("ha_last_accepted_timestamp_seconds"), 6)
	})
}

func TestFailover_GatewayDiesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		time.Sleep(time.Minute)
		first := w.elected(t)
		w.gateways[first].stop()
		time.Sleep(time.Minute)
		require.Equal(t, 1-first, w.elected(t))
		w.gateways[first].start()
		time.Sleep(time.Minute)
		require.Equal(t, 1-first, w.elected(t))
		w.requireSound(t)
	})
}

// A gateway that is restarted at once goes on with its replica.
func TestRestart_ReadsTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		time.Sleep(time.Minute)
		first := w.elected(t)
		w.gateways[first].stop()
		time.Sleep(7 * time.Second)
		w.gateways[first].start()
		time.Sleep(time.Minute)
		require.Equal(t, first, w.elected(t))
		w.requireSound(t)
	})
}

// A gateway whose journal takes nothing does not keep its replica elected.
func TestFailover_GatewayCannotAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		time.Sleep(time.Minute)
		first := w.elected(t)
		w.gateways[first].broken.Store(true)
		time.Sleep(time.Minute)
		require.Equal(t, 1-first, w.elected(t))
		w.gateways[first].broken.Store(false)
		time.Sleep(time.Minute)
		w.requireSound(t)
	})
}

func TestStoreAway_KeepsTheElected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		time.Sleep(time.Minute)
		first := w.elected(t)
		w.stores[0].cut(true)
		w.stores[1].cut(true)
		before := w.backend.count()
		time.Sleep(2 * time.Minute)
		require.Greater(t, w.backend.count(), before+60, "accepted without the store")
		w.stores[0].cut(false)
		w.stores[1].cut(false)
		time.Sleep(2 * time.Minute)
		require.Equal(t, first, w.elected(t))
		w.requireSound(t)
		require.LessOrEqual(t, w.backend.gap(), scrape+time.Second)
	})
}

func TestStoreAway_Waits(t *testing.T) {
	for name, alone := range map[string]bool{"for all": false, "for the elected's gateway": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := testConfig()
				c.OnStoreUnavailable = UnavailableWait
				w := newWorld(t, c)
				time.Sleep(time.Minute)
				first := w.elected(t)
				w.stores[first].cut(true)
				w.stores[1-first].cut(!alone)
				time.Sleep(time.Minute)
				w.stores[0].cut(false)
				w.stores[1].cut(false)
				time.Sleep(2 * time.Minute)
				require.Equal(t, alone, first != w.elected(t))
				w.requireSound(t)
			})
		})
	}
}

// Whatever is killed when: no duplicate, no disorder, no false reset, no more than one
// scrape missing, as long as one pair of Prometheus and gateway works.
func TestFailover_RandomKills(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				w := newWorld(t, testConfig())
				time.Sleep(time.Minute)
				for range 15 {
					victim := rng.IntN(2)
					if rng.IntN(3) > 0 {
						victim = w.elected(t)
					}
					outage := time.Duration(rng.Int64N(int64(90 * time.Second)))
					switch rng.IntN(4) {
					case 0:
						w.proms[victim].set(false)
						// One that is back before it was replaced leaves the gap of its absence.
						time.Sleep(40*time.Second + outage)
						w.proms[victim].set(true)
					case 1:
						w.gateways[victim].stop()
						time.Sleep(outage)
						w.gateways[victim].start()
					case 2:
						w.gateways[victim].broken.Store(true)
						time.Sleep(outage)
						w.gateways[victim].broken.Store(false)
					default:
						for _, s := range w.stores {
							s.cut(true)
						}
						time.Sleep(outage)
						for _, s := range w.stores {
							s.cut(false)
						}
					}
					// The other one needs to have been seen for a failover to find it.
					time.Sleep(100 * time.Second)
				}
				w.requireSound(t)
			})
		})
	}
}

// A gateway that was stopped between the judgement and the journal does not append what
// another's replica may stand for by then.
func TestCheck_RightIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gateway{t: t, config: testConfig(), store: NewMemory(), backend: &backend{points: map[string][]point{}}}
		g.start()
		defer func() { g.stop() }()
		plain := requestV1(t, row{labels: []string{"__name__", "c", "__replica__", "a", "cluster", "x"}, samples: []int64{time.Now().UnixMilli()}})
		a, err := g.tracker.Load().Admit(t.Context(), Request{Version: series.V1, Plain: plain, Message: &remotewrite.Message{}})
		require.NoError(t, err)
		time.Sleep(28 * time.Second)
		require.NoError(t, a.Check())
		time.Sleep(time.Second)
		require.ErrorIs(t, a.Check(), ErrLater)
		a.Done(false)
	})
}

// Both replicas at one gateway, in one request even.
func TestOneGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{points: map[string][]point{}}
		g := &gateway{t: t, name: "g", config: testConfig(), store: NewMemory(), backend: b}
		g.start()
		defer func() { g.stop() }()
		send := func(replicas ...string) {
			t.Helper()
			at := time.Now().UnixMilli()
			rows := []row{{labels: []string{"__name__", "other"}, samples: []int64{at}}}
			for _, r := range replicas {
				rows = append(rows, row{labels: []string{"__name__", "c", "__replica__", r, "cluster", "x"}, samples: []int64{at}})
			}
			deduplicated, err := g.write(series.V2, requestV2(t, rows...))
			require.NoError(t, err)
			require.Equal(t, uint64(len(replicas)-1), deduplicated.Samples)
		}
		for range 10 {
			send("a", "b")
			time.Sleep(scrape)
		}
		require.Len(t, b.points["__name__=c,cluster=x,"], 10)
		for range 10 {
			rows := row{labels: []string{"__name__", "c", "__replica__", "b", "cluster", "x"}, samples: []int64{time.Now().UnixMilli()}}
			_, err := g.write(series.V1, requestV1(t, rows))
			for errors.Is(err, ErrLater) {
				time.Sleep(time.Second)
				_, err = g.write(series.V1, requestV1(t, rows))
			}
			require.NoError(t, err)
			time.Sleep(scrape)
		}
		require.Empty(t, b.trouble)
		require.Len(t, b.points["__name__=c,cluster=x,"], 20, "the other's samples of the failover's time too")
	})
}

func TestBuffer_IsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.BufferBytes = 1000
		w := newWorld(t, c)
		time.Sleep(time.Minute)
		first := w.elected(t)
		w.proms[first].set(false)
		time.Sleep(20 * time.Second)
		g := w.gateways[1-first]
		require.Positive(t, g.metric("ha_buffer_overflow_total"))
		require.LessOrEqual(t, g.metric("ha_buffer_bytes"), 1000.0)
		require.Positive(t, g.metric("ha_buffer_bytes"))
		require.Positive(t, g.metric("ha_dropped_samples_total", "reason", string(ReasonBufferFull)))
		time.Sleep(time.Minute)
		require.Empty(t, w.backend.trouble)
		require.Zero(t, g.metric("ha_buffer_bytes"))
	})
}

func TestTooManyClusters(t *testing.T) {
	c := testConfig()
	c.MaxClusters = 2
	g := &gateway{t: t, config: c, store: NewMemory(), backend: &backend{points: map[string][]point{}}}
	g.start()
	defer func() { g.stop() }()
	for i := range 3 {
		_, err := g.write(series.V1, requestV1(t, row{labels: []string{"__name__", "c", "__replica__", "a", "cluster", fmt.Sprint(i)}, samples: []int64{1}}))
		if i < 2 {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, ErrTooManyClusters)
		}
	}
}

// A replica's own clock that is far ahead, or a sample that is, does not lock out the
// others.
func TestFarFutureDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gateway{t: t, config: testConfig(), store: NewMemory(), backend: &backend{points: map[string][]point{}}}
		g.start()
		defer func() { g.stop() }()
		now := time.Now()
		_, err := g.write(series.V1, requestV1(t,
			row{labels: []string{"__name__", "c", "__replica__", "a", "cluster", "x"}, samples: []int64{now.UnixMilli()}},
			row{labels: []string{"__name__", "f", "__replica__", "a", "cluster", "x"}, samples: []int64{now.Add(time.Hour).UnixMilli()}}))
		require.NoError(t, err)
		require.InDelta(t, float64(now.UnixMilli())/1000, g.metric("ha_last_accepted_timestamp_seconds"), 1)
	})
}

// Requests that wait for the record share a write of it.
func TestManyRequestsFewWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{points: map[string][]point{}}
		g := &gateway{t: t, config: testConfig(), store: &failing{Store: NewMemory()}, backend: b}
		g.start()
		defer func() { g.stop() }()
		var wg sync.WaitGroup
		for shard := range 50 {
			wg.Go(func() {
				for range 100 {
					_, err := g.write(series.V1, requestV1(t, row{labels: []string{"__name__", "c", "__replica__", "a", "cluster", "x", "shard", fmt.Sprint(shard)}, samples: []int64{time.Now().UnixMilli()}}))
					require.NoError(t, err)
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 5000, b.count())
		require.Less(t, g.metric("ha_kv_cas_total", "outcome", casSuccess), 100.0)
		require.Zero(t, g.metric("ha_kv_cas_total", "outcome", casConflict))
	})
}

func TestStoreLosesTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		time.Sleep(time.Minute)
		first := w.elected(t)
		lost := NewMemory()
		for _, s := range w.stores {
			s.move(lost)
		}
		time.Sleep(time.Minute)
		require.Equal(t, first, w.elected(t))
		w.requireSound(t)
	})
}

func TestConfig_Validate(t *testing.T) {
	c := DefaultConfig()
	require.NoError(t, c.Validate())
	for name, change := range map[string]func(*Config){
		"cluster_label":        func(c *Config) { c.ClusterLabel = "" },
		"replica_label":        func(c *Config) { c.ReplicaLabel = c.ClusterLabel },
		"failover_timeout":     func(c *Config) { c.FailoverTimeout = 1 },
		"buffer_bytes":         func(c *Config) { c.BufferBytes = -1 },
		"max_clusters":         func(c *Config) { c.MaxClusters = 0 },
		"on_store_unavailable": func(c *Config) { c.OnStoreUnavailable = "both" },
	} {
		c := DefaultConfig()
		change(&c)
		require.ErrorContains(t, c.Validate(), name)
	}
}

func TestMetrics_Registered(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	_, err := New(Options{Config: testConfig(), Store: NewMemory(), Registerer: reg, Now: time.Now})
	require.NoError(t, err)
	require.NoError(t, testutil.GatherAndCompare(reg, bytes.NewBufferString(`
# HELP ha_buffer_bytes Bytes held back of replicas that are not elected. 0: nothing is newer than what is accepted.
# TYPE ha_buffer_bytes gauge
ha_buffer_bytes 0
`), "ha_buffer_bytes"))
	_, err = New(Options{Config: testConfig(), Store: NewMemory(), Registerer: reg, Now: time.Now})
	require.Error(t, err)
}
