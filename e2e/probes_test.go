package e2e

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// watching is a configuration with a PostgreSQL cluster whose probing is led by a lease.
func watching(etcd *testutil.Etcd, servers ...*testutil.Postgres) string {
	var b strings.Builder
	fmt.Fprintf(&b, "clusters:\n  - name: orders\n    postgres:\n      targets:\n")
	for _, s := range servers {
		fmt.Fprintf(&b, "        - dsn: %q\n", s.DSN("postgres"))
	}
	fmt.Fprintf(&b, "lease:\n  etcd: {endpoints: [%s]}\n", strings.Join(etcd.Endpoints(), ", "))
	return b.String()
}

// Two gateways share a cluster: one probes it, what it finds is in its metrics and reaches
// the backends, and when it dies the other takes over.
func TestProbes_OneOfTwoGatewaysLeads(t *testing.T) {
	t.Parallel()
	primary := testutil.StartPostgres(t, testutil.PostgresOptions{})
	replica := primary.StartReplica(t, testutil.PostgresOptions{Name: "r1"})
	etcd := testutil.StartEtcd(t, testutil.EtcdOptions{})
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	text := configText(watching(etcd, primary, replica)+"adaptive_sampling: {enabled: true, backpressure_thresholds: {replica_lag_seconds: 20}}\n",
		backend{name: "main", url: sink.URL(), extra: "out_of_order_time_window: 30m", more: "    lag_from: {cluster: orders}\n"})
	gateways := [2]*testutil.Sluice{}
	for i := range gateways {
		gateways[i] = testutil.StartSluice(t, testutil.SluiceOptions{Config: text})
	}
	knows := func(s *testutil.Sluice) bool {
		_, found := s.Metrics(t).Sum("replica_lag_seconds", "target", replica.Addr)
		return found
	}
	leader := -1
	testutil.Await(t, 20*time.Second, "one of the gateways knows the lag", func() string {
		for i, s := range gateways {
			if knows(s) {
				leader = i
				return ""
			}
		}
		return "none does"
	})
	other := gateways[1-leader]
	require.False(t, knows(other), "both probe")
	status, body, err := testutil.Get(other.URL("/api/v1/replicas?cluster=orders"))
	require.NoError(t, err)
	require.Equal(t, 503, status, body)
	require.Contains(t, body, "another gateway, "+gateways[leader].Address+", probes")

	// It steers by it, tells readers where to read, and hands it on.
	replica.Exec(t, "SELECT pg_wal_replay_pause()")
	primary.Exec(t, "CREATE TABLE x (i int)")
	testutil.Await(t, 10*time.Second, "the replica lags", func() string {
		if v := value(t, gateways[leader], "replica_lag_seconds", "target", replica.Addr); v < 2 {
			return fmt.Sprintf("lag is %v", v)
		}
		return ""
	})
	// So does the other one, which does not probe and is told.
	testutil.Await(t, 5*time.Second, "the other knows the lag that it steers by", func() string {
		v, found := other.Metrics(t).Sum("remote_write_backpressure_signal_ratio", "backend", "main", "signal", "replica_lag")
		if !found || v < 0.05 {
			return fmt.Sprintf("the signal is %v, known %v", v, found)
		}
		return ""
	})
	status, body, err = testutil.Get(gateways[leader].URL("/api/v1/replicas?cluster=orders&max_lag=1s"))
	require.NoError(t, err)
	require.Equal(t, 200, status, body)
	require.Contains(t, body, `"why":"max_lag"`)
	replica.Exec(t, "SELECT pg_wal_replay_resume()")
	testutil.Await(t, 20*time.Second, "the lag reaches the backend", func() string {
		for _, key := range sink.Arrivals().Keys() {
			if strings.Contains(key, `"replica_lag_seconds"`) && strings.Contains(key, replica.Addr) && !strings.Contains(key, "instance=") {
				return ""
			}
		}
		return "no such series"
	})

	killed := time.Now()
	gateways[leader].Kill()
	var took time.Duration
	testutil.Await(t, 10*time.Second, "the other takes over", func() string {
		if !knows(other) {
			return "it does not know the lag"
		}
		took = time.Since(killed)
		return ""
	})
	t.Log("taken over after", took)
	require.LessOrEqual(t, took, takeover)
	requireSteady(t, sink, replica.Addr, killed)

	out, err := exec.Command(testutil.BuildSluice(t), "probe", "once", "--config.file="+other.File).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), replica.Addr)
	require.Contains(t, string(out), "primary")
}

// takeover is how long a cluster is not probed at most when its gateway dies.
const takeover = 3 * time.Second

// every is how often the gateway that probes writes series.
const every = 5 * time.Second

