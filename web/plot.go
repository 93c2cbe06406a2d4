package web

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Size of the area that a plot's paths are drawn in; the page stretches it.
const (
	plotWidth  = 300
	plotHeight = 60
)

// backendStyles is how many kinds of lines there are for backends: 1 and up in status.css.
const backendStyles = 5

// plot is a small picture of values of the last hour.
type plot struct {
	Title string
	// Top is the value at the upper edge, as text, and Span how long ago the left edge is.
	Top, Span string
	Lines     []plotLine
}

// plotLine is one line of a plot.
type plotLine struct {
	Name  string
	Style int
	Path  string // of an SVG path element
	Now   string // the newest value, as text
}

// Text says in words what the plot shows.
func (p plot) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, the last %s, at most %s. Now:", p.Title, p.Span, p.Top)
	for i, l := range p.Lines {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %s %s", l.Name, l.Now)
	}
	return b.String()
}

// values are those of one line.
type values struct {
	name  string
	style int
	list  []float64
}

// scale is how the values of a plot are drawn and written.
type scale struct {
	least float64 // smallest value of the upper edge
	fixed bool    // the upper edge is always at least
	text  func(float64) string
}

// plots draws the history.
func (h *history) plots() []plot {
	flow := []values{{"received", 0, h.received}}
	var lag, kept []values
	for i, name := range h.names {
		t, style := h.tracks[name], 1+i%backendStyles
		flow = append(flow, values{name, style, t.delivered})
		lag = append(lag, values{name, style, t.lag})
		kept = append(kept, values{name, style, t.kept})
	}
	return []plot{
		h.plot("Samples received and delivered", flow, scale{least: 1, text: rateText}),
		h.plot("Lag of each backend", lag, scale{least: 1, text: secondsText}),
		h.plot("Share of the samples sent", kept, scale{least: 1, fixed: true, text: shareText}),
	}
}

func (h *history) plot(title string, list []values, s scale) plot {
	p := plot{Title: title, Span: durationText(historyEvery)}
	top := s.least
	for _, v := range list {
		for _, x := range v.list {
			if !s.fixed && !math.IsNaN(x) && x > top {
				top = x
			}
		}
	}
	p.Top = s.text(top)
	if n := len(h.times); n > 1 {
		p.Span = spanText(h.times[n-1].Sub(h.times[0]))
	}
	for _, v := range list {
		now := "unknown"
		if n := len(v.list); n > 0 && !math.IsNaN(v.list[n-1]) {
			now = s.text(v.list[n-1])
		}
		p.Lines = append(p.Lines, plotLine{Name: v.name, Style: v.style, Path: path(h.times, v.list, top), Now: now})
	}
	return p
}

// spanText is how long a plot reaches back.
func spanText(d time.Duration) string {
	if d >= 10*time.Minute {
		d = d.Round(time.Minute)
	}
	return durationText(d.Round(historyEvery))
}

// path draws the values; a value that is not known is a gap.
func path(times []time.Time, list []float64, top float64) string {
	var b strings.Builder
	n := len(times)
	if n == 0 {
		return ""
	}
	span := max(times[n-1].Sub(times[0]).Seconds(), historyEvery.Seconds())
	pen := byte('M')
	for i, v := range list {
		if math.IsNaN(v) {
			pen = 'M'
			continue
		}
		x := plotWidth * times[i].Sub(times[0]).Seconds() / span
		y := plotHeight * (1 - min(max(v/top, 0), 1))
		fmt.Fprintf(&b, "%c%.1f %.1f", pen, x, y)
		if pen == 'M' {
			b.WriteString("h0") // a single value is a dot
		}
		pen = 'L'
	}
	return b.String()
}
