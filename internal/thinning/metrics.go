package thinning

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/control"
)

var (
	backendLabels = []string{"backend"}
	reasonLabels  = []string{"backend", "class", "reason"}
	classLabels   = []string{"backend", "class"}

	rateDesc = prometheus.NewDesc("remote_write_sampling_rate",
		"Share of the samples that the controller asks for, 0 to 1; 1 sends everything. In shadow mode what it would ask for.", backendLabels, nil)
	keptDesc = prometheus.NewDesc("remote_write_sampling_kept_ratio",
		"Share of the samples that is kept at present, 0 to 1. In shadow mode what would be kept.", backendLabels, nil)
	pressureDesc = prometheus.NewDesc("remote_write_sampling_pressure",
		"Place on the ladder of what gives: 0 nothing, 1 all frames but key frames, above (floor: shed) whole families, up to 5.", backendLabels, nil)
	floorDesc = prometheus.NewDesc("remote_write_sampling_floor_bound",
		"1 while more is kept than the rate asks for, because no more can be given; else 0.", backendLabels, nil)
	modeDesc = prometheus.NewDesc("remote_write_sampling_mode",
		"1 for the mode of the sampling: active, or shadow, in which nothing is withheld.", []string{"backend", "mode"}, nil)
	signalDesc = prometheus.NewDesc("remote_write_backpressure_signal_ratio",
		"What the controller steers by: each signal as a share of its threshold; from 1 on the backend lags. Absent while it is not known, or off.", []string{"backend", "signal"}, nil)
	inFlightDesc = prometheus.NewDesc("remote_write_in_flight_limit_samples",
		"Samples that are in flight at most while the backend lags, so that what waits does so here; 0 is as many as shards and their size let. In shadow mode what would be the bound.", backendLabels, nil)
	seriesDesc = prometheus.NewDesc("remote_write_sampler_series",
		"Series whose state the sampler keeps; 0 while everything is sent.", backendLabels, nil)
	shedDesc = prometheus.NewDesc("remote_write_samples_shed_total",
		"Samples withheld by class and reason: frame (the scrape is no frame), elided (the value is unchanged), family (the whole family is left out), late (older than what was sent).", reasonLabels, nil)
	keptTotalDesc = prometheus.NewDesc("remote_write_samples_kept_total",
		"Samples that went through the sampler and were sent, by class.", classLabels, nil)
	replayedDesc = prometheus.NewDesc("remote_write_samples_replayed_total",
		"Samples that were withheld and sent soon after, in front of a sample that made them matter.", backendLabels, nil)
	backfillDesc = prometheus.NewDesc("remote_write_backfill_samples_total",
		"Samples and histograms that were withheld and given back later.", backendLabels, nil)
	debtDesc = prometheus.NewDesc("remote_write_debt_samples",
		"Samples and histograms that were withheld and neither sent since nor given up.", backendLabels, nil)
	debtBytesDesc = prometheus.NewDesc("remote_write_debt_bytes",
		"About how many bytes of requests the debt is.", backendLabels, nil)
	debtAgeDesc = prometheus.NewDesc("remote_write_debt_age_seconds",
		"Age of the oldest sample of the debt; 0 when there is none.", backendLabels, nil)
	debtETADesc = prometheus.NewDesc("remote_write_debt_eta_seconds",
		"How long giving back the debt takes at backfill_share of the capacity, once nothing lags; 0 when there is none. Absent while that is not known, or nothing is given back.", backendLabels, nil)
	givingBackDesc = prometheus.NewDesc("remote_write_backfill_active",
		"1 while withheld samples are being given back, else 0.", backendLabels, nil)
)

