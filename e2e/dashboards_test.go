package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/dashboards"
	"github.com/sluice-metrics/sluice/internal/testutil"
)

// quietPanels are those that the incident of this test does not fill, with the reason.
// A trailing letter is the query of the panel that is meant; without one it is any.
var quietPanels = map[string]string{
	"overview: Firing alerts":                      "the gateway's own store evaluates no rules",
	"backends: Protocol":                           "an embedded store speaks none",
	"backends: Answers of the backend":             "an embedded store has none",
	"backends: Certificate of the backend":         "no TLS in this test",
	"backends: Lost by reason B":                   "nothing was given up",
	"databases: Waits that ended":                  "PostgreSQL does not count waits",
	"databases: Waits for metadata locks":          "PostgreSQL has none",
	"databases: Transactions behind":               "no engine here counts transactions",
	"databases: Standing still B":                  "no engine here has an applier that stops",
	"databases: Error codes":                       "no engine here has error codes",
	"databases: Generation and configured delay B": "no delay is configured",
	"databases: Lag of consumer groups":            "no Kafka in this test",
	"databases: Records behind":                    "no Kafka in this test",
	"databases: Members of consumer groups":        "no Kafka in this test",
	"leases: How long leases are held":             "no lease ends in this test",
	"internals: Certificate of the gateway":        "no TLS in this test",
	"internals: Time of a sync":                    "durability write does not sync",
}

// Every query of every panel, variable and annotation is answered by what a gateway in
// trouble exports of itself, and none is empty without a reason.
func TestDashboards_ShowAnIncident(t *testing.T) {
	t.Parallel()
	w := startIncident(t)
	files, err := dashboards.Files(dashboards.DefaultOptions())
	require.NoError(t, err)
	asked, panels := 0, map[string]bool{}
	var empty, nameless []string
	for _, f := range files {
		name := strings.TrimSuffix(f.Name, ".json")
		for _, q := range questionsOf(t, name, f.JSON) {
			asked++
			panels[q.panel] = true
			got := w.ask(t, q)
			if label := q.nameless(got); label != "" {
				nameless = append(nameless, fmt.Sprintf("%s %s: %s in %q: %s", q.panel, q.ref, label, q.legend, q.expr))
			}
			if len(got) == 0 && !q.mark && quietPanels[q.panel] == "" && quietPanels[q.panel+" "+q.ref] == "" {
				empty = append(empty, fmt.Sprintf("%s %s: %s", q.panel, q.ref, q.expr))
			}
		}
	}
	require.Empty(t, nameless, "legends name labels that no series has:\n%s", strings.Join(nameless, "\n"))
	require.Empty(t, empty, "panels are empty that should show something:\n%s", strings.Join(empty, "\n"))
	require.Greater(t, asked, 200)
	for panel := range quietPanels {
		require.True(t, panels[panel] || panels[panel[:len(panel)-2]], "%s is no panel", panel)
	}
	t.Logf("%d queries of %d panels", asked, len(panels))
}

// incident is a gateway with everything that it can have, in trouble.
type incident struct {
	sluice *testutil.Sluice
	begin  time.Time
}

