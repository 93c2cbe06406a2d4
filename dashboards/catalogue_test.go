package dashboards_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/ha"
	"github.com/sluice-metrics/sluice/internal/gateway"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/postgres"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/receiver"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// catalogue is what the program exports: the labels of each series by its name, and which
// names are those of counters, or of histograms.
type catalogue struct {
	labels     map[string][]string
	counters   map[string]bool
	histograms map[string]bool
}

// scraped is what scraping and rules add.
var scraped = map[string][]string{
	"up":     {},
	"ALERTS": {"alertname", "alertstate", "severity", "backend", "cluster"},
	// Where the gateway serves TLS.
	"sluice_server_certificate_expiry_timestamp_seconds": {},
}

func exported(t *testing.T) *catalogue {
	t.Helper()
	c := &catalogue{labels: map[string][]string{}, counters: map[string]bool{}, histograms: map[string]bool{}}
	for name, labels := range scraped {
		c.add(name, labels)
		c.counters[name] = strings.HasSuffix(name, "_total")
	}
	for _, f := range scrapeGateway(t) {
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = true
			}
		}
		c.family(f.GetName(), keys(labels), f.GetType())
	}
	c.described(t)
	return c
}

func (c *catalogue) family(name string, labels []string, kind dto.MetricType) {
	switch kind {
	case dto.MetricType_HISTOGRAM, dto.MetricType_SUMMARY:
		c.add(name+"_sum", labels)
		c.add(name+"_count", labels)
		c.counters[name+"_sum"], c.counters[name+"_count"] = true, true
	}
	switch kind {
	case dto.MetricType_HISTOGRAM:
		c.add(name, labels)
		c.add(name+"_bucket", append(slices.Clone(labels), "le"))
		c.counters[name+"_bucket"], c.histograms[name] = true, true
	case dto.MetricType_SUMMARY:
		c.add(name, append(slices.Clone(labels), "quantile"))
	case dto.MetricType_COUNTER:
		c.add(name, labels)
		c.counters[name] = true
	default:
		c.add(name, labels)
	}
}

func (c *catalogue) add(name string, labels []string) {
	all := append(slices.Clone(labels), "job", "instance")
	c.labels[name] = keys(set(c.labels[name], all))
}

// described adds what is exported only where there are databases, leases, or something
// has happened: what the collectors say of themselves.
func (c *catalogue) described(t *testing.T) {
	t.Helper()
	r := &recorder{}
	receiver.NewMetrics(r)
	exporter.NewMetrics(r)
	thinning.NewMetrics(r)
	_, err := ledger.NewMetrics(r)
	require.NoError(t, err)
	probe.NewMetrics(r, func() []*probe.Cluster { return nil })
	_, err = lock.NewMetrics(r)
	require.NoError(t, err)
	var nowhere postgres.Config
	nowhere.SetDefaults()
	nowhere.DSN = "postgres://nobody@127.0.0.1:1/none"
	store, err := postgres.New(nowhere, postgres.Options{Pool: "test", Registerer: r, HikariCP: true})
	require.NoError(t, err)
	require.NoError(t, store.Close())
	_, err = ha.New(ha.Options{Config: ha.DefaultConfig(), Store: ha.NewMemory(), Logger: slog.New(slog.DiscardHandler), Registerer: r, Now: time.Now})
	require.NoError(t, err)
	describeBackends(t, r)
	var lane *exporter.Lane
	r.describe(lane)
	var thinner *thinning.Thinner
	r.describe(thinner)
	for _, d := range r.seen {
		c.family(d.name, d.labels, d.kind)
	}
}

// describeBackends opens a backend of each kind, for what it exports only after answers.
func describeBackends(t *testing.T, r *recorder) {
	t.Helper()
	c, err := config.Parse("test.yaml", []byte(twoKinds))
	require.NoError(t, err)
	for i := range c.Backends {
		b, err := c.Backends[i].Open(config.OpenOptions{
			Dir: t.TempDir(), Instance: "test", Metadata: remotewrite.NewMetadataCache(remotewrite.MetadataCacheOptions{}),
			Logger: slog.New(slog.DiscardHandler), Registerer: r,
		})
		require.NoError(t, err)
		require.NoError(t, b.Close())
	}
}

