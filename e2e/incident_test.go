package e2e

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-metrics/sluice/alerts"
	"github.com/sluice-metrics/sluice/internal/testutil"
)

// incident is a gateway with everything that it can have, in trouble.
type incident struct {
	sluice *testutil.Sluice
	config string
	// leaving is the part of config that is taken out of it.
	leaving string
	begin   time.Time

	primary, replica *testutil.Postgres
	source, copied   *testutil.MariaDB
	sink, away       *testutil.Sink
}

func startIncident(t *testing.T) *incident {
	t.Helper()
	w := &incident{
		primary: testutil.StartPostgres(t, testutil.PostgresOptions{}),
		source:  testutil.StartMariaDB(t, testutil.MariaDBOptions{ServerID: 1}),
		copied:  testutil.StartMariaDB(t, testutil.MariaDBOptions{ServerID: 2}),
		sink:    testutil.StartSink(t, testutil.SinkOptions{}),
		away:    testutil.StartSink(t, testutil.SinkOptions{}),
	}
	w.replica = w.primary.StartReplica(t, testutil.PostgresOptions{Name: "r1"})
	w.copied.Follow(t, w.source.Addr)
	w.source.Exec(t, "CREATE TABLE app.orders (id INT)") // a replica without any change has no position
	w.start(t)
	load := testutil.StartLoad(t, testutil.LoadOptions{
		URL: w.sluice.WriteURL(), Protocol: testutil.RW2, Content: testutil.Content{Metadata: true, StartTimes: true},
		Series: 2000, Batch: 500, Rate: 2000, Step: time.Second,
	})
	w.sendPairs(t)
	w.evaluate(t)
	w.ask(t, question{expr: "up", instant: true})
	w.away.Down()
	time.Sleep(15 * time.Second) // the sampler has to know the cadence

	bad := load.Keys()[0]
	w.sink.Behave(testutil.Fault{SamplesPerSecond: 500, Refuse: func(key string) bool { return key == bad }, Message: "refused by the test"})
	block(t, w.primary)
	w.replica.Exec(t, "SELECT pg_wal_replay_pause()")
	w.primary.Exec(t, "CREATE TABLE behind AS SELECT generate_series(1, 1000)")
	w.copied.Exec(t, "STOP SLAVE SQL_THREAD")
	w.source.Exec(t, "CREATE TABLE app.behind (id INT)")
	w.await(t)
	w.sink.Behave(testutil.Fault{})
	// A cluster that is not watched any more gives up its lease.
	w.sluice.Configure(t, strings.Replace(w.config, w.leaving, "", 1))
	status, body := w.sluice.Reload(t)
	require.Equal(t, http.StatusOK, status, body)
	w.ask(t, question{expr: "up", instant: true}) // readers of the embedded store are shown too
	time.Sleep(8 * time.Second)                   // panels look at rates of some seconds
	load.Stop(t, 10*time.Second)
	return w
}

// start starts the gateway, and another one that serves TLS, takes from the first, and
// sends it what is to be known of its certificate.
func (w *incident) start(t *testing.T) {
	t.Helper()
	cache := testutil.StartRedis(t, testutil.RedisOptions{})
	cache.Do(t, "XADD", "orders", "*", "a", "1")
	cache.Do(t, "XGROUP", "CREATE", "orders", "billing", "0")
	cache.Do(t, "XADD", "orders", "*", "a", "2")
	cache.Do(t, "XREADGROUP", "GROUP", "billing", "c1", "COUNT", "1", "STREAMS", "orders", ">")
	etcd := testutil.StartEtcd(t, testutil.EtcdOptions{})
	certFile, keyFile := certificate(t)
	web := filepath.Join(t.TempDir(), "web.yaml")
	require.NoError(t, os.WriteFile(web, fmt.Appendf(nil, "tls_server_config: {cert_file: %q, key_file: %q}\n", certFile, keyFile), 0o600))
	guarded := testutil.NewSluice(t, testutil.SluiceOptions{Args: []string{"--web.config.file=" + web}})

	w.leaving = fmt.Sprintf(leavingCluster, cache.Addr)
	w.config = fmt.Sprintf(incidentConfig,
		w.primary.DSN("postgres"), w.replica.DSN("postgres"), w.source.Addr, w.copied.Addr, cache.Addr, startKafka(t), etcd.Endpoints()[0],
		w.leaving, w.primary.DSN("postgres"), w.sink.URL(), w.away.URL(), "https://"+guarded.Address+"/api/v1/write", certFile)
	w.begin = time.Now()
	w.sluice = testutil.StartSluice(t, testutil.SluiceOptions{Env: []string{"GOMEMLIMIT=2GiB"}, Config: w.config})
	guarded.Configure(t, fmt.Sprintf(guardedConfig, w.sluice.WriteURL()))
	guarded.Launch(t)
	awaitSeries(t, w.sluice.URL(""), "sluice_server_certificate_expiry_timestamp_seconds")
}

// certificate writes one for 127.0.0.1, and its key, into a folder of the test.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	require.NoError(t, err)
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	return certFile, keyFile
}

// startKafka starts an imitation of a broker, one of whose topics a group has read a part
// of.
func startKafka(t *testing.T) (addr string) {
	t.Helper()
	const topic = "orders"
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	addr = c.ListenAddrs()[0]
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumerGroup("billing"), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit())
	require.NoError(t, err)
	t.Cleanup(client.Close)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for range 3 {
		require.NoError(t, client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr())
	}
	read := client.PollRecords(ctx, 1)
	require.NoError(t, read.Err())
	require.NoError(t, client.CommitRecords(ctx, read.Records()...))
	return addr
}

