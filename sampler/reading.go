package sampler

import (
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Metrics are the metrics that some queries read. Where a query reads a part of a
// histogram, all of the histogram is among them. The nil Metrics are none.
type Metrics struct {
	names    map[string]reading
	families map[string]reading
	patterns []pattern
}

// reading is where a metric is read, and over which range at least.
type reading struct {
	source string
	within time.Duration // 0 for an instant
}

type pattern struct {
	name *labels.Matcher
	reading
}

// narrower is the one of two readings with the shorter range; an instant is none.
func narrower(a, b reading) reading {
	if b.within != 0 && (a.within == 0 || b.within < a.within) {
		return b
	}
	return a
}

// find says where the metric is read over the shortest range. All parts of a histogram are
// read over the range of any.
func (m *Metrics) find(name string) (found reading, ok bool) {
	take := func(r reading) {
		if !ok {
			found, ok = r, true
		}
		found = narrower(found, r)
	}
	if r, ok := m.names[name]; ok {
		take(r)
	}
	if r, ok := m.families[family(name)]; ok {
		take(r)
	}
	for i := range m.patterns {
		if m.patterns[i].name.Matches(name) {
			take(m.patterns[i].reading)
		}
	}
	return found, ok
}

// Len is the number of metrics, where those of a histogram, or of a pattern, count as one.
func (m *Metrics) Len() int { return len(m.names) + len(m.patterns) }

// Names are the metrics that are read by their name, sorted.
func (m *Metrics) Names() []string {
	var list []string
	for name := range m.names {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// Narrow returns a warning for each metric that is read over a range to which its key
// frames cannot do justice, in a class with gaps up to maxGap that is scraped at the
// cadence. A range that maxGap answers, or more frequent key frames do, needs none.
func (m *Metrics) Narrow(maxGap, cadence time.Duration) []string {
	var warnings []string
	warn := func(name string, r reading) {
		if text := r.narrow(maxGap, cadence); text != "" {
			warnings = append(warnings, fmt.Sprintf("%s is read over %s, %s (%s)", name, r.within, text, r.source))
		}
	}
	for _, name := range m.Names() {
		warn(name, m.names[name])
	}
	for i := range m.patterns {
		warn(m.patterns[i].name.Value, m.patterns[i].reading)
	}
	return warnings
}

// narrow says what is wrong with the range, if anything.
func (r reading) narrow(maxGap, cadence time.Duration) string {
	within := needOf(r.within).Range()
	if within == 0 || maxGap < 2*cadence {
		return "" // nothing is thinned for want of a range
	}
	gap := min(maxGap, answeringGap(within, cadence))
	switch {
	case r.within < 2*cadence:
		return fmt.Sprintf("in which are less than two samples of a series that is scraped every %s, even if all are sent", cadence)
	case gap < 2*cadence:
		return fmt.Sprintf("and scraped every %s: it is never thinned, since the range has too few samples for that; over %s or more it could be", cadence, 4*cadence)
	case gap > within/2-cadence:
		return fmt.Sprintf("which has just two samples when they are %s apart, and one after a scrape was lost; over %s or more it has two always",
			gap, 6*cadence)
	}
	return ""
}

// Add adds what o has.
func (m *Metrics) Add(o Metrics) {
	for name, r := range o.names {
		m.put(name, r)
	}
	for i := range o.patterns {
		m.putPattern(o.patterns[i])
	}
}

// atInstants is m without the ranges. Those of dashboards do not count, nor those of recording
// rules that only dashboards read: to answer all of them would be to thin little.
func (m *Metrics) atInstants() Metrics {
	var plain Metrics
	for name, r := range m.names {
		plain.put(name, reading{source: r.source})
	}
	for _, p := range m.patterns {
		plain.putPattern(pattern{p.name, reading{source: p.source}})
	}
	return plain
}

// put adds a metric; of several readings the one with the shortest range stays.
func (m *Metrics) put(name string, r reading) {
	if m.names == nil {
		m.names, m.families = map[string]reading{}, map[string]reading{}
	}
	keep := func(in map[string]reading, key string) {
		if o, ok := in[key]; ok {
			r = narrower(o, r)
		}
		in[key] = r
	}
	keep(m.names, name)
	if base := family(name); base != name {
		keep(m.families, base)
	}
}

// Warnings names the metrics that are read over a range too short to thin them, or to thin
// them without a risk, were they scraped at the cadence; see Metrics.Narrow. metrics are by
// the name of the class; see Resolved.
func Warnings(c Config, metrics map[string]Metrics, cadence time.Duration) []string {
	var warnings []string
	for i := range c.Classes {
		class := &c.Classes[i]
		read := metrics[class.Name]
		for _, w := range read.Narrow(time.Duration(class.MaxGap), cadence) {
			warnings = append(warnings, fmt.Sprintf("class %s: %s", class.Name, w))
		}
	}
	return warnings
}

// putPattern adds a pattern; of several readings the one with the shortest range stays. It
// reports whether that is news.
func (m *Metrics) putPattern(p pattern) bool {
	for i := range m.patterns {
		known := &m.patterns[i]
		if known.name.Type != p.name.Type || known.name.Value != p.name.Value {
			continue
		}
		if narrower(known.reading, p.reading) == known.reading {
			return false
		}
		known.reading = p.reading
		return true
	}
	m.patterns = append(m.patterns, p)
	return true
}
