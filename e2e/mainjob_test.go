package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// TestMainJob is the whole purpose: a real Prometheus scrapes itself, Sluice and a
// service that vanishes, and writes through Sluice into the embedded store and into a
// second real Prometheus. All three give equal answers over the whole range, across the
// end of the service and the end of everything.
func TestMainJob(t *testing.T) {
	t.Parallel()
	second := testutil.StartPrometheus(t, testutil.PrometheusOptions{Receiver: true})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText("",
		// The protocol is left to negotiation: this Prometheus answers RW 2.0 with 204
		// and drops it.
		backend{name: "second", url: second.URL("/api/v1/write")},
	) + "  - name: local\n    tsdb: {retention: 15d, out_of_order_time_window: 1h}\n"})
	service := startService(t)
	first := testutil.StartPrometheus(t, testutil.PrometheusOptions{Config: scraperConfig(s, "{{.Self}}", s.Address, service.address())})

	awaitSeries(t, first.URL(""), `service_requests_total`)
	begin := time.Now().Add(time.Second)
	time.Sleep(10 * time.Second) // scrapes go on
	service.server.Close()
	time.Sleep(6 * time.Second) // and on, without the service
	stopScraping(t, first, s)
	end := time.Now().Add(-time.Second)
	awaitSent(t, first)
	requireSettled(t, s, "second", "local")

	at := quietMillisecond(t, first.URL(""), begin)
	places := []string{first.URL(""), s.URL(""), s.URL("/backends/local"), second.URL("")}
	for _, q := range rawQueries(at, end) {
		requireEqualAnswers(t, q, places...)
	}
	for _, q := range extrapolatedQueries(at, end) {
		requireEqualAnswers(t, q, first.URL(""), second.URL(""))
		requireEqualAnswers(t, q, s.URL(""), s.URL("/backends/local"))
	}
	requireStale(t, places, end)
	requireSameNames(t, places, begin, end)
	requireMemory(t, s)
}

func requireEqualAnswers(t *testing.T, q testutil.Query, places ...string) {
	t.Helper()
	want, err := testutil.Ask(places[0], q)
	require.NoError(t, err)
	require.NotEmpty(t, want, "%s has no answer at its source", q.Expr)
	for _, place := range places[1:] {
		got, err := testutil.Ask(place, q)
		require.NoError(t, err)
		require.Equal(t, len(want), len(got), "%s at %s: number of series", q.Expr, place)
		for i := range want {
			require.Equal(t, want[i], got[i], "%s at %s", q.Expr, place)
		}
	}
}

// rawQueries are instant and range queries whose answers depend on nothing but the
// samples: neither on the order of series nor on the version of the engine. Raw samples
// come first: they are the strictest.
func rawQueries(start, end time.Time) []testutil.Query {
	step := time.Second
	end = start.Add(end.Sub(start).Truncate(step))
	span := fmt.Sprintf("[%ds]", int(end.Sub(start).Seconds()))
	return append([]testutil.Query{{Expr: `{__name__=~".+"}` + span, End: end}}, rangeQueries(start, end, []string{
		`up`,
		`scrape_samples_scraped`,
		`count by (job) ({__name__=~".+"})`,
		`service_requests_total`,
		`irate(service_requests_total[5s])`,
		`idelta(go_goroutines[5s])`,
		`max by (job) (go_goroutines)`,
		`topk(3, sluice_journal_appended_bytes_total)`,
		`service_native_seconds`,
		`histogram_count(service_native_seconds)`,
		`histogram_sum(service_native_seconds)`,
		`histogram_quantile(0.5, sum by (le) (service_classic_seconds_bucket))`,
		`absent(service_requests_total)`,
		`service_special`,
		`changes(up[10s])`,
		`resets(service_requests_total[10s])`,
		`max_over_time(scrape_duration_seconds[7s])`,
		`present_over_time(service_requests_total[3s])`,
	})...)
}

// extrapolatedQueries are those that newer engines answer a little differently.
func extrapolatedQueries(start, end time.Time) []testutil.Query {
	return rangeQueries(start, end, []string{
		`rate(service_requests_total[5s])`,
		`increase(prometheus_http_requests_total[10s])`,
		`histogram_quantile(0.9, rate(service_native_seconds[5s]))`,
		`histogram_quantile(0.9, rate(service_classic_seconds_bucket[5s]))`,
		`sum by (job) (rate(process_cpu_seconds_total[10s]))`,
		`avg_over_time(go_goroutines[10s])`,
	})
}

