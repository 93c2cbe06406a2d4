package fidelity

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/sluice-metrics/sluice/internal/capture"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/sampler"
)

// Classes says which series are in which class of a sampler, and why.
type Classes struct {
	// Groups are series of one class for one reason, largest first within each class.
	Groups []ClassGroup `json:"classes"`
	// Series are all series: those that were named as they were, then those of captures,
	// by class, reason and labels.
	Series []ClassedSeries `json:"series"`
	// Warnings are about what the classes promise. The table is without them.
	Warnings []string `json:"warnings,omitempty"`
	// All says that the table has a row for each series. Otherwise it has one for each of
	// those that were named, and one for each group of the others.
	All bool `json:"-"`

	describer *sampler.Describer
	named     int               // of Series
	captured  []ClassGroup      // like Groups, without the series that were named
	byReason  map[[2]string]int // index in Groups
	captures  map[[2]string]int // index in captured
}

// ClassedSeries is a series with its class, and why it is in it.
type ClassedSeries struct {
	Series string `json:"series"`
	Class  string `json:"class"`
	Reason string `json:"reason"`
}

// ClassGroup is the series of one class for one reason.
type ClassGroup struct {
	Class   string `json:"class"`
	Reason  string `json:"reason"`
	Series  int    `json:"series"`
	Example string `json:"example"` // the series seen first
}

// NewClasses returns Classes without any series.
func NewClasses(d *sampler.Describer) *Classes {
	return &Classes{describer: d, byReason: map[[2]string]int{}, captures: map[[2]string]int{}}
}

// AddSeries adds a series as PromQL writes it, such as up{job="node"}. It fails for what
// is none.
func (c *Classes) AddSeries(text string) error {
	ls, err := sampler.NewParser().ParseMetric(text)
	if err != nil {
		return fmt.Errorf("%q is no series such as up{job=\"node\"}: %w", text, err)
	}
	var list []remotewrite.Label
	ls.Range(func(l labels.Label) {
		list = append(list, remotewrite.Label{Name: []byte(l.Name), Value: []byte(l.Value)})
	})
	s := c.add(list, ls.String())
	c.Series = slices.Insert(c.Series, c.named, s)
	c.named++
	return nil
}

// AddCapture adds the series of a capture.
func (c *Classes) AddCapture(ctx context.Context, from io.Reader) error {
	seen := map[series.Key]bool{}
	var list []remotewrite.Label
	for r := capture.NewReader(from); ; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read the capture: %w", context.Cause(ctx))
		}
		req, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		m := req.Message
		for i := range m.Series {
			if seen[m.Series[i].Key] {
				continue
			}
			seen[m.Series[i].Key] = true
			if list, err = m.AppendLabels(list[:0], i); err != nil {
				return fmt.Errorf("request received at %d: %w", req.Received, err)
			}
			canonical, changed, reason := remotewrite.CanonicalLabels(list)
			if reason != "" {
				return fmt.Errorf("request received at %d: series %d has no valid labels: %s", req.Received, i, reason)
			}
			if changed { // another spelling of a series that may be known
				key := remotewrite.CanonicalKey(canonical, 0)
				if seen[key] {
					continue
				}
				seen[key] = true
			}
			s := c.add(canonical, spelled(canonical))
			c.Series = append(c.Series, s)
			count(&c.captured, c.captures, s)
		}
	}
}

func (c *Classes) add(list []remotewrite.Label, text string) ClassedSeries {
	class, reason := c.describer.Explain(list)
	s := ClassedSeries{Series: text, Class: class, Reason: reason}
	count(&c.Groups, c.byReason, s)
	return s
}

// count adds the series to its group; index is where that is.
func count(groups *[]ClassGroup, index map[[2]string]int, s ClassedSeries) {
	key := [2]string{s.Class, s.Reason}
	i, ok := index[key]
	if !ok {
		i = len(*groups)
		*groups = append(*groups, ClassGroup{Class: s.Class, Reason: s.Reason, Example: s.Series})
		index[key] = i
	}
	(*groups)[i].Series++
}

func spelled(list []remotewrite.Label) string {
	b := labels.NewScratchBuilder(len(list))
	for _, l := range list {
		b.Add(string(l.Name), string(l.Value))
	}
	return b.Labels().String()
}

// Write writes the series to w, as Table or JSON.
func (c *Classes) Write(w io.Writer, f Format) error {
	sorted := *c
	sorted.Groups, sorted.captured = inOrder(c.Groups), inOrder(c.captured)
	sorted.Series = append([]ClassedSeries{}, c.Series...)
	slices.SortStableFunc(sorted.Series[c.named:], func(a, b ClassedSeries) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Series, b.Series))
	})
	var err error
	switch f {
	case Table:
		err = sorted.writeTable(w)
	case JSON:
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		err = e.Encode(&sorted)
	default:
		return fmt.Errorf("unknown format %q: it is %s or %s", f, Table, JSON)
	}
	if err != nil {
		return fmt.Errorf("write the classes as %s: %w", f, err)
	}
	return nil
}

func inOrder(groups []ClassGroup) []ClassGroup {
	sorted := append([]ClassGroup{}, groups...)
	slices.SortStableFunc(sorted, func(a, b ClassGroup) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(b.Series, a.Series), cmp.Compare(a.Reason, b.Reason))
	})
	return sorted
}

// writeTable writes a row for each series that was named, and below it the others.
func (c *Classes) writeTable(w io.Writer) error {
	rows := c.Series[:c.named]
	if c.All {
		rows = c.Series
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(rows) > 0 {
		fmt.Fprintln(t, strings.Join([]string{"class", "series", "reason"}, "\t"))
		for _, s := range rows {
			fmt.Fprintf(t, "%s\t%s\t%s\n", s.Class, s.Series, s.Reason)
		}
	}
	if c.All || len(c.captured) == 0 {
		return t.Flush()
	}
	if len(rows) > 0 {
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(t, strings.Join([]string{"class", "count", "reason", "example"}, "\t"))
	for _, g := range c.captured {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", g.Class, g.Series, g.Reason, g.Example)
	}
	return t.Flush()
}
