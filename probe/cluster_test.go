package probe_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a prober that says what it is told to.
type script struct {
	name   string
	engine probe.Engine

	mu     sync.Mutex
	answer func(context.Context) (probe.Reading, error)
	asked  int
	inside atomic.Int32
	most   atomic.Int32
	closed atomic.Int32
}

func newScript(name string, r probe.Reading) *script {
	s := &script{name: name, engine: probe.EnginePostgres}
	s.says(r)
	return s
}

func (s *script) does(f func(context.Context) (probe.Reading, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

func (s *script) says(r probe.Reading) {
	s.does(func(context.Context) (probe.Reading, error) { return r, nil })
}

func (s *script) fails(err error) {
	s.does(func(context.Context) (probe.Reading, error) { return probe.Reading{}, err })
}

func (s *script) Probe(ctx context.Context) (probe.Reading, error) {
	s.most.Store(max(s.most.Load(), s.inside.Add(1)))
	defer s.inside.Add(-1)
	s.mu.Lock()
	s.asked++
	answer := s.answer
	s.mu.Unlock()
	return answer(ctx)
}

func (s *script) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *script) Target() string       { return s.name }
func (s *script) Engine() probe.Engine { return s.engine }
func (s *script) Close() error         { s.closed.Add(1); return nil }

func head(n uint64) probe.Reading {
	return probe.Reading{
		Role: probe.RolePrimary, Generation: 1, Unit: probe.UnitBytes,
		Streams:    []probe.Stream{{History: "a", Head: probe.Some(n)}},
		Privileged: map[string]bool{"locks": true},
	}
}

func applied(n uint64) probe.Reading {
	return probe.Reading{
		Role: probe.RoleReplica, Unit: probe.UnitBytes,
		Streams: []probe.Stream{{History: "a", Applied: probe.Some(n), Received: probe.Some(n)}},
		LinkUp:  probe.Some(true),
	}
}

// leader leads when it is told to.
type leader struct {
	leading atomic.Bool
	other   atomic.Pointer[probe.Leadership] // when it does not lead; nil: another one leads
}

func (l *leader) Leadership(string) probe.Leadership {
	if l.leading.Load() {
		return probe.Leadership{Leads: true}
	}
	if l := l.other.Load(); l != nil {
		return *l
	}
	return probe.Leadership{By: "10.0.0.2:9201"}
}

// world is a cluster of scripts under test, with what it logs and counts.
type world struct {
	cluster *probe.Cluster
	reg     *prometheus.Registry
	log     bytes.Buffer
	stop    func()
}

// newWorld runs the cluster. The caller is in a bubble, and calls stop at its end.
func newWorld(t *testing.T, l probe.Leader, scripts ...*script) *world {
	t.Helper()
	w := &world{reg: prometheus.NewPedanticRegistry()}
	o := probe.Options{
		Name: "orders", Interval: time.Second, Timeout: time.Second, MaxLag: 10 * time.Second, Leader: l,
		Logger:  slog.New(slog.NewTextHandler(&w.log, nil)),
		Metrics: probe.NewMetrics(w.reg, func() []*probe.Cluster { return []*probe.Cluster{w.cluster} }),
	}
	for _, s := range scripts {
		o.Probers = append(o.Probers, s)
	}
	w.cluster = probe.New(o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.cluster.Run(ctx) }()
	w.stop = func() {
		cancel()
		require.NoError(t, <-ended)
	}
	return w
}

func (w *world) gather(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	list, err := w.reg.Gather()
	require.NoError(t, err)
	families := map[string]*dto.MetricFamily{}
	for _, f := range list {
		families[f.GetName()] = f
	}
	return families
}

// value is that of the one metric with the labels (name, value, …).
func value(t *testing.T, families map[string]*dto.MetricFamily, name string, labels ...string) (float64, bool) {
	t.Helper()
	if families[name] == nil {
		return 0, false
	}
metrics:
	for _, m := range families[name].Metric {
		has := map[string]string{}
		for _, l := range m.Label {
			has[l.GetName()] = l.GetValue()
		}
		for i := 0; i < len(labels); i += 2 {
			if has[labels[i]] != labels[i+1] {
				continue metrics
			}
		}
		switch {
		case m.Gauge != nil:
			return m.Gauge.GetValue(), true
		case m.Counter != nil:
			return m.Counter.GetValue(), true
		case m.Histogram != nil:
			return float64(m.Histogram.GetSampleCount()), true
		}
	}
	return 0, false
}

func is(t *testing.T, families map[string]*dto.MetricFamily, want float64, name string, labels ...string) {
	t.Helper()
	got, found := value(t, families, name, labels...)
	require.True(t, found, "%s%v is absent", name, labels)
	require.InDelta(t, want, got, 1e-9, "%s%v", name, labels)
}

func absent(t *testing.T, families map[string]*dto.MetricFamily, name string, labels ...string) {
	t.Helper()
	got, found := value(t, families, name, labels...)
	require.False(t, found, "%s%v is %v", name, labels, got)
}

func TestCluster_LagAndMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, r := newScript("p:1", head(100)), newScript("r:1", applied(100))
		w := newWorld(t, nil, p, r)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		m := w.gather(t)
		is(t, m, 1, "db_probe_success", "target", "r:1", "engine", "postgres", "cluster", "orders")
		is(t, m, 0, "replica_lag_seconds", "target", "r:1")
		is(t, m, 0, "replica_lag_bytes", "target", "r:1")
		is(t, m, 100, "replica_read_weight", "target", "r:1")
		is(t, m, 1, "circuit_state", "target", "r:1", "state", "closed")
		is(t, m, 0, "circuit_state", "target", "r:1", "state", "open")
		is(t, m, 1, "replica_role", "target", "r:1", "role", "replica")
		is(t, m, 0, "replica_role", "target", "r:1", "role", "unknown")
		is(t, m, 1, "replica_lag_source", "target", "r:1", "source", "replica")
		is(t, m, 1, "replica_cluster_primaries", "cluster", "orders")
		is(t, m, 1, "db_probe_privileged", "target", "p:1", "kind", "locks")
		is(t, m, 0, "db_probe_skipped_total", "target", "p:1", "reason", "running")
		is(t, m, 3, "db_probe_duration_seconds", "target", "p:1")
		is(t, m, 3, "sql_read_latency_seconds", "target", "p:1", "role", "primary")
		absent(t, m, "replica_lag_seconds", "target", "p:1")
		absent(t, m, "replica_lag_transactions")
		for _, reason := range probe.Reasons() {
			is(t, m, 0, "replica_lag_unknown", "target", "r:1", "reason", string(reason))
		}

		p.says(head(200))
		time.Sleep(6 * time.Second)
		synctest.Wait()
		m = w.gather(t)
		got, _ := value(t, m, "replica_lag_seconds", "target", "r:1")
		require.InDelta(t, 6, got, 1)
		is(t, m, 100, "replica_lag_bytes", "target", "r:1")
		is(t, m, 100, "replica_receive_lag_bytes", "target", "r:1")
		lag, known := w.cluster.Lag()
		require.True(t, known)
		require.InDelta(t, 6*time.Second, lag, float64(time.Second))

		r.fails(errors.New("cut"))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		m = w.gather(t)
		is(t, m, 0, "db_probe_success", "target", "r:1")
		is(t, m, 1, "replica_lag_unknown", "target", "r:1", "reason", "unreachable")
		is(t, m, 1, "replica_role", "target", "r:1", "role", "unknown")
		absent(t, m, "replica_lag_seconds")
		absent(t, m, "replica_link_up", "target", "r:1")
		_, known = w.cluster.Lag()
		require.False(t, known)

		w.stop()
		require.Equal(t, 1, strings.Count(w.log.String(), "probe of a database failed"), "one line, not one for each probe")
		require.Equal(t, int32(1), p.closed.Load())
		require.Equal(t, int32(1), r.closed.Load())
		m = w.gather(t)
		absent(t, m, "db_probe_duration_seconds")
	})
}

