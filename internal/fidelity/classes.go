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
	// Warnings are about what the classes promise.
	Warnings []string `json:"warnings,omitempty"`

	describer *sampler.Describer
	byReason  map[[2]string]int // index in Groups
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
	return &Classes{describer: d, byReason: map[[2]string]int{}}
}

// AddSeries adds a series as PromQL writes it, such as up{job="node"}. It fails for what
// is none.
func (c *Classes) AddSeries(text string) error {
	ls, err := newParser().ParseMetric(text)
	if err != nil {
		return fmt.Errorf("%q is no series such as up{job=\"node\"}: %w", text, err)
	}
	var list []remotewrite.Label
	ls.Range(func(l labels.Label) {
		list = append(list, remotewrite.Label{Name: []byte(l.Name), Value: []byte(l.Value)})
	})
	c.add(list, ls.String())
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
			c.add(canonical, "")
		}
	}
}

func (c *Classes) add(list []remotewrite.Label, text string) {
	class, reason := c.describer.Explain(list)
	key := [2]string{class, reason}
	i, ok := c.byReason[key]
	if !ok {
		if text == "" {
			text = spelled(list)
		}
		i = len(c.Groups)
		c.Groups = append(c.Groups, ClassGroup{Class: class, Reason: reason, Example: text})
		c.byReason[key] = i
	}
	c.Groups[i].Series++
}

func spelled(list []remotewrite.Label) string {
	b := labels.NewScratchBuilder(len(list))
	for _, l := range list {
		b.Add(string(l.Name), string(l.Value))
	}
	return b.Labels().String()
}

// Write writes the groups and the warnings to w, as Table or JSON.
func (c *Classes) Write(w io.Writer, f Format) error {
	sorted := *c
	sorted.Groups = slices.Clone(c.Groups)
	if sorted.Groups == nil {
		sorted.Groups = []ClassGroup{}
	}
	slices.SortStableFunc(sorted.Groups, func(a, b ClassGroup) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(b.Series, a.Series), cmp.Compare(a.Reason, b.Reason))
	})
	var err error
	switch f {
	case Table:
		err = sorted.writeTable(w)
	case JSON:
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		err = e.Encode(&sorted)
	default:
		return fmt.Errorf("unknown format %q: it is %s or %s", f, Table, JSON)
	}
	if err != nil {
		return fmt.Errorf("write the classes as %s: %w", f, err)
	}
	return nil
}

func (c *Classes) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join([]string{"class", "series", "reason", "example"}, "\t"))
	for _, g := range c.Groups {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", g.Class, g.Series, g.Reason, g.Example)
	}
	for _, warning := range c.Warnings {
		fmt.Fprintf(t, "warning: %s\n", warning)
	}
	return t.Flush()
}
