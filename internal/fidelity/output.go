package fidelity

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Format is a form in which a Report is written.
type Format string

const (
	Table Format = "table" // text in columns
	JSON  Format = "json"  // an object with "rows"
	HTML  Format = "html"  // a page with plots that needs nothing else
)

// Write writes the report to w.
func (r *Report) Write(w io.Writer, f Format) error {
	var err error
	switch f {
	case Table:
		err = r.writeTable(w)
	case JSON:
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		err = e.Encode(r)
	case HTML:
		err = r.writePage(w)
	default:
		return fmt.Errorf("unknown format %q: it is %s, %s or %s", f, Table, JSON, HTML)
	}
	if err != nil {
		return fmt.Errorf("write the comparison as %s: %w", f, err)
	}
	return nil
}

// columns are the heads of the table, here and on the page.
func (r *Report) columns() []string {
	return []string{
		"rate", "method", "kept", "bytes", "p50", "p95", "p99", "missing", "extra", "bad",
		fmt.Sprintf("alerts agree (missed, false of %d)", r.Episodes),
		fmt.Sprintf("pages agree (missed, false of %d)", r.Pages),
		"delay mean/max s",
	}
}

func (r Row) cells() []string {
	return []string{
		fmt.Sprint(r.Rate), string(r.Method),
		fmt.Sprintf("%.3f", r.Kept), fmt.Sprintf("%.3f", r.Bytes),
		percent(r.P50, 2), percent(r.P95, 1), percent(r.P99, 1),
		percent(r.Missing, 2), percent(r.Extra, 2), percent(r.Bad, 2),
		fmt.Sprintf("%s (%d, %d)", percent(r.AlertAgreement, 1), r.Missed, r.False),
		fmt.Sprintf("%s (%d, %d)", percent(r.PageAgreement, 1), r.PagesMissed, r.PagesFalse),
		fmt.Sprintf("%v/%v", wholeSeconds(r.DelayMean), wholeSeconds(r.DelayMax)),
	}
}

func wholeSeconds(s float64) int { return int(math.Round(s)) }

func percent(share float64, digits int) string {
	return fmt.Sprintf("%.*f%%", digits, 100*share)
}

// summary is what was compared, in a sentence.
func (r *Report) summary() string {
	return fmt.Sprintf("%d series, %d samples, %v.", r.Series, r.Samples, r.Duration.Round(time.Second))
}

func (r *Report) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(r.columns(), "\t"))
	for _, row := range r.Rows {
		fmt.Fprintln(t, strings.Join(row.cells(), "\t"))
	}
	return t.Flush()
}

// explained is how many queries are named for a row.
const explained = 10

// Explain writes for each row which episodes of alerts differ, and which queries have the
// largest share of bad steps.
func (r *Report) Explain(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range r.Rows {
		fmt.Fprintf(t, "\n%v, %s:\n", row.Rate, row.Method)
		for _, e := range row.Episodes {
			fmt.Fprintf(t, "  %s\tat %v s\t%+v s\t%s\n", e.What, e.At, e.Delay, e.Alert)
		}
		for _, i := range row.worst(explained) {
			fmt.Fprintf(t, "  %s bad\t\t\t%s\n", percent(row.BadByQuery[i], 1), r.Queries[i].Expr)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("explain the comparison: %w", err)
	}
	return nil
}

// worst is up to n queries that have bad steps, those with the most first.
func (r Row) worst(n int) []int {
	var list []int
	for i, bad := range r.BadByQuery {
		if bad > 0 {
			list = append(list, i)
		}
	}
	slices.SortStableFunc(list, func(a, b int) int { return cmp.Compare(r.BadByQuery[b], r.BadByQuery[a]) })
	return list[:min(n, len(list))]
}
