package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"strconv"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sluice-metrics/sluice/alerts"
	"github.com/sluice-metrics/sluice/dashboards"
)

// mixinFlags are what the command line of sluice mixin says.
type mixinFlags struct {
	out        string
	prefix     string
	job        string
	jobGiven   bool
	labels     map[string]string
	rename     map[string]string
	thresholds map[string]string
	grafana    string
}

// mixinCommand adds the command "mixin". run is called when it was picked and returns the
// exit code.
func mixinCommand(app *kingpin.Application) (cmd *kingpin.CmdClause, run func(stdout, stderr io.Writer) int) {
	f := &mixinFlags{labels: map[string]string{}, rename: map[string]string{}, thresholds: map[string]string{}}
	standard := alerts.DefaultOptions()
	cmd = app.Command("mixin", "Write the Grafana dashboards and the Prometheus rules for a site's own names of labels, prefix and thresholds.")
	cmd.Flag("out", "Directory to write to: dashboards go to dashboards, rules to alerts below it. Files of the same names are replaced.").Required().StringVar(&f.out)
	cmd.Flag("prefix", "What names of alerts and titles of dashboards begin with.").Default(standard.Prefix).StringVar(&f.prefix)
	cmd.Flag("job", "The label job of the gateways, or a regular expression that it matches.").Default(standard.Job).IsSetByUser(&f.jobGiven).StringVar(&f.job)
	cmd.Flag("label", "name=value: a label of the gateways' series that every query selects by. Repeatable.").StringMapVar(&f.labels)
	cmd.Flag("rename", "from=to: the name that a label of the gateways has where they are scraped, such as cluster=exported_cluster. Repeatable.").StringMapVar(&f.rename)
	cmd.Flag("threshold", "Alert=value: from which value on an alert fires, in its unit, such as BackendBehind=120. Repeatable.").StringMapVar(&f.thresholds)
	cmd.Flag("grafana", "URL of Grafana, for links from alerts to dashboards. Default: links have the path alone.").Default("").StringVar(&f.grafana)
	return cmd, reported("mixin", func(_ context.Context, stdout, _ io.Writer) error {
		rules, boards, err := f.options()
		if err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		if err := f.write(rules, boards); err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "dashboards: %s\nrules:      %s\n", f.dashboards(), f.alerts())
		return err
	})
}

func (f *mixinFlags) dashboards() string { return filepath.Join(f.out, "dashboards") }
func (f *mixinFlags) alerts() string     { return filepath.Join(f.out, "alerts") }

// options are the same for rules and dashboards.
func (f *mixinFlags) options() (alerts.Options, dashboards.Options, error) {
	rules, boards := alerts.DefaultOptions(), dashboards.DefaultOptions()
	rules.Prefix, boards.Prefix = f.prefix, f.prefix
	rules.Job = f.job
	if f.jobGiven {
		boards.Job = f.job // else they find the gateways themselves
	}
	rules.Labels, boards.Labels = f.labels, f.labels
	boards.Rename = dashboards.Renamed(f.labels, f.rename)
	rules.Rename = boards.Rename
	rules.Grafana = f.grafana
	rules.Thresholds = map[string]float64{}
	for alert, text := range f.thresholds {
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return rules, boards, fmt.Errorf("--threshold: %s=%s: %q is no number", alert, text, text)
		}
		rules.Thresholds[alert] = value
	}
	maps.Copy(boards.Thresholds, rules.Thresholds)
	return rules, boards, nil
}

// write writes nothing when an option is bad.
func (f *mixinFlags) write(rules alerts.Options, boards dashboards.Options) error {
	if _, err := alerts.Files(rules); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if err := dashboards.Write(f.dashboards(), boards); err != nil {
		return err
	}
	return alerts.Write(f.alerts(), rules)
}
