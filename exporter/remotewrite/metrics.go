package remotewrite

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-metrics/sluice/internal/series"
)

// metrics are the metrics of one backend. Backends on one Registerer share the vectors,
// so that counters go on when a backend gets a successor.
type metrics struct {
	name string

	requests *prometheus.CounterVec // by code, curried with the backend
	protocol *prometheus.GaugeVec   // whole: Close takes the backend's values out of it
	written  *prometheus.CounterVec // by kind, curried
	missing  *prometheus.CounterVec // by kind, curried
	fallback *prometheus.CounterVec // by reason, curried
	parts    *prometheus.CounterVec // by form, curried

	duration      prometheus.Observer
	inFlight      prometheus.Gauge
	sentBytes     prometheus.Counter
	startsDropped prometheus.Counter
}

// codeNone is the value of the label code for attempts that got no answer.
const codeNone = "none"

// The values of the label form.
const (
	formForwarded = "forwarded"
	formEncoded   = "encoded"
)

// newMetrics registers the vectors, or joins those that another backend registered. A
// nil Registerer leaves them unregistered.
func newMetrics(reg prometheus.Registerer, backend string) (*metrics, error) {
	m := &metrics{name: backend}
	var errs []error
	counter := func(opts prometheus.CounterOpts, labels ...string) *prometheus.CounterVec {
		vec, err := register(reg, prometheus.NewCounterVec(opts, append([]string{"backend"}, labels...)))
		errs = append(errs, err)
		return vec.MustCurryWith(prometheus.Labels{"backend": backend})
	}
	gauge := func(opts prometheus.GaugeOpts, labels ...string) *prometheus.GaugeVec {
		vec, err := register(reg, prometheus.NewGaugeVec(opts, append([]string{"backend"}, labels...)))
		errs = append(errs, err)
		return vec
	}
	m.requests = counter(prometheus.CounterOpts{
		Name: "sluice_backend_requests_total",
		Help: "Remote-write requests made to the backend, by the status code of the answer; none where there was no answer.",
	}, "code")
	m.written = counter(prometheus.CounterOpts{
		Name: "sluice_backend_confirmed_total",
		Help: "What the backend says it wrote, by the Written headers of remote write 2.0.",
	}, "kind")
	m.missing = counter(prometheus.CounterOpts{
		Name: "sluice_backend_unconfirmed_total",
		Help: "What the backend accepted by its status code and yet does not say it wrote, by the Written headers of remote write 2.0.",
	}, "kind")
	m.fallback = counter(prometheus.CounterOpts{
		Name: "sluice_backend_protocol_fallbacks_total",
		Help: "Turns from remote write 2.0 to 1.0, by what the backend said to 2.0.",
	}, "reason")
	m.parts = counter(prometheus.CounterOpts{
		Name: "sluice_backend_parts_total",
		Help: "Batches put into requests: forwarded as they were received, or encoded anew.",
	}, "form")
	m.sentBytes = counter(prometheus.CounterOpts{
		Name: "sluice_backend_sent_bytes_total",
		Help: "Bytes of compressed bodies handed to the connection, retries included.",
	}).WithLabelValues()
	m.startsDropped = counter(prometheus.CounterOpts{
		Name: "sluice_backend_starts_dropped_total",
		Help: "Start timestamps left out because the backend speaks remote write 1.0, which cannot carry them.",
	}).WithLabelValues()
	m.inFlight = gauge(prometheus.GaugeOpts{
		Name: "sluice_backend_requests_in_flight",
		Help: "Remote-write requests waiting for the backend's answer.",
	}).WithLabelValues(backend)
	m.protocol = gauge(prometheus.GaugeOpts{
		Name: "sluice_backend_protocol_info",
		Help: "1 for the remote-write version that the backend is spoken to in now, 0 for the other.",
	}, "protocol")
	duration, err := register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:                            "sluice_backend_request_duration_seconds",
		Help:                            "Time of one remote-write request, from the connection to the end of the answer.",
		Buckets:                         []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}, []string{"backend"}))
	errs = append(errs, err)
	m.duration = duration.WithLabelValues(backend)

	for _, kind := range []string{"samples", "histograms", "exemplars"} {
		m.written.WithLabelValues(kind)
		m.missing.WithLabelValues(kind)
	}
	for _, how := range []refusal{refusedType, refusedBad, refusedNoWritten} {
		m.fallback.WithLabelValues(string(how))
	}
	m.parts.WithLabelValues(formForwarded)
	m.parts.WithLabelValues(formEncoded)
	return m, errors.Join(errs...)
}

// register registers c, or returns the collector of the same metric that is there.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) (C, error) {
	if reg == nil {
		return c, nil
	}
	err := reg.Register(c)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if existing, ok := there.ExistingCollector.(C); ok {
			return existing, nil
		}
	}
	if err != nil {
		return c, fmt.Errorf("registering a metric of the backend: %w", err)
	}
	return c, nil
}

// speaks publishes the protocol in use.
func (m *metrics) speaks(v series.Version) {
	for _, p := range []series.Version{series.V1, series.V2} {
		value := 0.0
		if p == v {
			value = 1
		}
		m.protocol.WithLabelValues(m.name, p.String()).Set(value)
	}
}

// answered counts one finished attempt; code 0 means that there was no answer.
func (m *metrics) answered(code int, took time.Duration) {
	label := codeNone
	if code != 0 {
		label = strconv.Itoa(code)
	}
	m.requests.WithLabelValues(label).Inc()
	m.duration.Observe(took.Seconds())
}

// confirm counts what the backend says it wrote of what was sent. accepted says that
// its status promises that this is everything.
func (m *metrics) confirm(written, sent series.Counts, accepted bool) {
	for _, k := range []struct {
		kind          string
		written, sent uint64
	}{
		{"samples", written.Samples, sent.Samples},
		{"histograms", written.Histograms, sent.Histograms},
		{"exemplars", written.Exemplars, sent.Exemplars},
	} {
		m.written.WithLabelValues(k.kind).Add(float64(k.written))
		if accepted && k.sent > k.written {
			m.missing.WithLabelValues(k.kind).Add(float64(k.sent - k.written))
		}
	}
}

// close takes away the gauges, which tell about the present.
func (m *metrics) close() {
	m.protocol.DeletePartialMatch(prometheus.Labels{"backend": m.name})
}
