package fidelity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/sluice-metrics/sluice/internal/capture"
)

const (
	// QueryStep is the distance of the steps of range queries.
	QueryStep = 15 * time.Second
	// RuleStep is the distance of the evaluations of alert rules.
	RuleStep = 5 * time.Second
	// Warmup is how long after the first sample queries and rules begin: the longest
	// ranges in use have their samples then.
	Warmup = 10 * time.Minute
)

// Method is a way of thinning.
type Method string

const (
	Frames  Method = "frames"  // frames, events, elision: what a lane does
	Aligned Method = "aligned" // frames alone, no state per series
	Random  Method = "random"  // each sample for itself, at the share that frames kept
)

// Options is what Run needs.
type Options struct {
	// Capture is read from its start for each row, and once for the full side.
	Capture io.ReadSeeker
	Queries []Query
	Alerts  []Alert
	// Rates are requested shares, above 0 and at most 1.
	Rates   []float64
	Methods []Method
	// NewThinner makes the Thinner of a row. rate is the requested share, for Random the
	// share to keep. With Random among the Methods it is asked for Frames, too.
	NewThinner func(m Method, rate float64) (Thinner, error)
	// Dir is where the stores lie while Run runs; empty means the system's place for
	// temporary files.
	Dir string
}

// Report is the outcome of Run.
type Report struct {
	// Rows are in the order of the rates, and for one rate of the methods.
	Rows []Row `json:"rows"`

	Series   int           `json:"-"` // in the capture
	Samples  uint64        `json:"-"` // in the capture, histograms and markers included
	Duration time.Duration `json:"-"` // from the first to the last sample
	Episodes int           `json:"-"` // of all alerts on full data
	Pages    int           `json:"-"` // those of them that page
	Queries  []Query       `json:"-"`
}

// Row is how thinned data compares with full data for one rate and method. The package
// comment says what the figures mean.
type Row struct {
	Rate   float64 `json:"rate"`
	Method Method  `json:"method"`

	Kept  float64 `json:"kept"`  // share of the samples
	Bytes float64 `json:"bytes"` // share of the compressed bytes of the series in requests

	P50     float64 `json:"p50"` // error that half of the steps do not exceed
	P95     float64 `json:"p95"`
	P99     float64 `json:"p99"`
	Missing float64 `json:"missing"` // of the full answers' steps, as are Extra and Bad
	Extra   float64 `json:"extra"`
	Bad     float64 `json:"bad"`

	AlertAgreement float64 `json:"alert_agreement"`
	PageAgreement  float64 `json:"page_agreement"`
	Missed         int     `json:"missed"` // episodes of all alerts
	False          int     `json:"false"`
	DelayMean      float64 `json:"delay_mean"` // seconds; negative is early
	DelayMax       float64 `json:"delay_max"`

	PagesMissed int    `json:"-"`
	PagesFalse  int    `json:"-"`
	Late        uint64 `json:"-"` // samples sent that were not newer than what was sent before

	// Episodes are those that differ, in the order of the alerts.
	Episodes []Episode `json:"-"`
	// BadByQuery is Bad of each query alone, in their order.
	BadByQuery []float64 `json:"-"`
}

// Episode is one episode of an alert on which the sides differ.
type Episode struct {
	Alert string // its labels
	// What is "missed", "false" or "shifted".
	What string
	// At is when it begins, in seconds after the first sample: on full data, or on
	// thinned data for a false one.
	At float64
	// Delay is by how many seconds a shifted one begins later; negative is early.
	Delay float64
}

// Run compares, row by row. It works on one row at a time and keeps two stores of the
// capture's samples in memory at most.
func Run(ctx context.Context, o Options) (*Report, error) {
	r := &runner{o: o, engine: newEngine()}
	report, err := r.run(ctx)
	return report, errors.Join(err, r.engine.Close())
}

// runner is a comparison under way.
type runner struct {
	o      Options
	engine *promql.Engine

	full    traffic
	queries grid
	rules   grid
	answers []answer // of the full side, by query
	firing  []firing // of the full side, by alert
}

func (r *runner) run(ctx context.Context) (*Report, error) {
	if err := r.runFull(ctx); err != nil {
		return nil, err
	}
	report := &Report{
		Series:   r.full.series,
		Samples:  r.full.seen,
		Duration: time.Duration(r.full.maxTime-r.full.minTime) * time.Millisecond,
		Queries:  r.o.Queries,
	}
	for i, a := range r.o.Alerts {
		for _, e := range r.firing[i] {
			report.Episodes += len(e.spans)
			if a.Page() {
				report.Pages += len(e.spans)
			}
		}
	}
	for _, rate := range r.o.Rates {
		frames := math.NaN() // what frames keep at this rate, once known
		for _, m := range r.o.Methods {
			row, err := r.row(ctx, m, rate, &frames)
			if err != nil {
				return nil, fmt.Errorf("rate %v, method %s: %w", rate, m, err)
			}
			report.Rows = append(report.Rows, row)
		}
	}
	return report, nil
}

