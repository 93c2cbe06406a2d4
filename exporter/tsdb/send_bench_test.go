package tsdb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

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

// next sets the values of the next scrape. Half of the series are counters, a quarter
// gauges, a quarter constants.
func (l *load) next() {
	for n := range l.values {
		switch n % 4 {
		case 0, 1:
			l.values[n] += float64(l.random.IntN(100))
		case 2:
			l.values[n] = l.random.Float64()
		}
	}
}

// rows are the series of the k-th request with their present values.
func (l *load) rows(k int, request []labels.Labels, at int64) []row {
	rows := make([]row, len(request))
	for j, ls := range request {
		rows[j] = row{labels: ls, points: []point{{t: at, v: l.values[k*seriesPerRequest+j]}}}
	}
	return rows
}

// round makes the requests of one scrape.
func (l *load) round(t testing.TB, v series.Version, at int64) []*series.Batch {
	l.next()
	var batches []*series.Batch
	for k, request := range l.series {
		batches = append(batches, l.ids.request(t, v, l.rows(k, request, at)...))
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

// cpuTime is what this process has used, garbage collection included.
func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure calls round for a scrape after the first, and first for that; a store takes
// 240 scrapes, so that its chunks fill up twice.
func measure(b *testing.B, first func(), round func(i int)) {
	const rounds = 239
	var cpu time.Duration
	for i := range b.N {
		if i%rounds == 0 {
			b.StopTimer()
			cpu += cpuTime(b)
			first()
			cpu -= cpuTime(b)
			b.StartTimer()
		}
		if i == 0 {
			cpu = -cpuTime(b)
		}
		round(1 + i%rounds)
	}
	cpu += cpuTime(b)
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/seriesPerRequest, "cpu-ns/sample")
	b.ReportAllocs()
}

// BenchmarkSend is the cost of a request of known series: all of it, and what of that
// is decompression and walking, and appending to the bare store.
func BenchmarkSend(b *testing.B) {
	for _, v := range versions {
		l := newLoad(seriesPerRequest)
		var batches []*series.Batch
		for i := range 240 {
			batches = append(batches, l.round(b, v, base+int64(i)*15_000)...)
		}
		b.Run(v.String()+"/all", func(b *testing.B) {
			var s *Backend
			measure(b, func() {
				s = store(b, b.TempDir(), nil)
				prepareAndSend(b, s, whole(batches[0]))
			}, func(i int) { prepareAndSend(b, s, whole(batches[i])) })
		})
		b.Run(v.String()+"/decode", func(b *testing.B) {
			var buf []byte
			var m remotewrite.Message
			measure(b, func() {}, func(i int) {
				buf, _ = s2.Decode(buf[:cap(buf)], batches[i].Body)
				_ = m.Scan(v, buf)
			})
		})
	}
	for _, bare := range []struct {
		name   string
		change func(*Options)
	}{
		{"store", nil},
		{"store/without start timestamps", func(o *Options) { o.Config.StartTimestamps = false }},
		{"store/without window", func(o *Options) { o.Config.OutOfOrderTimeWindow = 0 }},
	} {
		b.Run(bare.name, func(b *testing.B) { benchmarkStore(b, bare.change) })
	}
}

// benchmarkStore appends as a Send does, from memory.
func benchmarkStore(b *testing.B, change func(*Options)) {
	l := newLoad(seriesPerRequest)
	values := make([][]float64, 240)
	for i := range values {
		l.next()
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
	measure(b, func() {
		s = store(b, b.TempDir(), change)
		clear(refs)
		put(0)
	}, put)
}

// BenchmarkSendShards is a scrape of 16,000 known series in eight requests, sent by so
// many goroutines.
func BenchmarkSendShards(b *testing.B) {
	for _, shards := range []int{1, 2, 4} {
		b.Run(strconv.Itoa(shards), func(b *testing.B) {
			l := newLoad(8 * seriesPerRequest)
			var rounds [][]*series.Batch
			for i := range 31 {
				rounds = append(rounds, l.round(b, series.V1, base+int64(i)*15_000))
			}
			var s *Backend
			send := func(round []*series.Batch) {
				var wg sync.WaitGroup
				for n := range shards {
					wg.Go(func() {
						for k := n; k < len(round); k += shards {
							prepareAndSend(b, s, whole(round[k]))
						}
					})
				}
				wg.Wait()
			}
			b.ResetTimer()
			var cpu time.Duration
			for i := range b.N {
				if i%30 == 0 {
					b.StopTimer()
					s = store(b, b.TempDir(), nil)
					send(rounds[0])
					b.StartTimer()
				}
				cpu -= cpuTime(b)
				send(rounds[1+i%30])
				cpu += cpuTime(b)
			}
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/8/seriesPerRequest, "cpu-ns/sample")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/8/seriesPerRequest, "wall-ns/sample")
		})
	}
}

// BenchmarkSendNewSeries is the cost of a request of series that the store has never
// seen.
func BenchmarkSendNewSeries(b *testing.B) {
	l := newLoad(20 * seriesPerRequest)
	batches := l.round(b, series.V1, base)
	var cpu time.Duration
	var s *Backend
	for i := range b.N {
		if i%len(batches) == 0 {
			b.StopTimer()
			s = store(b, b.TempDir(), nil)
			b.StartTimer()
		}
		cpu -= cpuTime(b)
		prepareAndSend(b, s, whole(batches[i%len(batches)]))
		cpu += cpuTime(b)
	}
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/seriesPerRequest, "cpu-ns/series")
}

// BenchmarkMemory reports the live memory of a store with 100,000 series after a few
// scrapes.
func BenchmarkMemory(b *testing.B) {
	l := newLoad(100_000)
	for _, request := range l.series {
		for _, ls := range request {
			l.ids.id(ls)
		}
	}
	for range b.N {
		before := heap()
		s := store(b, b.TempDir(), nil)
		for i := range 8 {
			l.next()
			for k, request := range l.series {
				batch := l.ids.batch(b, series.V1, l.rows(k, request, base+int64(i)*15_000)...)
				prepareAndSend(b, s, whole(batch))
				batch.Release()
			}
		}
		b.ReportMetric(float64(heap()-before)/(1<<20), "MiB")
	}
}

// heap is the bytes that live.
func heap() uint64 {
	var m runtime.MemStats
	for range 3 { // pools are emptied in two steps
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A request of known series allocates for its group, not for its series.
func TestSendOfKnownSeriesDoesNotAllocatePerSeries(t *testing.T) {
	for _, v := range versions {
		l := newLoad(seriesPerRequest)
		s := store(t, t.TempDir(), nil)
		const runs = 20
		var parcels []*exporter.Parcel
		for i := range runs + 12 {
			// The values do not change, so that the store's chunks do not grow.
			batch := l.ids.request(t, v, l.rows(0, l.series[0], base+int64(i)*15_000)...)
			parcels = append(parcels, whole(batch))
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
