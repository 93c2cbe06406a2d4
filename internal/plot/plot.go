// Package plot draws lines over time as parts of an HTML page that needs nothing else.
package plot

import (
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
)

//go:embed plot.html
var text string

// Chart is one figure: lines over the same x.
type Chart struct {
	Title, Note string
	X           []float64 // ascending
	XUnit       string    // behind the numbers of the x axis
	Lines       []Line
}

// Line is one value at each x of its chart. NaN is none, and breaks the line.
type Line struct {
	Name string
	Y    []float64
}

// Sizes of a chart, in the units of its view box.
const (
	width, height = 720, 220
	left, right   = 62, 14
	top, bottom   = 12, 30

	colours = 3 // that the style knows
	gaps    = 4 // between the lines of the grid
)

// AddTo defines the templates "plot-style", for the content of a style element, and "plot",
// which draws a Drawing, in t.
func AddTo(t *template.Template) (*template.Template, error) { return t.Parse(text) }

// Drawing is a Chart with places for everything.
type Drawing struct {
	Title, Note   string
	Width, Height int
	Ticks         []Tick
	Lines         []DrawnLine
}

// Tick is a line of the grid with its text.
type Tick struct {
	X1, Y1, X2, Y2 float64
	TextX, TextY   float64
	Anchor, Text   string
}

// DrawnLine is a Line as polylines; Class picks its colour and its dashes.
type DrawnLine struct {
	Name, Class string
	Points      []string
}

// Class is the class of the style for the line with the number, and for dots on it.
func Class(line int) string { return fmt.Sprintf("line%d", line%colours) }

// Draw finds the places. Values start at 0, or below where some are negative.
func (c Chart) Draw() Drawing {
	d := Drawing{Title: c.Title, Note: c.Note, Width: width, Height: height}
	low, high := c.bounds()
	x := func(v float64) float64 {
		if len(c.X) < 2 {
			return left
		}
		return tenth(left + (v-c.X[0])/(c.X[len(c.X)-1]-c.X[0])*(width-left-right))
	}
	y := func(v float64) float64 {
		return tenth(top + (high-v)/(high-low)*(height-top-bottom))
	}
	for i := range gaps + 1 {
		v := low + (high-low)*float64(i)/gaps
		d.Ticks = append(d.Ticks, Tick{
			X1: left, Y1: y(v), X2: width - right, Y2: y(v),
			TextX: left - 6, TextY: y(v) + 4, Anchor: "end", Text: short(v),
		})
	}
	for i := range gaps + 1 {
		if len(c.X) == 0 {
			break
		}
		v := c.X[i*(len(c.X)-1)/gaps]
		d.Ticks = append(d.Ticks, Tick{
			X1: x(v), Y1: y(low), X2: x(v), Y2: y(low) + 4,
			TextX: x(v), TextY: height - 10, Anchor: "middle", Text: short(v) + c.XUnit,
		})
	}
	for i, l := range c.Lines {
		d.Lines = append(d.Lines, DrawnLine{
			Name: l.Name, Class: Class(i), Points: points(c.X, l.Y, x, y),
		})
	}
	return d
}

// bounds are a smallest and a round largest value that hold all lines.
func (c Chart) bounds() (low, high float64) {
	for _, l := range c.Lines {
		for _, v := range l.Y {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	if high <= low {
		return low, low + 1
	}
	step := math.Pow(10, math.Floor(math.Log10(high)))
	for _, s := range []float64{step / 5, step / 2, step} {
		if up := math.Ceil(high/s) * s; up <= high*1.25 {
			return low, up
		}
	}
	return low, high
}

func points(xs, ys []float64, x, y func(float64) float64) []string {
	var all []string
	var run []string
	end := func() {
		if len(run) > 0 {
			all = append(all, strings.Join(run, " "))
		}
		run = nil
	}
	for i, v := range ys {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			end()
			continue
		}
		run = append(run, fmt.Sprintf("%v,%v", x(xs[i]), y(v)))
	}
	end()
	return all
}

func tenth(v float64) float64 { return math.Round(10*v) / 10 }

// short is v in few characters.
func short(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 3, 64) + "M"
	case a >= 1e4:
		return strconv.FormatFloat(v/1e3, 'g', 3, 64) + "k"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
