package ha

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Reason is why samples of a replica were not accepted. It is the label reason of
// ha_dropped_samples_total.
type Reason string

// Why samples of a replica were not accepted.
const (
	// ReasonNotElected: samples of the other replica stand in their place.
	ReasonNotElected Reason = "not_elected"
	// ReasonBeforeElection: not newer than what was accepted of the replica elected
	// before.
	ReasonBeforeElection Reason = "before_election"
	// ReasonBufferFull: dropped out of the hold-back buffer to make room.
	ReasonBufferFull Reason = "buffer_full"
	// ReasonExpired: held back for longer than a failover takes, while nothing newer of
	// the elected replica was accepted.
	ReasonExpired Reason = "expired"
	// ReasonRefused: held back, and refused by the pipeline when they were to be
	// appended.
	ReasonRefused Reason = "refused"
)

// The values of the label outcome of ha_kv_cas_total.
const (
	casSuccess  = "success"
	casConflict = "conflict"
	casError    = "error"
)

// metrics are those of a Tracker.
type metrics struct {
	elected      *prometheus.GaugeVec
	elections    *prometheus.CounterVec
	lastElection *prometheus.GaugeVec
	lastAccepted *prometheus.GaugeVec
	dropped      *prometheus.CounterVec
	cas          *prometheus.CounterVec
	overflow     prometheus.Counter
	bytes        prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		elected: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ha_elected_replica_info",
			Help: "1 for the replica of an HA cluster that is believed, as far as this gateway knows. Never 0: other replicas are absent.",
		}, []string{"cluster", "replica"}),
		elections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ha_elections_total",
			Help: "Elections of a replica of an HA cluster that this gateway has made, the first of a new cluster included. 0: others made them.",
		}, []string{"cluster"}),
		lastElection: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ha_last_election_timestamp_seconds",
			Help: "When the elected replica of an HA cluster was elected, Unix time in seconds, by the clock of the gateway that did. Never 0.",
		}, []string{"cluster"}),
		lastAccepted: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ha_last_accepted_timestamp_seconds",
			Help: "Sample time of an HA cluster, Unix time in seconds, than which no accepted sample is newer; at most a second ahead of the newest. 0: nothing was accepted yet.",
		}, []string{"cluster"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ha_dropped_samples_total",
			Help: "Samples and histograms of HA clusters that were not accepted, by reason: not_elected (the other replica's stand in their place), before_election (not newer than those of the replica elected before), buffer_full and expired (a failover may leave a gap), refused (by the pipeline, after an election). All but not_elected are 0 normally.",
		}, []string{"reason"}),
		cas: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ha_kv_cas_total",
			Help: "Writes of election records, by outcome: success, conflict (another gateway wrote before), error (no answer from the store). 0: none.",
		}, []string{"outcome"}),
		overflow: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ha_buffer_overflow_total",
			Help: "Requests that were dropped out of the full hold-back buffer (ha.buffer_bytes), so that a failover may leave a gap. 0 is normal.",
		}),
		bytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ha_buffer_bytes",
			Help: "Bytes held back of replicas that are not elected. 0: nothing is newer than what is accepted.",
		}),
	}
	for _, r := range []Reason{ReasonNotElected, ReasonBeforeElection, ReasonBufferFull, ReasonExpired, ReasonRefused} {
		m.dropped.WithLabelValues(string(r))
	}
	for _, o := range []string{casSuccess, casConflict, casError} {
		m.cas.WithLabelValues(o)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.elected, m.elections, m.lastElection, m.lastAccepted, m.dropped, m.cas, m.overflow, m.bytes} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of HA clusters: %w", err)
		}
	}
	return m, nil
}

// show publishes the record of a cluster.
func (m *metrics) show(cluster string, before, now Record) {
	if before.Replica != now.Replica {
		m.elected.DeleteLabelValues(cluster, before.Replica)
		m.elected.WithLabelValues(cluster, now.Replica).Set(1)
	}
	m.lastElection.WithLabelValues(cluster).Set(float64(now.ElectedAt) / 1000)
	accepted := 0.0
	if now.Accepted != noTime {
		accepted = float64(now.Accepted) / 1000
	}
	m.lastAccepted.WithLabelValues(cluster).Set(accepted)
}

// forget takes a cluster's series away.
func (m *metrics) forget(cluster string) {
	m.elected.DeletePartialMatch(prometheus.Labels{"cluster": cluster})
	m.elections.DeleteLabelValues(cluster)
	m.lastElection.DeleteLabelValues(cluster)
	m.lastAccepted.DeleteLabelValues(cluster)
}
