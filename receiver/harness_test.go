package receiver_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/receiver"
	"github.com/sluice-metrics/sluice/router"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	typeV1 = "application/x-protobuf"
	typeV2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"

	samplesWritten    = "X-Prometheus-Remote-Write-Samples-Written"
	histogramsWritten = "X-Prometheus-Remote-Write-Histograms-Written"
	exemplarsWritten  = "X-Prometheus-Remote-Write-Exemplars-Written"
)

// start is when the receiver's clock stands in these tests.
var start = time.UnixMilli(1_763_700_000_000)

var startMs = start.UnixMilli()

// gate is a receiver over a real journal on a file system in memory.
type gate struct {
	t        testing.TB
	url      string
	fs       *vfs.Faulty
	journal  *disk.Journal
	cursor   journal.Cursor
	router   *router.Router
	table    *series.Table
	metadata *remotewrite.MetadataCache
	ingester *receiver.Ingester
	handler  *receiver.Handler
	senders  *receiver.Senders
	clock    atomic.Int64 // Unix ms, of the senders
	registry *prometheus.Registry

	mu       sync.Mutex
	appended series.Counts
}

// booked is what the books were told of.
func (g *gate) booked() series.Counts {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.appended
}

// setup is what a test may change about a gate.
type setup struct {
	receiver receiver.Config
	journal  disk.Config
	series   int
	// wrap stands between the ingester and the journal.
	wrap func(receiver.Journal) receiver.Journal
	// pairs judges samples of HA pairs.
	pairs receiver.Pairs
	// shelf is where requests are left that were opened.
	shelf *remotewrite.Shelf
}

func newGate(t testing.TB, change ...func(*setup)) *gate {
	t.Helper()
	s := setup{receiver: receiver.DefaultConfig(), journal: disk.DefaultConfig(), series: 100_000}
	s.receiver.AdmissionTimeout = 1e8 // 100 ms
	for _, f := range change {
		f(&s)
	}
	require.NoError(t, s.receiver.Validate())

	g := &gate{t: t, fs: vfs.NewFaulty(vfs.NewMem()), registry: prometheus.NewRegistry()}
	logger := slog.New(slog.DiscardHandler)
	var err error
	g.journal, err = disk.Open(disk.Options{Dir: "/data", Config: s.journal, FS: g.fs, Logger: logger})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.journal.Run(ctx) }()
	g.cursor, err = g.journal.OpenCursor("all")
	require.NoError(t, err)

	g.table = series.NewTable(s.series)
	g.router = router.New(g.table, 42)
	_, err = g.router.SetBackends([]router.Backend{{Name: "all"}})
	require.NoError(t, err)
	_, err = g.journal.SetBackends([]journal.Backend{{Name: "all"}})
	require.NoError(t, err)

	var j receiver.Journal = g.journal
	if s.wrap != nil {
		j = s.wrap(j)
	}
	g.metadata = remotewrite.NewMetadataCache(remotewrite.MetadataCacheOptions{})
	m := receiver.NewMetrics(g.registry)
	now := func() time.Time { return start }
	g.ingester = receiver.NewIngester(receiver.IngestOptions{
		Config: s.receiver, Resolver: g.router, Journal: j, Metadata: g.metadata, Pairs: s.pairs, Shelf: s.shelf, Metrics: m, Now: now,
		Appended: func(b *series.Batch) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.appended.Add(b.Counts)
		},
	})
	g.clock.Store(startMs)
	g.senders = receiver.NewSenders(func() time.Time { return time.UnixMilli(g.clock.Load()) })
	g.handler = receiver.NewHandler(receiver.Options{Process: "this", Config: s.receiver, Ingester: g.ingester, Senders: g.senders, Metrics: m, Logger: logger, Now: now})
	mux := http.NewServeMux()
	for _, p := range receiver.Paths {
		mux.Handle(p, g.handler)
	}
	server := httptest.NewServer(mux)
	g.url = server.URL
	t.Cleanup(func() {
		server.Close()
		cancel()
		require.NoError(t, <-ended)
		_ = g.journal.Close() // some tests leave it faults to close with
		http.DefaultClient.CloseIdleConnections()
	})
	return g
}

