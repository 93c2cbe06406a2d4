package sampler

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

var (
	oldVariable = regexp.MustCompile(`\[\[(\w+)(:\w+)?\]\]`)
	variable    = regexp.MustCompile(`\$\{[^}]*\}|\$\w+`)
)

// nameOf is the name of a variable that is written with a dollar.
func nameOf(v string) string {
	v, _, _ = strings.Cut(strings.Trim(v, "${}"), ":")
	return v
}

// anything stands where a variable stood in a query.
const anything = "grafana_variable"

// mostTries bounds how many ways to fill in the variables of a query are tried.
const mostTries = 2000

// addTemplate adds a query with Grafana's variables in it. What is not known of a
// metric's name may be anything.
func (m *Metrics) addTemplate(query, source string) error {
	expr, err := parseTemplate(query)
	if err != nil {
		return err
	}
	var read Metrics
	read.addExpr(expr, reading{source: source})
	return m.addFilledIn(read)
}

// addFilledIn adds what a query reads that was a template. Its ranges do not count: Grafana
// chooses them, and people do.
func (m *Metrics) addFilledIn(read Metrics) error {
	for _, name := range read.Names() {
		r := read.names[name]
		r.within = 0
		if err := m.putTemplate(name, regexp.QuoteMeta(name), r); err != nil {
			return err
		}
	}
	for _, p := range read.patterns {
		p.within = 0
		if err := m.putTemplate(p.name.Value, p.name.Value, p.reading); err != nil {
			return err
		}
	}
	return nil
}

// putTemplate adds a metric whose name is a text or, where variables are in it, a pattern.
func (m *Metrics) putTemplate(name, expression string, r reading) error {
	if name == expression && regexp.QuoteMeta(name) == name && !strings.Contains(name, anything) {
		m.put(name, r)
		return nil
	}
	expression = strings.ReplaceAll(expression, anything, ".*")
	matcher, err := labels.NewMatcher(labels.MatchRegexp, model.MetricNameLabel, expression)
	if err != nil {
		return fmt.Errorf("metric %q: %w", name, err)
	}
	if strings.Trim(expression, ".*+()|^$") != "" { // else it would be every metric
		m.putPattern(pattern{matcher, r})
	}
	return nil
}

// parseTemplate parses a query after filling in the variables: with what belongs where they
// stand first, and with other things that may stand there while it does not parse.
func parseTemplate(query string) (parser.Expr, error) {
	t := newTemplate(query)
	p := NewParser()
	var first error
	choice := make([]int, len(t.places))
	for range mostTries {
		expr, err := p.ParseExpr(t.fill(choice))
		if err == nil {
			return expr, nil
		}
		if first == nil {
			first = fmt.Errorf("parse query %q: %w", query, err)
		}
		if !t.next(choice) {
			break
		}
	}
	return nil, first
}

// template is a query cut at its variables.
type template struct {
	texts  []string // around the places, one more than these
	places [][]string
}

func (t *template) fill(choice []int) string {
	var b strings.Builder
	for i, options := range t.places {
		b.WriteString(t.texts[i])
		b.WriteString(options[choice[i]])
	}
	b.WriteString(t.texts[len(t.places)])
	return b.String()
}

// next goes to another choice; false when there are no more.
func (t *template) next(choice []int) bool {
	for i := len(choice) - 1; i >= 0; i-- {
		if choice[i]++; choice[i] < len(t.places[i]) {
			return true
		}
		choice[i] = 0
	}
	return false
}

// newTemplate cuts a query at the variables that are not within strings. Those in strings are
// just text.
func newTemplate(query string) *template {
	query = oldVariable.ReplaceAllString(query, `$${$1}`)
	t := &template{}
	s := scanner{}
	from, at := 0, 0
	var done strings.Builder // since the place before
	for at < len(query) {
		v := variable.FindStringIndex(query[at:])
		if v == nil {
			break
		}
		begin, end := at+v[0], at+v[1]
		done.WriteString(query[at:begin])
		s.scan(query[from:begin])
		from, at = end, end
		if s.quote != 0 || glued(query[:begin], query[end:], s) {
			done.WriteString(anything)
			continue
		}
		t.texts = append(t.texts, done.String())
		t.places = append(t.places, s.options(query[:begin], query[end:]))
		done.Reset()
	}
	t.texts = append(t.texts, done.String()+query[at:])
	return t
}

