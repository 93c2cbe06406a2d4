package exporter

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Reasons for which a lane rejects or gives up samples. Together with those of
// remotewrite.Reason and of the backend kinds they are the values of the label "reason".
const (
	// ReasonRefused: the backend answered 400, 413 or 422 to a request with this series
	// alone.
	ReasonRefused = "refused"
	// ReasonRedeliveredRefused: as refused, but it may have been there before: the
	// attempt followed a restart or one whose outcome is unknown, or the backend refused
	// an older sample of a series, sent again in the search for what it refuses, and took
	// the newest.
	ReasonRedeliveredRefused = "redelivered_refused"
	// ReasonDivisionLimit: in a request that was refused, and the number of requests
	// that looking for the offending series may cost was used up.
	ReasonDivisionLimit = "division_limit"
	// ReasonNotWritten: the backend accepted the request but says that it wrote less.
	ReasonNotWritten = "not_written"
	// ReasonUnreadable: it could not be read back from the journal.
	ReasonUnreadable = "unreadable"
	// ReasonMaxBacklog: given up because the backend's max_backlog was reached.
	ReasonMaxBacklog = "max_backlog"
	// ReasonJournalFull: given up because the journal's max_disk was reached and
	// on_full is drop_oldest.
	ReasonJournalFull = "journal_full"
)

var kinds = []struct {
	name string
	of   func(series.Counts) uint64
}{
	{"samples", func(c series.Counts) uint64 { return c.Samples }},
	{"histograms", func(c series.Counts) uint64 { return c.Histograms }},
	{"exemplars", func(c series.Counts) uint64 { return c.Exemplars }},
}

var (
	backendLabels = []string{"backend"}
	kindLabels    = []string{"backend", "kind"}
	reasonLabels  = []string{"backend", "kind", "reason"}

	routedDesc = prometheus.NewDesc("sluice_routed_total",
		"Samples, histograms and exemplars appended to the journal for this backend since its cursor was first opened.", kindLabels, nil)
	deliveredDesc = prometheus.NewDesc("sluice_delivered_total",
		"What the backend has acknowledged.", kindLabels, nil)
	redeliveredDesc = prometheus.NewDesc("sluice_redelivered_total",
		"What was delivered and may have reached the backend before: it was sent again after a restart or after an attempt of unknown outcome, and so stands in sluice_delivered_total too, or it was given back and had been sent already.", kindLabels, nil)
	rejectedDesc = prometheus.NewDesc("sluice_rejected_total",
		"What the backend refused for good, or what cannot be expressed for it, by reason. See the dead-letter file.", reasonLabels, nil)
	givenUpDesc = prometheus.NewDesc("sluice_given_up_total",
		"What was given up because a bound of the journal or of the backend's backlog was reached, by reason.", reasonLabels, nil)
	withheldDesc = prometheus.NewDesc("sluice_withheld",
		"What sampling keeps from the backend and has not been sent since: the part of it that is to be given back is remote_write_debt_samples.", kindLabels, nil)
	inJournalDesc = prometheus.NewDesc("sluice_in_journal",
		"What is in the journal for this backend and neither delivered, rejected nor given up.", kindLabels, nil)
	inJournalBytesDesc = prometheus.NewDesc("sluice_in_journal_bytes",
		"Bytes of the journal behind this backend's cursor.", backendLabels, nil)
	inJournalAgeDesc = prometheus.NewDesc("sluice_in_journal_age_seconds",
		"Age of the oldest record behind this backend's cursor, by time of receipt; 0 when there is none.", backendLabels, nil)
	limitBytesDesc = prometheus.NewDesc("sluice_in_journal_limit_bytes",
		"Bytes of sluice_in_journal_bytes at which the oldest data of this backend is given up. 0: only the journal's own bound holds.", backendLabels, nil)
	limitAgeDesc = prometheus.NewDesc("sluice_in_journal_limit_seconds",
		"Age, as sluice_in_journal_age_seconds, at which the data of this backend is given up. 0: at none.", backendLabels, nil)
	shardsLimitDesc = prometheus.NewDesc("sluice_lane_shards_limit",
		"Parcels that may be in flight at a time at most: max_shards. It is never 0.", backendLabels, nil)
	queueLengthDesc = prometheus.NewDesc("remote_write_queue_length",
		"Batches in the journal that wait for this backend.", backendLabels, nil)
	lagDesc = prometheus.NewDesc("remote_write_destination_lag_seconds",
		"Age of the newest sample that this backend has acknowledged, end to end. While nothing waits it keeps the value of the last acknowledgement. Absent before the first one.", backendLabels, nil)
	conservationDesc = prometheus.NewDesc("sluice_conservation_error_samples",
		"Routed less delivered, withheld, rejected, given up and in the journal. 0 when the books balance; up to a batch while data flows.", kindLabels, nil)
)