// evaluate starts a Prometheus that evaluates the rules over what the gateway exports, and
// writes its alerts to it.
func (w *incident) evaluate(t *testing.T) {
	t.Helper()
	rules := filepath.Join(t.TempDir(), "rules")
	o := alerts.DefaultOptions()
	o.Speed = alertSpeed
	require.NoError(t, alerts.Write(rules, o))
	testutil.StartPrometheus(t, testutil.PrometheusOptions{Config: fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 1s}
rule_files: [%q]
scrape_configs: [{job_name: sluice, static_configs: [{targets: [%q]}]}]
remote_write:
  - url: %q
    write_relabel_configs: [{source_labels: [__name__], regex: ALERTS, action: keep}]
`, filepath.Join(rules, "*.yaml"), w.sluice.Address, w.sluice.WriteURL())})
}

// await waits until everything that was broken shows.
func (w *incident) await(t *testing.T) {
	t.Helper()
	testutil.Await(t, 40*time.Second, "less is sent, and something is refused and given up", func() string {
		m := w.sluice.Metrics(t)
		switch {
		case m.Get("remote_write_debt_samples", "backend", "thin") == 0:
			return "nothing is owed"
		case m.Get("sluice_dead_letters_total", "backend", "thin") == 0:
			return "no dead letters"
		case m.Get("sluice_given_up_total", "backend", "away", "reason", "max_backlog") == 0:
			return "nothing is given up"
		case m.Get("replica_lag_seconds", "target", w.replica.Addr) < 2:
			return "the replica does not lag"
		case m.Get("replica_lag_transactions", "target", w.copied.Addr) == 0:
			return "no transaction is missing in MariaDB's replica"
		case m.Get("replica_applier_running", "target", w.copied.Addr) != 0:
			return "the applier runs"
		case m.Get("db_lock_wait_oldest_seconds", "target", w.primary.Addr) < 2:
			return "nobody waits"
		}
		return ""
	})
}

const incidentConfig = `
own_metrics: {interval: 1s}
journal: {durability: fsync}
adaptive_sampling:
  enabled: true
  backpressure_thresholds: {queue_length: 2000, write_latency_ms: 300, queue_age_seconds: 2}
  backfill: true
  backfill_share: 0.5
clusters:
  - name: shop
    postgres: {targets: [{dsn: %q}, {dsn: %q}]}
  - name: stock
    mariadb: {targets: [{dsn: "mariadb://root@%s"}, {dsn: "mariadb://root@%s"}]}
  - name: cache
    redis: {targets: [{dsn: "redis://%s"}], streams: [{key: orders}]}
  - name: bus
    kafka: {targets: [{dsn: "kafka://%s"}]}
  - name: registry
    etcd: {targets: [{dsn: %q}]}
%slease:
  postgres: {dsn: %q}
ha: {enabled: true}
backends:
  - name: local
    tsdb: {}
  - name: thin
    remote_write: {url: %q, out_of_order_time_window: 1h, max_backoff: 1s}
  - name: away
    match: ['{__name__="pair_up"}']
    max_backlog: {age: 5s}
    remote_write: {url: %q, max_backoff: 1s}
  - name: guarded
    match: ['{__name__="pair_up"}']
    remote_write: {url: %q, tls_config: {ca_file: %q}}
`

// leavingCluster is taken out of the configuration during the incident.
const leavingCluster = `  - name: leaving
    redis: {targets: [{dsn: "redis://%s"}]}
`

const guardedConfig = `
own_metrics: {interval: 1s}
backends:
  - name: all
    match: ['{__name__="pair_up"}']
    tsdb: {}
  - name: first
    match: ['{__name__="sluice_server_certificate_expiry_timestamp_seconds"}']
    remote_write: {url: %q, max_backoff: 1s}
`

// requireProbed requires that sluice probe once tells of all clusters what there is.
func (w *incident) requireProbed(t *testing.T) {
	t.Helper()
	out, err := exec.Command(w.sluice.Program(), "probe", "once", "--config.file="+w.sluice.File).CombinedOutput()
	require.NoError(t, err, string(out))
	text := regexp.MustCompile(` +`).ReplaceAllString(string(out), " ")
	t.Log(string(out))
	for _, want := range []string{
		`shop ` + w.primary.Addr + ` postgres primary - - - 1 session \d+ \(1 deep\)`,
		`stock ` + w.copied.Addr + ` mariadb replica .+s 0 `,
		`bus \S+ kafka - 2 records `,
		`registry \S+ etcd leader 0 entries `,
		`shop ` + w.primary.Addr + ` waits 1 for relation AccessShareLock in postgres, the first since `,
		`shop ` + w.primary.Addr + ` blocked session \d+ by \d+`,
		`shop ` + w.primary.Addr + ` deadlocks 0`,
		`shop ` + w.primary.Addr + ` transactions oldest .*committed \d+, rolled back \d+`,
		`shop ` + w.primary.Addr + ` sessions active \d+, .*limit \d+`,
		`shop ` + w.primary.Addr + ` slot r1: active, keeps \d+ bytes of log`,
		`cache \S+ stream group billing of orders: 1 behind for \S+, 1 pending for \S+`,
		`bus \S+ consumer group billing of orders: 2 records behind`,
		`registry \S+ member term \d+, index \d+, applied \d+`,
	} {
		require.Regexp(t, want, text)
	}
}

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
