package dashboards

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// durations are what Grafana puts in the place of its variables, while the parser sees the
// expression: it knows durations only. No query uses these otherwise.
var durations = map[string]model.Duration{
	"$__rate_interval": model.Duration(7_919 * time.Millisecond),
	"$__range":         model.Duration(7_907 * time.Millisecond),
	"$__interval":      model.Duration(7_901 * time.Millisecond),
}

// placeholders are where durations stand.
var placeholders = []string{"[", "offset "}

// alerts are not the gateways' series: they have those labels that the rule has left.
const alerts = "ALERTS"

func parse(expr string) (parser.Expr, error) {
	for name, d := range durations {
		for _, before := range placeholders {
			expr = strings.ReplaceAll(expr, before+name, before+d.String())
		}
	}
	return parser.NewParser(parser.Options{}).ParseExpr(expr)
}

func text(expr parser.Expr) string {
	s := expr.String()
	for name, d := range durations {
		for _, before := range placeholders {
			s = strings.ReplaceAll(s, before+d.String(), before+name)
		}
	}
	return s
}

// selection completes queries for one dashboard.
type selection struct {
	o     *Options
	scope func(metric string) []string
}

// query selects the gateways that the reader picked, and what the scope says, in each
// selector of the expression.
func (s *selection) query(expr string) (string, error) {
	return s.complete(expr, func(metric string) []*labels.Matcher {
		list := []*labels.Matcher{
			labels.MustNewMatcher(labels.MatchRegexp, model.JobLabel, "$job"),
		}
		switch {
		case metric == alerts:
			list = nil
		case !ofDatabases(metric):
			list = append(list, labels.MustNewMatcher(labels.MatchRegexp, model.InstanceLabel, "$instance"))
		}
		for _, name := range slices.Compact(slices.Sorted(slices.Values(s.scope(metric)))) {
			list = append(list, labels.MustNewMatcher(labels.MatchRegexp, name, "$"+name))
		}
		return list
	})
}

// values is the query of a variable. Of the variables it depends on job alone, or, for
// what gateways have, on instance too.
func (s *selection) values(v *variable) (string, error) {
	expr, err := s.complete(v.expr, func(metric string) []*labels.Matcher {
		switch {
		case v.name == model.JobLabel:
			if s.o.Job == "" {
				return nil
			}
			return []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, model.JobLabel, s.o.Job)}
		case v.name == model.InstanceLabel, ofDatabases(metric):
			return []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, model.JobLabel, "$job")}
		}
		return []*labels.Matcher{
			labels.MustNewMatcher(labels.MatchRegexp, model.JobLabel, "$job"),
			labels.MustNewMatcher(labels.MatchRegexp, model.InstanceLabel, "$instance"),
		}
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("label_values(%s, %s)", expr, s.o.label(v.name)), nil
}

// complete adds matchers to each selector, and the site's names of labels.
func (s *selection) complete(expr string, matchers func(metric string) []*labels.Matcher) (string, error) {
	tree, err := parse(expr)
	if err != nil {
		return "", fmt.Errorf("%s: %w", expr, err)
	}
	parser.Inspect(tree, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			s.selector(n, matchers(n.Name))
		case *parser.AggregateExpr:
			s.rename(n.Grouping)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				s.rename(n.VectorMatching.MatchingLabels)
				s.rename(n.VectorMatching.Include)
			}
		}
		return nil
	})
	return text(tree), nil
}

func (s *selection) selector(n *parser.VectorSelector, more []*labels.Matcher) {
	all := slices.Concat(more, n.LabelMatchers)
	for _, m := range all {
		m.Name = s.o.label(m.Name)
	}
	if n.Name != alerts {
		for _, name := range slices.Sorted(maps.Keys(s.o.Labels)) {
			all = append(all, labels.MustNewMatcher(labels.MatchEqual, name, s.o.Labels[name]))
		}
	}
	n.LabelMatchers = all
}

func (s *selection) rename(names []string) {
	for i, name := range names {
		names[i] = s.o.label(name)
	}
}

var braces = regexp.MustCompile(`\{\{\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*\}\}`)

// legend is a legend with the site's names of labels.
func (s *selection) legend(legend string) string {
	return braces.ReplaceAllStringFunc(legend, func(m string) string {
		return "{{" + s.o.label(braces.FindStringSubmatch(m)[1]) + "}}"
	})
}

// ofDatabases are the metrics of what probes found. They are selected by cluster and target,
// but not by instance: it does not matter which gateway probes at a time, and in what the
// gateways write into their own pipeline these series have no instance.
func ofDatabases(metric string) bool {
	switch prefix, _, _ := strings.Cut(metric, "_"); prefix {
	case "replica", "circuit", "sql", "stream", "consumer", "etcd":
		return true
	case "db":
		return !strings.HasPrefix(metric, "db_pool_") && !strings.HasPrefix(metric, "db_conn_")
	}
	return false
}

// quantile is a quantile of a histogram in its native form, or in the classic one where
// the native is not stored.
func quantile(q, histogram string, by ...string) string {
	native := strings.Join(by, ", ")
	classic := strings.Join(append([]string{"le"}, by...), ", ")
	name, matchers, _ := strings.Cut(histogram, "{")
	if matchers != "" {
		matchers = "{" + matchers
	}
	return fmt.Sprintf("histogram_quantile(%[1]s, sum by (%[2]s) (rate(%[4]s%[5]s[$__rate_interval]))) or histogram_quantile(%[1]s, sum by (%[3]s) (rate(%[4]s_bucket%[5]s[$__rate_interval])))",
		q, native, classic, name, matchers)
}

// quantileEver is a quantile of everything since the gateways started, for what happens so
// rarely that it has no rate.
func quantileEver(q, histogram string, by ...string) string {
	return fmt.Sprintf("histogram_quantile(%[1]s, sum by (%[2]s) (%[3]s)) or histogram_quantile(%[1]s, sum by (le, %[2]s) (%[3]s_bucket))", q, strings.Join(by, ", "), histogram)
}

// grown is by how much a counter has grown in the time shown. Unlike increase it counts a
// series that began in this time from 0, as that of the first loss for a reason does. It is
// for counters that go on after a restart, or for which a lower bound will do.
func grown(counter, by string) string {
	sum := "sum by (" + by + ") (" + counter
	if by == "" {
		sum = "sum(" + counter
	}
	return "clamp_min(" + sum + ") - (" + sum + " offset $__range) or 0 * " + sum + ")), 0)"
}

// orZero is 0 where the gateways are there, but not what is asked for, as counters of
// what has never happened. Where no gateway is, it is nothing.
func orZero(expr string) string { return "(" + expr + " or 0 * sum(sluice_build_info))" }

// orZeroByBackend is orZero for each backend.
func orZeroByBackend(expr string) string {
	return "(" + expr + ` or 0 * sum by (backend) (sluice_in_journal_bytes))`
}

// codes is one number for a set of states, of which one is 1: the place of the state in
// the list, from 1. Of several gateways the highest counts.
func codes(metric, label, by string, states ...string) string {
	var parts []string
	for i, s := range states {
		parts = append(parts, fmt.Sprintf("%d * %s{%s=%q}", i+1, metric, label, s))
	}
	return fmt.Sprintf("max by (%s) (sum by (instance, %s) (%s))", by, by, strings.Join(parts, " or "))
}

// instant reports whether the query is asked once: for the present, or for the whole
// range of time.
func (q *query) instant() bool { return q.now || strings.Contains(q.expr, "$__range") }