func startIncident(t *testing.T) *incident {
	t.Helper()
	primary := testutil.StartPostgres(t, testutil.PostgresOptions{})
	replica := primary.StartReplica(t, testutil.PostgresOptions{Name: "r1"})
	cache := testutil.StartRedis(t, testutil.RedisOptions{})
	cache.Do(t, "XADD", "orders", "*", "a", "1")
	cache.Do(t, "XGROUP", "CREATE", "orders", "billing", "0")
	cache.Do(t, "XADD", "orders", "*", "a", "2")
	cache.Do(t, "XREADGROUP", "GROUP", "billing", "c1", "COUNT", "1", "STREAMS", "orders", ">")
	etcd := testutil.StartEtcd(t, testutil.EtcdOptions{})
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Env: []string{"GOMEMLIMIT=2GiB"}, Config: fmt.Sprintf(incidentConfig,
		primary.DSN("postgres"), replica.DSN("postgres"), cache.Addr, etcd.Endpoints()[0], primary.DSN("postgres"), sink.URL())})
	w := &incident{sluice: s, begin: time.Now()}
	load := testutil.StartLoad(t, testutil.LoadOptions{
		URL: s.WriteURL(), Protocol: testutil.RW2, Content: testutil.Content{Metadata: true, StartTimes: true},
		Series: 2000, Batch: 500, Rate: 2000, Step: time.Second,
	})
	w.sendPairs(t)
	w.ask(t, question{expr: "up", instant: true})
	time.Sleep(15 * time.Second) // the sampler has to know the cadence

	bad := load.Keys()[0]
	sink.Behave(testutil.Fault{SamplesPerSecond: 500, Refuse: func(key string) bool { return key == bad }, Message: "refused by the test"})
	block(t, primary)
	replica.Exec(t, "SELECT pg_wal_replay_pause()")
	primary.Exec(t, "CREATE TABLE behind AS SELECT generate_series(1, 1000)")
	testutil.Await(t, 40*time.Second, "less is sent, and something is refused", func() string {
		m := s.Metrics(t)
		switch {
		case m.Get("remote_write_debt_samples", "backend", "thin") == 0:
			return "nothing is owed"
		case m.Get("sluice_dead_letters_total", "backend", "thin") == 0:
			return "no dead letters"
		case m.Get("replica_lag_seconds", "target", replica.Addr) < 2:
			return "the replica does not lag"
		case m.Get("db_lock_wait_oldest_seconds", "target", primary.Addr) < 2:
			return "nobody waits"
		}
		return ""
	})
	sink.Behave(testutil.Fault{})
	w.ask(t, question{expr: "up", instant: true}) // readers of the embedded store are shown too
	time.Sleep(8 * time.Second)                   // panels look at rates of some seconds
	load.Stop(t, 10*time.Second)
	return w
}

const incidentConfig = `
own_metrics: {interval: 1s}
adaptive_sampling:
  enabled: true
  backpressure_thresholds: {queue_length: 2000, write_latency_ms: 300, queue_age_seconds: 2}
  backfill: true
  backfill_share: 0.5
clusters:
  - name: shop
    postgres: {targets: [{dsn: %q}, {dsn: %q}]}
  - name: cache
    redis: {targets: [{dsn: "redis://%s"}], streams: [{key: orders}]}
  - name: registry
    etcd: {targets: [{dsn: %q}]}
lease:
  postgres: {dsn: %q}
ha: {enabled: true}
backends:
  - name: local
    tsdb: {}
  - name: thin
    remote_write: {url: %q, out_of_order_time_window: 1h, max_backoff: 1s}
`

// block makes one session wait for another until the test ends.
func block(t *testing.T, p *testutil.Postgres) {
	t.Helper()
	p.Exec(t, "CREATE TABLE orders (id int)")
	holder, waiter := p.Conn(t), p.Conn(t)
	_, err := holder.Exec(context.Background(), "BEGIN; LOCK TABLE orders")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = waiter.Exec(ctx, "SELECT * FROM orders") // ends with the test
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// sendPairs sends the samples of a pair of Prometheus servers each second until the test
// ends.
func (w *incident) sendPairs(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for _, replica := range []string{"a", "b"} {
				w.sendReplica(ctx, client, replica, time.Now())
			}
			w.sendReplica(ctx, client, "a", time.Now().Add(24*time.Hour)) // which is refused
		}
	})
}

// sendReplica sends one sample; that it fails is seen by the panels that stay empty.
func (w *incident) sendReplica(ctx context.Context, client *http.Client, replica string, at time.Time) {
	request := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels: []prompb.Label{
			{Name: "__name__", Value: "pair_up"}, {Name: "__replica__", Value: replica}, {Name: "cluster", Value: "eu"},
		},
		Samples: []prompb.Sample{{Value: 1, Timestamp: at.UnixMilli()}},
	}}}
	plain, err := request.Marshal()
	if err != nil {
		return
	}
	req, err := testutil.NewWriteRequest(ctx, w.sluice.WriteURL(), testutil.RW1, s2.EncodeSnappy(nil, plain))
	if err != nil {
		return
	}
	resp, err := client.Do(req)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}

