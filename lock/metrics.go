package lock

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The values of the label outcome of dlock_acquire_duration_seconds.
const (
	outcomeAcquired = "acquired"
	outcomeHeld     = "held"  // by another
	outcomeLate     = "late"  // granted after its own deadline, given back
	outcomeError    = "error" // the backend did not say
)

// The values of the label reason of dlock_renewal_failures_total.
const (
	reasonTimeout = "timeout" // no answer within the limit of one call
	reasonError   = "error"   // an answer that says neither yes nor no, or no connection
	reasonGone    = "gone"    // the lease is not there, or another's
)

// The values of the label reason of dlock_lost_total.
const (
	lostExpired = "expired"
	lostGone    = reasonGone
)

// durations are the buckets of the histograms: 0.25 ms to 30 s.
var durations = []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// Metrics are the metrics of all Engines and Fences of a process.
type Metrics struct {
	acquire         *prometheus.HistogramVec
	wait            *prometheus.HistogramVec
	held            *prometheus.GaugeVec
	holder          *prometheus.GaugeVec
	token           *prometheus.GaugeVec
	heldDuration    *prometheus.HistogramVec
	contention      *prometheus.CounterVec
	renewals        *prometheus.CounterVec
	renewalFailures *prometheus.CounterVec
	renewal         *prometheus.HistogramVec
	lost            *prometheus.CounterVec
	rejections      *prometheus.CounterVec
	releaseFailures *prometheus.CounterVec
	transitions     *prometheus.CounterVec
	up              *prometheus.GaugeVec
	remaining       *remaining

	mu      sync.Mutex
	holders map[lockLabels]string // the value of holder that is published
}

// lockLabels are the kind of a backend and the name of a lock.
type lockLabels struct{ kind, lock string }

// NewMetrics makes the metrics and registers them. A nil Registerer, as in tests, leaves
// them unregistered.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	labels := []string{"kind", "lock"}
	m := &Metrics{
		acquire: histogram("dlock_acquire_duration_seconds",
			"Time of one attempt to take a lock, from the request to the backend's answer, by outcome: acquired; held (by another); late (granted after its own deadline and given back); error.", append(labels, "outcome")),
		wait: histogram("dlock_wait_seconds",
			"Time from the wish for a lock until it was acquired, waiting for another holder and retries included.", labels),
		held: gauge("dlock_held",
			"1 while this process holds the lock, 0 when it does not.", labels),
		holder: gauge("dlock_holder_info",
			"1 for the instance that was last seen to hold the lock; no sample when none was seen.", append(labels, "holder")),
		token: gauge("dlock_fencing_token",
			"Fencing token of the lease that this process got last; no sample before the first one and for backends that have no tokens.", labels),
		heldDuration: histogram("dlock_held_duration_seconds",
			"Time for which a lease was held, observed when it ended.", labels),
		contention: counter("dlock_contention_total",
			"Attempts that found the lock held by another. 0 where nobody competes.", labels),
		renewals: counter("dlock_renewals_total",
			"Renewals that the backend confirmed.", labels),
		renewalFailures: counter("dlock_renewal_failures_total",
			"Renewals that were not confirmed, by reason: timeout (no answer within the limit of a call), error (no connection, or an error of the backend), gone (the lease is not there any more). 0 is normal; a few do no harm, see dlock_lost_total.", append(labels, "reason")),
		renewal: histogram("dlock_renewal_duration_seconds",
			"Time of one renewal, confirmed or not.", labels),
		lost: counter("dlock_lost_total",
			"Leases that ended while they were wanted, by reason: expired (no renewal was confirmed in time), gone (the backend does not have it any more). 0 is normal.", append(labels, "reason")),
		rejections: counter("dlock_fencing_rejections_total",
			"Effects that a fence refused, because the lease had ended or its token was below the highest known for the name, by resource. probe_series: requests of the series of a probed cluster, checked right before they go into the journal; what is in the journal already, or on its way to a backend, is not checked. 0 is normal.", []string{"resource"}),
		releaseFailures: counter("dlock_release_failures_total",
			"Releases that the backend was not told of, so that others had to wait for the expiry. 0 is normal.", labels),
		transitions: counter("dlock_transitions_total",
			"Changes of the lock's holder, as far as this process saw them. It stands still while one keeps the lock.", labels),
		up: gauge("dlock_backend_up",
			"1: the backend of the locks gave an answer when it was last asked about this lock, if only that another holds it. 0: it did not, or it refused: nobody may know who holds the lock.", labels),
		remaining: &remaining{
			desc:   prometheus.NewDesc("dlock_deadline_remaining_seconds", "Time until the lease that this process holds ends without another renewal; no sample while it holds none. It falls from the TTL by a third of it and jumps back when renewals succeed; 0 is the end.", labels, nil),
			leases: map[*lease]struct{}{},
		},
		holders: map[lockLabels]string{},
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.acquire, m.wait, m.held, m.holder, m.token, m.heldDuration, m.contention, m.renewals, m.renewalFailures,
		m.renewal, m.lost, m.rejections, m.releaseFailures, m.transitions, m.up, m.remaining,
	} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("registering the metrics of locks: %w", err)
	}
	return m, nil
}