// A probe that hangs is not asked again meanwhile, and costs the others nothing.
func TestCluster_HangingProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, r := newScript("p:1", head(100)), newScript("r:1", applied(100))
		w := newWorld(t, nil, p, r)
		time.Sleep(3 * time.Second)
		r.does(func(ctx context.Context) (probe.Reading, error) {
			<-ctx.Done()
			time.Sleep(4 * time.Second) // it does not even keep to its limit
			return probe.Reading{}, ctx.Err()
		})
		before := p.count()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, before+10, p.count())
		require.Equal(t, int32(1), r.most.Load(), "one probe in flight")
		got, _ := value(t, w.gather(t), "db_probe_skipped_total", "target", "r:1")
		require.GreaterOrEqual(t, got, 4.0)
		is(t, w.gather(t), 1, "replica_lag_unknown", "target", "r:1", "reason", "unreachable")
		w.stop()
	})
}

func TestCluster_Leadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leader{}
		p, r := newScript("p:1", head(100)), newScript("r:1", applied(100))
		w := newWorld(t, l, p, r)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Zero(t, p.count(), "another gateway probes")
		require.Empty(t, w.gather(t))
		require.Equal(t, &probe.Snapshot{Cluster: "orders", At: time.Now(), MaxLag: 10 * time.Second, Leadership: probe.Leadership{By: "10.0.0.2:9201"}}, w.cluster.Snapshot())
		_, known := w.cluster.Lag()
		require.False(t, known)

		l.leading.Store(true)
		require.Equal(t, probe.ReasonStarting, w.cluster.Snapshot().Targets[1].Lag.Unknown, "one head is needed before the first lag")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		is(t, w.gather(t), 0, "replica_lag_seconds", "target", "r:1")

		// It loses the lease while a probe is under way: what that brings is thrown away,
		// even if it leads again by then.
		r.does(func(context.Context) (probe.Reading, error) {
			time.Sleep(900 * time.Millisecond)
			return applied(50), nil
		})
		asked := r.count()
		for r.count() == asked {
			time.Sleep(10 * time.Millisecond)
		}
		l.leading.Store(false)
		m := w.gather(t)
		require.NotContains(t, m, "replica_lag_seconds", "it stops at once")
		require.NotContains(t, m, "db_probe_success")
		l.leading.Store(true)
		p.fails(errors.New("gone"))
		require.False(t, w.cluster.Snapshot().Targets[1].Probed)
		r.says(applied(100))
		time.Sleep(950 * time.Millisecond)
		synctest.Wait()
		for _, v := range w.cluster.Snapshot().Targets {
			if v.Reading != nil {
				require.NotEqual(t, probe.Some(uint64(50)), v.Reading.Streams[0].Applied)
			}
		}
		w.stop()
	})
}

