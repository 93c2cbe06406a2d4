package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/internal/fidelity"
	"github.com/sluice-metrics/sluice/sampler"
)

// classesFlags are what the command line of sluice classes says.
type classesFlags struct {
	config  *string // of the flag --config.file
	backend string
	rules   []string
	capture string
	cadence time.Duration
	format  string
	all     bool
	series  []string
}

// classesCommand adds the command "classes". configFile is where the flag --config.file
// is kept. run is called when the command was picked and returns the exit code.
func classesCommand(app *kingpin.Application, configFile *string) (cmd *kingpin.CmdClause, run func(stdout, stderr io.Writer) int) {
	f := &classesFlags{config: configFile}
	cmd = app.Command("classes", "Say which series is in which class of adaptive_sampling, and why. Without --config.file the classes are the default ones.")
	cmd.Flag("backend", "Backend whose section counts. Default: the section at the top of the file.").StringVar(&f.backend)
	cmd.Flag("rules", "Prometheus rule files instead of those that class critical names; may be repeated.").StringsVar(&f.rules)
	cmd.Flag("capture", "File with recorded remote-write requests, whose series are told.").StringVar(&f.capture)
	cmd.Flag("scrape-interval", "Scrape interval for which to warn of ranges that are too short.").Default("15s").DurationVar(&f.cadence)
	cmd.Flag("all", "List each series of --capture. Without it the table has one row for all series of a class and reason. JSON has them always.").BoolVar(&f.all)
	cmd.Flag("format", "table or json.").Default("table").EnumVar(&f.format, "table", "json")
	cmd.Arg("series", `Series such as 'up{job="node"}'.`).StringsVar(&f.series)
	return cmd, reported("classes", f.classify)
}

// classify writes the classes to stdout, and to stderr what is to be said about them.
func (f *classesFlags) classify(ctx context.Context, stdout, stderr io.Writer) error {
	if f.capture == "" && len(f.series) == 0 {
		return fmt.Errorf("%w: which series? Name some, or a file with --capture", errUsage)
	}
	c, err := f.sampling()
	if err != nil {
		return err
	}
	resolved, err := sampler.Resolve(c)
	if resolved == nil {
		return err
	}
	classes := fidelity.NewClasses(resolved.Describer)
	classes.All = f.all
	// A gateway goes without rules that it cannot use, and so do its classes.
	classes.Warnings = append(append(sampler.Problems(err), config.RuleWarnings(&c)...), sampler.Warnings(c, resolved.Metrics, f.cadence)...)
	for _, text := range f.series {
		if err := classes.AddSeries(text); err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
	}
	if f.capture != "" {
		file, err := os.Open(f.capture)
		if err != nil {
			return fmt.Errorf("--capture: %w", err)
		}
		defer file.Close()
		if err := classes.AddCapture(ctx, file); err != nil {
			return fmt.Errorf("%s: %w", f.capture, err)
		}
	}
	for _, warning := range classes.Warnings {
		fmt.Fprintf(stderr, "sluice: classes: warning: %s\n", warning)
	}
	return classes.Write(stdout, fidelity.Format(f.format))
}

// sampling is the configuration that the command line asks for.
func (f *classesFlags) sampling() (sampler.Config, error) {
	c := sampler.DefaultConfig()
	switch {
	case *f.config != "":
		loaded, err := config.Load(*f.config)
		if err != nil {
			return c, err
		}
		found, err := f.section(loaded)
		if err != nil {
			return c, err
		}
		c = *found
	case f.backend != "":
		return c, fmt.Errorf("%w: --backend needs --config.file", errUsage)
	}
	if len(f.rules) == 0 {
		return c, nil
	}
	for _, name := range f.rules {
		if files, _ := filepath.Glob(name); len(files) > 0 {
			continue
		}
		if _, err := os.Stat(name); err != nil {
			return c, fmt.Errorf("--rules: %w", err)
		}
	}
	c.Classes = append([]sampler.Class(nil), c.Classes...)
	for i := range c.Classes {
		if class := &c.Classes[i]; class.Name == sampler.ClassCritical {
			from := sampler.FromRules{Files: f.rules}
			if class.FromRules != nil {
				from.Severity = class.FromRules.Severity
			}
			class.FromRules = &from
		}
	}
	return c, nil
}

// section is the section of the backend, or the one at the top.
func (f *classesFlags) section(c *config.Config) (*sampler.Config, error) {
	if f.backend == "" {
		if c.AdaptiveSampling == nil {
			return nil, fmt.Errorf("%s has no section adaptive_sampling at the top; name a backend with --backend", *f.config)
		}
		return c.AdaptiveSampling, nil
	}
	var names []string
	for i := range c.Backends {
		b := &c.Backends[i]
		if b.Name != f.backend {
			names = append(names, b.Name)
			continue
		}
		if b.AdaptiveSampling != nil {
			return b.AdaptiveSampling, nil
		}
		if c.AdaptiveSampling != nil {
			return c.AdaptiveSampling, nil
		}
		return nil, fmt.Errorf("nothing is withheld from backend %s: %s has no section adaptive_sampling for it", f.backend, *f.config)
	}
	return nil, fmt.Errorf("%w: --backend %s: there are %s", errUsage, f.backend, strings.Join(names, ", "))
}