// twoKinds is a configuration with a backend of each kind.
const twoKinds = `
shutdown_timeout: 100ms
backends:
  - name: local
    tsdb: {}
  - name: remote
    remote_write: {url: "http://127.0.0.1:1/api/v1/write"}
`

// recorder is a Registerer that notes what collectors say they export.
type recorder struct{ seen []description }

type description struct {
	name   string
	labels []string
	kind   dto.MetricType
}

func (r *recorder) Register(c prometheus.Collector) error {
	r.describe(c)
	return nil
}

func (r *recorder) MustRegister(list ...prometheus.Collector) {
	for _, c := range list {
		r.describe(c)
	}
}

func (r *recorder) Unregister(prometheus.Collector) bool { return true }

var (
	fqName         = regexp.MustCompile(`fqName: "([^"]+)"`)
	constLabels    = regexp.MustCompile(`constLabels: \{([^}]*)\}`)
	variableLabels = regexp.MustCompile(`variableLabels: \{([^}]*)\}`)
)

// describe reads the descriptions by their text, as a Desc shows nothing else.
func (r *recorder) describe(c prometheus.Collector) {
	ch := make(chan *prometheus.Desc)
	go func() {
		defer close(ch)
		c.Describe(ch)
	}()
	for d := range ch {
		text := d.String()
		out := description{name: fqName.FindStringSubmatch(text)[1], kind: kindOf(c)}
		if m := variableLabels.FindStringSubmatch(text); m != nil && m[1] != "" {
			for _, l := range strings.Split(m[1], ",") {
				out.labels = append(out.labels, strings.TrimSpace(l))
			}
		}
		if m := constLabels.FindStringSubmatch(text); m != nil && m[1] != "" {
			for _, pair := range strings.Split(m[1], ",") {
				name, _, _ := strings.Cut(pair, "=")
				out.labels = append(out.labels, name)
			}
		}
		if out.kind == dto.MetricType_UNTYPED && strings.HasSuffix(out.name, "_total") {
			out.kind = dto.MetricType_COUNTER
		}
		r.seen = append(r.seen, out)
	}
}

func kindOf(c prometheus.Collector) dto.MetricType {
	switch c.(type) {
	case *prometheus.HistogramVec, prometheus.Histogram:
		return dto.MetricType_HISTOGRAM
	case *prometheus.SummaryVec:
		return dto.MetricType_SUMMARY
	case *prometheus.CounterVec:
		return dto.MetricType_COUNTER
	case *prometheus.GaugeVec:
		return dto.MetricType_GAUGE
	}
	return dto.MetricType_UNTYPED
}

// scrapeGateway is what a gateway of this process exports that has one backend of each
// kind.
func scrapeGateway(t *testing.T) testutil.Metrics {
	t.Helper()
	c, err := config.Parse("test.yaml", []byte(twoKinds))
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g, err := gateway.New(gateway.Options{
		Config: c, StoragePath: filepath.Join(t.TempDir(), "data"), Listener: listener,
		Serve:  func(l net.Listener, s *http.Server) error { return s.Serve(l) },
		Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	defer func() {
		stop()
		require.NoError(t, <-done)
	}()
	base := "http://" + listener.Addr().String()
	testutil.Await(t, 20*time.Second, "the gateway is ready", func() string {
		switch status, body, err := testutil.Get(base + "/-/ready"); {
		case err != nil:
			return err.Error()
		case status != http.StatusOK:
			return body
		}
		return ""
	})
	status, _, err := testutil.Get(base + "/api/v1/query?query=up")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	m, err := testutil.ScrapeMetrics(base + "/metrics")
	require.NoError(t, err)
	return m
}

func set(lists ...[]string) map[string]bool {
	s := map[string]bool{}
	for _, list := range lists {
		for _, v := range list {
			s[v] = true
		}
	}
	return s
}

func keys(s map[string]bool) []string {
	var list []string
	for k := range s {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}
