package fidelity

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v4"

	"github.com/sluice-metrics/sluice/sampler"
)

// Query is one range query of a dashboard.
type Query struct {
	Kind string `yaml:"kind"` // groups queries; free text, may be empty
	Expr string `yaml:"expr"`
}

// Alert is one alert rule.
type Alert struct {
	Name       string
	Expr       string
	For        time.Duration
	KeepFiring time.Duration
	Labels     labels.Labels // of the rule; templates in them are not expanded
}

// Page reports whether the alert calls somebody: its severity is "page".
func (a Alert) Page() bool { return a.Labels.Get("severity") == "page" }

// queriesFile is the form of a file of queries.
type queriesFile struct {
	Queries []Query `yaml:"queries"`
}

// ParseQueries reads a file of queries: a YAML mapping with the list "queries", each with
// "kind" and "expr". file is its name, for errors, which name all that is wrong.
func ParseQueries(file string, content []byte) ([]Query, error) {
	var f queriesFile
	if err := yaml.Load(content, &f, yaml.WithKnownFields()); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(f.Queries) == 0 {
		return nil, fmt.Errorf("%s: it names no queries", file)
	}
	p := sampler.NewParser()
	var all []error
	for i, q := range f.Queries {
		e, err := p.ParseExpr(q.Expr)
		switch {
		case err != nil:
			all = append(all, fmt.Errorf("%s: queries[%d].expr %q: %w", file, i, q.Expr, err))
		case e.Type() != parser.ValueTypeVector && e.Type() != parser.ValueTypeScalar:
			all = append(all, fmt.Errorf("%s: queries[%d].expr %q is a %s, which cannot be drawn", file, i, q.Expr, parser.DocumentedType(e.Type())))
		}
	}
	return f.Queries, errors.Join(all...)
}

// ParseAlerts reads the alert rules of a Prometheus rule file; its recording rules are
// left out. file is its name, for errors, which name all that is wrong.
func ParseAlerts(file string, content []byte) ([]Alert, error) {
	groups, errs := rulefmt.Parse(bytes.Clone(content), false, model.UTF8Validation, sampler.NewParser(), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		for i, err := range errs {
			errs[i] = fmt.Errorf("%s: %w", file, err)
		}
		return nil, errors.Join(errs...)
	}
	var alerts []Alert
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			own := maps.Clone(g.Labels)
			if own == nil {
				own = map[string]string{}
			}
			maps.Copy(own, r.Labels)
			alerts = append(alerts, Alert{
				Name:       r.Alert,
				Expr:       r.Expr,
				For:        time.Duration(r.For),
				KeepFiring: time.Duration(r.KeepFiringFor),
				Labels:     labels.FromMap(own),
			})
		}
	}
	if len(alerts) == 0 {
		return nil, fmt.Errorf("%s: it has no alert rules", file)
	}
	return slices.Clip(alerts), nil
}
