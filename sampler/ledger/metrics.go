package ledger

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the measurements of all ledgers. A nil Metrics takes none.
type Metrics struct {
	entries *prometheus.GaugeVec
	bytes   *prometheus.GaugeVec
	errors  *prometheus.CounterVec
}

// NewMetrics registers the metrics. The Registerer may be nil in tests.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	labels := []string{"backend"}
	m := &Metrics{
		entries: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "remote_write_ledger_entries",
			Help: "Stretches of the journal of which something was withheld from the backend and which are not closed: neither given back, given up nor kept for good. 0 when nothing is owed.",
		}, labels),
		bytes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "remote_write_ledger_bytes",
			Help: "Bytes that the ledger of the backend has on the disk, by what was written since the start. 0 while nothing had to be written.",
		}, labels),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "remote_write_ledger_write_errors_total",
			Help: "Records that the ledger of the backend could not write. Nothing takes effect without its record: the rate stays, or the cursor does. 0 when the disk is well.",
		}, labels),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.entries, m.bytes, m.errors} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register the metrics of the ledgers: %w", err)
		}
	}
	return m, nil
}

func (m *Metrics) set(backend string, entries int, bytes int64) {
	if m == nil {
		return
	}
	m.entries.WithLabelValues(backend).Set(float64(entries))
	m.bytes.WithLabelValues(backend).Set(float64(bytes))
	m.errors.WithLabelValues(backend)
}

func (m *Metrics) failed(backend string) {
	if m != nil {
		m.errors.WithLabelValues(backend).Inc()
	}
}

// drop forgets a backend whose ledger is closed. What it failed to write stays counted.
func (m *Metrics) drop(backend string) {
	if m != nil {
		m.entries.DeleteLabelValues(backend)
		m.bytes.DeleteLabelValues(backend)
	}
}
