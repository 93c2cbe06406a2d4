package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// metrics are those of the gateway as a whole.
type metrics struct {
	evicted      prometheus.Counter
	orphaned     prometheus.Counter
	reloadOK     prometheus.Gauge
	reloadedLast prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, table *series.Table, md *remotewrite.MetadataCache) *metrics {
	m := &metrics{
		evicted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_series_evicted_total",
			Help: "Series that were forgotten because they had no sample for series.idle_after.",
		}),
		orphaned: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_orphaned_samples_total",
			Help: "Samples and histograms that backends which were removed from the configuration had not been sent when their cursors were dropped.",
		}),
		reloadOK: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_config_last_reload_successful",
			Help: "1 when the last reload was applied, or when there was none yet; 0 when it was refused.",
		}),
		reloadedLast: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_config_last_reload_success_timestamp_seconds",
			Help: "When the configuration in force was loaded.",
		}),
	}
	m.reloaded(true, time.Now())
	reg.MustRegister(m.evicted, m.orphaned, m.reloadOK, m.reloadedLast,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_series",
			Help: "Series in the series table.",
		}, func() float64 { return float64(table.Len()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_metadata_families",
			Help: "Metric families whose metadata is known.",
		}, func() float64 { return float64(md.Len()) }),
	)
	return m
}

func (m *metrics) reloaded(ok bool, now time.Time) {
	m.reloadOK.Set(0)
	if ok {
		m.reloadOK.Set(1)
		m.reloadedLast.Set(float64(now.UnixMilli()) / 1000)
	}
}

// gatherer gathers what the gateway, its backends and their lanes export as they are now.
type gatherer struct{ g *Gateway }

func (a gatherer) Gather() ([]*dto.MetricFamily, error) {
	all := a.g.own()
	for _, w := range *a.g.watching.Load() {
		all = append(all, w.registry)
	}
	return all.Gather()
}

// pipeline gathers what the gateway writes into its own pipeline as its own: all but what
// the probes found, which goes there by itself.
type pipeline struct{ g *Gateway }

func (a pipeline) Gather() ([]*dto.MetricFamily, error) { return a.g.own().Gather() }

// own are the gatherers of everything but the probes.
func (g *Gateway) own() prometheus.Gatherers {
	all := prometheus.Gatherers{g.registry}
	for _, l := range *g.lines.Load() {
		all = append(all, l.registry, l.connected.Load().registry)
	}
	return all
}
