package alerts

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Options fit the rules to a site. Start from DefaultOptions.
type Options struct {
	// Prefix begins the names of alerts and, in small letters, those of groups and the uids
	// of dashboards.
	Prefix string
	// Job is what the label job of gateways is, or a regular expression that it matches.
	Job string
	// Labels are fixed labels of the gateways' series, such as region="eu", that each query
	// selects by, and that alerts have.
	Labels map[string]string
	// Rename gives labels that the gateways export other names, where scraping has changed
	// them: {"cluster": "exported_cluster"}.
	Rename map[string]string
	// Thresholds take the place of the standard ones, by the name of the alert without the
	// Prefix; see Thresholds for which there are. An alert of two severities has that of
	// the graver one.
	Thresholds map[string]float64
	// Source is the URL of the repository's files, where runbooks are. It ends with a slash.
	Source string
	// Grafana is the URL that paths of dashboards are below, without a slash at its end;
	// empty: annotations have the path alone.
	Grafana string
	// Speed divides all times of the rules, but not thresholds: for trials. 1 is as in the
	// files; with 60 what takes five minutes takes five seconds.
	Speed float64
}

const source = "https://github.com/sluice-metrics/sluice/blob/main/"

// DefaultOptions are those of the files in this folder.
func DefaultOptions() Options {
	return Options{Prefix: "Sluice", Job: "sluice", Source: source, Speed: 1}
}

// standard reports whether the rules are to be as they are.
func (o *Options) standard() bool {
	d := DefaultOptions()
	return o.Prefix == d.Prefix && o.Job == d.Job && o.Source == d.Source && o.Grafana == d.Grafana && o.Speed == d.Speed &&
		len(o.Labels) == 0 && len(o.Rename) == 0 && len(o.Thresholds) == 0
}

var (
	prefixes   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{0,31}$`)
	labelNames = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
)

// validate reports every bad value, joined into one error.
func (o *Options) validate(rules []File) error {
	var errs []error
	if !prefixes.MatchString(o.Prefix) {
		errs = append(errs, fmt.Errorf("prefix %q: a letter, then up to 31 letters and digits: it begins the names of alerts", o.Prefix))
	}
	if _, err := regexp.Compile(o.Job); err != nil || o.Job == "" {
		errs = append(errs, fmt.Errorf("job %q is neither a name nor a regular expression: it tells the gateways' series from those of others", o.Job))
	}
	for _, name := range slices.Sorted(maps.Keys(o.Labels)) {
		if !labelNames.MatchString(name) {
			errs = append(errs, fmt.Errorf("label %q is no name of a label", name))
		}
	}
	for _, from := range slices.Sorted(maps.Keys(o.Rename)) {
		if to := o.Rename[from]; !labelNames.MatchString(from) || !labelNames.MatchString(to) {
			errs = append(errs, fmt.Errorf("rename %q to %q: both have to be names of labels", from, to))
		}
	}
	if o.Speed <= 0 {
		errs = append(errs, fmt.Errorf("speed %v: must be above 0; 1 is the rules' own", o.Speed))
	}
	known, err := thresholds(rules)
	if err != nil {
		return err
	}
	for _, alert := range slices.Sorted(maps.Keys(o.Thresholds)) {
		if _, ok := known[alert]; !ok {
			errs = append(errs, fmt.Errorf("threshold %q: no such alert, or it has no threshold; there are %s", alert, strings.Join(slices.Sorted(maps.Keys(known)), ", ")))
		}
	}
	return errors.Join(errs...)
}

// label is the site's name of a label that the gateways export.
func (o *Options) label(name string) string {
	if to, ok := o.Rename[name]; ok {
		return to
	}
	return name
}

// Thresholds are the standard thresholds of the alerts that have one, by the name without
// the prefix.
func Thresholds() (map[string]float64, error) {
	rules, err := readStandard()
	if err != nil {
		return nil, err
	}
	return thresholds(rules)
}

func thresholds(rules []File) (map[string]float64, error) {
	all := map[string]float64{}
	for _, f := range rules {
		var doc yaml.Node
		if err := yaml.Unmarshal(f.YAML, &doc); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		for _, r := range rulesOf(&doc) {
			name, ok := r.adjustable()
			if !ok {
				continue
			}
			expr, err := parse(r.get("expr").Value)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", f.Name, name, err)
			}
			if limit := threshold(expr); limit != nil {
				all[name] = limit.Val
			}
		}
	}
	return all, nil
}
