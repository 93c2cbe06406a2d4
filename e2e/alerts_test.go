package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/alerts"
	"github.com/sluice-metrics/sluice/internal/testutil"
)

// alertSpeed is how much faster than in the files time goes for the rules in this test: a
// window of five minutes is one of ten seconds.
const alertSpeed = 30

// guarded is a gateway with databases and a lease, and a Prometheus that scrapes it and
// evaluates the rules that are delivered.
type guarded struct {
	primary, replica *testutil.Postgres
	etcd             *testutil.Etcd
	slow, well       *testutil.Sink
	sluice           *testutil.Sluice
	watcher          *testutil.Prometheus
}

func startGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{
		primary: testutil.StartPostgres(t, testutil.PostgresOptions{}),
		etcd:    testutil.StartEtcd(t, testutil.EtcdOptions{}),
		slow:    testutil.StartSink(t, testutil.SinkOptions{}),
		well:    testutil.StartSink(t, testutil.SinkOptions{}),
	}
	g.replica = g.primary.StartReplica(t, testutil.PostgresOptions{Name: "r1"})
	g.primary.Exec(t, "CREATE TABLE orders (id int PRIMARY KEY, n int)", "INSERT INTO orders VALUES (1, 0)")
	g.replica.AwaitReplay(t, g.primary)
	g.start(t, watching(g.etcd, g.primary, g.replica), map[string]float64{"BackendBehind": 4, "LocksBlocked": 3})
	return g
}

