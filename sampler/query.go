package sampler

import (
	"fmt"
	"math"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// NewParser takes all that some Prometheus may be told to take: what a query reads does not
// depend on whether its server has a feature turned on.
func NewParser() parser.Parser {
	return parser.NewParser(parser.Options{
		EnableExperimentalFunctions:  true,
		ExperimentalDurationExpr:     true,
		EnableExtendedRangeSelectors: true,
		EnableBinopFillModifiers:     true,
	})
}

// AddQuery adds what a PromQL query reads; source says where it stands. It fails for a
// query that does not parse.
func (m *Metrics) AddQuery(query, source string) error {
	expr, err := NewParser().ParseExpr(query)
	if err != nil {
		return fmt.Errorf("parse query %q: %w", query, err)
	}
	m.addExpr(expr, reading{source: source})
	return nil
}

// addExpr adds what the expression reads for a reader.
func (m *Metrics) addExpr(expr parser.Expr, reader reading) {
	parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			r := reading{source: reader.source}
			if len(path) > 0 {
				if around, ok := path[len(path)-1].(*parser.MatrixSelector); ok {
					r.within = rangeOf(around)
				}
			}
			m.addSelector(n, narrower(r, reader))
		case *parser.Call:
			if n.Func.Name == "info" && !namesItsMetric(n.Args) {
				m.put(defaultInfo, reader)
			}
		}
		return nil
	})
}

// defaultInfo is what the function info reads that is told of no metric.
const defaultInfo = "target_info"

func namesItsMetric(info parser.Expressions) bool {
	if len(info) < 2 {
		return false
	}
	selector, ok := info[1].(*parser.VectorSelector)
	if !ok {
		return false
	}
	for _, matcher := range selector.LabelMatchers {
		if matcher.Name == model.MetricNameLabel {
			return true
		}
	}
	return false
}

// rangeOf is the range of a selector; 0 where it is not known before the query is asked.
func rangeOf(selector *parser.MatrixSelector) time.Duration {
	if selector.RangeExpr == nil {
		return selector.Range
	}
	seconds := durationOf(selector.RangeExpr)
	if !(seconds > 0) || seconds > math.MaxInt64/float64(time.Second) {
		return 0
	}
	return time.Duration(seconds * float64(time.Second)).Truncate(time.Millisecond)
}

// durationOf is what a duration expression comes to, in seconds; NaN where that depends on
// the step or the range of the query.
func durationOf(expr parser.Expr) float64 {
	if number, ok := expr.(*parser.NumberLiteral); ok {
		return number.Val
	}
	e, ok := expr.(*parser.DurationExpr)
	if !ok {
		return math.NaN()
	}
	var left, right float64 // a sign has nothing on its left
	if e.LHS != nil {
		left = durationOf(e.LHS)
	}
	if e.RHS != nil {
		right = durationOf(e.RHS)
	}
	switch e.Op {
	case parser.ADD:
		return left + right
	case parser.SUB:
		return left - right
	case parser.MUL:
		return left * right
	case parser.DIV:
		return left / right
	case parser.MOD:
		return math.Mod(left, right)
	case parser.POW:
		return math.Pow(left, right)
	case parser.MIN_OF:
		return math.Min(left, right)
	case parser.MAX_OF:
		return math.Max(left, right)
	}
	return math.NaN()
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
			m.putPattern(pattern{matcher, r})
			return
		}
	}
	// A selector without a name reads any metric; to make all of them critical would
	// mean to thin none.
}
