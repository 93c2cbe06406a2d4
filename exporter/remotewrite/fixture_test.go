package remotewrite

import (
	"context"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	typeV1 = "application/x-protobuf"
	typeV2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
)

// startTime is when samples and clocks of the tests begin.
const startTime = int64(1_763_800_000_000)

// request is what a script server was sent.
type request struct {
	method string
	header http.Header
	body   []byte
	path   string
}

func (r request) isV2() bool { return r.header.Get("Content-Type") == typeV2 }

// v1 decodes the body as a 1.0 message.
func (r request) v1(t testing.TB) *prompb.WriteRequest {
	t.Helper()
	plain, err := snappy.Decode(nil, r.body)
	require.NoError(t, err)
	m := new(prompb.WriteRequest)
	require.NoError(t, m.Unmarshal(plain))
	return m
}

// v2 decodes the body as a 2.0 message.
func (r request) v2(t testing.TB) *writev2.Request {
	t.Helper()
	plain, err := snappy.Decode(nil, r.body)
	require.NoError(t, err)
	m := new(writev2.Request)
	require.NoError(t, m.Unmarshal(plain))
	return m
}

// server is a backend that answers as it is told and remembers what it was sent.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []request
}

// newServer starts a server whose answers come from answer, which may be called from
// several goroutines.
func newServer(t testing.TB, answer func(w http.ResponseWriter, r request)) *server {
	s := new(server)
	s.Server = httptest.NewServer(s.handler(answer))
	t.Cleanup(s.Close)
	return s
}

func (s *server) handler(answer func(w http.ResponseWriter, r request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // a client that broke off
		}
		got := request{method: r.Method, header: r.Header.Clone(), body: body, path: r.URL.Path}
		s.mu.Lock()
		s.requests = append(s.requests, got)
		s.mu.Unlock()
		answer(w, got)
	})
}

// got returns what was sent so far.
func (s *server) got() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.requests...)
}

// status answers with a status and text.
func status(code int, text string) func(http.ResponseWriter, request) {
	return func(w http.ResponseWriter, _ request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, text)
	}
}

// accept answers as a receiver that wrote everything.
func accept(w http.ResponseWriter, r request) {
	if r.isV2() {
		tellWritten(w, r)
	}
	w.WriteHeader(http.StatusNoContent)
}

// tellWritten sets the Written headers to what the request holds.
func tellWritten(w http.ResponseWriter, r request) {
	plain, err := snappy.Decode(nil, r.body)
	if err != nil {
		return
	}
	var m remotewrite.Message
	if m.Scan(series.V2, plain) != nil {
		return
	}
	w.Header().Set(headerSamples, fmt.Sprint(m.Counts.Samples))
	w.Header().Set(headerHistograms, fmt.Sprint(m.Counts.Histograms))
	w.Header().Set(headerExemplars, fmt.Sprint(m.Counts.Exemplars))
}

// clock is a clock that is set by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.UnixMilli(startTime).UTC()} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// harness is a Backend under test with its surroundings.
type harness struct {
	*Backend
	clock    *clock
	registry *prometheus.Registry
	cache    *remotewrite.MetadataCache
}

// newBackend returns a Backend that posts to address, changed by the given functions.
func newBackend(t testing.TB, address string, change ...func(*Config)) *harness {
	t.Helper()
	h := &harness{
		clock:    newClock(),
		registry: prometheus.NewRegistry(),
		cache:    remotewrite.NewMetadataCache(remotewrite.MetadataCacheOptions{}),
	}
	cfg := DefaultConfig()
	cfg.URL = mustURL(t, address)
	for _, f := range change {
		f(&cfg)
	}
	b, err := New(Options{Config: cfg, Name: "main", Metadata: h.cache, Registerer: h.registry, Now: h.clock.Now})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	h.Backend = b
	return h
}

func protocol(p Protocol) func(*Config) { return func(c *Config) { c.Protocol = p } }

func mustURL(t testing.TB, address string) config.URL {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	return config.URL{URL: u}
}

// send prepares a parcel and makes one attempt.
func (h *harness) send(t testing.TB, p *exporter.Parcel) (exporter.Receipt, error) {
	t.Helper()
	d, err := h.Prepare(p)
	require.NoError(t, err)
	defer d.Close()
	return d.Send(t.Context(), 0)
}