func TestCluster_Once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, r, gone := newScript("p:1", head(100)), newScript("r:1", applied(100)), newScript("g:1", probe.Reading{})
		gone.fails(errors.New("no route"))
		c := probe.New(probe.Options{
			Name: "orders", Interval: time.Second, Timeout: time.Second, MaxLag: time.Second,
			Probers: []probe.Prober{r, gone, p}, Logger: slog.New(slog.DiscardHandler),
		})
		s, err := c.Once(t.Context(), 2)
		require.NoError(t, err)
		require.Equal(t, "p:1", s.Primary)
		require.True(t, s.Targets[0].Lag.Known())
		require.Zero(t, s.Targets[0].Lag.Age)
		require.Equal(t, "no route", s.Targets[1].Error)
		require.Equal(t, 2, p.count())
		require.Equal(t, int32(1), p.closed.Load())
	})
}

// TestMetrics_Names compares what may be exported with the list of the design, name by
// name, in a cluster in which everything is known.
func TestMetrics_Names(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := applied(100)
		full.ApplyPaused, full.ApplierRunning, full.ApplyDelay = probe.Some(true), probe.Some(true), probe.Some(5*time.Second)
		full.Errors = map[string]uint64{"sql": 1062}
		full.Locks = &probe.Locks{
			Waiting:         []probe.LockWaiting{{"d", "relation", "X", 3, probe.Some(2 * time.Second)}, {"d", "tuple", "X", 1, probe.Some(3 * time.Second)}},
			Blocked:         []probe.Blocked{{2, []uint64{1}}, {3, []uint64{2}}},
			MetadataWaiting: probe.Some(uint64(4)), Waits: probe.Some(uint64(5)), WaitTime: probe.Some(6 * time.Second),
			Deadlocks: []probe.DatabaseTotal{{"d", 7}},
		}
		full.Transactions = &probe.Transactions{
			Oldest: map[string]time.Duration{"active": time.Second}, Sessions: map[string]uint64{"active": 20},
			SessionsLimit: probe.Some(uint64(100)), Committed: []probe.DatabaseTotal{{"d", 8}}, RolledBack: []probe.DatabaseTotal{{"d", 9}},
		}
		full.StreamGroups = []probe.StreamGroup{{"s", "g", probe.Some(uint64(1)), probe.Some(time.Second), probe.Some(uint64(2)), probe.Some(time.Minute)}}
		first := head(100)
		first.Slots = []probe.Slot{{Name: "s", Retained: probe.Some(uint64(77))}}
		transactions := newScript("m:1", applied(100))
		etcd := newScript("e:1", probe.Reading{Member: &probe.Member{HasLeader: true, Term: 3, Index: 10, Applied: 8}})
		etcd.engine = probe.EngineEtcd
		kafka := newScript("k:1", probe.Reading{
			Streams: []probe.Stream{{Name: "t/0", Head: probe.Some(uint64(10))}},
			ConsumerGroups: []probe.ConsumerGroup{{Group: "g", Members: probe.Some(uint64(1)), Partitions: []probe.ConsumerPartition{
				{Topic: "t", Committed: probe.Some(uint64(4))},
			}}},
		})
		kafka.engine = probe.EngineKafka
		w := newWorld(t, nil, newScript("p:1", first), newScript("r:1", full), transactions, etcd, kafka)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		m := w.gather(t)
		is(t, m, 3, "db_locks_waiting", "type", "relation", "mode", "X", "database", "d")
		is(t, m, 3, "db_lock_wait_oldest_seconds", "target", "r:1")
		is(t, m, 2, "db_lock_blocking_chain_depth", "target", "r:1")
		is(t, m, 1, "db_lock_root_blockers", "target", "r:1")
		is(t, m, 9, "db_transactions_total", "outcome", "rolled_back")
		is(t, m, 77, "replica_slot_retained_bytes", "slot", "s")
		is(t, m, 1062, "replica_error_code", "thread", "sql")
		is(t, m, 6, "consumer_group_lag_records", "group", "g", "topic", "t", "partition", "0")
		is(t, m, 2, "etcd_member_apply_lag_entries", "target", "e:1")
		is(t, m, 98, "replica_read_weight", "target", "r:1")
		absent(t, m, "replica_role", "target", "e:1")
		for _, name := range designed(t) {
			if name != "replica_lag_transactions" {
				require.Contains(t, m, name)
			}
		}
		for name, f := range m {
			require.Contains(t, designed(t), name)
			require.NotEmpty(t, f.GetHelp())
			require.Equal(t, strings.HasSuffix(name, "_total"), f.GetType() == dto.MetricType_COUNTER, name)
		}
		w.stop()
	})
}

