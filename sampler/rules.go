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
