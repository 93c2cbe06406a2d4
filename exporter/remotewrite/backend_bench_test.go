package remotewrite

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
)

// newSink starts a server that drops what it gets and says that it wrote it.
func newSink(t testing.TB) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set(headerSamples, "10000")
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.Close)
	return s
}

// payloadV1 is a request of a Prometheus that scrapes containers: 12 labels and about 560
// bytes a series, of which snappy leaves an eighth.
func payloadV1(n int, seed uint64) *prompb.WriteRequest {
	rng := rand.New(rand.NewPCG(seed, 2))
	m := new(prompb.WriteRequest)
	var target []prompb.Label
	for i := range n {
		if i%40 == 0 {
			id := fmt.Sprintf("%016x%016x", rng.Uint64(), rng.Uint64())
			target = []prompb.Label{
				{Name: "cluster", Value: "prod-eu-west-1"},
				{Name: "container", Value: "catalog-service"},
				{Name: "endpoint", Value: "https-metrics"},
				{Name: "id", Value: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + id + ".slice/cri-containerd-" + id + id + ".scope"},
				{Name: "image", Value: "registry.example.com/platform/catalog-service:v1.42.7"},
				{Name: "instance", Value: fmt.Sprintf("10-20-%d-%d.eu-west-1.compute.internal:10250", rng.IntN(250), rng.IntN(250))},
				{Name: "job", Value: "kubelet"},
				{Name: "metrics_path", Value: "/metrics/cadvisor"},
				{Name: "namespace", Value: "catalog"},
				{Name: "node", Value: "ip-10-20-7-" + id[:3] + ".eu-west-1.compute.internal"},
				{Name: "pod", Value: "catalog-service-" + id[:10] + "-" + id[20:25]},
			}
		}
		m.Timeseries = append(m.Timeseries, prompb.TimeSeries{
			Labels:  append([]prompb.Label{{Name: "__name__", Value: fmt.Sprintf("container_network_transmit_packets_%02d_total", i%40)}}, target...),
			Samples: []prompb.Sample{{Value: float64(rng.IntN(1e8)), Timestamp: startTime + int64(i%7)}},
		})
	}
	return m
}

// payloadV2 is payloadV1 as a 2.0 request.
func payloadV2(n int, seed uint64) *writev2.Request {
	table := writev2.NewSymbolTable()
	m := new(writev2.Request)
	for _, in := range payloadV1(n, seed).Timeseries {
		out := writev2.TimeSeries{Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: table.Symbolize("Packets sent.")}}
		for _, l := range in.Labels {
			out.LabelsRefs = append(out.LabelsRefs, table.Symbolize(l.Name), table.Symbolize(l.Value))
		}
		out.Samples = []writev2.Sample{{Value: in.Samples[0].Value, Timestamp: in.Samples[0].Timestamp}}
		m.Timeseries = append(m.Timeseries, out)
	}
	m.Symbols = table.Symbols()
	return m
}

// shapes are the parcels of 10,000 samples that a lane sends.
func shapes(t testing.TB) map[string]struct {
	protocol Protocol
	parcel   *exporter.Parcel
} {
	var v1, v2 []*series.Batch
	for i := range uint64(5) {
		v1 = append(v1, batchOf(t, series.V1, payloadV1(2000, i)))
		v2 = append(v2, batchOf(t, series.V2, payloadV2(2000, i)))
	}
	divided := parcel(v1...)
	for i := range divided.Parts {
		divided.Parts[i].Take = series.NewSet(2000)
		for k := range 1999 {
			divided.Parts[i].Take.Add(k)
		}
	}
	type shape = struct {
		protocol Protocol
		parcel   *exporter.Parcel
	}
	return map[string]shape{
		"rw1 whole to rw1":   {ProtocolRW1, parcel(v1...)},
		"rw1 divided to rw1": {ProtocolRW1, divided},
		"rw2 whole to rw2":   {ProtocolRW2, parcel(batchOf(t, series.V2, payloadV2(10000, 9)))},
		"rw2 joined to rw2":  {ProtocolRW2, parcel(v2...)},
		"rw1 to rw2":         {ProtocolRW2, parcel(v1...)},
		"rw2 to rw1":         {ProtocolRW1, parcel(v2...)},
	}
}

// processorTime is what the process used of the processors so far: the measure that
// holds on a machine with other work.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSend is Prepare, one attempt over loopback and Close for a parcel of 10,000
// samples. The figures include the server.
func BenchmarkSend(b *testing.B) {
	sink := newSink(b)
	for name, s := range shapes(b) {
		b.Run(name, func(b *testing.B) {
			h := newBackend(b, sink.URL, protocol(s.protocol))
			b.ReportAllocs()
			start := processorTime(b)
			for b.Loop() {
				d, err := h.Prepare(s.parcel)
				if err == nil {
					_, err = d.Send(b.Context(), 0)
					d.Close()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(processorTime(b)-start)/float64(b.N)/10000, "cpu-ns/sample")
		})
	}
}

// BenchmarkPrepare is the part of it that is ours alone.
func BenchmarkPrepare(b *testing.B) {
	for name, s := range shapes(b) {
		b.Run(name, func(b *testing.B) {
			h := newBackend(b, "http://127.0.0.1:1/", protocol(s.protocol))
			b.ReportAllocs()
			start := processorTime(b)
			for b.Loop() {
				d, err := h.Prepare(s.parcel)
				if err != nil {
					b.Fatal(err)
				}
				d.Close()
			}
			b.ReportMetric(float64(processorTime(b)-start)/float64(b.N)/10000, "cpu-ns/sample")
		})
	}
}

// The ceilings hold per request of 10,000 samples. What is measured is our side and the
// HTTP client's and server's of one exchange: about 90, more when the garbage collector
// has emptied the pools.
func TestAllocations(t *testing.T) {
	sink := newSink(t)
	for name, s := range shapes(t) {
		t.Run(name, func(t *testing.T) {
			h := newBackend(t, sink.URL, protocol(s.protocol))
			send := func() {
				d, err := h.Prepare(s.parcel)
				require.NoError(t, err)
				_, err = d.Send(t.Context(), 0)
				require.NoError(t, err)
				d.Close()
			}
			send()
			require.LessOrEqual(t, testing.AllocsPerRun(20, send), 200.0)
		})
	}
}