func rangeQueries(start, end time.Time, exprs []string) []testutil.Query {
	var out []testutil.Query
	for _, expr := range exprs {
		out = append(out, testutil.Query{Expr: expr, Start: start, End: end, Step: time.Second})
	}
	return out
}

// requireStale requires that the vanished service has no present value at the end,
// although its last samples are well within the lookback.
func requireStale(t *testing.T, places []string, end time.Time) {
	t.Helper()
	for _, place := range places {
		got, err := testutil.Ask(place, testutil.Query{Expr: `service_requests_total`, End: end.Add(-2 * time.Second)})
		require.NoError(t, err)
		require.Empty(t, got, "the vanished service still has a value at %s", place)
		got, err = testutil.Ask(place, testutil.Query{Expr: `last_over_time(service_requests_total[1m])`, End: end.Add(-2 * time.Second)})
		require.NoError(t, err)
		require.Len(t, got, 1, place)
	}
}

// requireSameNames compares what a dashboard asks for: series, label names and values.
func requireSameNames(t *testing.T, places []string, begin, end time.Time) {
	t.Helper()
	v := url.Values{
		"start": {strconv.FormatInt(begin.Unix(), 10)}, "end": {strconv.FormatInt(end.Unix(), 10)},
		"match[]": {`{job=~".+"}`},
	}
	for _, path := range []string{"/api/v1/labels", "/api/v1/label/__name__/values", "/api/v1/label/job/values", "/api/v1/series"} {
		want := getData(t, places[0]+path+"?"+v.Encode())
		require.NotEmpty(t, want)
		for _, place := range places[1:] {
			require.Equal(t, want, getData(t, place+path+"?"+v.Encode()), "%s at %s", path, place)
		}
	}
	exemplars := "/api/v1/query_exemplars?" + url.Values{
		"start": {strconv.FormatInt(begin.Unix(), 10)}, "end": {strconv.FormatInt(end.Unix(), 10)}, "query": {"service_requests_total"},
	}.Encode()
	want := getData(t, places[0]+exemplars)
	require.NotEmpty(t, want, "no exemplars at the source")
	for _, place := range places[1:] {
		require.Equal(t, want, getData(t, place+exemplars), "exemplars at %s", place)
	}
}

// getData returns the elements of the data of an API answer, sorted.
func getData(t *testing.T, url string) []string {
	t.Helper()
	status, body, err := testutil.Get(url)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, "%s: %s", url, body)
	var answer struct{ Data []any }
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	var out []string
	for _, d := range answer.Data {
		b, err := json.Marshal(d) // sorts the keys of objects
		require.NoError(t, err)
		out = append(out, string(b))
	}
	slices.Sort(out)
	return out
}

// scraperConfig is the configuration of the Prometheus that scrapes: its jobs, and
// Sluice as where to write.
func scraperConfig(s *testutil.Sluice, targets ...string) string {
	var b strings.Builder
	b.WriteString("global: {scrape_interval: 1s, scrape_timeout: 900ms}\nscrape_configs:\n")
	for i, job := range []string{"prometheus", "sluice", "service"} {
		target := ""
		if len(targets) > 0 {
			target = "'" + targets[i] + "'"
		}
		fmt.Fprintf(&b, "  - {job_name: %s, static_configs: [{targets: [%s]}]}\n", job, target)
	}
	fmt.Fprintf(&b, `remote_write:
  - url: %s
    send_exemplars: true
    send_native_histograms: true
    queue_config: {batch_send_deadline: 500ms}
    metadata_config: {send_interval: 2s}
`, s.WriteURL())
	return b.String()
}

