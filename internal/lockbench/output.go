package lockbench

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"math"
	"text/tabwriter"
	"time"
)

// Format is how a Report is written.
type Format string

// The formats.
const (
	Table Format = "table"
	JSON  Format = "json"
	HTML  Format = "html"
)

// Write writes the report.
func (r *Report) Write(w io.Writer, f Format) error {
	switch f {
	case JSON:
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	case HTML:
		return page.Execute(w, r)
	case Table:
		return r.table(w)
	}
	return fmt.Errorf("no format %q", f)
}

func (r *Report) table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "lease\tfences\tacquire p50\tp99\tp999\tcontended p50\tp99\thandovers/s\tfree after crash\tone server stalled p50\tp99\tfailed")
	for _, x := range r.Results {
		if x.Error != "" {
			fmt.Fprintf(t, "%s\tnot measured: %s\n", x.Name, x.Error)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.0f\t%s", x.Name, yesNo(x.Fences), ms(x.Acquire.P50), ms(x.Acquire.P99), ms(x.Acquire.P999),
			ms(x.Contended.P50), ms(x.Contended.P99), x.Handovers, ms(x.Crash))
		if s := x.Stalled; s != nil {
			fmt.Fprintf(t, "\t%s\t%s\t%d\n", ms(s.Acquire.P50), ms(s.Acquire.P99), s.Failures)
		} else {
			fmt.Fprintf(t, "\t-\t-\t-\n")
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "TTL %v. A lease without fences is for efficiency only: see docs/locks.md.\n", r.TTL)
	return err
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// ms writes seconds in milliseconds, with three digits that count.
func ms(seconds float64) string {
	v := seconds * 1000
	switch {
	case v < 10:
		return fmt.Sprintf("%.2f ms", v)
	case v < 100:
		return fmt.Sprintf("%.1f ms", v)
	}
	return fmt.Sprintf("%.0f ms", v)
}

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"ms": ms, "x": position, "ticks": ticks, "yesNo": yesNo,
	"row": func(i int) int { return 20 + 34*i }, "height": func(n int) int { return 50 + 34*n },
	"duration": func(d time.Duration) string { return d.String() },
}).Parse(pageText))

// The plot's axis is logarithmic, from 1 µs to 10 s.
const (
	axisLow, axisHigh   = 1e-6, 10.0
	axisLeft, axisWidth = 130.0, 640.0
)

func position(seconds float64) float64 {
	share := math.Log10(min(max(seconds, axisLow), axisHigh)/axisLow) / math.Log10(axisHigh/axisLow)
	return math.Round(10*(axisLeft+axisWidth*share)) / 10
}

// tick is a line of the axis.
type tick struct {
	X     float64
	Label string
}

func ticks() []tick {
	return []tick{
		{position(1e-6), "1 µs"},
		{position(1e-5), "10 µs"},
		{position(1e-4), "0.1 ms"},
		{position(1e-3), "1 ms"},
		{position(1e-2), "10 ms"},
		{position(1e-1), "0.1 s"},
		{position(1), "1 s"},
		{position(10), "10 s"},
	}
}