// question is one query of a dashboard.
type question struct {
	panel, ref, expr, legend string
	instant                  bool
	mark                     bool // an annotation: there may have been nothing to mark
}

// questionsOf lists what a dashboard asks.
func questionsOf(t *testing.T, name string, text []byte) []question {
	t.Helper()
	type panel struct {
		Title   string
		Targets []struct {
			RefID, Expr, LegendFormat string
			Instant                   bool
		}
	}
	var d struct {
		Panels []struct {
			panel
			Panels []panel
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
		Annotations struct{ List []struct{ Name, Expr string } }
	}
	require.NoError(t, json.Unmarshal(text, &d))
	var all []question
	add := func(p panel) {
		for _, q := range p.Targets {
			all = append(all, question{panel: name + ": " + p.Title, ref: q.RefID, expr: q.Expr, legend: q.LegendFormat, instant: q.Instant})
		}
	}
	for _, p := range d.Panels {
		add(p.panel)
		for _, inner := range p.Panels {
			add(inner)
		}
	}
	for _, v := range d.Templating.List {
		if m := variableQuery.FindStringSubmatch(v.Definition); m != nil {
			all = append(all, question{panel: name + ": variable " + v.Name, ref: "A", expr: "count by (" + m[2] + ") (" + m[1] + ")", legend: "{{" + m[2] + "}}", instant: true})
		}
	}
	for _, a := range d.Annotations.List {
		all = append(all, question{panel: name + ": annotation " + a.Name, ref: "A", expr: a.Expr, mark: true})
	}
	return all
}

var variableQuery = regexp.MustCompile(`^label_values\((.+), ([a-zA-Z_]+)\)$`)

// everything is what a reader finds who opens a dashboard: all choices, of a short time.
var everything = strings.NewReplacer(
	"$__rate_interval", "15s", "$__range", "2m", "$__interval", "5s",
	"$job", "sluice", "$instance", ".*", "$backend", ".*", "$cluster", ".*", "$target", ".*", "$lock", ".*",
)

// answered is one series of an answer.
type answered struct {
	Metric map[string]string
	Value  [2]any
	Values [][2]any
}

// ask sends the query as Grafana does and returns the series that have a number.
func (w *incident) ask(t *testing.T, q question) []answered {
	t.Helper()
	now := time.Now()
	form := url.Values{"query": {everything.Replace(q.expr)}}
	path := "/api/v1/query"
	seconds := func(at time.Time) []string { return []string{strconv.FormatInt(at.Unix(), 10)} }
	if q.instant {
		form["time"] = seconds(now)
	} else {
		path = "/api/v1/query_range"
		form["start"], form["end"], form["step"] = seconds(w.begin), seconds(now), []string{"5"}
	}
	status, body, err := testutil.Get(w.sluice.URL(path + "?" + form.Encode()))
	require.NoError(t, err, q.panel)
	require.Equal(t, http.StatusOK, status, "%s %s: %s: %s", q.panel, q.ref, q.expr, body)
	var answer struct {
		Data     struct{ Result []answered }
		Warnings []string
	}
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	require.Empty(t, answer.Warnings, "%s %s: %s", q.panel, q.ref, q.expr)
	var list []answered
	for _, s := range answer.Data.Result {
		points := s.Values
		if q.instant {
			points = [][2]any{s.Value}
		}
		for _, p := range points {
			if p[1] != "NaN" {
				list = append(list, s)
				break
			}
		}
	}
	return list
}

var legendLabel = regexp.MustCompile(`\{\{([a-zA-Z_]+)\}\}`)

// nameless is the first label that the legend names and no series has; empty if there is
// none.
func (q *question) nameless(got []answered) string {
	for _, m := range legendLabel.FindAllStringSubmatch(q.legend, -1) {
		found := len(got) == 0
		for _, s := range got {
			found = found || s.Metric[m[1]] != ""
		}
		if !found && m[1] != "version" { // the tests' program is built without one
			return m[1]
		}
	}
	return ""
}