// start starts the gateway with the sections of its configuration, and who watches it by
// the rules with these thresholds.
func (g *guarded) start(t *testing.T, sections string, thresholds map[string]float64) {
	t.Helper()
	g.sluice = testutil.StartSluice(t, testutil.SluiceOptions{Config: configText(sections,
		backend{name: "slow", url: g.slow.URL(), extra: "out_of_order_time_window: 30m"},
		backend{name: "well", url: g.well.URL(), extra: "out_of_order_time_window: 30m"},
	)})
	rules := filepath.Join(t.TempDir(), "rules")
	o := alerts.DefaultOptions()
	o.Speed, o.Thresholds = alertSpeed, thresholds
	require.NoError(t, alerts.Write(rules, o))
	g.watcher = testutil.StartPrometheus(t, testutil.PrometheusOptions{Config: fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 1s}
rule_files: [%q]
scrape_configs: [{job_name: sluice, static_configs: [{targets: [%q]}]}]
`, filepath.Join(rules, "*.yaml"), g.sluice.Address)})
}

// load sends what both backends take, and waits until that is seen and no alert is left.
func (g *guarded) load(t *testing.T) *testutil.Load {
	t.Helper()
	l := testutil.StartLoad(t, testutil.LoadOptions{URL: g.sluice.WriteURL(), Rate: 400, Step: time.Second})
	awaitSeries(t, g.watcher.URL(""), `count_over_time(sluice_delivered_total{backend="slow",kind="samples"}[1m]) > 8`)
	g.awaitQuiet(t, 20*time.Second)
	return l
}

// alarm is an alert as people tell them apart.
type alarm struct{ name, severity, about string }

func (a alarm) String() string { return strings.TrimSpace(a.name + " (" + a.severity + ") " + a.about) }

func alarmOf(labels map[string]string) alarm {
	about := labels["backend"]
	for _, name := range []string{"target", "lock"} {
		if about == "" {
			about = labels[name]
		}
	}
	return alarm{labels["alertname"], labels["severity"], about}
}

// now are the alerts that are pending or firing, with their state.
func (g *guarded) now(t *testing.T) map[alarm]string {
	t.Helper()
	status, body, err := testutil.Get(g.watcher.URL("/api/v1/alerts"))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, body)
	var answer struct {
		Data struct {
			Alerts []struct {
				Labels map[string]string
				State  string
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	all := map[alarm]string{}
	for _, a := range answer.Data.Alerts {
		all[alarmOf(a.Labels)] = a.State
	}
	return all
}

// watch looks at the alerts until exactly those that are expected fire, each of which has
// to be pending before, unless it fires from the beginning. Meanwhile no other may fire.
func (g *guarded) watch(t *testing.T, limit time.Duration, expected ...alarm) {
	t.Helper()
	pending := map[alarm]bool{}
	for a := range g.now(t) {
		pending[a] = true
	}
	begin := time.Now()
	testutil.Await(t, limit, "the expected alerts fire", func() string {
		all := g.now(t)
		missing := slices.Clone(expected)
		for a, state := range all {
			if state == "pending" {
				pending[a] = true
				continue
			}
			require.Contains(t, expected, a, "it fires and should not: %v", all)
			require.True(t, pending[a], "%v fires and was not pending before", a)
			missing = slices.DeleteFunc(missing, func(m alarm) bool { return m == a })
		}
		if len(missing) > 0 {
			return fmt.Sprintf("missing %v among %v", missing, all)
		}
		return ""
	})
	t.Logf("%v after %v", expected, time.Since(begin).Round(time.Second))
}

// awaitQuiet waits until no alert is pending or firing; none may begin to fire meanwhile.
func (g *guarded) awaitQuiet(t *testing.T, limit time.Duration) {
	t.Helper()
	begin := time.Now()
	before := g.now(t)
	testutil.Await(t, limit, "all alerts have gone", func() string {
		all := g.now(t)
		for a, state := range all {
			require.False(t, state == "firing" && before[a] == "", "%v begins to fire", a)
		}
		if len(all) > 0 {
			return fmt.Sprint(all)
		}
		return ""
	})
	t.Logf("quiet after %v", time.Since(begin).Round(time.Second))
}

// requireNoRuleFailed asks the rules for errors, and whether each was evaluated.
func (g *guarded) requireNoRuleFailed(t *testing.T) {
	t.Helper()
	status, body, err := testutil.Get(g.watcher.URL("/api/v1/rules"))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, body)
	var answer struct {
		Data struct {
			Groups []struct {
				Name  string
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	rules := 0
	for _, group := range answer.Data.Groups {
		for _, r := range group.Rules {
			rules++
			require.Equal(t, "ok", r.Health, "%s: %s: %s", group.Name, r.Name, r.LastError)
		}
	}
	require.Greater(t, rules, 40)
}

// blocked holds a lock that another session waits for, until the function it returns is
// called.
func (g *guarded) blocked(t *testing.T) (release func()) {
	t.Helper()
	holder, waiter := g.primary.Conn(t), g.primary.Conn(t)
	_, err := holder.Exec(t.Context(), "BEGIN; UPDATE orders SET n = 1 WHERE id = 1")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := waiter.Exec(context.Background(), "UPDATE orders SET n = 2 WHERE id = 1")
		done <- err
	}()
	return func() {
		_, err := holder.Exec(t.Context(), "COMMIT")
		require.NoError(t, err)
		require.NoError(t, <-done)
	}
}

// Incidents take exactly those alerts through pending to firing and back that are meant
// for them, by the delivered rules over what the gateway really exports.
func TestAlerts_Incidents(t *testing.T) {
	t.Parallel()
	g := startGuarded(t)
	load := g.load(t)

	lagging := alarm{"SluiceReplicaLagHigh", "warning", g.replica.Addr}
	waiting := alarm{"SluiceLocksBlocked", "warning", g.primary.Addr}
	down := alarm{"SluiceDown", "critical", ""}
	stalled := []alarm{
		{"SluiceBackendDown", "critical", "slow"},
		{"SluiceBackendFailing", "warning", "slow"},
		{"SluiceBackendBehind", "warning", "slow"},
	}

	g.slow.Behave(testutil.Fault{Status: http.StatusServiceUnavailable})
	g.replica.Exec(t, "SELECT pg_wal_replay_pause()")
	release := g.blocked(t)
	g.watch(t, 60*time.Second, append(stalled, lagging, waiting)...)
	g.slow.Behave(testutil.Fault{})
	g.replica.Exec(t, "SELECT pg_wal_replay_resume()")
	release()
	g.requireNoRuleFailed(t)
	g.awaitQuiet(t, 60*time.Second)

	leader := g.etcd.Members[0]
	leader.Pause(t)
	lost := slices.Collect(maps.Keys(g.leases(t)))
	require.NotEmpty(t, lost)
	silent := alarm{"SluiceLeaseStoreDown", "warning", ""}
	g.watch(t, 40*time.Second, append(slices.Clone(lost), silent)...)
	leader.Resume(t)
	testutil.Await(t, 20*time.Second, "the store of the leases answers again", func() string {
		if state := g.now(t)[silent]; state != "" {
			return silent.name + " is " + state
		}
		return ""
	})
	g.sluice.Kill()
	g.watch(t, 20*time.Second, append(lost, down)...)
	g.sluice.Start(t)
	load.Stop(t, 20*time.Second)
	g.awaitQuiet(t, 60*time.Second)
}

// A backend that is slow and still answers is sampled, which is told and wakes nobody.
func TestAlerts_Sampling(t *testing.T) {
	t.Parallel()
	g := &guarded{slow: testutil.StartSink(t, testutil.SinkOptions{}), well: testutil.StartSink(t, testutil.SinkOptions{})}
	// How far behind it gets before sampling sets in is not what this is about.
	g.start(t, `
adaptive_sampling:
  enabled: true
  backpressure_thresholds: {queue_length: 5000, write_latency_ms: 500, queue_age_seconds: 3}
`, map[string]float64{"BackendBehind": 600, "LaneSaturated": 2})
	load := g.load(t)
	g.slow.Behave(testutil.Fault{Pace: 150})
	g.watch(t, 60*time.Second, alarm{"SluiceSamplingActive", "info", "slow"})
	g.slow.Behave(testutil.Fault{})
	load.Stop(t, 20*time.Second)
	g.awaitQuiet(t, 90*time.Second)
}

// leases are the alarms for the leases that the gateway holds.
func (g *guarded) leases(t *testing.T) map[alarm]bool {
	t.Helper()
	all := map[alarm]bool{}
	for _, lock := range g.sluice.Metrics(t).Labels("dlock_held", "lock") {
		if value(t, g.sluice, "dlock_held", "lock", lock) == 1 {
			all[alarm{"SluiceLockLost", "warning", lock}] = true
		}
	}
	return all
}
