package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// haScrape is how often the pair of TestHA scrapes.
const haScrape = time.Second

// haWorld is a pair of Prometheus servers with the same targets, each with a gateway of its
// own. The gateways share an etcd and deliver to the same backends.
type haWorld struct {
	etcd     *testutil.Etcd
	sink     *testutil.Sink
	store    *testutil.Prometheus
	targets  []string
	gateways [2]*testutil.Sluice
	proms    [2]*testutil.Prometheus
}

func startHA(t *testing.T) *haWorld {
	t.Helper()
	w := &haWorld{etcd: testutil.StartEtcd(t, testutil.EtcdOptions{Members: 3}), sink: testutil.StartSink(t, testutil.SinkOptions{})}
	begin := time.Now()
	for range 3 {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, "# TYPE work_seconds_total counter\nwork_seconds_total %f\n", time.Since(begin).Seconds())
		}))
		t.Cleanup(server.Close)
		w.targets = append(w.targets, strings.TrimPrefix(server.URL, "http://"))
	}
	// A gateway that was killed delivers the last it had once more when it is back.
	w.store = testutil.StartPrometheus(t, testutil.PrometheusOptions{Receiver: true, Config: "global: {}\nstorage: {tsdb: {out_of_order_time_window: 5m}}\n"})
	for i := range w.gateways {
		w.gateways[i] = testutil.StartSluice(t, testutil.SluiceOptions{Config: configText(
			fmt.Sprintf("lease: {etcd: {endpoints: [%s]}}\nha: {failover_timeout: 5s}\n", quoted(w.etcd.Endpoints())),
			backend{name: "sink", url: w.sink.URL()},
			backend{name: "store", url: w.store.URL("/api/v1/write"), extra: "out_of_order_time_window: 5m"},
		)})
	}
	for i := range w.proms {
		w.startPrometheus(t, i)
	}
	return w
}

func quoted(list []string) string {
	var b strings.Builder
	for _, s := range list {
		fmt.Fprintf(&b, "%q, ", s)
	}
	return b.String()
}

func replicaName(i int) string { return string(rune('a' + i)) }

// startPrometheus starts a server of the pair, with nothing of what an earlier one had.
func (w *haWorld) startPrometheus(t *testing.T, i int) {
	t.Helper()
	w.proms[i] = testutil.StartPrometheus(t, testutil.PrometheusOptions{Config: fmt.Sprintf(`
global:
  scrape_interval: %s
  external_labels: {cluster: shop, __replica__: %s}
scrape_configs:
  - job_name: shop
    static_configs: [{targets: [%s]}]
remote_write:
  - url: %s
    queue_config: {batch_send_deadline: 100ms, max_shards: 1, min_backoff: 30ms, max_backoff: 200ms}
`, haScrape, replicaName(i), quoted(w.targets), w.gateways[i].WriteURL())})
}

// elected is which replica the gateway believes.
func (w *haWorld) elected(t *testing.T, gateway int) (replica int, known bool) {
	t.Helper()
	names := w.gateways[gateway].Metrics(t).Labels("ha_elected_replica_info", "replica")
	if len(names) != 1 {
		return 0, false
	}
	return int(names[0][0] - 'a'), true
}

// awaitElected waits until the gateway believes the replica.
func (w *haWorld) awaitElected(t *testing.T, gateway, replica int) {
	t.Helper()
	testutil.Await(t, 30*time.Second, "an election", func() string {
		if got, known := w.elected(t, gateway); !known || got != replica {
			return fmt.Sprintf("gateway %d believes %s", gateway, replicaName(got))
		}
		return ""
	})
}

// awaitNewer waits until the backend has samples of all targets from after the time.
func (w *haWorld) awaitNewer(t *testing.T, than time.Time) {
	t.Helper()
	testutil.Await(t, 30*time.Second, "new samples at the backend", func() string {
		for _, key := range w.keys() {
			points := w.sink.Arrivals().Points(key, "samples")
			if last := points[len(points)-1].Time; last < than.UnixMilli() {
				return fmt.Sprintf("%s ends %d ms before", key, than.UnixMilli()-last)
			}
		}
		return ""
	})
}

