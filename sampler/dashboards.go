package sampler

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// LoadDashboards returns the metrics that the panels and variables of Grafana dashboards
// read. Globs that are relative start from dir; one with wildcards that no file matches is
// no error. What cannot be read is told in the error, and the rest returned all the same.
func LoadDashboards(dir string, globs []string) (Metrics, error) {
	var found Metrics
	err := eachFile(dir, globs, func(file string, content []byte) error {
		return found.AddDashboard(content, file)
	})
	return found, err
}

// eachFile reads all files that the globs match. A name without wildcards has to be there.
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
		if len(files) == 0 && !strings.ContainsAny(path, `*?[\`) {
			files = []string{path}
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err == nil {
				err = use(file, content)
			}
			errs = append(errs, within(file, err)...)
		}
	}
	return errors.Join(errs...)
}

// within says of each of the joined errors in which file it is.
func within(file string, err error) []error {
	if err == nil {
		return nil
	}
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	for i := range list {
		list[i] = fmt.Errorf("read %s: %w", file, list[i])
	}
	return list
}

// AddDashboard adds what the PromQL in a dashboard's JSON reads. Of queries that do not
// parse it adds what look like metrics and tells it in the error.
func (m *Metrics) AddDashboard(content []byte, file string) error {
	var root any
	if err := json.Unmarshal(content, &root); err != nil {
		return err
	}
	b := board{metrics: m, inputs: map[string]string{}, elements: map[string]bool{}}
	b.collect(root)
	b.read(root, panel{source: "dashboard " + file})
	return errors.Join(b.errs...)
}

// board is a dashboard that is being read. Queries are looked for anywhere in it: panels and
// rows nest in ways that differ between versions.
type board struct {
	metrics  *Metrics
	inputs   map[string]string // the type of a data source, by the variable that stands for it
	elements map[string]bool   // library panels that come with the dashboard, by uid
	errs     []error
}

// panel is what is known of the place of a query.
type panel struct {
	source string
	asks   language
}

// collect notes what other places refer to.
func (b *board) collect(node any) {
	switch node := node.(type) {
	case []any:
		for _, below := range node {
			b.collect(below)
		}
	case map[string]any:
		if name, plugin := text(node["name"]), text(node["pluginId"]); name != "" && plugin != "" {
			b.inputs[name] = plugin
		}
		if name, plugin := text(node["name"]), text(node["query"]); name != "" && plugin != "" && text(node["type"]) == "datasource" {
			b.inputs[name] = plugin
		}
		for uid := range mapping(node["__elements"]) {
			b.elements[uid] = true
		}
		for _, below := range node {
			b.collect(below)
		}
	}
}

// read adds the queries of the node and of what is below it.
func (b *board) read(node any, p panel) {
	switch node := node.(type) {
	case []any:
		for _, below := range node {
			b.read(below, p)
		}
	case map[string]any:
		b.readObject(node, p)
	}
}

func (b *board) readObject(node map[string]any, p panel) {
	// Only what a query or its panel says counts. A row, or a dashboard, holds panels with
	// sources of their own.
	_, holds := node["panels"]
	if asks := b.asks(node); asks != unsaid && !holds {
		p.asks = asks
	} else if holds {
		p.asks = unsaid
	}
	if title := text(node["title"]); title != "" && !holds {
		p.source += ", " + title
	}
	if query := text(node["expr"]); strings.TrimSpace(query) != "" {
		b.add(query, p)
	}
	if missing := b.libraryPanel(node); missing != "" {
		b.errs = append(b.errs, fmt.Errorf("%s is a library panel whose queries are not in the file: what it reads is not known; export the dashboard with its library panels", missing))
	}
	for _, key := range slices.Sorted(maps.Keys(node)) {
		if key == "templating" || key == "variables" {
			b.readVariables(node[key], p)
		}
		b.read(node[key], p)
	}
}

// libraryPanel is the name of the library panel that the node refers to and that is not in
// the file; empty where there is none.
func (b *board) libraryPanel(node map[string]any) string {
	library := mapping(node["libraryPanel"])
	_, known := node["targets"]
	if library == nil || known || library["model"] != nil || b.elements[text(library["uid"])] {
		return ""
	}
	for _, name := range []any{library["name"], node["title"], library["uid"]} {
		if name := text(name); name != "" {
			return name
		}
	}
	return "a panel"
}

// add adds a query.
func (b *board) add(query string, p panel) {
	if p.asks == other {
		return
	}
	err := b.metrics.addTemplate(query, p.source)
	if err == nil || p.asks == unknown {
		return
	}
	if found := b.metrics.addWords(query, p.source); len(found) > 0 {
		err = fmt.Errorf("%w (these count as read, for their looks: %s)", err, strings.Join(found, ", "))
	}
	b.errs = append(b.errs, err)
}

// readVariables adds what the values of variables are looked up in.
func (b *board) readVariables(node any, p panel) {
	switch node := node.(type) {
	case []any:
		for _, below := range node {
			b.readVariables(below, p)
		}
	case map[string]any:
		if asks := b.asks(node); asks != unsaid {
			p.asks = asks
		}
		if name := text(node["name"]); name != "" {
			p.source += ", variable " + name
		}
		if kind := text(node["type"]); kind != "" && kind != "query" && node["name"] != nil {
			return // its values are listed, not looked up
		}
		if kind := text(node["kind"]); strings.HasSuffix(kind, "Variable") && kind != "QueryVariable" {
			return
		}
		if lookup := text(node["query"]); lookup != "" {
			b.lookUp(lookup, p)
		}
		for _, key := range slices.Sorted(maps.Keys(node)) {
			b.readVariables(node[key], p)
		}
	}
}

var (
	labelValues = regexp.MustCompile(`(?s)^\s*label_values\s*\((.*),[^,{}()]*\)\s*$`)
	queryResult = regexp.MustCompile(`(?s)^\s*query_result\s*\((.*)\)\s*$`)
	noMetric    = regexp.MustCompile(`^\s*(label_values|label_names|metrics)\s*\(`)
)

// lookUp adds what Grafana's functions for variables read.
func (b *board) lookUp(query string, p panel) {
	for _, form := range []*regexp.Regexp{labelValues, queryResult} {
		if parts := form.FindStringSubmatch(query); parts != nil {
			b.add(parts[1], p)
			return
		}
	}
	if noMetric.MatchString(query) {
		return
	}
	// A selector, or something of another source that does not say what it is.
	p.asks = max(p.asks, unknown)
	b.add(query, p)
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func mapping(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}