// Describe implements prometheus.Collector.
func (t *Thinner) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		rateDesc, keptDesc, pressureDesc, floorDesc, modeDesc, signalDesc, inFlightDesc, seriesDesc, shedDesc, keptTotalDesc,
		replayedDesc, backfillDesc, debtDesc, debtBytesDesc, debtAgeDesc, debtETADesc, givingBackDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (t *Thinner) Collect(ch chan<- prometheus.Metric) {
	v := t.View()
	t.mu.Lock()
	sum := t.totals()
	series := 0
	if t.session != nil {
		series = t.session.sampler.Stats().Series
	}
	t.mu.Unlock()
	gauge := func(d *prometheus.Desc, x float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, x, append([]string{t.o.Backend}, labels...)...)
	}
	counter := func(d *prometheus.Desc, x uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(x), append([]string{t.o.Backend}, labels...)...)
	}
	gauge(rateDesc, v.Rate)
	gauge(keptDesc, v.Kept)
	gauge(pressureDesc, v.Pressure)
	gauge(floorDesc, oneIf(v.FloorBound))
	for _, mode := range []sampler.Mode{sampler.ModeActive, sampler.ModeShadow} {
		gauge(modeDesc, oneIf(v.Mode == string(mode)), string(mode))
	}
	for _, s := range v.Signals {
		if s.Pressure != nil {
			gauge(signalDesc, *s.Pressure, s.Name)
		}
	}
	gauge(inFlightDesc, float64(v.MaxInFlight))
	gauge(seriesDesc, float64(series))
	var replayed uint64
	for class, c := range sum.classes {
		counter(keptTotalDesc, c.Kept, class)
		for r, n := range c.Withheld {
			counter(shedDesc, n, class, sampler.Reason(r).String())
		}
		replayed += c.Replayed
	}
	counter(replayedDesc, replayed)
	counter(backfillDesc, sum.givenBack)
	gauge(debtDesc, float64(v.Debt.Samples))
	gauge(debtBytesDesc, float64(v.Debt.Bytes))
	gauge(debtAgeDesc, v.Debt.AgeSeconds)
	if v.Debt.ETASeconds != nil {
		gauge(debtETADesc, *v.Debt.ETASeconds)
	}
	gauge(givingBackDesc, oneIf(v.GivingBack != nil))
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Metrics are the counters that the Thinners of a gateway share.
type Metrics struct {
	events   *prometheus.CounterVec
	failures *prometheus.CounterVec
	batches  *prometheus.CounterVec
}

// NewMetrics registers the metrics; reg may be nil in tests.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "remote_write_backpressure_events_total",
			Help: "Seconds in which the backend lagged, by the signal that said so most.",
		}, []string{"backend", "cause"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "remote_write_sampling_failures_total",
			Help: "Changes of the sampling that could not be made, because they could not be written down or the journal could not be read. See the log.",
		}, backendLabels),
		batches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "remote_write_sampler_batches_total",
			Help: "Batches that the sampler read, by who opened them: receiver, as a rule, or lane, which is behind then, or not the only one that samples, and spends about twice the CPU time.",
		}, []string{"backend", "opened"}),
	}
	if reg != nil {
		reg.MustRegister(m.events, m.failures, m.batches)
	}
	return m
}

// begin makes the series of a backend, so that they are there before anything happens.
func (m *Metrics) begin(backend string) {
	m.failures.WithLabelValues(backend)
	m.batches.WithLabelValues(backend, openedByReceiver)
	m.batches.WithLabelValues(backend, openedByLane)
	for _, cause := range []string{
		control.QueueLength, control.QueueAge, control.WriteLatency, control.Errors, control.Throttled, control.ReplicaLag, control.Memory,
	} {
		m.events.WithLabelValues(backend, cause)
	}
}

// Values of the label opened.
const (
	openedByReceiver = "receiver"
	openedByLane     = "lane"
)

// read counts a batch.
func (m *Metrics) read(backend string, found bool) {
	opened := openedByLane
	if found {
		opened = openedByReceiver
	}
	m.batches.WithLabelValues(backend, opened).Inc()
}

// Forget drops the series of a backend that is no more.
func (m *Metrics) Forget(backend string) {
	l := prometheus.Labels{"backend": backend}
	m.events.DeletePartialMatch(l)
	m.failures.DeletePartialMatch(l)
	m.batches.DeletePartialMatch(l)
}