// stopScraping takes all targets from the Prometheus, so that it can still be asked
// while nothing changes any more. It waits for the markers that end the series.
func stopScraping(t *testing.T, p *testutil.Prometheus, s *testutil.Sluice) {
	t.Helper()
	p.Configure(t, scraperConfig(s))
	p.Signal(t, syscall.SIGHUP)
	testutil.Await(t, 30*time.Second, "all series end", func() string {
		got, err := testutil.Ask(p.URL(""), testutil.Query{Expr: `count({__name__=~".+"})`, End: time.Now()})
		if err != nil {
			return err.Error()
		}
		if len(got) > 0 {
			return strings.Join(got, "\n")
		}
		return ""
	})
}

// awaitSent waits until the Prometheus has nothing left to write.
func awaitSent(t *testing.T, p *testutil.Prometheus) {
	t.Helper()
	sent := -1.0
	testutil.Await(t, 30*time.Second, "the first Prometheus has sent everything", func() string {
		m, err := testutil.ScrapeMetrics(p.URL("/metrics"))
		if err != nil {
			return err.Error()
		}
		pending := m.Get("prometheus_remote_storage_samples_pending") + m.Get("prometheus_remote_storage_histograms_pending")
		now := m.Get("prometheus_remote_storage_samples_total")
		stands := now == sent
		sent = now
		if pending > 0 || !stands || now == 0 {
			return fmt.Sprintf("pending %v, sent %v", pending, now)
		}
		return ""
	})
	m, err := testutil.ScrapeMetrics(p.URL("/metrics"))
	require.NoError(t, err)
	require.Zero(t, m.Get("prometheus_remote_storage_samples_failed_total"))
}

func awaitSeries(t *testing.T, base, expr string) {
	t.Helper()
	testutil.Await(t, 30*time.Second, expr, func() string {
		got, err := testutil.Ask(base, testutil.Query{Expr: expr, End: time.Now()})
		if err != nil {
			return err.Error()
		}
		if len(got) == 0 {
			return "no answer yet"
		}
		return ""
	})
}

// quietMillisecond moves the time to a millisecond of the second at which no target is
// scraped. Old and new Prometheus disagree on whether a range includes its left end, so
// no sample may lie on one.
func quietMillisecond(t *testing.T, base string, from time.Time) time.Time {
	t.Helper()
	got, err := testutil.Ask(base, testutil.Query{Expr: `count_values("ms", floor((timestamp(up) % 1) * 1000))`, End: from})
	require.NoError(t, err)
	var taken []int
	for _, line := range got {
		var labels struct {
			MS int `json:"ms,string"`
		}
		require.NoError(t, json.NewDecoder(strings.NewReader(line)).Decode(&labels), line)
		taken = append(taken, labels.MS)
	}
	for ms := range 1000 {
		if !slices.ContainsFunc(taken, func(at int) bool { d := (at - ms + 1000) % 1000; return d < 60 || d > 940 }) {
			return from.Truncate(time.Second).Add(time.Second + time.Duration(ms)*time.Millisecond)
		}
	}
	require.FailNow(t, "every part of the second has a scrape", "%v", taken)
	return from
}

// service is a scraped program with all kinds of metrics.
type service struct{ server *httptest.Server }

func startService(t *testing.T) *service {
	t.Helper()
	reg := prometheus.NewRegistry()
	requests := prometheus.NewCounter(prometheus.CounterOpts{Name: "service_requests_total", Help: "Requests."})
	special := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "service_special", Help: "Values that are easy to spoil."}, []string{"which"})
	native := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "service_native_seconds", Help: "Native.", NativeHistogramBucketFactor: 1.1})
	classic := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "service_classic_seconds", Help: "Classic."})
	reg.MustRegister(requests, special, native, classic)
	for i, v := range specialValues() {
		special.WithLabelValues(fmt.Sprintf("%d \"ü\"\n", i)).Set(v)
	}
	handler := promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true})
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++ // one scraper: requests do not overlap
		requests.(prometheus.ExemplarAdder).AddWithExemplar(float64(n), prometheus.Labels{"trace_id": strconv.Itoa(n)})
		native.Observe(float64(n) / 7)
		classic.Observe(float64(n) / 11)
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return &service{server}
}

func (s *service) address() string { return strings.TrimPrefix(s.server.URL, "http://") }

func specialValues() []float64 {
	return []float64{0, math.NaN(), math.Inf(1), math.Inf(-1), math.SmallestNonzeroFloat64, math.MaxFloat64, 0.1, 1 << 53}
}
