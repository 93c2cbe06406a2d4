package receiver

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the receiver's own metrics.
type Metrics struct {
	requests      *prometheus.CounterVec
	duration      prometheus.Histogram
	inFlight      prometheus.Gauge
	receivedBytes *prometheus.CounterVec
	refused       *prometheus.CounterVec
	newSeries     prometheus.Counter
	overflowed    prometheus.Counter
}

// NewMetrics registers the receiver's metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_receiver_requests_total",
			Help: "Requests by protocol (rw1, rw2, otlp; unknown before negotiation) and status of the answer; gone: the sender left before it was answered.",
		}, []string{"protocol", "code"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:                            "sluice_receiver_request_duration_seconds",
			Help:                            "Time from the head of a request to its answer, the append to the journal included.",
			Buckets:                         prometheus.ExponentialBuckets(0.001, 2, 15),
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: 3600e9,
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_receiver_requests_in_flight",
			Help: "Requests that are being decoded or appended.",
		}),
		receivedBytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_receiver_bytes_total",
			Help: "Bytes of request bodies as they came over the wire, by protocol.",
		}, []string{"protocol"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_receiver_refused_samples_total",
			Help: "Samples, histograms and exemplars, and OTLP data points and their exemplars, that were refused as invalid (400, or partial success), by reason. They never were in the journal.",
		}, []string{"reason"}),
		newSeries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_series_created_total",
			Help: "Series that were seen for the first time, or again after they were evicted or routes changed.",
		}),
		overflowed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_series_overflowed_total",
			Help: "Look-ups of series that found no room in the series table (series.max): they are delivered, but cost more and share their place in the order with others.",
		}),
	}
	reg.MustRegister(m.requests, m.duration, m.inFlight, m.receivedBytes, m.refused, m.newSeries, m.overflowed)
	return m
}
