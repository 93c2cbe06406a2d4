package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/internal/fidelity"
	"github.com/sluice-metrics/sluice/internal/incident"
	"github.com/sluice-metrics/sluice/sampler"
)

// replayFlags are what the command line of sluice replay says.
type replayFlags struct {
	capture  string
	incident string
	queries  string
	rules    string
	format   string
	below    []string
	above    []string
}

// errLimit is wrapped by errors about figures that are not within their limits.
var errLimit = errors.New("not within its limits")

// replayCommand adds the command "replay". run is called when it was picked and returns
// the exit code.
func replayCommand(app *kingpin.Application) (cmd *kingpin.CmdClause, run func(stdout, stderr io.Writer) int) {
	f := &replayFlags{}
	cmd = app.Command("replay", "Play a described incident of a backend against a recorded load: rates, queue, what is withheld, and what queries and alerts make of the rest.")
	cmd.Flag("capture", "File with recorded remote-write requests.").Required().StringVar(&f.capture)
	cmd.Flag("incident", "YAML file that describes load and capacity over time, and the adaptive_sampling to try.").Required().StringVar(&f.incident)
	cmd.Flag("queries", "YAML file with the list queries: range queries as dashboards have them.").StringVar(&f.queries)
	cmd.Flag("rules", "Prometheus rule file. Its alerts are compared, and what they read is critical.").StringVar(&f.rules)
	cmd.Flag("format", "table, json or html.").Default("table").EnumVar(&f.format, "table", "json", "html")
	cmd.Flag("fail-below", "Exit with 1 where a figure is below a limit, such as alert_agreement=0.9; may be repeated.").StringsVar(&f.below)
	cmd.Flag("fail-above", "Exit with 1 where a figure is above a limit, such as max_queue_age_seconds=60; may be repeated.").StringsVar(&f.above)
	return cmd, reported("replay", f.replay)
}