// requireSteady looks at the series of the target in the backend, from before the leader
// was killed until the other has written for a while: no time is there twice, and none is
// left out for longer than the takeover.
func requireSteady(t *testing.T, sink *testutil.Sink, target string, killed time.Time) {
	t.Helper()
	name := ""
	for _, key := range sink.Arrivals().Keys() {
		if strings.Contains(key, `"db_probe_success"`) && strings.Contains(key, target) && !strings.Contains(key, "instance=") {
			name = key
		}
	}
	require.NotEmpty(t, name)
	var times []time.Time
	testutil.Await(t, 30*time.Second, "the other writes", func() string {
		times = times[:0]
		for _, p := range sink.Arrivals().Points(name, "samples") {
			times = append(times, time.UnixMilli(p.Time))
		}
		slices.SortFunc(times, time.Time.Compare)
		if last := times[len(times)-1]; last.Before(killed.Add(12 * time.Second)) {
			return fmt.Sprint("the last is of ", last)
		}
		return ""
	})
	for i, at := range times[1:] {
		require.LessOrEqual(t, at.Sub(times[i]), every+takeover, "between %v and %v; killed at %v", times[i], at, killed)
	}
	require.Zero(t, sink.Arrivals().Repeated("samples"))
	require.Empty(t, sink.Arrivals().Disordered())
	require.Empty(t, sink.Arrivals().Changed())
	require.True(t, times[0].Before(killed))
}

// The series of a cluster that is taken out of the configuration end, and those of one whose
// gateway is stopped in order, with a marker each.
func TestProbes_SeriesEnd(t *testing.T) {
	t.Parallel()
	servers := map[string]*testutil.Postgres{}
	for _, name := range []string{"orders", "shop"} {
		servers[name] = testutil.StartPostgres(t, testutil.PostgresOptions{})
	}
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	config := func(names ...string) string {
		var b strings.Builder
		b.WriteString("lease: {local: {}}\nclusters:\n")
		for _, name := range names {
			fmt.Fprintf(&b, "  - {name: %s, postgres: {targets: [{dsn: %q}]}}\n", name, servers[name].DSN("postgres"))
		}
		return configText(b.String(), backend{name: "main", url: sink.URL()})
	}
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: config("orders", "shop")})
	ofCluster := func(name string) (list []string) {
		for _, key := range sink.Arrivals().Keys() {
			if strings.Contains(key, fmt.Sprintf(`cluster=%q`, name)) {
				list = append(list, key)
			}
		}
		return list
	}
	ended := func(name string) (marked, all int) {
		for _, key := range ofCluster(name) {
			points := sink.Arrivals().Points(key, "samples")
			last := slices.MaxFunc(points, func(a, b testutil.Point) int { return int(a.Time - b.Time) })
			if all++; last.Sum == testutil.StaleSum() {
				marked++
			}
		}
		return marked, all
	}
	awaitEnded := func(name string) {
		testutil.Await(t, 20*time.Second, "the series of "+name+" end", func() string {
			if marked, all := ended(name); marked != all || all == 0 {
				return fmt.Sprintf("%d of %d have a marker", marked, all)
			}
			return ""
		})
	}
	testutil.Await(t, 20*time.Second, "both clusters reach the backend", func() string {
		if a, b := len(ofCluster("orders")), len(ofCluster("shop")); a < 10 || b < 10 {
			return fmt.Sprintf("%d and %d series", a, b)
		}
		return ""
	})
	s.Configure(t, config("shop"))
	status, body := s.Reload(t)
	require.Equal(t, 200, status, body)
	awaitEnded("orders")
	marked, _ := ended("shop")
	require.Zero(t, marked, "the other one goes on")
	require.Zero(t, s.Stop(t, 20*time.Second))
	awaitEnded("shop")
	require.Empty(t, sink.Arrivals().Disordered())
	require.Empty(t, sink.Arrivals().Changed())
}

// A store of leases that refuses the gateway is asked a few times and not without end; the
// gateway says that it does not know who probes, and not that another one does.
func TestProbes_LeaseRefused(t *testing.T) {
	t.Parallel()
	database := testutil.StartPostgres(t, testutil.PostgresOptions{HBA: []string{"host all locked 127.0.0.1/32 scram-sha-256"}})
	database.Exec(t, "CREATE ROLE locked LOGIN PASSWORD 'opEn-seSame'")
	proxy := testutil.StartProxy(t, database.Addr)
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	text := fmt.Sprintf("clusters:\n  - {name: orders, postgres: {targets: [{dsn: %q}]}}\nlease:\n  postgres: {dsn: \"postgres://locked:wrong@%s/postgres?sslmode=disable\"}\n",
		database.DSN("postgres"), proxy.Address())
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText(text, backend{name: "main", url: sink.URL()})})
	start := time.Now()
	testutil.Await(t, 10*time.Second, "the gateway has asked", func() string {
		if v, found := s.Metrics(t).Sum("dlock_backend_up", "lock", "probe/orders"); !found || v != 0 {
			return "dlock_backend_up is not 0"
		}
		return ""
	})
	status, body, err := testutil.Get(s.URL("/api/v1/replicas?cluster=orders"))
	require.NoError(t, err)
	require.Equal(t, 503, status, body)
	require.Contains(t, body, "it is not known which gateway probes")
	require.Contains(t, body, "password authentication failed for user")
	require.Contains(t, body, proxy.Address())
	require.NotContains(t, body, "wrong")
	testutil.Await(t, 40*time.Second, "twenty seconds pass", func() string {
		if d := time.Since(start); d < 20*time.Second {
			return d.String()
		}
		return ""
	})
	var attempts float64
	for _, m := range s.Metrics(t)["dlock_acquire_duration_seconds"].Metric {
		attempts += float64(m.GetHistogram().GetSampleCount())
	}
	t.Log(attempts, "attempts in 20 s")
	require.Positive(t, attempts)
	require.LessOrEqual(t, attempts, 12.0)
}