// Describe implements prometheus.Collector.
func (l *Lane) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		routedDesc, deliveredDesc, redeliveredDesc, rejectedDesc, givenUpDesc, withheldDesc, inJournalDesc,
		inJournalBytesDesc, inJournalAgeDesc, limitBytesDesc, limitAgeDesc, shardsLimitDesc, queueLengthDesc, lagDesc, conservationDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector: the accounting equation as it stands.
func (l *Lane) Collect(ch chan<- prometheus.Metric) {
	b := l.Balance()
	settled := b.Totals.Settled()
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append([]string{l.o.Name}, labels...)...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{l.o.Name}, labels...)...)
	}
	for _, k := range kinds {
		counter(routedDesc, k.of(b.Routed), k.name)
		counter(deliveredDesc, k.of(b.Totals.Delivered), k.name)
		counter(redeliveredDesc, k.of(b.Totals.Redelivered), k.name)
		for reason, c := range b.Totals.Rejected {
			counter(rejectedDesc, k.of(c), k.name, reason)
		}
		for reason, c := range b.Totals.GivenUp {
			counter(givenUpDesc, k.of(c), k.name, reason)
		}
		gauge(withheldDesc, float64(k.of(b.Totals.Withheld)-k.of(b.Totals.Restored)), k.name)
		gauge(inJournalDesc, float64(k.of(b.InJournal)), k.name)
		gauge(conservationDesc, float64(k.of(b.Routed))-float64(k.of(settled))-float64(k.of(b.InJournal)), k.name)
	}
	gauge(inJournalBytesDesc, float64(b.Bytes))
	age := 0.0
	if !b.Oldest.IsZero() {
		age = max(0, l.o.Now().Sub(b.Oldest).Seconds())
	}
	gauge(inJournalAgeDesc, age)
	bound := l.backlogBound()
	gauge(limitBytesDesc, float64(bound.Bytes))
	gauge(limitAgeDesc, time.Duration(bound.Age).Seconds())
	gauge(shardsLimitDesc, float64(l.o.Config.MaxShards))
	gauge(queueLengthDesc, float64(b.Batches))
	if lag, ok := l.destinationLag(b.Batches > 0); ok {
		gauge(lagDesc, lag.Seconds())
	}
}

// Metrics are the counters of all lanes of a gateway.
type Metrics struct {
	attempts    *prometheus.CounterVec
	inFlight    *prometheus.GaugeVec
	shards      *prometheus.GaugeVec
	state       *prometheus.GaugeVec
	divisions   *prometheus.CounterVec
	deadLetters *prometheus.CounterVec
	commits     *prometheus.CounterVec
}

// NewMetrics registers the metrics that all lanes share.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_lane_attempts_total",
			Help: "Attempts to send a parcel, by outcome: ok, retry, throttled, rejected, denied, renegotiate.",
		}, []string{"backend", "outcome"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_lane_parcels_in_flight",
			Help: "Parcels that are being sent, retried or divided.",
		}, backendLabels),
		shards: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_lane_shards",
			Help: "Parcels that may be in flight at a time as things are; between min_shards and max_shards.",
		}, backendLabels),
		state: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_lane_state",
			Help: "1 for the state the lane is in: ok, failing (retrying), throttled (the backend asked for less), denied (the backend takes nothing from us; everything is held).",
		}, []string{"backend", "state"}),
		divisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_lane_divisions_total",
			Help: "Parcels that were divided because the backend refused something in them.",
		}, backendLabels),
		deadLetters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_dead_letters_total",
			Help: "Series written to the dead-letter file, by outcome: written, or lost because the file could not be written.",
		}, []string{"backend", "outcome"}),
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_lane_commits_total",
			Help: "Commits of the backend's cursor, by outcome: ok, failed.",
		}, []string{"backend", "outcome"}),
	}
	reg.MustRegister(m.attempts, m.inFlight, m.shards, m.state, m.divisions, m.deadLetters, m.commits)
	return m
}

// forget drops the series of a lane that has ended.
func (m *Metrics) forget(backend string) {
	l := prometheus.Labels{"backend": backend}
	for _, v := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.attempts, m.inFlight, m.shards, m.state, m.divisions, m.deadLetters, m.commits} {
		v.DeletePartialMatch(l)
	}
}

// destinationLag is the age of the newest acknowledged sample; see lagDesc.
func (l *Lane) destinationLag(waiting bool) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.newest == 0 {
		return 0, false
	}
	at := l.newestAt
	if waiting {
		at = l.o.Now()
	}
	return at.Sub(time.UnixMilli(l.newest)), true
}