// replay writes the report to stdout, and to stderr what is to be said about it.
func (f *replayFlags) replay(ctx context.Context, stdout, stderr io.Writer) error {
	below, err := parseLimits("--fail-below", f.below)
	if err != nil {
		return err
	}
	above, err := parseLimits("--fail-above", f.above)
	if err != nil {
		return err
	}
	if err := f.measurable(below, above); err != nil {
		return err
	}
	o, err := f.options(stderr)
	if err != nil {
		return err
	}
	if _, ok := below[pageFigure]; ok && !slices.ContainsFunc(o.Alerts, func(a fidelity.Alert) bool { return a.Page() }) {
		return fmt.Errorf("%w: --fail-below: no alert of %s has the severity page, so there is no %s", errUsage, f.rules, pageFigure)
	}
	file, err := os.Open(f.capture)
	if err != nil {
		return fmt.Errorf("--capture: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("--capture: %w", err)
	}
	o.Capture, o.Size = file, info.Size()
	report, err := incident.Run(ctx, o)
	if err != nil {
		return fmt.Errorf("%s: %w", f.capture, err)
	}
	for _, warning := range report.Warnings {
		fmt.Fprintf(stderr, "sluice: replay: warning: %s\n", warning)
	}
	if err := report.Write(stdout, incident.Format(f.format)); err != nil {
		return err
	}
	if len(below)+len(above) > 0 && report.Totals.Seconds < time.Duration(o.Incident.Duration).Seconds() {
		return fmt.Errorf("%w: only %.0f s of %s were played, for the capture ends there; record more, or shorten duration in %s", errLimit, report.Totals.Seconds, o.Incident.Duration, f.incident)
	}
	return keepsTo(report, below, above)
}

// options reads the files but the capture.
func (f *replayFlags) options(stderr io.Writer) (o incident.Options, err error) {
	text, err := os.ReadFile(f.incident)
	if err != nil {
		return o, fmt.Errorf("--incident: %w", err)
	}
	if o.Incident, err = incident.Parse(f.incident, text); err != nil {
		return o, fmt.Errorf("--incident: %w", err)
	}
	if f.queries != "" {
		text, err := os.ReadFile(f.queries)
		if err == nil {
			o.Queries, err = fidelity.ParseQueries(f.queries, text)
		}
		if err != nil {
			return o, fmt.Errorf("--queries: %w", err)
		}
	}
	var rules []byte
	if f.rules != "" {
		rules, err = os.ReadFile(f.rules)
		if err == nil {
			o.Alerts, err = fidelity.ParseAlerts(f.rules, rules)
		}
		if err != nil {
			return o, fmt.Errorf("--rules: %w", err)
		}
	}
	o.Sampling, err = f.sampling(o.Incident, rules, stderr)
	return o, err
}

// sampling is the configuration of the incident; what the alerts of --rules read is
// critical beside what the configuration says.
func (f *replayFlags) sampling(i *incident.Incident, rules []byte, stderr io.Writer) (*sampler.Resolved, error) {
	i.Sampling.SetDirectory(filepath.Dir(f.incident))
	r, err := sampler.Resolve(*i.Sampling)
	if r == nil {
		return nil, fmt.Errorf("--incident: %w", err)
	}
	// A gateway goes without rules that it cannot use, and so does its replay.
	for _, problem := range append(sampler.Problems(err), config.RuleWarnings(i.Sampling)...) {
		fmt.Fprintf(stderr, "sluice: replay: warning: adaptive_sampling: %s\n", problem)
	}
	m := r.Metrics[sampler.ClassCritical]
	if err := m.AddRules(rules, f.rules, nil); err != nil {
		return nil, fmt.Errorf("--rules: %w", err)
	}
	r.Metrics[sampler.ClassCritical] = m
	r.Describer = sampler.NewDescriber(sampler.DescriberOptions{Config: r.Config, Metrics: r.Metrics})
	return r, nil
}

func parseLimits(flag string, list []string) (map[string]float64, error) {
	limits := map[string]float64{}
	for _, text := range list {
		name, number, _ := strings.Cut(text, "=")
		v, err := strconv.ParseFloat(number, 64)
		if err != nil || v != v {
			return nil, fmt.Errorf("%w: %s: %q is no limit such as alert_agreement=0.9", errUsage, flag, text)
		}
		limits[name] = v
	}
	return limits, nil
}

// pageFigure is the figure of the alerts with the severity page.
const pageFigure = "page_agreement"

// needed are the files that a figure is made from; one made without any of them is that of
// nothing compared, and so within most limits.
func (f *replayFlags) needed(figure string) (flags string, given bool) {
	switch figure {
	case "alert_agreement", pageFigure, "missed", "false", "delay_mean", "delay_max":
		return "--rules", f.rules != ""
	case "p50", "p95", "p99", "missing", "extra", "bad":
		return "--queries", f.queries != ""
	case "kept", "bytes":
		return "--queries or --rules", f.queries+f.rules != ""
	}
	return "", true
}

// measurable reports the limits of figures that this replay does not have.
func (f *replayFlags) measurable(below, above map[string]float64) error {
	all, err := (&incident.Report{Fidelity: &incident.Fidelity{}}).Figures()
	if err != nil {
		return err
	}
	var errs []error
	check := func(flag string, limits map[string]float64) {
		for _, name := range slices.Sorted(maps.Keys(limits)) {
			if _, ok := all[name]; !ok {
				errs = append(errs, fmt.Errorf("%w: %s: there is no figure %q; there are %s", errUsage, flag, name, strings.Join(slices.Sorted(maps.Keys(all)), ", ")))
			} else if flags, given := f.needed(name); !given {
				errs = append(errs, fmt.Errorf("%w: %s: there is no figure %q without %s", errUsage, flag, name, flags))
			}
		}
	}
	check("--fail-below", below)
	check("--fail-above", above)
	return errors.Join(errs...)
}

// keepsTo reports all figures that are not within their limits.
func keepsTo(r *incident.Report, below, above map[string]float64) error {
	figures, err := r.Figures()
	if err != nil {
		return err
	}
	var errs []error
	check := func(limits map[string]float64, breaks func(v, limit float64) bool) {
		for _, name := range slices.Sorted(maps.Keys(limits)) {
			switch v, ok := figures[name]; {
			case !ok:
				errs = append(errs, fmt.Errorf("%w: the replay made no figure %q", errLimit, name))
			case breaks(v, limits[name]):
				errs = append(errs, fmt.Errorf("%w: %s is %v, the limit is %v", errLimit, name, v, limits[name]))
			}
		}
	}
	check(below, func(v, limit float64) bool { return v < limit })
	check(above, func(v, limit float64) bool { return v > limit })
	return errors.Join(errs...)
}