// deliver does what a lane does about Renegotiate, at most thrice.
func (h *harness) deliver(ctx context.Context, p *exporter.Parcel) (r exporter.Receipt, err error) {
	for range 3 {
		d, err := h.Prepare(p)
		if err != nil {
			return r, err
		}
		r, err = d.Send(ctx, 0)
		d.Close()
		if e, ok := err.(*exporter.Error); !ok || e.Class != exporter.Renegotiate {
			return r, err
		}
	}
	return r, fmt.Errorf("renegotiated more often than there are protocols")
}

// failure asserts that err is an *exporter.Error of the given class.
func failure(t testing.TB, err error, class exporter.Class) *exporter.Error {
	t.Helper()
	var e *exporter.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, class, e.Class, "%v", err)
	return e
}

// metric returns the value of a counter or gauge of the backend.
func (h *harness) metric(t testing.TB, vec prometheus.Collector) float64 {
	t.Helper()
	return testutil.ToFloat64(vec)
}

type marshaler interface{ Marshal() ([]byte, error) }

// batchOf puts a message into a Batch as the receiver does.
func batchOf(t testing.TB, v series.Version, m marshaler) *series.Batch {
	t.Helper()
	plain, err := m.Marshal()
	require.NoError(t, err)
	packed := snappy.Encode(nil, plain)
	buf := series.NewBuffer(len(packed))
	buf.B = append(buf.B, packed...)
	b := series.NewBatch(buf)
	var msg remotewrite.Message
	require.NoError(t, msg.Scan(v, plain))
	b.Version, b.Decoded, b.Series = v, len(plain), len(msg.Series)
	b.Counts, b.MinTime, b.MaxTime = msg.Counts, msg.MinTime, msg.MaxTime
	b.Legacy = true
	var ls []remotewrite.Label
	for i := range msg.Series {
		ls, err = msg.AppendLabels(ls[:0], i)
		require.NoError(t, err)
		b.Legacy = b.Legacy && remotewrite.LegacyNames(ls)
		b.IDs = append(b.IDs, series.Overflow+series.ID(i))
	}
	return b
}

func parcel(batches ...*series.Batch) *exporter.Parcel {
	p := new(exporter.Parcel)
	for _, b := range batches {
		p.Parts = append(p.Parts, exporter.Part{Batch: b})
	}
	return p
}

// take returns the set of the given ordinals of a batch.
func take(b *series.Batch, ordinals ...int) series.Set {
	s := series.NewSet(b.Series)
	for _, i := range ordinals {
		s.Add(i)
	}
	return s
}

// seriesV1 is a 1.0 series with one sample.
func seriesV1(name string, i int) prompb.TimeSeries {
	return prompb.TimeSeries{
		Labels: []prompb.Label{
			{Name: "__name__", Value: name},
			{Name: "instance", Value: fmt.Sprintf("10.0.%d.%d:9100", i/250, i%250)},
			{Name: "job", Value: "node"},
		},
		Samples: []prompb.Sample{{Value: float64(i) + 0.5, Timestamp: startTime + int64(i)}},
	}
}

// requestV1 is a 1.0 request with n series.
func requestV1(name string, n int) *prompb.WriteRequest {
	m := new(prompb.WriteRequest)
	for i := range n {
		m.Timeseries = append(m.Timeseries, seriesV1(name, i))
	}
	return m
}

// requestV2 is a 2.0 request with n series that have metadata and start timestamps.
func requestV2(name string, n int) *writev2.Request {
	table := writev2.NewSymbolTable()
	m := new(writev2.Request)
	for i := range n {
		out := writev2.TimeSeries{
			Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: table.Symbolize("What " + name + " counts.")},
		}
		in := seriesV1(name, i)
		for _, l := range in.Labels {
			out.LabelsRefs = append(out.LabelsRefs, table.Symbolize(l.Name), table.Symbolize(l.Value))
		}
		out.Samples = []writev2.Sample{{Value: in.Samples[0].Value, Timestamp: in.Samples[0].Timestamp, StartTimestamp: startTime - 1000}}
		m.Timeseries = append(m.Timeseries, out)
	}
	m.Symbols = table.Symbols()
	return m
}

// staleV1 is a 1.0 request with one series that ends.
func staleV1(name string) *prompb.WriteRequest {
	m := requestV1(name, 1)
	m.Timeseries[0].Samples[0].Value = math.Float64frombits(0x7ff0000000000002)
	return m
}

// closedPort returns an address at which nobody listens.
func closedPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// quiet is a log for servers whose clients fail on purpose.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
