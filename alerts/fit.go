package alerts

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v4"
)

// shortest is the least interval at which rules are evaluated, whatever the speed.
const shortest = model.Duration(time.Second)

// fit changes the text of a file of rules as the options say. Comments stay.
func fit(text []byte, o *Options) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	for _, group := range groupsOf(&doc) {
		if name := group.get("name"); name != nil {
			name.Value = strings.Replace(name.Value, "sluice", strings.ToLower(o.Prefix), 1)
		}
		if err := o.hasten(group.get("interval"), shortest); err != nil {
			return nil, err
		}
	}
	for _, r := range rulesOf(&doc) {
		if err := r.fit(o); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return nil, fmt.Errorf("write rules: %w", err)
	}
	return b.Bytes(), nil
}

// mapping is a mapping of YAML.
type mapping struct{ node *yaml.Node }

// get is the value of the key, nil where it is missing.
func (m mapping) get(key string) *yaml.Node {
	for i := 0; i+1 < len(m.node.Content); i += 2 {
		if m.node.Content[i].Value == key {
			return m.node.Content[i+1]
		}
	}
	return nil
}

// list are the mappings in the list under the key.
func (m mapping) list(key string) []mapping {
	var all []mapping
	if n := m.get(key); n != nil {
		for _, item := range n.Content {
			all = append(all, mapping{item})
		}
	}
	return all
}

func groupsOf(doc *yaml.Node) []mapping { return mapping{doc.Content[0]}.list("groups") }

// rule is an alert or a recording rule.
type rule struct{ mapping }

func rulesOf(doc *yaml.Node) []rule {
	var all []rule
	for _, group := range groupsOf(doc) {
		for _, m := range group.list("rules") {
			all = append(all, rule{m})
		}
	}
	return all
}

// adjustable returns the name, without prefix, of an alert whose threshold may be changed.
func (r rule) adjustable() (string, bool) {
	alert := r.get("alert")
	if alert == nil {
		return "", false
	}
	severity := mapping{r.get("labels")}.get("severity")
	return strings.TrimPrefix(alert.Value, DefaultOptions().Prefix), severity == nil || severity.Value != "info"
}

func (r rule) fit(o *Options) error {
	if err := r.fitExpr(o); err != nil {
		return err
	}
	alert := r.get("alert")
	if alert == nil {
		return nil
	}
	alert.Value = o.Prefix + strings.TrimPrefix(alert.Value, DefaultOptions().Prefix)
	if notes := r.get("annotations"); notes != nil {
		for i := 1; i < len(notes.Content); i += 2 {
			notes.Content[i].Value = o.annotation(notes.Content[i].Value)
		}
	}
	return o.hasten(r.get("for"), 0)
}

func (r rule) fitExpr(o *Options) error {
	node := r.get("expr")
	expr, err := parse(node.Value)
	if err != nil {
		return fmt.Errorf("%s: %w", node.Value, err)
	}
	if name, ok := r.adjustable(); ok {
		if value, ok := o.Thresholds[name]; ok {
			threshold(expr).Val = value
		}
	}
	o.complete(expr)
	node.Value = parser.Prettify(expr)
	node.Style = 0
	if strings.Contains(node.Value, "\n") {
		node.Style = yaml.LiteralStyle
	}
	return nil
}

func parse(expr string) (parser.Expr, error) {
	return parser.NewParser(parser.Options{}).ParseExpr(expr)
}

// threshold is the number that the expression compares with; nil when it compares with
// several, or with none, or asks for a state.
func threshold(expr parser.Expr) *parser.NumberLiteral {
	switch e := expr.(type) {
	case *parser.ParenExpr:
		return threshold(e.Expr)
	case *parser.BinaryExpr:
		switch e.Op {
		case parser.LAND, parser.LUNLESS:
			return threshold(e.LHS)
		case parser.GTR, parser.GTE, parser.LSS, parser.LTE:
			n, _ := e.RHS.(*parser.NumberLiteral)
			return n
		}
	}
	return nil
}

// complete makes the expression select the site's gateways, by the site's names of labels,
// and hastens it.
func (o *Options) complete(expr parser.Expr) {
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			o.selector(n)
		case *parser.MatrixSelector:
			n.Range = o.faster(n.Range)
		case *parser.SubqueryExpr:
			n.Range, n.Step, n.OriginalOffset = o.faster(n.Range), o.faster(n.Step), o.faster(n.OriginalOffset)
		case *parser.AggregateExpr:
			o.rename(n.Grouping)
			if !n.Without && len(n.Grouping) > 0 {
				n.Grouping = append(n.Grouping, slices.Sorted(maps.Keys(o.Labels))...)
			}
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				o.rename(n.VectorMatching.MatchingLabels)
				o.rename(n.VectorMatching.Include)
			}
		}
		return nil
	})
}

func (o *Options) selector(n *parser.VectorSelector) {
	n.OriginalOffset = o.faster(n.OriginalOffset)
	for _, m := range n.LabelMatchers {
		if m.Name == model.JobLabel && m.Value == DefaultOptions().Job {
			*m = *o.jobMatcher()
		}
		m.Name = o.label(m.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Labels)) {
		n.LabelMatchers = append(n.LabelMatchers, labels.MustNewMatcher(labels.MatchEqual, name, o.Labels[name]))
	}
}

func (o *Options) jobMatcher() *labels.Matcher {
	kind := labels.MatchEqual
	if regexp.QuoteMeta(o.Job) != o.Job {
		kind = labels.MatchRegexp
	}
	return labels.MustNewMatcher(kind, model.JobLabel, o.Job)
}

func (o *Options) rename(names []string) {
	for i, name := range names {
		names[i] = o.label(name)
	}
}

func (o *Options) faster(d time.Duration) time.Duration {
	return time.Duration(float64(d) / o.Speed).Round(time.Millisecond)
}

// hasten divides the duration in the node, which may be nil, but not to below least.
func (o *Options) hasten(node *yaml.Node, least model.Duration) error {
	if node == nil {
		return nil
	}
	d, err := model.ParseDuration(node.Value)
	if err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	node.Value = max(least, model.Duration(o.faster(time.Duration(d)))).String()
	return nil
}

var labelInTemplate = regexp.MustCompile(`\$labels\.([a-zA-Z_][a-zA-Z0-9_]*)`)

// annotation is an annotation with the site's names and addresses.
func (o *Options) annotation(text string) string {
	d := DefaultOptions()
	text = labelInTemplate.ReplaceAllStringFunc(text, func(m string) string {
		return "$labels." + o.label(labelInTemplate.FindStringSubmatch(m)[1])
	})
	if rest, ok := strings.CutPrefix(text, "/d/"+strings.ToLower(d.Prefix)); ok {
		return o.Grafana + "/d/" + strings.ToLower(o.Prefix) + rest
	}
	if rest, ok := strings.CutPrefix(text, d.Source); ok {
		return o.Source + rest
	}
	m := o.jobMatcher()
	return strings.ReplaceAll(text, `job="`+d.Job+`"`, m.String())
}