// designed are the names that operators and dashboards rely on.
func designed(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("testdata/metrics.txt")
	require.NoError(t, err)
	return strings.Fields(string(text))
}

func TestReplicasHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leader{}
		l.leading.Store(true)
		near, far, away := newScript("near:1", applied(1000)), newScript("far:1", applied(900)), newScript("away:1", probe.Reading{})
		away.fails(errors.New("gone"))
		p := newScript("p:1", head(900))
		w := newWorld(t, l, p, near, far, away)
		defer w.stop()
		time.Sleep(2 * time.Second)
		p.says(head(1000))
		time.Sleep(4 * time.Second)
		synctest.Wait()
		h := probe.ReplicasHandler(func() []*probe.Cluster { return []*probe.Cluster{w.cluster} })
		get := func(query string) (int, map[string]any) {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, probe.ReplicasPath+query, nil))
			require.Equal(t, "application/json", rec.Header().Get("Content-Type"))
			var body map[string]any
			require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &body))
			return rec.Code, body
		}
		targets := func(query string) (list []string, left map[string]string, primary bool) {
			code, body := get(query)
			require.Equal(t, http.StatusOK, code)
			for _, r := range body["replicas"].([]any) {
				list = append(list, r.(map[string]any)["target"].(string))
				primary = r.(map[string]any)["primary"].(bool)
			}
			left = map[string]string{}
			for _, r := range body["left_out"].([]any) {
				left[r.(map[string]any)["target"].(string)] = r.(map[string]any)["why"].(string)
			}
			return list, left, primary
		}
		list, left, primary := targets("?cluster=orders")
		require.Equal(t, []string{"near:1", "far:1"}, list, "the freshest first")
		require.Equal(t, map[string]string{"away:1": "unreachable"}, left)
		require.False(t, primary)
		list, left, _ = targets("?max_lag=2s")
		require.Equal(t, []string{"near:1"}, list)
		require.Equal(t, "max_lag", left["far:1"])
		list, left, _ = targets("?min_position=0/3E8")
		require.Equal(t, []string{"near:1"}, list, "reads its own write at 1000")
		require.Equal(t, "min_position", left["far:1"])
		list, _, primary = targets("?min_position=1001")
		require.Equal(t, []string{"p:1"}, list, "nobody has it yet but the primary")
		require.True(t, primary)

		for query, want := range map[string]struct {
			code int
			text string
		}{
			"?cluster=x":      {http.StatusNotFound, `no such cluster as "x"; there are: orders`},
			"?max_lag=5":      {http.StatusBadRequest, `max_lag: "5" is not a duration`},
			"?max_lag=0s":     {http.StatusBadRequest, "max_lag"},
			"?min_position=?": {http.StatusBadRequest, "min_position"},
		} {
			code, body := get(query)
			require.Equal(t, want.code, code)
			require.Contains(t, body["error"], want.text)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodPost, probe.ReplicasPath, nil))
		require.Equal(t, http.StatusMethodNotAllowed, rec.Code)
		l.leading.Store(false)
		code, body := get("")
		require.Equal(t, http.StatusServiceUnavailable, code)
		require.Contains(t, body["error"], "another gateway, 10.0.0.2:9201, probes")
		require.Equal(t, "10.0.0.2:9201", body["leader"])
		require.NotContains(t, body, "unknown_since")
		since := time.Now().Add(-time.Minute)
		l.other.Store(&probe.Leadership{UnknownSince: since, Why: "connection refused"})
		code, body = get("")
		require.Equal(t, http.StatusServiceUnavailable, code)
		require.Contains(t, body["error"], "it is not known which gateway probes")
		require.Contains(t, body["error"], "connection refused")
		require.NotContains(t, body["error"], "ask that one")
		require.NotEmpty(t, body["unknown_since"])
	})
}