// glued reports whether the place is a part of a name.
func glued(before, after string, s scanner) bool {
	if s.inside() == '[' {
		return false
	}
	return before != "" && isName(before[len(before)-1]) && !keywordAtEnd.MatchString(before) ||
		after != "" && isName(after[0]) && !strings.HasPrefix(after, "_over_time")
}

var (
	keywordAtEnd = regexp.MustCompile(`(?i)(^|\W)(and|or|unless|by|without|on|ignoring|group_left|group_right|offset|bool|atan2)$`)
	offsetAtEnd  = regexp.MustCompile(`(?i)\boffset\s*-?\s*$`)
	listBefore   = regexp.MustCompile(`(?i)\b(by|without|on|ignoring|group_left|group_right)\s*$`)
	groups       = regexp.MustCompile(`(?i)^\s*(by|without)\b`)
	comparison   = regexp.MustCompile(`^\s*(=~|!~|!=|=)`)
	unitAfter    = regexp.MustCompile(`^(ms|[smhdwy])\b`)
)

func isName(c byte) bool {
	return c == '_' || c == ':' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// scanner knows within which brackets and quotes a place of a query is.
type scanner struct {
	quote byte // 0 outside of strings
	open  []byte
	text  string // all so far, for what stands before a bracket
	lists []bool // of open: whether it is a list of labels
}

func (s *scanner) scan(text string) {
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case s.quote != 0 && c == '\\' && s.quote != '`':
			i++
		case s.quote != 0:
			if c == s.quote {
				s.quote = 0
			}
		case c == '"', c == '\'', c == '`':
			s.quote = c
		case c == '(', c == '[', c == '{':
			s.open = append(s.open, c)
			s.lists = append(s.lists, listBefore.MatchString(s.text+text[:i]))
		case (c == ')' || c == ']' || c == '}') && len(s.open) > 0:
			s.open, s.lists = s.open[:len(s.open)-1], s.lists[:len(s.lists)-1]
		}
	}
	s.text += text
}

// inside is the bracket around the place; 0 for none.
func (s *scanner) inside() byte {
	if len(s.open) == 0 {
		return 0
	}
	return s.open[len(s.open)-1]
}

// options are what may stand between before and after, likeliest first.
func (s *scanner) options(before, after string) []string {
	previous := strings.TrimRight(before, " \t\r\n")
	last := byte(0)
	if previous != "" {
		last = previous[len(previous)-1]
	}
	following := strings.TrimLeft(after, " \t\r\n")
	switch {
	case s.inside() == '[' && unitAfter.MatchString(after):
		return []string{"5"}
	case s.inside() == '[', offsetAtEnd.MatchString(before):
		return []string{"5m", "5", ""}
	case s.inside() == '{' && (last == '=' || last == '~'):
		return []string{`"` + anything + `"`, anything}
	case s.inside() == '{' && comparison.MatchString(after):
		return []string{anything}
	case s.inside() == '{':
		const condition = anything + `="x"`
		return []string{condition, "," + condition, condition + ",", "," + condition + ",", ""}
	case len(s.lists) > 0 && s.lists[len(s.lists)-1]:
		return []string{anything, "", "," + anything, anything + ","}
	case strings.HasPrefix(after, "_over_time"):
		return []string{"avg", "quantile"}
	case strings.HasPrefix(following, "("), groups.MatchString(after):
		return []string{"sum", "rate", "topk", "abs", "histogram_quantile", "clamp_max", "quantile_over_time", anything, "+", "by (" + anything + ")"}
	}
	if following != "" && (following[0] == '[' || following[0] == '{') || last == '(' && strings.HasPrefix(following, ")") {
		return []string{anything, "1", "", "5m"}
	}
	// A value is no metric, and a query does not parse with a number for one in most
	// places.
	return []string{"1", anything, "5m", "+", "> bool", "", "by (" + anything + ")", "sum"}
}
