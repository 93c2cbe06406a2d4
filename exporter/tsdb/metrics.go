package tsdb

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	sendDuration   prometheus.Histogram
	commits        prometheus.Counter
	commitFailures prometheus.Counter
	lookups        prometheus.Counter
	startsDropped  prometheus.Counter
	requests       *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		sendDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:                            "sluice_tsdb_send_duration_seconds",
			Help:                            "Time the embedded store took for one parcel, from decompression to the log.",
			Buckets:                         []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}),
		commits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_tsdb_commits_total",
			Help: "Groups of samples written to the log of the embedded store. More than one for a parcel when a series comes back in it with an older timestamp.",
		}),
		commitFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_tsdb_commit_failures_total",
			Help: "Groups of samples that could not be written to the log of the embedded store; they are tried again.",
		}),
		lookups: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_tsdb_series_lookups_total",
			Help: "Series whose place in the embedded store had to be looked up by their labels, because they were new, had left the store's memory, or have no id of their own.",
		}),
		startsDropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_tsdb_start_timestamps_dropped_total",
			Help: "Samples stored without their start timestamp, because start_timestamps is off.",
		}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_tsdb_query_requests_total",
			Help: "Requests to the query API of the embedded store.",
		}, []string{"handler", "code"}),
	}
	reg.MustRegister(m.sendDuration, m.commits, m.commitFailures, m.lookups, m.startsDropped, m.requests)
	return m
}

// registry registers the metrics of one store and takes them back when it closes, so
// that a store of the same name can be opened later in the same process.
type registry struct {
	to prometheus.Registerer // nil: nobody but the query API sees them
	// Registry has them without the label of the backend; status/tsdb reads there.
	*prometheus.Registry

	mu         sync.Mutex
	registered []prometheus.Collector
}

func newRegistry(backend string, to prometheus.Registerer) *registry {
	r := &registry{Registry: prometheus.NewRegistry()}
	if to != nil {
		r.to = prometheus.WrapRegistererWith(prometheus.Labels{"backend": backend}, to)
	}
	return r
}

// Register implements prometheus.Registerer.
func (r *registry) Register(c prometheus.Collector) error {
	if err := r.Registry.Register(c); err != nil || r.to == nil {
		return err
	}
	if err := r.to.Register(c); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.registered = append(r.registered, c)
	return nil
}

// MustRegister implements prometheus.Registerer. It panics as that says: two stores of
// one name are a mistake in the program.
func (r *registry) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(fmt.Sprintf("BUG: metrics of the embedded store: %v", err))
		}
	}
}

// Unregister implements prometheus.Registerer.
func (r *registry) Unregister(c prometheus.Collector) bool {
	here := r.Registry.Unregister(c)
	return r.to != nil && r.to.Unregister(c) || here
}

func (r *registry) unregisterAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.registered {
		r.to.Unregister(c)
	}
	r.registered = nil
}