func counter(name, help string, labels []string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func gauge(name, help string, labels []string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
}

func histogram(name, help string, labels []string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: durations,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}, labels)
}

// present makes the samples of a lock that are 0 until something happens.
func (m *Metrics) present(l lockLabels) {
	m.held.WithLabelValues(l.kind, l.lock)
	m.contention.WithLabelValues(l.kind, l.lock)
	m.renewals.WithLabelValues(l.kind, l.lock)
	m.releaseFailures.WithLabelValues(l.kind, l.lock)
	m.transitions.WithLabelValues(l.kind, l.lock)
	for _, reason := range []string{reasonTimeout, reasonError, reasonGone} {
		m.renewalFailures.WithLabelValues(l.kind, l.lock, reason)
	}
	for _, reason := range []string{lostExpired, lostGone} {
		m.lost.WithLabelValues(l.kind, l.lock, reason)
	}
}

// seen publishes who holds the lock; nobody by the empty instance.
func (m *Metrics) seen(l lockLabels, instance string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.holders[l]
	if before == instance {
		return
	}
	if before != "" {
		m.holder.DeleteLabelValues(l.kind, l.lock, before)
	}
	m.holders[l] = instance
	m.transitions.WithLabelValues(l.kind, l.lock).Inc()
	if instance != "" {
		m.holder.WithLabelValues(l.kind, l.lock, instance).Set(1)
	}
}

// leaves takes back what seen published, if it was this instance.
func (m *Metrics) leaves(l lockLabels, instance string) {
	m.mu.Lock()
	held := m.holders[l] == instance
	m.mu.Unlock()
	if held {
		m.seen(l, "")
	}
}

// remaining collects the time that is left to the leases at hand.
type remaining struct {
	desc *prometheus.Desc

	mu     sync.Mutex
	leases map[*lease]struct{}
}

func (r *remaining) add(l *lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leases[l] = struct{}{}
}

func (r *remaining) remove(l *lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.leases, l)
}

// Describe implements prometheus.Collector.
func (r *remaining) Describe(ch chan<- *prometheus.Desc) { ch <- r.desc }

// Collect implements prometheus.Collector. Two leases of one name in one process, which
// only tests and benchmarks have, are one sample: the longer one.
func (r *remaining) Collect(ch chan<- prometheus.Metric) {
	left := map[lockLabels]float64{}
	r.mu.Lock()
	for l := range r.leases {
		seconds := max(0, l.Deadline().Sub(l.engine.now()).Seconds())
		left[l.labels] = max(left[l.labels], seconds)
	}
	r.mu.Unlock()
	for l, seconds := range left {
		ch <- prometheus.MustNewConstMetric(r.desc, prometheus.GaugeValue, seconds, l.kind, l.lock)
	}
}
