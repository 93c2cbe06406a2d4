package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sluice-metrics/sluice/internal/fidelity"
	"github.com/sluice-metrics/sluice/sampler"
)

// fidelityFlags are what the command line of sluice fidelity says.
type fidelityFlags struct {
	capture string
	queries string
	rules   string
	rates   string
	methods string
	format  string
	classes string
	explain bool
}

// errUsage is wrapped by errors about the command line itself.
var errUsage = errors.New("wrong use")

// fidelityCommand adds the command "fidelity". run is called when it was picked and
// returns the exit code.
func fidelityCommand(app *kingpin.Application) (cmd *kingpin.CmdClause, run func(stdout, stderr io.Writer) int) {
	f := &fidelityFlags{}
	cmd = app.Command("fidelity", "Compare queries and alerts over a recorded load with those over what is left of it at lower rates.")
	cmd.Flag("capture", "File with recorded remote-write requests.").Required().StringVar(&f.capture)
	cmd.Flag("queries", "YAML file with the list queries: range queries as dashboards have them.").Required().StringVar(&f.queries)
	cmd.Flag("rules", "Prometheus rule file. Its alerts are compared, and what they read is critical.").Required().StringVar(&f.rules)
	cmd.Flag("rates", "Shares of the samples to keep, with commas.").Default("0.5,0.25,0.1,0.05").StringVar(&f.rates)
	cmd.Flag("method", "Ways of thinning, with commas: frames, aligned, random (at the share that frames keep).").Default("frames,random").StringVar(&f.methods)
	cmd.Flag("format", "table, json or html.").Default("table").EnumVar(&f.format, "table", "json", "html")
	cmd.Flag("classes", "Whose metrics are critical: those of alerts with severity page, or of all alerts.").Default("all").EnumVar(&f.classes, "page", "all")
	cmd.Flag("explain", "Name the alert episodes that differ and the queries with most bad steps, on standard error.").BoolVar(&f.explain)
	return cmd, reported("fidelity", f.compare)
}

func (f *fidelityFlags) compare(ctx context.Context, stdout, stderr io.Writer) error {
	rates, err := parseRates(f.rates)
	if err != nil {
		return err
	}
	methods, err := parseMethods(f.methods)
	if err != nil {
		return err
	}
	queriesText, err := os.ReadFile(f.queries)
	if err != nil {
		return fmt.Errorf("--queries: %w", err)
	}
	rulesText, err := os.ReadFile(f.rules)
	if err != nil {
		return fmt.Errorf("--rules: %w", err)
	}
	queries, err := fidelity.ParseQueries(f.queries, queriesText)
	if err != nil {
		return fmt.Errorf("--queries: %w", err)
	}
	alerts, err := fidelity.ParseAlerts(f.rules, rulesText)
	if err != nil {
		return fmt.Errorf("--rules: %w", err)
	}
	sampling, err := f.sampling(rulesText)
	if err != nil {
		return err
	}
	file, err := os.Open(f.capture)
	if err != nil {
		return fmt.Errorf("--capture: %w", err)
	}
	defer file.Close()
	report, err := fidelity.Run(ctx, fidelity.Options{
		Capture:    file,
		Queries:    queries,
		Alerts:     alerts,
		Rates:      rates,
		Methods:    methods,
		NewThinner: sampling.NewThinner,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", f.capture, err)
	}
	if err := report.Write(stdout, fidelity.Format(f.format)); err != nil || !f.explain {
		return err
	}
	return report.Explain(stderr)
}

// sampling is the default configuration with what the alerts read as critical.
func (f *fidelityFlags) sampling(rules []byte) (fidelity.Sampling, error) {
	var severities []string
	if f.classes == "page" {
		severities = []string{"page"}
	}
	var m sampler.Metrics
	if err := m.AddRules(rules, f.rules, severities); err != nil {
		return fidelity.Sampling{}, fmt.Errorf("--rules: %w", err)
	}
	return fidelity.Sampling{
		Config:  sampler.DefaultConfig(),
		Metrics: map[string]sampler.Metrics{sampler.ClassCritical: m},
	}, nil
}

func parseRates(list string) ([]float64, error) {
	var rates []float64
	for text := range strings.SplitSeq(list, ",") {
		r, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || !(r > 0 && r <= 1) {
			return nil, fmt.Errorf("%w: --rates: %q is no share above 0 and up to 1", errUsage, text)
		}
		if slices.Contains(rates, r) {
			return nil, fmt.Errorf("%w: --rates: %v stands there twice", errUsage, r)
		}
		rates = append(rates, r)
	}
	return rates, nil
}

func parseMethods(list string) ([]fidelity.Method, error) {
	known := []fidelity.Method{fidelity.Frames, fidelity.Aligned, fidelity.Random}
	var methods []fidelity.Method
	for text := range strings.SplitSeq(list, ",") {
		m := fidelity.Method(strings.TrimSpace(text))
		if !slices.Contains(known, m) {
			return nil, fmt.Errorf("%w: --method: %q is none of %v", errUsage, text, known)
		}
		if slices.Contains(methods, m) {
			return nil, fmt.Errorf("%w: --method: %s stands there twice", errUsage, m)
		}
		methods = append(methods, m)
	}
	return methods, nil
}
