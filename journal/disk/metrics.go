package disk

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Reasons of sluice_journal_write_errors_total.
const (
	reasonCreate = "create"
	reasonWrite  = "write"
	reasonSync   = "sync"
	reasonFull   = "full"
)

type metrics struct {
	appendedRecords   prometheus.Counter
	appendedBytes     prometheus.Counter
	appendDuration    prometheus.Histogram
	writeErrors       *prometheus.CounterVec
	segments          prometheus.Gauge
	diskBytes         prometheus.Gauge
	diskLimit         prometheus.Gauge
	retainedBytes     prometheus.Gauge
	tailBytes         prometheus.Gauge
	damagedRecords    prometheus.Counter
	damagedBytes      prometheus.Counter
	tornBytes         prometheus.Counter
	fsyncDuration     prometheus.Histogram
	durability        *prometheus.GaugeVec
	truncatedSegments prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, c Config) (*metrics, error) {
	m := &metrics{
		appendedRecords: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_journal_appended_records_total",
			Help: "Requests that the journal keeps, counted when they are acknowledged.",
		}),
		appendedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_journal_appended_bytes_total",
			Help: "Bytes of the records of acknowledged requests, as written to the disk.",
		}),
		appendDuration: duration("sluice_journal_append_duration_seconds",
			"How long an append took, from the call to the answer, waiting for its group included."),
		writeErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_journal_write_errors_total",
			Help: "Failures to keep a request: create, write and sync count file operations, full counts requests refused for the disk budget.",
		}, []string{"reason"}),
		segments: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_journal_segments",
			Help: "Segment files on the disk.",
		}),
		diskBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_journal_disk_bytes",
			Help: "Bytes of all segment files.",
		}),
		diskLimit: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_journal_disk_limit_bytes",
			Help: "Configured bound for the bytes of all segment files.",
		}),
		retainedBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_journal_retained_bytes",
			Help: "Bytes of the segment files that all backends have passed and that are kept only because what was withheld is to be sent later; 0 when there is none.",
		}),
		tailBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_journal_tail_bytes",
			Help: "Memory of the newest requests that are kept for backends that keep up.",
		}),
		damagedRecords: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_journal_damaged_records_total",
			Help: "Places in the journal that could not be read and were stepped over.",
		}),
		damagedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_journal_damaged_bytes_total",
			Help: "Bytes of the journal that could not be read and were stepped over.",
		}),
		tornBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_journal_torn_bytes_cut_total",
			Help: "Bytes cut at a start from the end of the newest segment, where a crash had left an incomplete record.",
		}),
		fsyncDuration: duration("sluice_journal_fsync_duration_seconds",
			"How long syncs of segment files took."),
		durability: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_journal_durability_info",
			Help: "Always 1, with what an append waits for before it is acknowledged.",
		}, []string{"mode"}),
		truncatedSegments: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_journal_truncated_segments_total",
			Help: "Segment files removed because no backend needs them any more.",
		}),
	}
	m.diskLimit.Set(float64(c.MaxDisk))
	m.durability.WithLabelValues(string(c.Durability)).Set(1)
	for _, reason := range []string{reasonCreate, reasonWrite, reasonSync, reasonFull} {
		m.writeErrors.WithLabelValues(reason)
	}
	return m, m.register(reg)
}

func duration(name, help string) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:                            name,
		Help:                            help,
		Buckets:                         []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	})
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		m.appendedRecords, m.appendedBytes, m.appendDuration, m.writeErrors, m.segments, m.diskBytes, m.diskLimit,
		m.retainedBytes, m.tailBytes, m.damagedRecords, m.damagedBytes, m.tornBytes, m.fsyncDuration, m.durability, m.truncatedSegments,
	}
}

func (m *metrics) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	for _, c := range m.collectors() {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register the metrics of the journal: %w", err)
		}
	}
	return nil
}

// unregister takes the metrics of a journal that could not be opened away again.
func (m *metrics) unregister(reg prometheus.Registerer) {
	if reg == nil {
		return
	}
	for _, c := range m.collectors() {
		reg.Unregister(c)
	}
}
