package docs

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/internal/gateway"
	"github.com/sluice-metrics/sluice/internal/testutil"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// writeEnv makes TestMetricsPage write the page instead of comparing it.
const writeEnv = "SLUICE_WRITE_DOCS"

// TestMetricsPage compares docs/metrics.md with what a running gateway exports.
func TestMetricsPage(t *testing.T) {
	g := startGateway(t)
	g.exerciseEverything(t)
	exported := g.metrics(t)

	for _, name := range declaredMetrics(t) {
		require.Contains(t, exported, name, "the sources declare it, but this gateway does not export it: make exerciseEverything lead to it")
	}
	want, err := metricsPage(exported)
	require.NoError(t, err)
	if os.Getenv(writeEnv) != "" {
		require.NoError(t, os.WriteFile("metrics.md", []byte(want), 0o644))
	}
	got, err := os.ReadFile("metrics.md")
	require.NoError(t, err)
	require.Equal(t, want, string(got), "docs/metrics.md is not what the gateway exports; run: make generate")
}

// declaredMetrics lists the names in the sources that are declared as those of a metric.
func declaredMetrics(t *testing.T) []string {
	t.Helper()
	declared := regexp.MustCompile(`(?:Name: |NewDesc\(|duration\()"((?:sluice|remote_write)_[a-z_]+)"`)
	names := map[string]bool{}
	for _, file := range sources(t) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			names[string(m[1])] = true
		}
	}
	require.Greater(t, len(names), 50)
	return slices.Sorted(maps.Keys(names))
}

// running is a gateway in this process with an embedded store and a remote-write
// backend, whose counterpart is sink.
type running struct {
	base string
	sink *testutil.Sink
}

func startGateway(t *testing.T) *running {
	t.Helper()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	certFile, keyFile := certificate(t)
	c, err := config.Parse("test.yaml", fmt.Appendf(nil, `
shutdown_timeout: 100ms
backends:
  - name: local
    tsdb: {}
  - name: remote
    max_backlog: {bytes: 1MiB, age: 2s}
    adaptive_sampling: {base_rate: 0.5, backfill: true}
    remote_write: {url: %q, max_backoff: 100ms, tls_config: {cert_file: %q, key_file: %q}}
`, sink.URL(), certFile, keyFile))
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g, err := gateway.New(gateway.Options{
		Config:      c,
		StoragePath: filepath.Join(t.TempDir(), "data"),
		Listener:    listener,
		Serve:       func(l net.Listener, s *http.Server) error { return s.Serve(l) },
		Certificate: func() ([]byte, error) { return os.ReadFile(certFile) },
		Logger:      slog.New(slog.DiscardHandler),
		Now:         time.Now,
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
	})
	r := &running{base: "http://" + listener.Addr().String(), sink: sink}
	testutil.Await(t, 20*time.Second, "the gateway is ready", func() string {
		switch status, body, err := testutil.Get(r.base + "/-/ready"); {
		case err != nil:
			return err.Error()
		case status != http.StatusOK:
			return body
		}
		return ""
	})
	return r
}

func (r *running) metrics(t *testing.T) testutil.Metrics {
	t.Helper()
	m, err := testutil.ScrapeMetrics(r.base + "/metrics")
	require.NoError(t, err)
	return m
}

// exerciseEverything brings the gateway to export also those metrics that it has only
// after what they count: deliveries, refused and given up samples, queries.
func (r *running) exerciseEverything(t *testing.T) {
	t.Helper()
	r.sendFromTheFuture(t)
	status, _, err := testutil.Get(r.base + "/api/v1/query?query=up")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)

	load := testutil.StartLoad(t, testutil.LoadOptions{
		URL: r.base + "/api/v1/write", Protocol: testutil.RW2, Content: testutil.Everything(), Rate: 2000,
	})
	refused := load.Keys()[0]
	r.sink.Behave(testutil.Fault{Refuse: func(key string) bool { return key == refused }, Message: "refused by the test"})
	r.await(t, "sluice_delivered_total", "sluice_rejected_total", "sluice_dead_letters_total", "sluice_lane_divisions_total", "sluice_lane_commits_total", "remote_write_samples_kept_total")
	r.sink.Behave(testutil.Fault{Status: http.StatusServiceUnavailable})
	r.await(t, "sluice_given_up_total")
	load.Stop(t, 10*time.Second)
}

// await waits until every one of the counters has counted for the remote backend.
func (r *running) await(t *testing.T, counters ...string) {
	t.Helper()
	testutil.Await(t, 30*time.Second, "the counters move", func() string {
		m, err := testutil.ScrapeMetrics(r.base + "/metrics")
		if err != nil {
			return err.Error()
		}
		for _, c := range counters {
			if m.Get(c, "backend", "remote") == 0 {
				return c + " is 0"
			}
		}
		return ""
	})
}

// sendFromTheFuture sends a sample that the receiver refuses.
func (r *running) sendFromTheFuture(t *testing.T) {
	t.Helper()
	request := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: "early"}},
		Samples: []prompb.Sample{{Value: 1, Timestamp: time.Now().Add(24 * time.Hour).UnixMilli()}},
	}}}
	plain, err := request.Marshal()
	require.NoError(t, err)
	req, err := testutil.NewWriteRequest(t.Context(), r.base+"/api/v1/write", testutil.RW1, s2.EncodeSnappy(nil, plain))
	require.NoError(t, err)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
}
