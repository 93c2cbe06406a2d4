package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// alertRules are evaluated by both backends, and tell Sluice what is critical.
const alertRules = `groups:
- name: shop
  interval: 1s
  rules:
  - {alert: Errors, expr: 'sum by (instance) (rate(shop_errors_total[20s])) > 2', for: 3s}
  - {alert: Deep, expr: 'shop_queue_depth > 100', for: 3s}
  - {alert: Down, expr: 'up == 0', for: 3s}
  - {alert: Slow, expr: 'histogram_quantile(0.9, sum by (instance, le) (rate(shop_seconds_bucket[20s]))) > 1', for: 3s}
`

// world is a Prometheus that scrapes the targets every second and writes through Sluice
// into two more: thin, behind a network that can be made bad, and twin, which always
// takes everything.
type world struct {
	targets            []*target
	source, thin, twin *testutil.Prometheus
	proxy              *testutil.Proxy
	sluice             *testutil.Sluice
	begin              time.Time
}

const receiverConfig = `
global: {evaluation_interval: 1s}
storage: {tsdb: {out_of_order_time_window: 30m}}
rule_files: [%q]
`

func startWorld(t *testing.T, targets int) *world {
	t.Helper()
	rules := filepath.Join(t.TempDir(), "rules.yml")
	require.NoError(t, os.WriteFile(rules, []byte(alertRules), 0o600))
	w := &world{}
	for range targets {
		w.targets = append(w.targets, startTarget(t))
	}
	receiver := testutil.PrometheusOptions{Receiver: true, Config: fmt.Sprintf(receiverConfig, rules)}
	w.thin, w.twin = testutil.StartPrometheus(t, receiver), testutil.StartPrometheus(t, receiver)
	w.proxy = testutil.StartProxy(t, w.thin.Address)
	// The distances are a fifth of the defaults, as the targets are scraped every second
	// where others are every fifteen.
	w.sluice = testutil.StartSluice(t, testutil.SluiceOptions{Config: fmt.Sprintf(`
adaptive_sampling:
  enabled: true
  backpressure_thresholds: {queue_length: 5000, write_latency_ms: 2000, queue_age_seconds: 5}
  backfill: true
  backfill_share: 1
  key_frame_min: 5s
  classes:
  - {name: critical, max_gap: 5s, weight: 8, keep_change: 0.1, match: ['up'], from_rules: {files: [%q]}}
  - {name: low, max_gap: 45s, weight: 0.25, match: ['{__name__=~"scrape_.*|shop_detail.*"}']}
  - {name: normal, max_gap: 20s, weight: 1}
backends:
  - name: thin
    remote_write: {url: "http://%s/api/v1/write", out_of_order_time_window: 30m}
  - name: twin
    remote_write: {url: "http://%s/api/v1/write", out_of_order_time_window: 30m}
`, rules, w.proxy.Address(), w.twin.Address)})
	w.source = testutil.StartPrometheus(t, testutil.PrometheusOptions{Config: w.sourceConfig(w.targets)})
	w.begin = time.Now()
	awaitSeries(t, w.thin.URL(""), `shop_queue_depth`)
	awaitSeries(t, w.twin.URL(""), `shop_queue_depth`)
	return w
}

func (w *world) sourceConfig(targets []*target) string {
	var list []string
	for _, s := range targets {
		list = append(list, strconv.Quote(s.address()))
	}
	return fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 900ms}
scrape_configs: [{job_name: shop, static_configs: [{targets: [%s]}]}]
remote_write:
  - url: %s
    queue_config: {batch_send_deadline: 500ms, max_samples_per_send: 500}
    metadata_config: {send_interval: 5s}
