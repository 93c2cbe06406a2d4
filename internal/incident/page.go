package incident

import (
	_ "embed"
	"html/template"
	"io"

	"github.com/sluice-metrics/sluice/internal/plot"
)

//go:embed page.html
var pageText string

// page is what the template is given.
type page struct {
	Title     string
	Sentences []string
	Plots     []plot.Drawing
	Columns   []string
	Rows      [][]string
}

func (r *Report) writePage(w io.Writer) error {
	t, err := plot.AddTo(template.New("page"))
	if err == nil {
		t, err = t.Parse(pageText)
	}
	if err != nil {
		return err
	}
	p := page{Title: r.Title, Sentences: r.sentences(), Columns: r.columns()}
	if p.Title == "" {
		p.Title = "An incident"
	}
	for _, row := range r.Rows {
		p.Rows = append(p.Rows, row.cells(r.shadow()))
	}
	p.Plots = []plot.Drawing{
		r.plot("Load and capacity, samples a second", []string{"offered", "capacity"}, func(row Row) []float64 { return []float64{row.Offered, row.Capacity} }),
		r.plot("Share that is sent", []string{"asked for", "kept"}, func(row Row) []float64 { return []float64{row.Rate, row.Kept} }),
		r.plot("Age of the queue, seconds", []string{"oldest"}, func(row Row) []float64 { return []float64{row.Age} }),
		r.plot("Pressure; from 1 on the backend lags", []string{"pressure"}, func(row Row) []float64 { return []float64{min(row.Pressure, 10)} }),
	}
	return t.Execute(w, p)
}

// plot draws values of each row over time.
func (r *Report) plot(title string, names []string, of func(Row) []float64) plot.Drawing {
	c := plot.Chart{Title: title, XUnit: "s"}
	for _, n := range names {
		c.Lines = append(c.Lines, plot.Line{Name: n})
	}
	for _, row := range r.Rows {
		c.X = append(c.X, row.At)
		for i, v := range of(row) {
			c.Lines[i].Y = append(c.Lines[i].Y, v)
		}
	}
	return c.Draw()
}