// answer is what a sender is told.
type answer struct {
	status int
	header http.Header
	text   string
}

func (a answer) written(t testing.TB) [3]int {
	t.Helper()
	var n [3]int
	for i, name := range []string{samplesWritten, histogramsWritten, exemplarsWritten} {
		require.Len(t, a.header.Values(name), 1, name)
		v, err := strconv.Atoi(a.header.Get(name))
		require.NoError(t, err, name)
		n[i] = v
	}
	return n
}

func (a answer) noWritten(t testing.TB) {
	t.Helper()
	for _, name := range []string{samplesWritten, histogramsWritten, exemplarsWritten} {
		require.Empty(t, a.header.Values(name), name)
	}
}

// request is a request to be sent with changed parts.
func (g *gate) request(contentType string, body []byte) *http.Request {
	g.t.Helper()
	r, err := http.NewRequest(http.MethodPost, g.url+"/api/v1/write", bytes.NewReader(body))
	require.NoError(g.t, err)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	r.Header.Set("Content-Encoding", "snappy")
	return r
}

func (g *gate) do(r *http.Request) answer {
	g.t.Helper()
	resp, err := http.DefaultClient.Do(r)
	require.NoError(g.t, err)
	return read(g.t, resp)
}

func read(t testing.TB, resp *http.Response) answer {
	t.Helper()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return answer{status: resp.StatusCode, header: resp.Header, text: string(text)}
}

func (g *gate) sendV1(req *prompb.WriteRequest) answer {
	g.t.Helper()
	return g.do(g.request(typeV1, packV1(g.t, req)))
}

func (g *gate) sendV2(req *writev2.Request) answer {
	g.t.Helper()
	return g.do(g.request(typeV2, packV2(g.t, req)))
}

func packV1(t testing.TB, req *prompb.WriteRequest) []byte {
	t.Helper()
	b, err := req.Marshal()
	require.NoError(t, err)
	return snappy.Encode(nil, b)
}

func packV2(t testing.TB, req *writev2.Request) []byte {
	t.Helper()
	b, err := req.Marshal()
	require.NoError(t, err)
	return snappy.Encode(nil, b)
}

// kept is one request as the journal has it.
type kept struct {
	body []byte
	v1   *prompb.WriteRequest
	v2   *writev2.Request
}

// kept reads what the journal has got since the last call. What the batches say about
// themselves is checked against their bodies.
func (g *gate) kept() []kept {
	g.t.Helper()
	var list []kept
	for {
		rec, ok, err := g.cursor.Next(context.Background(), false)
		require.NoError(g.t, err)
		if !ok {
			return list
		}
		b := rec.Batch
		plain, err := snappy.Decode(nil, b.Body)
		require.NoError(g.t, err)
		require.Len(g.t, plain, b.Decoded)
		k := kept{body: bytes.Clone(b.Body)}
		var counts series.Counts
		var n int
		if b.Version == series.V1 {
			k.v1 = &prompb.WriteRequest{}
			require.NoError(g.t, k.v1.Unmarshal(plain))
			n = len(k.v1.Timeseries)
			for _, ts := range k.v1.Timeseries {
				counts.Add(series.Counts{Samples: uint64(len(ts.Samples)), Histograms: uint64(len(ts.Histograms)), Exemplars: uint64(len(ts.Exemplars))})
			}
		} else {
			k.v2 = &writev2.Request{}
			require.NoError(g.t, k.v2.Unmarshal(plain))
			n = len(k.v2.Timeseries)
			for _, ts := range k.v2.Timeseries {
				counts.Add(series.Counts{Samples: uint64(len(ts.Samples)), Histograms: uint64(len(ts.Histograms)), Exemplars: uint64(len(ts.Exemplars))})
			}
		}
		require.Equal(g.t, counts, b.Counts)
		require.Equal(g.t, counts, rec.Counts)
		require.Equal(g.t, n, b.Series)
		require.Equal(g.t, startMs, b.Received)
		b.Release()
		list = append(list, k)
	}
}

// keptOne is kept for exactly one request.
func (g *gate) keptOne() kept {
	g.t.Helper()
	list := g.kept()
	require.Len(g.t, list, 1)
	return list[0]
}