`, strings.Join(list, ", "), w.sluice.WriteURL())
}

// sampling reads one gauge of the sampling for the thin backend.
func (w *world) sampling(t *testing.T, name string) float64 {
	t.Helper()
	return value(t, w.sluice, name, "backend", "thin")
}

// lag is the highest pressure of all signals.
func (w *world) lag(t *testing.T) float64 {
	t.Helper()
	highest := 0.0
	m := w.sluice.Metrics(t)
	for _, signal := range m.Labels("remote_write_backpressure_signal_ratio", "signal") {
		highest = max(highest, m.Get("remote_write_backpressure_signal_ratio", "backend", "thin", "signal", signal))
	}
	return highest
}

// requireEverythingReturned waits until nothing is owed to the thin backend, ends the
// scraping, and compares all that the two backends have.
func (w *world) requireEverythingReturned(t *testing.T, limit time.Duration) {
	t.Helper()
	begun := time.Now()
	testutil.Await(t, limit, "the debt is paid", func() string {
		if d := w.sampling(t, "remote_write_debt_samples"); d > 0 {
			return fmt.Sprintf("%v samples are owed", d)
		}
		return ""
	})
	t.Logf("paid after %v", time.Since(begun).Round(time.Second))
	w.source.Configure(t, w.sourceConfig(nil))
	w.source.Signal(t, syscall.SIGHUP)
	awaitNothing(t, w.source.URL(""), `count({__name__=~".+"})`)
	awaitSent(t, w.source)
	requireSettled(t, w.sluice, "thin", "twin")
	m := w.sluice.Metrics(t)
	for _, name := range []string{"sluice_rejected_total", "sluice_given_up_total"} {
		require.Zero(t, m.Get(name, "backend", "thin"), "%s: %v", name, m.Labels(name, "reason"))
	}

	end := time.Now()
	span := fmt.Sprintf("[%ds]", int(end.Sub(w.begin).Seconds())+5)
	places := []string{w.twin.URL(""), w.thin.URL("")}
	// Raw samples, then what depends on markers between them too.
	for _, matcher := range []string{`{__name__=~"shop_.*", __name__!~".*_bucket"}`, `{__name__=~"shop_.*_bucket"}`, `{__name__=~"up|scrape_.*"}`} {
		requireEqualAnswers(t, testutil.Query{Expr: matcher + span, End: end}, places...)
	}
	for _, q := range rangeQueries(w.begin.Add(5*time.Second), end, []string{
		`count by (__name__, instance) ({__name__=~"shop_.*|up|scrape_.*"})`,
		`max by (instance) (rate(shop_errors_total[10s]))`,
		`histogram_quantile(0.9, sum by (instance, le) (rate(shop_seconds_bucket[10s])))`,
		`count_over_time(shop_queue_depth[10s])`,
		`sum by (instance) (resets(shop_requests_total[20s]))`,
	}) {
		requireEqualAnswers(t, q, places...)
	}
}

func awaitNothing(t testing.TB, base, expr string) {
	t.Helper()
	testutil.Await(t, 30*time.Second, "no answer to "+expr, func() string {
		got, err := testutil.Ask(base, testutil.Query{Expr: expr, End: time.Now()})
		if err != nil {
			return err.Error()
		}
		return strings.Join(got, "\n")
	})
}

// episode is a time in which an alert fired.
type episode struct{ from, to time.Time }

// firing are the episodes by alert and instance, as the rules of a Prometheus saw them.
func firing(t *testing.T, p *testutil.Prometheus, from, to time.Time) map[string][]episode {
	t.Helper()
	status, body, err := testutil.Get(p.URL("/api/v1/query_range?" + url.Values{
		"query": {`ALERTS{alertstate="firing"}`}, "step": {"1"},
		"start": {strconv.FormatInt(from.Unix(), 10)}, "end": {strconv.FormatInt(to.Unix(), 10)},
	}.Encode()))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, body)
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	all := map[string][]episode{}
	for _, s := range answer.Data.Result {
		key := s.Metric["alertname"] + " " + s.Metric["instance"]
		for _, v := range s.Values {
			at := time.Unix(int64(v[0].(float64)), 0)
			list := all[key]
			if n := len(list); n > 0 && at.Sub(list[n-1].to) <= 2*time.Second {
				list[n-1].to = at
				continue
			}
			all[key] = append(list, episode{at, at})
		}
	}
	return all
}

// target is a scraped program. Each scrape is a step of what it does.
type target struct {
	server *httptest.Server

	mu       sync.Mutex
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	errors   prometheus.Counter
	idle     *prometheus.CounterVec
	depth    prometheus.Gauge
	heat     *prometheus.GaugeVec
	detail   *prometheus.GaugeVec
	seconds  *prometheus.HistogramVec

	scrapes       int
	failing, deep bool
	slow          bool
	seriesOfAVec  int
}

func startTarget(t *testing.T) *target {
	t.Helper()
	s := &target{seriesOfAVec: 30}
	s.restart()
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		promhttp.HandlerFor(s.step(), promhttp.HandlerOpts{}).ServeHTTP(w, r)
	}))
	t.Cleanup(s.server.Close)
	return s
}

func (s *target) address() string { return strings.TrimPrefix(s.server.URL, "http://") }

// restart sets all counters to 0.
func (s *target) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	labels := []string{"n"}
	s.registry = prometheus.NewRegistry()
	s.requests = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shop_requests_total", Help: "Requests."}, labels)
	s.errors = prometheus.NewCounter(prometheus.CounterOpts{Name: "shop_errors_total", Help: "Errors."})
	s.idle = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shop_idle_total", Help: "Never moves."}, labels)
	s.depth = prometheus.NewGauge(prometheus.GaugeOpts{Name: "shop_queue_depth", Help: "Orders that wait."})
	s.heat = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "shop_heat_celsius", Help: "Temperature."}, labels)
	s.detail = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "shop_detail", Help: "Nobody looks at it."}, labels)
	s.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "shop_seconds", Help: "Duration.", Buckets: []float64{.1, .25, .5, 1, 2, 4}}, labels)
	s.registry.MustRegister(s.requests, s.errors, s.idle, s.depth, s.heat, s.detail, s.seconds)
}

// step does what happens between two scrapes.
func (s *target) step() *prometheus.Registry {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scrapes++
	for i := range s.seriesOfAVec {
		n := strconv.Itoa(i)
		s.requests.WithLabelValues(n).Add(float64(s.scrapes*i%7 + 1))
		s.idle.WithLabelValues(n)
		s.heat.WithLabelValues(n).Set(20 + float64((s.scrapes*7+i*13)%101)/10)
		s.detail.WithLabelValues(n).Set(float64((s.scrapes*31 + i*17) % 997))
	}
	s.depth.Set(float64(10 + s.scrapes%5))
	if s.deep {
		s.depth.Set(float64(200 + s.scrapes%5))
	}
	if s.scrapes%10 == 0 {
		s.errors.Inc()
	}
	if s.failing {
		s.errors.Add(20)
	}
	for i := range 4 {
		d := float64((s.scrapes*3+i)%9) / 20
		if s.slow {
			d += 1.5
		}
		s.seconds.WithLabelValues(strconv.Itoa(i)).Observe(d)
	}
	return s.registry
}

// trouble changes what the target does from its next scrape on.
func (s *target) trouble(failing, deep, slow bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing, s.deep, s.slow = failing, deep, slow
}