// keys are the series of the targets' counter at the sink.
func (w *haWorld) keys() []string {
	var keys []string
	for _, key := range w.sink.Arrivals().Keys() {
		if strings.Contains(key, `__name__="work_seconds_total"`) {
			keys = append(keys, key)
		}
	}
	return keys
}

// longestGap is the longest time between two samples of a target's counter, of those that
// are newer.
func (w *haWorld) longestGap(since time.Time) time.Duration {
	longest := int64(0)
	for _, key := range w.keys() {
		points := w.sink.Arrivals().Points(key, "samples")
		for i := 1; i < len(points); i++ {
			if points[i].Time >= since.UnixMilli() {
				longest = max(longest, points[i].Time-points[i-1].Time)
			}
		}
	}
	return time.Duration(longest) * time.Millisecond
}

// TestHA kills one part of a pair after the other: the elected Prometheus, the gateway of
// the one elected then, and the leader of etcd.
func TestHA(t *testing.T) {
	t.Parallel()
	w := startHA(t)
	begin := time.Now()
	w.awaitNewerOnceThere(t, begin.Add(8*time.Second))
	first, known := w.elected(t, 0)
	require.True(t, known)
	w.awaitElected(t, 1, first)
	second := 1 - first

	since := time.Now()
	w.proms[first].Kill()
	w.awaitElected(t, second, second)
	w.awaitNewer(t, time.Now().Add(haScrape))
	t.Logf("elected Prometheus killed: believed the other after %v, longest gap %v", time.Since(since).Round(time.Second), w.longestGap(since))

	w.startPrometheus(t, first)
	w.awaitNewer(t, time.Now().Add(8*time.Second))
	since = time.Now()
	w.gateways[second].Kill()
	w.awaitElected(t, first, first)
	w.awaitNewer(t, time.Now().Add(haScrape))
	t.Logf("gateway killed: longest gap %v", w.longestGap(since))
	w.gateways[second].Start(t)
	w.awaitNewer(t, time.Now().Add(8*time.Second))

	since = time.Now()
	w.etcd.Leader(t).Kill()
	w.awaitNewer(t, time.Now().Add(10*time.Second))
	t.Logf("leader of etcd killed: longest gap %v", w.longestGap(since))
	require.LessOrEqual(t, w.longestGap(since), haScrape+haScrape/2, "nothing had to change")

	w.requireSound(t, begin)
}

// awaitNewerOnceThere is awaitNewer that first waits for all targets to appear.
func (w *haWorld) awaitNewerOnceThere(t *testing.T, than time.Time) {
	t.Helper()
	testutil.Await(t, 30*time.Second, "all targets at the backend", func() string {
		if n := len(w.keys()); n != len(w.targets) {
			return fmt.Sprintf("%d series", n)
		}
		return ""
	})
	w.awaitNewer(t, than)
}

// requireSound requires that what the backends have looks as if there were one Prometheus
// that never was away for longer than a scrape.
func (w *haWorld) requireSound(t *testing.T, begin time.Time) {
	t.Helper()
	require.Len(t, w.keys(), len(w.targets), "series: %v", w.sink.Arrivals().Keys())
	for _, key := range w.sink.Arrivals().Keys() {
		require.NotContains(t, key, "__replica__")
		require.Contains(t, key, `cluster="shop"`)
	}
	require.Empty(t, w.sink.Arrivals().Disordered())
	require.Empty(t, w.sink.Arrivals().Changed())
	gap := w.longestGap(begin)
	t.Logf("longest gap of all: %v", gap)
	// From a sample to the next but one: one scrape is missing.
	require.LessOrEqual(t, gap, 2*haScrape+haScrape/4)

	end := time.Now()
	for _, q := range []string{`resets(work_seconds_total[10m]) > 0`, `count by (instance) (work_seconds_total) > 1`} {
		got, err := testutil.Ask(w.store.URL(""), testutil.Query{Expr: q, Start: begin, End: end, Step: haScrape})
		require.NoError(t, err)
		require.Empty(t, got, q)
	}
	for i, s := range w.gateways {
		for _, b := range []string{"sink", "store"} {
			require.Zero(t, s.Metrics(t).Get("sluice_rejected_total", "backend", b), "gateway %d, %s", i, b)
		}
		require.Zero(t, value(t, s, "ha_buffer_overflow_total"))
		requireSettled(t, s, "sink", "store")
	}
}
