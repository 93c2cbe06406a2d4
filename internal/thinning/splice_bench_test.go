package thinning_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/sampler"
)

const benchSeries = 2000

// cadvisor makes rounds of what a Prometheus sends that scrapes containers of a Kubernetes
// cluster every 15 s: 12 labels and one sample a series, in bodies of 2,000 series.
func cadvisor(v series.Version, rounds int) (all []*series.Batch) {
	rng := rand.New(rand.NewPCG(1, 2))
	hex := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "0123456789abcdef"[rng.IntN(16)]
		}
		return string(b)
	}
	var list []scrape
	var target []prompb.Label
	for i := range benchSeries {
		if i%46 == 0 {
			target = []prompb.Label{
				{Name: "cluster", Value: "prod-eu-west-1"},
				{Name: "container", Value: "catalog-service"},
				{Name: "endpoint", Value: "https-metrics"},
				{Name: "id", Value: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + hex(32) + ".slice/cri-containerd-" + hex(64) + ".scope"},
				{Name: "image", Value: "registry.example.com/platform/catalog-service:v1.42.7"},
				{Name: "instance", Value: fmt.Sprintf("10-20-%d-%d.eu-west-1.compute.internal:10250", rng.IntN(250), rng.IntN(250))},
				{Name: "job", Value: "kubelet"},
				{Name: "metrics_path", Value: "/metrics/cadvisor"},
				{Name: "namespace", Value: "catalog"},
				{Name: "node", Value: "ip-10-20-7-" + hex(3) + ".eu-west-1.compute.internal"},
				{Name: "pod", Value: fmt.Sprintf("catalog-service-%s-%s", hex(10), hex(5))},
			}
		}
		a := &actor{id: series.Overflow + series.ID(i), v: math.Floor(rng.Float64() * 1e8)}
		a.name = fmt.Sprintf("container_network_transmit_packets_dropped_%02d_total", i%46)
		a.labels = append([]prompb.Label{{Name: "__name__", Value: a.name}}, target...)
		list = append(list, scrape{a: a})
	}
	for round := range rounds {
		for i := range list {
			s := &list[i]
			switch {
			case i%4 == 0:
				s.a.v = 0
			case i%4 != 1 || round%4 == 0:
				s.a.v += float64(rng.IntN(1000))
			}
			s.floats = []writev2.Sample{{Value: s.a.v, Timestamp: someTime + int64(round)*15_000 + int64(i/46)*7}}
		}
		b := makeBatch(v, list)
		b.Received = someTime + int64(round)*15_000
		all = append(all, b)
	}
	return all
}

// shares are steps that keep about so much of cadvisor's samples.
var shares = []struct {
	name string
	step sampler.Step
}{
	{"1.00", sampler.Step{Rate: 1}},
	{"0.50", sampler.Step{Rate: 0.5, Pressure: 0.07}},
	{"0.25", sampler.Step{Rate: 0.25, Pressure: 0.2}},
	{"0.05", sampler.Step{Rate: 0.05, Pressure: 1}},
}

// warm is a Splicer that knows the series of the batches, and has its scratch.
func warm(t testing.TB, batches []*series.Batch, step sampler.Step) *thinning.Splicer {
	s, smp := newSplicer(t, nil)
	for i, b := range batches {
		if i == len(batches)/2 {
			smp.Set(step)
		}
		r, err := s.Splice(b, nil)
		require.NoError(t, err)
		if r.Batch != nil {
			r.Batch.Release()
		}
	}
	return s
}

func BenchmarkSplicer(b *testing.B) {
	const before = 16
	for _, v := range []series.Version{series.V1, series.V2} {
		batches := cadvisor(v, 200)
		for _, share := range shares {
			for _, mode := range []string{"Splice", "Observe"} {
				b.Run(fmt.Sprintf("%s/%s/%s", v, mode, share.name), func(b *testing.B) {
					at := len(batches)
					var s *thinning.Splicer
					var kept, taken uint64
					b.ReportAllocs()
					for b.Loop() {
						if at == len(batches) {
							b.StopTimer()
							s, at = warm(b, batches[:before], share.step), before
							b.StartTimer()
						}
						do := s.Splice
						if mode == "Observe" {
							do = s.Observe
						}
						s.Enter(journal.Position{Segment: uint64(at/10 + 1)})
						r, err := do(batches[at], nil)
						if err != nil {
							b.Fatal(err)
						}
						if r.Batch != nil {
							r.Batch.Release()
						}
						kept += r.Kept.Samples + r.Restored.Samples
						taken += r.Taken.Samples
						at++
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(taken), "ns/sample")
					b.ReportMetric(float64(kept)/float64(taken), "kept")
				})
			}
		}
	}
}

func BenchmarkRestorer(b *testing.B) {
	batches := cadvisor(series.V1, 200)
	for _, share := range shares[1:] {
		b.Run(share.name, func(b *testing.B) {
			at := len(batches)
			var r *thinning.Restorer
			var taken uint64
			for b.Loop() {
				if at == len(batches) {
					b.StopTimer()
					var smp *sampler.Sampler
					r, smp = newRestorer(b, nil)
					for _, x := range batches[:16] {
						require.NoError(b, r.Observe(x, nil))
					}
					smp.Set(share.step)
					at = 16
					b.StartTimer()
				}
				var out thinning.Out
				if err := r.Add(batches[at], nil, &out); err != nil {
					b.Fatal(err)
				}
				for _, x := range out.Batches {
					x.Release()
				}
				taken += benchSeries
				at++
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(taken), "ns/sample")
		})
	}
}

// What a batch costs in allocations does not grow with its series.
func TestSplicer_AllocatesNothingPerSeries(t *testing.T) {
	for _, v := range []series.Version{series.V1, series.V2} {
		batches := cadvisor(v, 80)
		for _, share := range shares {
			s := warm(t, batches[:40], share.step)
			at := 40
			allocs := testing.AllocsPerRun(30, func() {
				r, err := s.Splice(batches[at], nil)
				require.NoError(t, err)
				if r.Batch != nil {
					r.Batch.Release()
				}
				at++
			})
			require.LessOrEqual(t, allocs, 10.0, "%s, kept %s", v, share.name)
		}
	}
}
