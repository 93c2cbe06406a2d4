package sampler

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// LoadDashboards returns the metrics that the panels of Grafana dashboards
// read. Globs that are relative start from dir; one that no file matches is no error.
func LoadDashboards(dir string, globs []string) (Metrics, error) {
	var found Metrics
	err := eachFile(dir, globs, func(file string, content []byte) error {
		return found.AddDashboard(content, file)
	})
	return found, err
}

// eachFile reads all files that the globs match.
func eachFile(dir string, globs []string, use func(file string, content []byte) error) error {
	var errs []error
	for _, path := range globs {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		files, err := filepath.Glob(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("find files %s: %w", path, err))
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err == nil {
				err = use(file, content)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("read %s: %w", file, err))
			}
		}
	}
	return errors.Join(errs...)
}

// AddDashboard adds what the PromQL in a dashboard's JSON reads. Queries that do not parse
// are told in the error, and the others added all the same.
func (m *Metrics) AddDashboard(content []byte, file string) error {
	var root any
	if err := json.Unmarshal(content, &root); err != nil {
		return err
	}
	return m.addPanels(root, "dashboard "+file)
}

// addPanels looks for queries anywhere: dashboards nest them in panels and rows, in ways
// that differ between versions.
func (m *Metrics) addPanels(node any, source string) error {
	var errs []error
	switch node := node.(type) {
	case []any:
		for _, below := range node {
			errs = append(errs, m.addPanels(below, source))
		}
	case map[string]any:
		if otherSource(node["datasource"]) {
			break
		}
		if title, ok := node["title"].(string); ok && title != "" && node["panels"] == nil {
			source += ", " + title
		}
		if query, ok := node["expr"].(string); ok && strings.TrimSpace(query) != "" {
			errs = append(errs, m.addTemplate(query, source))
		}
		for _, below := range node {
			errs = append(errs, m.addPanels(below, source))
		}
	}
	return errors.Join(errs...)
}

// otherSource reports whether a panel says that it asks something else than Prometheus.
// One that mixes sources says it at each query.
func otherSource(v any) bool {
	source, ok := v.(map[string]any)
	if !ok {
		return false
	}
	typ, _ := source["type"].(string)
	return typ != "" && typ != "prometheus" && typ != "datasource"
}

var (
	oldVariable = regexp.MustCompile(`\[\[\w+(:\w+)?\]\]`)
	rangeOf     = regexp.MustCompile(`\[[^\]]*\$[^\]]*\]`)
	variable    = regexp.MustCompile(`\$\{[^}]*\}|\$\w+`)
)

// anything stands where a variable stood in a query.
const anything = "grafana_variable"

// addTemplate adds a query with Grafana's variables in it. What is not known of a
// metric's name may be anything.
func (m *Metrics) addTemplate(query, source string) error {
	query = oldVariable.ReplaceAllString(query, anything)
	query = rangeOf.ReplaceAllStringFunc(query, func(r string) string {
		if strings.Contains(r, ":") && !strings.Contains(r, "${") {
			return "[5m:]"
		}
		return "[5m]"
	})
	var read Metrics
	if err := read.AddQuery(variable.ReplaceAllString(query, anything), source); err != nil {
		return err
	}
	for name, r := range read.names {
		r.within = 0 // Grafana chooses it
		if !strings.Contains(name, anything) {
			m.put(name, r)
			continue
		}
		parts := strings.Split(name, anything)
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		matcher, err := labels.NewMatcher(labels.MatchRegexp, model.MetricNameLabel, strings.Join(parts, ".*"))
		if err != nil {
			return fmt.Errorf("metric %q: %w", name, err)
		}
		if strings.Trim(matcher.Value, ".*") != "" { // else it would be every metric
			m.patterns = append(m.patterns, pattern{matcher, r})
		}
	}
	for _, p := range read.patterns {
		p.within = 0
		m.patterns = append(m.patterns, p)
	}
	return nil
}
