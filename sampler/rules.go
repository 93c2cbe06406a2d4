package sampler

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v4"
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

// find says where the metric is read.
func (m *Metrics) find(name string) (reading, bool) {
	if r, ok := m.names[name]; ok {
		return r, true
	}
	if r, ok := m.families[family(name)]; ok {
		return r, true
	}
	for i := range m.patterns {
		if m.patterns[i].name.Matches(name) {
			return m.patterns[i].reading, true
		}
	}
	return reading{}, false
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

// Narrow returns a warning for each metric that is read over a range too short for series
// with gaps up to maxGap, scraped at the cadence: rate needs two samples in its range.
func (m *Metrics) Narrow(maxGap, cadence time.Duration) []string {
	var warnings []string
	for _, name := range m.Names() {
		r := m.names[name]
		if r.within == 0 || maxGap <= r.within/2-cadence {
			continue
		}
		warnings = append(warnings, fmt.Sprintf(
			"%s is read over %s, which may have less than two samples when they are %s apart; a max_gap of at most %s answers always (%s)",
			name, r.within, maxGap, max(0, r.within/2-cadence), r.source))
	}
	return warnings
}

// Add adds what o has.
func (m *Metrics) Add(o Metrics) {
	for name, r := range o.names {
		m.put(name, r)
	}
	m.patterns = append(m.patterns, o.patterns...)
}

// AddQuery adds what a PromQL query reads; source says where it stands. It fails for a
// query that does not parse.
func (m *Metrics) AddQuery(query, source string) error {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return fmt.Errorf("parse query %q: %w", query, err)
	}
	parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		r := reading{source: source}
		if len(path) > 0 {
			if around, ok := path[len(path)-1].(*parser.MatrixSelector); ok {
				r.within = around.Range
			}
		}
		m.addSelector(selector, r)
		return nil
	})
	return nil
}

func (m *Metrics) addSelector(selector *parser.VectorSelector, r reading) {
	if selector.Name != "" {
		m.put(selector.Name, r)
		return
	}
	for _, matcher := range selector.LabelMatchers {
		switch {
		case matcher.Name != model.MetricNameLabel:
		case matcher.Type == labels.MatchEqual:
			m.put(matcher.Value, r)
			return
		case matcher.Type == labels.MatchRegexp:
			m.patterns = append(m.patterns, pattern{matcher, r})
			return
		}
	}
	// A selector without a name reads any metric; to make all of them critical would
	// mean to thin none.
}

// put adds a metric; of several readings the one with the shortest range stays.
func (m *Metrics) put(name string, r reading) {
	if m.names == nil {
		m.names, m.families = map[string]reading{}, map[string]reading{}
	}
	if o, ok := m.names[name]; ok && (r.within == 0 || o.within != 0 && o.within <= r.within) {
		r = o
	}
	m.names[name] = r
	if base := family(name); base != name {
		m.families[base] = r
	}
}

// ruleFile is what is read of a Prometheus rule file.
type ruleFile struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []struct {
			Alert  string            `yaml:"alert"`
			Expr   string            `yaml:"expr"`
			Labels map[string]string `yaml:"labels"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

// LoadRules returns the metrics that the alert rules in the files read. Globs that are
// relative start from dir. A glob that no file matches is no error: files may come later.
func LoadRules(dir string, from FromRules) (Metrics, error) {
	var found Metrics
	err := eachFile(dir, from.Files, func(file string, content []byte) error {
		return found.AddRules(content, file, from.Severity)
	})
	return found, err
}

// Warnings names the metrics that are read over a range too short for the max_gap of
// their class, were they scraped at the cadence: the query may find less than two samples
// in it while a backend lags. metrics are by the name of the class; see Resolved.
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

// AddRules adds what the alert rules in a Prometheus rule file read, if they have one of
// the severities; none stands for all. What parses is added even if the rest does not.
func (m *Metrics) AddRules(content []byte, file string, severities []string) error {
	var parsed ruleFile
	if err := yaml.NewDecoder(bytes.NewReader(content)).Decode(&parsed); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var errs []error
	for _, group := range parsed.Groups {
		for _, rule := range group.Rules {
			if rule.Alert == "" || len(severities) > 0 && !slices.Contains(severities, rule.Labels["severity"]) {
				continue
			}
			if err := m.AddQuery(rule.Expr, fmt.Sprintf("alert %s in %s", rule.Alert, file)); err != nil {
				errs = append(errs, fmt.Errorf("alert %s of group %s: %w", rule.Alert, group.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}
