package fidelity

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/sluice-metrics/sluice/sampler"
)

// lookback is how old a sample may be and still be the value of its series, as in
// Prometheus when it is not told otherwise.
const lookback = 5 * time.Minute

// grid is the times at which something is evaluated.
type grid struct {
	start time.Time
	step  time.Duration
	n     int // steps; the first is at start
}

// newGrid is the grid from start to end, both included, in Unix ms.
func newGrid(start, end int64, step time.Duration) grid {
	g := grid{start: time.UnixMilli(start).UTC(), step: step}
	if end >= start {
		g.n = int((end-start)/step.Milliseconds()) + 1
	}
	return g
}

// answer is what a query gives on a grid: its series by their labels, in their order.
type answer []track

// track is one series of an answer: a value for each step, NaN where there is none.
type track struct {
	labels  labels.Labels
	values  []float64
	present []bool // NaN may be a value, too: to alerts it is one
}

func compareTracks(a, b track) int { return labels.Compare(a.labels, b.labels) }

func newEngine() *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		Logger:                   slog.New(slog.DiscardHandler),
		MaxSamples:               100_000_000,
		Timeout:                  10 * time.Minute,
		LookbackDelta:            lookback,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		Parser:                   sampler.NewParser(),
	})
}

// ask runs one query over the grid.
func (s *store) ask(ctx context.Context, e *promql.Engine, expr string, g grid) (answer, error) {
	end := g.start.Add(time.Duration(g.n-1) * g.step)
	q, err := e.NewRangeQuery(ctx, s.db, nil, expr, g.start, end, g.step)
	if err != nil {
		return nil, fmt.Errorf("query %q: %w", expr, err)
	}
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return nil, fmt.Errorf("query %q: %w", expr, res.Err)
	}
	m, err := res.Matrix()
	if err != nil {
		return nil, fmt.Errorf("query %q: %w", expr, err)
	}
	return newAnswer(expr, m, g)
}

// newAnswer copies m, which goes back to the engine.
func newAnswer(expr string, m promql.Matrix, g grid) (answer, error) {
	a := make(answer, 0, len(m))
	for _, s := range m {
		if len(s.Histograms) > 0 {
			return nil, fmt.Errorf("query %q gives native histograms, which have no error to measure; take histogram_quantile or histogram_count of them", expr)
		}
		t := track{labels: s.Metric, values: slices.Repeat([]float64{math.NaN()}, g.n), present: make([]bool, g.n)}
		for _, p := range s.Floats {
			i := (p.T - g.start.UnixMilli()) / g.step.Milliseconds()
			t.values[i], t.present[i] = p.F, true
		}
		a = append(a, t)
	}
	slices.SortFunc(a, compareTracks)
	return a, nil
}

// pair is the same series in the full and in the thinned answer; one side's values are
// nil where it does not have the series at all.
type pair struct {
	full, thinned []float64
}

// pairs brings two answers together, in the order of the labels.
func pairs(full, thinned answer) []pair {
	var out []pair
	for len(full) > 0 || len(thinned) > 0 {
		order := 0
		switch {
		case len(thinned) == 0:
			order = -1
		case len(full) == 0:
			order = 1
		default:
			order = compareTracks(full[0], thinned[0])
		}
		var p pair
		if order <= 0 {
			p.full, full = full[0].values, full[1:]
		}
		if order >= 0 {
			p.thinned, thinned = thinned[0].values, thinned[1:]
		}
		out = append(out, p)
	}
	return out
}

// at is the value of step i and whether there is one.
func at(values []float64, i int) (float64, bool) {
	if values == nil || math.IsNaN(values[i]) {
		return 0, false
	}
	return values[i], true
}