// A replica that was out comes back slowly.
func TestWeightRisesSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, r := newScript("p:1", head(100)), newScript("r:1", applied(100))
		w := newWorld(t, nil, p, r)
		defer w.stop()
		time.Sleep(2 * time.Second)
		weight := func() int { return w.cluster.Snapshot().Targets[1].Weight }
		require.Equal(t, 100, weight())
		r.fails(errors.New("gone"))
		time.Sleep(2 * time.Second)
		require.Zero(t, weight())
		r.says(applied(100))
		back, last := time.Now(), 0
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			require.LessOrEqual(t, float64(weight()), 20*(time.Since(back)+time.Second).Seconds(), "at most 20 per second, from the tick before")
			require.GreaterOrEqual(t, weight(), last)
			last = weight()
		}
		require.Equal(t, 100, last)
	})
}

func TestConfig(t *testing.T) {
	good := probe.DefaultConfig()
	good.Name = "orders"
	require.NoError(t, good.Validate())
	for want, change := range map[string]func(*probe.Config){
		"name: is missing":                func(c *probe.Config) { c.Name = "" },
		"name: \"a b\" has other":         func(c *probe.Config) { c.Name = "a b" },
		"interval: must be at least":      func(c *probe.Config) { c.Interval = 0 },
		"interval: must be at most":       func(c *probe.Config) { c.Interval *= 100 },
		"timeout: must be longer":         func(c *probe.Config) { c.Timeout = 0 },
		"max_lag: must be longer than 0s": func(c *probe.Config) { c.MaxLag = 0 },
	} {
		c := good
		change(&c)
		require.ErrorContains(t, c.Validate(), want)
	}
}
