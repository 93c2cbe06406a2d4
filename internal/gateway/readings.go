package gateway

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// readings are metrics as they were at one time, by name.
type readings map[string]*dto.MetricFamily

// read reads what from exports. What cannot be read is left out, and the same error is told
// to everybody who reads the metrics.
func read(from prometheus.Gatherer) readings {
	families, _ := from.Gather()
	r := make(readings, len(families))
	for _, f := range families {
		r[f.GetName()] = f
	}
	return r
}

// number is one counter or gauge.
type number struct {
	value  float64
	labels []*dto.LabelPair
}

func (n number) label(name string) string {
	for _, p := range n.labels {
		if p.GetName() == name {
			return p.GetValue()
		}
	}
	return ""
}

// values are the counters or gauges of a name that have all of the labels, which are pairs
// of name and value.
func (r readings) values(name string, labels ...string) []number {
	var list []number
	for _, m := range r[name].GetMetric() {
		n := number{labels: m.GetLabel(), value: m.GetGauge().GetValue() + m.GetCounter().GetValue()}
		fits := true
		for i := 0; i+1 < len(labels); i += 2 {
			fits = fits && n.label(labels[i]) == labels[i+1]
		}
		if fits {
			list = append(list, n)
		}
	}
	return list
}

// is reports whether the gauge is exported and has the value.
func (r readings) is(name string, value float64) bool {
	list := r.values(name)
	return len(list) == 1 && list[0].value == value
}

// sum adds them up.
func (r readings) sum(name string, labels ...string) (sum float64) {
	for _, n := range r.values(name, labels...) {
		sum += n.value
	}
	return sum
}