// seriesV1 is each series of a request by its bytes.
func seriesV1(t testing.TB, req *prompb.WriteRequest) []string {
	t.Helper()
	var out []string
	for i := range req.Timeseries {
		b, err := req.Timeseries[i].Marshal()
		require.NoError(t, err)
		out = append(out, string(b))
	}
	return out
}

// seriesV2 is each series of a request by the bytes that it has in a request of its own,
// so that requests with different symbol tables compare.
func seriesV2(t testing.TB, req *writev2.Request) []string {
	t.Helper()
	require.Empty(t, req.Symbols[0])
	var out []string
	for _, ts := range req.Timeseries {
		table := writev2.NewSymbolTable()
		move := func(refs []uint32) (to []uint32) {
			for _, r := range refs {
				to = append(to, table.Symbolize(req.Symbols[r]))
			}
			return to
		}
		ts.LabelsRefs = move(ts.LabelsRefs)
		exemplars := append([]writev2.Exemplar(nil), ts.Exemplars...)
		for i := range exemplars {
			exemplars[i].LabelsRefs = move(exemplars[i].LabelsRefs)
		}
		ts.Exemplars = exemplars
		ts.Metadata.HelpRef = table.Symbolize(req.Symbols[ts.Metadata.HelpRef])
		ts.Metadata.UnitRef = table.Symbolize(req.Symbols[ts.Metadata.UnitRef])
		one := writev2.Request{Symbols: table.Symbols(), Timeseries: []writev2.TimeSeries{ts}}
		b, err := one.Marshal()
		require.NoError(t, err)
		out = append(out, string(b))
	}
	return out
}

// counter is the value of a metric of the receiver.
func (g *gate) counter(name string, pairs ...string) float64 {
	g.t.Helper()
	families, err := g.registry.Gather()
	require.NoError(g.t, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	metrics:
		for _, m := range f.GetMetric() {
			have := map[string]string{}
			for _, l := range m.GetLabel() {
				have[l.GetName()] = l.GetValue()
			}
			for i := 0; i < len(pairs); i += 2 {
				if have[pairs[i]] != pairs[i+1] {
					continue metrics
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// labelsV1 spells labels as they are given: name, value, name, value.
func labelsV1(pairs ...string) (ls []prompb.Label) {
	for i := 0; i < len(pairs); i += 2 {
		ls = append(ls, prompb.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return ls
}

func named(name string) []prompb.Label { return labelsV1("__name__", name, "job", "test") }

func sampleV1(v float64) []prompb.Sample {
	return []prompb.Sample{{Value: v, Timestamp: startMs}}
}

// builderV2 puts a request together.
type builderV2 struct {
	req   writev2.Request
	table writev2.SymbolsTable
}

func newV2() *builderV2 { return &builderV2{table: writev2.NewSymbolTable()} }

func (b *builderV2) refs(pairs ...string) (refs []uint32) {
	for _, s := range pairs {
		refs = append(refs, b.table.Symbolize(s))
	}
	return refs
}

// add appends a series; its labels come from pairs.
func (b *builderV2) add(ts writev2.TimeSeries, pairs ...string) *builderV2 {
	if len(pairs) > 0 {
		ts.LabelsRefs = b.refs(pairs...)
	}
	b.req.Timeseries = append(b.req.Timeseries, ts)
	return b
}

// sample appends a series with one sample.
func (b *builderV2) sample(v float64, pairs ...string) *builderV2 {
	return b.add(writev2.TimeSeries{Samples: []writev2.Sample{{Value: v, Timestamp: startMs}}}, pairs...)
}

func (b *builderV2) exemplar(trace string) writev2.Exemplar {
	return writev2.Exemplar{LabelsRefs: b.refs("trace_id", trace), Value: 0.5, Timestamp: startMs}
}

func (b *builderV2) done() *writev2.Request {
	b.req.Symbols = b.table.Symbols()
	return &b.req
}

// createdField is the created timestamp of rc.3, field 6 of a TimeSeries.
func createdField(ms int64) []byte { return binary.AppendUvarint([]byte{6 << 3}, uint64(ms)) }

// eventually is for what happens on the other side of a connection.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 10*time.Second, time.Millisecond)
}