// runFull replays everything and keeps the answers.
func (r *runner) runFull(ctx context.Context) error {
	return r.replay(ctx, everything{}, func(s *store, full traffic) error {
		r.full = full
		start := full.minTime + Warmup.Milliseconds()
		r.rules, r.queries = newGrid(start, full.maxTime, RuleStep), newGrid(start, full.maxTime, QueryStep)
		if r.queries.n == 0 {
			return fmt.Errorf("the capture covers %v; queries and rules begin %v after its first sample", time.Duration(full.maxTime-full.minTime)*time.Millisecond, Warmup)
		}
		var err error
		for _, q := range r.o.Queries {
			var a answer
			if a, err = s.ask(ctx, r.engine, q.Expr, r.queries); err != nil {
				return err
			}
			r.answers = append(r.answers, a)
		}
		for _, a := range r.o.Alerts {
			f, err := r.fire(ctx, s, a)
			if err != nil {
				return err
			}
			r.firing = append(r.firing, f)
		}
		return nil
	})
}

func (r *runner) fire(ctx context.Context, s *store, a Alert) (firing, error) {
	expr, err := s.ask(ctx, r.engine, a.Expr, r.rules)
	if err != nil {
		return nil, fmt.Errorf("alert %s: %w", a.Name, err)
	}
	return fire(a, expr, r.rules), nil
}

// replay runs the capture through th into a store, has it used, and removes it.
func (r *runner) replay(ctx context.Context, th Thinner, use func(*store, traffic) error) (err error) {
	dir, err := os.MkdirTemp(r.o.Dir, "sluice-fidelity-")
	if err != nil {
		return fmt.Errorf("make a directory for comparison (TMPDIR names another place): %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := openStore(filepath.Join(dir, "store"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	t, err := r.pass(ctx, th, s)
	if err != nil {
		return err
	}
	return use(s, t)
}

// pass reads the whole capture once; s may be nil.
func (r *runner) pass(ctx context.Context, th Thinner, s *store) (traffic, error) {
	if _, err := r.o.Capture.Seek(0, io.SeekStart); err != nil {
		return traffic{}, fmt.Errorf("read the capture from its start: %w", err)
	}
	p := newReplay(th, s)
	err := p.run(ctx, capture.NewReader(r.o.Capture))
	return p.traffic, err
}

func (r *runner) row(ctx context.Context, m Method, rate float64, frames *float64) (Row, error) {
	share := rate
	if m == Random {
		if err := r.framesShare(ctx, rate, frames); err != nil {
			return Row{}, err
		}
		share = *frames
	}
	th, err := r.o.NewThinner(m, share)
	if err != nil {
		return Row{}, err
	}
	row := Row{Rate: rate, Method: m}
	err = r.replay(ctx, th, func(s *store, sent traffic) error {
		row.Kept = float64(sent.sent) / float64(sent.seen)
		row.Bytes = float64(sent.bytes) / float64(r.full.bytes)
		row.Late = sent.late
		if m == Frames {
			*frames = row.Kept
		}
		if err := r.compareQueries(ctx, s, &row); err != nil {
			return err
		}
		return r.compareAlerts(ctx, s, &row)
	})
	return row, err
}

// framesShare finds the share that frames keep at the rate, unless it is known.
func (r *runner) framesShare(ctx context.Context, rate float64, known *float64) error {
	if !math.IsNaN(*known) {
		return nil
	}
	th, err := r.o.NewThinner(Frames, rate)
	if err != nil {
		return err
	}
	t, err := r.pass(ctx, th, nil)
	if err != nil {
		return err
	}
	*known = float64(t.sent) / float64(t.seen)
	return nil
}

func (r *runner) compareQueries(ctx context.Context, s *store, row *Row) error {
	var d differences
	for i, q := range r.o.Queries {
		a, err := s.ask(ctx, r.engine, q.Expr, r.queries)
		if err != nil {
			return err
		}
		steps, bad := d.steps, d.missing+d.large
		d.add(r.answers[i], a)
		share := 0.0
		if d.steps > steps {
			share = float64(d.missing+d.large-bad) / float64(d.steps-steps)
		}
		row.BadByQuery = append(row.BadByQuery, share)
	}
	p := d.quantiles(0.5, 0.95, 0.99)
	row.P50, row.P95, row.P99 = p[0], p[1], p[2]
	row.Missing, row.Extra, row.Bad = d.share(d.missing), d.share(d.extra), d.share(d.missing+d.large)
	return nil
}

func (r *runner) compareAlerts(ctx context.Context, s *store, row *Row) error {
	var all, pages agreement
	slack := int(EpisodeSlack / RuleStep)
	for i, a := range r.o.Alerts {
		f, err := r.fire(ctx, s, a)
		if err != nil {
			return err
		}
		all.add(r.firing[i], f, slack)
		if a.Page() {
			pages.add(r.firing[i], f, slack)
		}
	}
	row.AlertAgreement, row.PageAgreement = all.share(), pages.share()
	row.Missed, row.False = all.missed, all.spurious
	row.PagesMissed, row.PagesFalse = pages.missed, pages.spurious
	row.DelayMean, row.DelayMax = all.delay(RuleStep)
	for _, o := range all.odd {
		row.Episodes = append(row.Episodes, Episode{
			Alert: o.labels.String(),
			What:  o.what,
			At:    Warmup.Seconds() + float64(o.at)*RuleStep.Seconds(),
			Delay: float64(o.delay) * RuleStep.Seconds(),
		})
	}
	return nil
}
