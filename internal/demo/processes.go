package demo

import (
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// registration makes metrics of one instance.
type registration struct{ r prometheus.Registerer }

func (r registration) counter(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	r.r.MustRegister(c)
	return c
}

func (r registration) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	r.r.MustRegister(g)
	return g
}

// runtimeOf makes what every Go program tells of itself.
func runtimeOf(r registration, rng *rand.Rand) process {
	goroutines := r.gauge("go_goroutines", "Number of goroutines.").WithLabelValues()
	heap := r.gauge("go_memstats_heap_alloc_bytes", "Bytes of heap in use.").WithLabelValues()
	cpu := r.counter("process_cpu_seconds_total", "CPU time used, in seconds.").WithLabelValues()
	resident := r.gauge("process_resident_memory_bytes", "Resident memory in bytes.").WithLabelValues()
	base := 60e6 + rng.Float64()*40e6
	return func(_, dt time.Duration) {
		goroutines.Set(float64(30 + rng.IntN(20)))
		heap.Set(base * (0.5 + 0.4*rng.Float64()))
		cpu.Add(dt.Seconds() * (0.05 + 0.1*rng.Float64()))
		resident.Set(base)
	}
}

// newShop answers requests; now and then one instance answers many with errors.
func newShop(reg prometheus.Registerer, rng *rand.Rand) process {
	r := registration{reg}
	base := runtimeOf(r, rng)
	requests := r.counter("http_requests_total", "Requests that were answered.", "path", "code")
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "http_request_duration_seconds", Help: "Time that a request took, in seconds.",
		Buckets: []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1},
	}, []string{"path"})
	reg.MustRegister(duration)
	inFlight := r.gauge("http_requests_in_flight", "Requests that are being answered.").WithLabelValues()
	phase := rng.Float64()
	paths := []string{"/", "/cart", "/pay"}
	return func(at, dt time.Duration) {
		base(at, dt)
		load := 4 + 16*wave(at, 3*time.Minute, phase)
		wrong := 0.005
		if wave(at, 7*time.Minute, phase) > 0.95 {
			wrong = 0.12
		}
		for i, path := range paths {
			n := int(load*dt.Seconds()/float64(i+1) + rng.Float64())
			failed := 0
			for range n {
				duration.WithLabelValues(path).Observe(rng.ExpFloat64() * 0.02 * float64(i+1))
				if rng.Float64() < wrong {
					failed++
				}
			}
			requests.WithLabelValues(path, "200").Add(float64(n - failed))
			requests.WithLabelValues(path, "500").Add(float64(failed))
		}
		inFlight.Set(float64(rng.IntN(1 + int(load/4))))
	}
}

// newQueue works off messages that arrive in waves.
func newQueue(reg prometheus.Registerer, rng *rand.Rand) process {
	r := registration{reg}
	base := runtimeOf(r, rng)
	processed := r.counter("queue_processed_total", "Messages that were worked off.", "queue")
	depth := r.gauge("queue_depth", "Messages that wait.", "queue")
	oldest := r.gauge("queue_oldest_seconds", "Age of the oldest message that waits, in seconds.", "queue")
	queues := []string{"mail", "orders", "images", "audit"}
	waiting := make([]float64, len(queues))
	phase := rng.Float64()
	const capacity = 60 // a second
	return func(at, dt time.Duration) {
		base(at, dt)
		for i, name := range queues {
			waiting[i] += 90 * wave(at, 4*time.Minute, phase+float64(i)/4) * dt.Seconds()
			done := min(waiting[i], capacity*dt.Seconds())
			waiting[i] -= done
			processed.WithLabelValues(name).Add(done)
			depth.WithLabelValues(name).Set(float64(int(waiting[i])))
			oldest.WithLabelValues(name).Set(waiting[i] / capacity)
		}
	}
}

// newNode is a machine.
func newNode(reg prometheus.Registerer, rng *rand.Rand) process {
	r := registration{reg}
	cpu := r.counter("node_cpu_seconds_total", "Time that a CPU spent, in seconds.", "cpu", "mode")
	memory := r.gauge("node_memory_MemAvailable_bytes", "Memory that is available, in bytes.").WithLabelValues()
	total := r.gauge("node_memory_MemTotal_bytes", "Memory, in bytes.").WithLabelValues()
	free := r.gauge("node_filesystem_avail_bytes", "Room on a filesystem, in bytes.", "mountpoint")
	received := r.counter("node_network_receive_bytes_total", "Bytes that were received.", "device")
	load := r.gauge("node_load1", "Load over a minute.").WithLabelValues()
	total.Set(16 << 30)
	phase := rng.Float64()
	return func(at, dt time.Duration) {
		busy := 0.1 + 0.7*wave(at, 3*time.Minute, phase)
		for i := range 4 {
			name := strconv.Itoa(i)
			used := dt.Seconds() * busy * (0.9 + 0.1*rng.Float64())
			cpu.WithLabelValues(name, "user").Add(0.8 * used)
			cpu.WithLabelValues(name, "system").Add(0.2 * used)
			cpu.WithLabelValues(name, "idle").Add(max(0, dt.Seconds()-used))
		}
		memory.Set((16 << 30) * (0.8 - 0.5*busy))
		free.WithLabelValues("/").Set(40 << 30)
		free.WithLabelValues("/data").Set(200<<30 - at.Seconds()*4096)
		received.WithLabelValues("eth0").Add(dt.Seconds() * busy * 2e6)
		load.Set(4 * busy)
	}
}
