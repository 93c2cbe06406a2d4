package receiver_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/receiver"
	"github.com/sluice-metrics/sluice/router"
)

// acceptingJournal takes everything and keeps nothing.
type acceptingJournal struct{}

func (acceptingJournal) Append(context.Context, *series.Batch) error { return nil }

const benchSeries = 2000

// benchRequest is a request as a node exporter's scrape makes it.
func benchRequest(t testing.TB, v series.Version) []byte {
	t.Helper()
	v1, v2 := &prompb.WriteRequest{}, newV2()
	for i := range benchSeries {
		pairs := []string{
			"__name__", fmt.Sprintf("node_metric_%03d_seconds_total", i/8),
			"cluster", "production-eu-west-1", "cpu", fmt.Sprint(i % 8), "instance", "10.20.30.40:9100",
			"job", "node", "mode", "user", "namespace", "monitoring", "pod", "node-exporter-7f9b8",
		}
		v1.Timeseries = append(v1.Timeseries, prompb.TimeSeries{Labels: labelsV1(pairs...), Samples: sampleV1(float64(i) * 1.1)})
		v2.sample(float64(i)*1.1, pairs...)
	}
	if v == series.V1 {
		return packV1(t, v1)
	}
	return packV2(t, v2.done())
}

func newBenchIngester(t testing.TB) *receiver.Ingester {
	t.Helper()
	r := router.New(series.NewTable(100_000), 42)
	_, err := r.SetBackends([]router.Backend{{Name: "all"}})
	require.NoError(t, err)
	return receiver.NewIngester(receiver.IngestOptions{
		Config: receiver.DefaultConfig(), Resolver: r, Journal: acceptingJournal{},
		Metadata: remotewrite.NewMetadataCache(remotewrite.MetadataCacheOptions{}),
		Metrics:  receiver.NewMetrics(prometheus.NewRegistry()),
		Now:      start.Local,
		Appended: func(*series.Batch) {},
	})
}

func ingest(t testing.TB, in *receiver.Ingester, v series.Version, body []byte) {
	buf := series.NewBuffer(len(body))
	buf.B = append(buf.B, body...)
	result, err := in.Ingest(context.Background(), receiver.Request{Version: v, Body: buf})
	if err != nil || result.Written.Samples != benchSeries {
		t.Fatal(result, err)
	}
}

func benchmarkIngest(b *testing.B, v series.Version) {
	in, body := newBenchIngester(b), benchRequest(b, v)
	ingest(b, in, v, body)
	b.ReportAllocs()
	for b.Loop() {
		ingest(b, in, v, body)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchSeries, "ns/sample")
}

func BenchmarkIngestRW1(b *testing.B) { benchmarkIngest(b, series.V1) }
func BenchmarkIngestRW2(b *testing.B) { benchmarkIngest(b, series.V2) }

// A request of known series costs a fixed few allocations, none of them per series.
func TestIngestAllocations(t *testing.T) {
	for _, v := range []series.Version{series.V1, series.V2} {
		in, body := newBenchIngester(t), benchRequest(t, v)
		ingest(t, in, v, body)
		n := testing.AllocsPerRun(100, func() { ingest(t, in, v, body) })
		require.LessOrEqual(t, n, 6.0, "%s", v)
	}
}
