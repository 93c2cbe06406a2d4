package tsdb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// load makes requests of 2,000 series with 12 labels each, as a scrape of many small
// targets gives them.
type load struct {
	ids    table
	series [][]labels.Labels // by request
	values []float64
	random *rand.Rand
}

const seriesPerRequest = 2000

func newLoad(n int) *load {
	l := &load{random: rand.New(rand.NewPCG(1, 2)), values: make([]float64, n)}
	for i := 0; i < n; i += seriesPerRequest {
		var request []labels.Labels
		for j := i; j < min(n, i+seriesPerRequest); j++ {
			request = append(request, labels.FromStrings(
				"__name__", fmt.Sprintf("container_network_receive_bytes_total_%d", j%200),
				"cluster", "eu-west-1-production",
				"container", "application",
				"endpoint", "https-metrics",
				"image", "registry.example.com/team/application@sha256:0123456789abcdef",
				"instance", fmt.Sprintf("10.%d.%d.%d:10250", j>>16&255, j>>8&255, j&255),
				"interface", "eth0",
				"job", "kubelet",
				"metrics_path", "/metrics/cadvisor",
				"namespace", fmt.Sprintf("namespace-%d", j%97),
				"node", fmt.Sprintf("node-%d.internal", j/200),
				"pod", fmt.Sprintf("application-%08x", j),
			))
		}
		l.series = append(l.series, request)
	}
	return l
}

// round makes the requests of one scrape. Half of the series are counters, a quarter
// gauges, a quarter constants.
func (l *load) round(t testing.TB, v series.Version, at int64) []*series.Batch {
	var batches []*series.Batch
	for i, request := range l.series {
		rows := make([]row, len(request))
		for j, ls := range request {
			n := i*seriesPerRequest + j
			switch n % 4 {
			case 0, 1:
				l.values[n] += float64(l.random.IntN(100))
			case 2:
				l.values[n] = l.random.Float64()
			}
			rows[j] = row{labels: ls, points: []point{{t: at, v: l.values[n]}}}
		}
		batches = append(batches, l.ids.request(t, v, rows...))
	}
	return batches
}

func prepareAndSend(t testing.TB, b *Backend, p *exporter.Parcel) {
	d, err := b.Prepare(p)
	require.NoError(t, err)
	_, err = d.Send(context.Background(), 0)
	require.NoError(t, err)
	d.Close()
}

// BenchmarkSend is the cost of a request of known series: all of it, and what of that
// is decompression, walking and appending to the bare store.
func BenchmarkSend(b *testing.B) {
	for _, v := range versions {
		l := newLoad(seriesPerRequest)
		const rounds = 240
		var batches []*series.Batch
		for i := range rounds {
			batches = append(batches, l.round(b, v, base+int64(i)*15_000)...)
		}
		perSample := func(b *testing.B) {
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/seriesPerRequest, "ns/sample")
			b.ReportAllocs()
		}
		b.Run(v.String()+"/all", func(b *testing.B) {
			s := store(b, b.TempDir(), nil)
			prepareAndSend(b, s, whole(batches[0]))
			b.ResetTimer()
			for i := range b.N {
				if i%(rounds-1) == 0 && i > 0 {
					b.StopTimer()
					s = store(b, b.TempDir(), nil)
					prepareAndSend(b, s, whole(batches[0]))
					b.StartTimer()
				}
				prepareAndSend(b, s, whole(batches[1+i%(rounds-1)]))
			}
			perSample(b)
		})
		b.Run(v.String()+"/decode", func(b *testing.B) {
			var buf []byte
			var m remotewrite.Message
			for i := range b.N {
				batch := batches[i%rounds]
				buf, _ = s2.Decode(buf[:cap(buf)], batch.Body)
				_ = m.Scan(v, buf)
			}
			perSample(b)
		})
	}
	b.Run("store", func(b *testing.B) {
		l := newLoad(seriesPerRequest)
		const rounds = 240
		values := make([][]float64, rounds)
		for i := range values {
			l.round(b, series.V1, 0)
			values[i] = append(values[i], l.values...)
		}
		refs := make([]storage.SeriesRef, seriesPerRequest)
		var s *Backend
		put := func(i int) {
			app := s.db.AppenderV2(context.Background())
			for j := range refs {
				ref, err := app.Append(refs[j], l.series[0][j], 0, base+int64(i)*15_000, values[i][j], nil, nil, storage.AOptions{})
				if err != nil {
					b.Fatal(err)
				}
				refs[j] = ref
			}
			if err := app.Commit(); err != nil {
				b.Fatal(err)
			}
		}
		for i := range b.N {
			if i%(rounds-1) == 0 {
				b.StopTimer()
				s = store(b, b.TempDir(), nil)
				clear(refs)
				put(0)
				b.StartTimer()
			}
			put(1 + i%(rounds-1))
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/seriesPerRequest, "ns/sample")
		b.ReportAllocs()
	})
}

// BenchmarkMemory reports the live memory of a store with 100,000 series after 40
// scrapes.
func BenchmarkMemory(b *testing.B) {
	l := newLoad(100_000)
	for range b.N {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := store(b, b.TempDir(), nil)
		for i := range 40 {
			for _, batch := range l.round(b, series.V1, base+int64(i)*15_000) {
				prepareAndSend(b, s, whole(batch))
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
	}
}

// A request of known series allocates for its group, not for its series.
func TestSendOfKnownSeriesDoesNotAllocatePerSeries(t *testing.T) {
	for _, v := range versions {
		l := newLoad(seriesPerRequest)
		s := store(t, t.TempDir(), nil)
		const runs = 50
		var parcels []*exporter.Parcel
		for i := range runs + 12 {
			p := whole(l.constant(t, v, base+int64(i)*15_000))
			parcels = append(parcels, p)
		}
		next := 0
		send := func() {
			prepareAndSend(t, s, parcels[next])
			next++
		}
		for range 10 {
			send()
		}
		n := testing.AllocsPerRun(runs, send)
		t.Logf("%s: %.0f allocations for %d series", v, n, seriesPerRequest)
		require.Less(t, n, 40.0)
		require.EqualValues(t, seriesPerRequest, counterValue(t, s.metrics.lookups))
	}
}

// constant is a request in which no value changes, so that the store's chunks do not
// grow.
func (l *load) constant(t testing.TB, v series.Version, at int64) *series.Batch {
	rows := make([]row, seriesPerRequest)
	for j, ls := range l.series[0] {
		rows[j] = row{labels: ls, points: []point{{t: at, v: 1}}}
	}
	return l.ids.request(t, v, rows...)
}
