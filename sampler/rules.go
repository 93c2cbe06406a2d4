package sampler

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v4"
)

// ruleFile is what is read of a Prometheus rule file.
type ruleFile struct {
	Groups []struct {
		Name   string            `yaml:"name"`
		Labels map[string]string `yaml:"labels"`
		Rules  []struct {
			Alert  string            `yaml:"alert"`
			Record string            `yaml:"record"`
			Expr   string            `yaml:"expr"`
			Labels map[string]string `yaml:"labels"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

// rules are those of some rule files.
type rules struct {
	alerts []alert
	// records are what the recording rules compute, by the metric. Several rules may
	// write one.
	records map[string][]parser.Expr
}

type alert struct {
	expr     parser.Expr
	source   string
	severity string // with those labels of the group that the rule does not overwrite
}

// pages reports whether the alert has one of the severities; none stands for all. Of one
// that a template works out, nobody knows before it fires, so it counts as any.
func (a alert) pages(severities []string) bool {
	return len(severities) == 0 || slices.Contains(severities, a.severity) || strings.Contains(a.severity, "{{")
}

// loadRules reads rule files; see LoadRules.
func loadRules(dir string, globs []string) (rules, error) {
	var found rules
	err := eachFile(dir, globs, func(file string, content []byte) error {
		return found.add(content, file)
	})
	return found, err
}

// add adds the rules of a file. What parses is added even if the rest does not.
func (s *rules) add(content []byte, file string) error {
	var parsed ruleFile
	if err := yaml.NewDecoder(bytes.NewReader(content)).Decode(&parsed); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if s.records == nil {
		s.records = map[string][]parser.Expr{}
	}
	p := NewParser()
	var errs []error
	for _, group := range parsed.Groups {
		for _, rule := range group.Rules {
			what := "alert " + rule.Alert
			if rule.Alert == "" {
				what = "recording rule " + rule.Record
			}
			expr, err := p.ParseExpr(rule.Expr)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s of group %s: parse query %q: %w", what, group.Name, rule.Expr, err))
				continue
			}
			if rule.Alert == "" {
				s.records[rule.Record] = append(s.records[rule.Record], expr)
				continue
			}
			severity, own := rule.Labels["severity"]
			if !own {
				severity = group.Labels["severity"]
			}
			s.alerts = append(s.alerts, alert{expr: expr, source: what + " in " + file, severity: severity})
		}
	}
	return errors.Join(errs...)
}

// join adds the recording rules of o.
func (s *rules) join(o rules) {
	if s.records == nil {
		s.records = map[string][]parser.Expr{}
	}
	for name, exprs := range o.records {
		s.records[name] = append(s.records[name], exprs...)
	}
}

// read is what the alerts of the severities read themselves.
func (s *rules) read(severities []string) Metrics {
	var m Metrics
	for _, a := range s.alerts {
		if a.pages(severities) {
			m.addExpr(a.expr, reading{source: a.source})
		}
	}
	return m
}

// follow adds what the recording rules read that compute metrics of m, and those that
// compute what these read, and so on. Of all ranges on the way the shortest counts: a metric
// has to have samples in each window that is laid over it.
func (m *Metrics) follow(s rules) {
	// It ends, for each pass adds a metric or shortens a range, and there are as many as
	// the rules name. A rule that reads itself adds nothing.
	for again := true; again; {
		again = false
		for _, name := range slices.Sorted(maps.Keys(s.records)) {
			reader, ok := m.find(name)
			if !ok {
				continue
			}
			if !strings.Contains(reader.source, through) {
				reader.source += through + name
			}
			for _, expr := range s.records[name] {
				var read Metrics
				read.addExpr(expr, reader)
				again = m.widen(read) || again
			}
		}
	}
}

// through stands in a source before the recording rule by which the reader comes to the
// metric.
const through = ", through "

// widen adds what o has, and reports whether that is news.
func (m *Metrics) widen(o Metrics) bool {
	news := false
	for name, r := range o.names {
		before, ok := m.names[name]
		if !ok || narrower(before, r) != before {
			news = true
			m.put(name, r)
		}
	}
	for i := range o.patterns {
		news = m.putPattern(o.patterns[i]) || news
	}
	return news
}

// LoadRules returns the metrics that the alert rules in the files read, themselves or
// through recording rules in any of the files. Globs that are relative start from dir. A
// glob with wildcards that no file matches is no error: files may come later. What cannot be
// read is told in the error, and the rest returned all the same.
func LoadRules(dir string, from FromRules) (Metrics, error) {
	found, err := loadRules(dir, from.Files)
	m := found.read(from.Severity)
	m.follow(found)
	return m, err
}

// AddRules adds what the alert rules in a Prometheus rule file read, themselves or through
// its recording rules, if they have one of the severities; none stands for all. What parses
// is added even if the rest does not.
func (m *Metrics) AddRules(content []byte, file string, severities []string) error {
	var found rules
	err := found.add(content, file)
	m.Add(found.read(severities))
	m.follow(found)
	return err
}
