package fidelity

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/sluice-metrics/sluice/internal/plot"
)

//go:embed page.html
var pageText string

// Sizes of a plot, in the units of its view box.
const (
	plotWidth, plotHeight = 420, 220
	plotLeft, plotRight   = 46, 14
	plotTop, plotBottom   = 12, 30
)

// page is what the template is given.
type page struct {
	Summary string
	Columns []string
	Rows    [][]string
	Methods []method
	Plots   []figure
}

// method is one line of each plot; Class picks its colour and its dashes.
type method struct {
	Name  string
	Class string
}

// figure is one value against the requested rate.
type figure struct {
	Title, Note string
	Width       int
	Height      int
	Ticks       []plot.Tick // on both axes
	Lines       []line
}

type line struct {
	method
	Points string // of a polyline
	Dots   []dot
}

type dot struct {
	X, Y float64
	Text string
}

func (r *Report) writePage(w io.Writer) error {
	t, err := plot.AddTo(template.New("page"))
	if err == nil {
		t, err = t.Parse(pageText)
	}
	if err != nil {
		return err
	}
	p := page{Summary: r.summary(), Columns: r.columns()}
	for _, row := range r.Rows {
		p.Rows = append(p.Rows, row.cells())
		if m := methodOf(row.Method, len(p.Methods)); !slices.ContainsFunc(p.Methods, func(o method) bool { return o.Name == m.Name }) {
			p.Methods = append(p.Methods, m)
		}
	}
	p.Plots = []figure{
		r.figure(p.Methods, "Steps that are bad", "missing, or off by more than 10 %; lower is better", func(r Row) float64 { return r.Bad }),
		r.figure(p.Methods, "Alerts that agree", "time firing on both sides over time firing on either; higher is better", func(r Row) float64 { return r.AlertAgreement }),
		r.figure(p.Methods, "Pages that agree", "the same for severity page; higher is better", func(r Row) float64 { return r.PageAgreement }),
		r.figure(p.Methods, "Error that 95 % of steps keep to", "cut off at 100 %; lower is better", func(r Row) float64 { return min(1, r.P95) }),
		r.figure(p.Methods, "Samples kept", "as a share of all; the rate is what was asked for", func(r Row) float64 { return r.Kept }),
		r.figure(p.Methods, "Bytes kept", "compressed, as a share of those of all", func(r Row) float64 { return r.Bytes }),
	}
	return t.Execute(w, p)
}

func methodOf(m Method, n int) method {
	return method{Name: string(m), Class: plot.Class(n)}
}

// figure draws a share against the rate, one line for each method. The rates stand at
// equal distances, falling to the right.
func (r *Report) figure(methods []method, title, note string, of func(Row) float64) figure {
	var rates []float64
	for _, row := range r.Rows {
		rates = append(rates, row.Rate)
	}
	slices.Sort(rates)
	rates = slices.Compact(rates)
	slices.Reverse(rates)
	x := func(rate float64) float64 {
		i := float64(slices.Index(rates, rate))
		width := float64(plotWidth - plotLeft - plotRight)
		if len(rates) == 1 {
			return plotLeft + width/2
		}
		return math.Round(plotLeft + 12 + i*(width-24)/float64(len(rates)-1))
	}
	y := func(share float64) float64 {
		return math.Round(10*(plotTop+(1-share)*(plotHeight-plotTop-plotBottom))) / 10
	}
	p := figure{Title: title, Note: note, Width: plotWidth, Height: plotHeight}
	for i := range 5 {
		at := float64(i) / 4
		p.Ticks = append(p.Ticks, plot.Tick{
			X1: plotLeft, Y1: y(at), X2: plotWidth - plotRight, Y2: y(at),
			TextX: plotLeft - 6, TextY: y(at) + 4, Anchor: "end", Text: percent(at, 0),
		})
	}
	for _, rate := range rates {
		p.Ticks = append(p.Ticks, plot.Tick{
			X1: x(rate), Y1: y(0), X2: x(rate), Y2: y(0) + 4,
			TextX: x(rate), TextY: plotHeight - 10, Anchor: "middle", Text: fmt.Sprint(rate),
		})
	}
	for _, m := range methods {
		l := line{method: m}
		var points []string
		for _, rate := range rates {
			i := slices.IndexFunc(r.Rows, func(row Row) bool { return row.Rate == rate && string(row.Method) == m.Name })
			if i < 0 {
				continue
			}
			v := of(r.Rows[i])
			d := dot{X: x(rate), Y: y(v), Text: fmt.Sprintf("%s at %v: %s", m.Name, rate, percent(v, 2))}
			l.Dots = append(l.Dots, d)
			points = append(points, fmt.Sprintf("%v,%v", d.X, d.Y))
		}
		l.Points = strings.Join(points, " ")
		p.Lines = append(p.Lines, l)
	}
	return p
}
