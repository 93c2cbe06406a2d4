package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/internal/strictyaml"
	"github.com/sluice-metrics/sluice/sampler"
)

// Load reads and checks the file at path. Relative names of files in it, such as
// password_file, are relative to its directory, and have to be readable. An error that
// is about the content is a *strictyaml.Error with every problem in it.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration file (--config.file): %w", err)
	}
	return parse(source{name: path, directory: filepath.Dir(path), data: data})
}

// Parse is Load for data that comes from no file; name stands for it in messages.
// Relative names of files stay as they are and are not looked at.
func Parse(name string, data []byte) (*Config, error) {
	return parse(source{name: name, data: data})
}

// Check reads and checks the file at path as a start does, and returns what to print:
// every problem with its place, or what the file configures, with warnings of what a start
// would go without. It opens no backend and no journal.
func Check(path string) (report string, ok bool) {
	c, err := Load(path)
	if err != nil {
		var list *strictyaml.Error
		if errors.As(err, &list) {
			return fmt.Sprintf("%v\n%s: %s\n", list, path, count(len(list.Problems), "problem")), false
		}
		return err.Error() + "\n", false
	}
	report = fmt.Sprintf("%s: valid, %s\n", path, count(len(c.Backends), "backend"))
	for i := range c.Backends {
		b := &c.Backends[i]
		takes := "all series"
		if len(b.Match) > 0 {
			takes = fmt.Sprintf("%v", b.Match)
		}
		report += fmt.Sprintf("  %s: %s, takes %s\n", b.Name, b.Kind(), takes)
	}
	for _, warning := range append(c.samplingWarnings(), c.Warnings()...) {
		report += "warning: " + warning + "\n"
	}
	return report, true
}

// samplingWarnings tell of rules and dashboards that cannot be read. A start goes without
// them, too.
func (c *Config) samplingWarnings() []string {
	var warnings []string
	for i := range c.Backends {
		s := c.Sampling(&c.Backends[i])
		if s == nil {
			continue
		}
		_, err := sampler.Resolve(*s)
		for _, problem := range sampler.Problems(err) {
			warning := "adaptive_sampling: " + problem
			if !slices.Contains(warnings, warning) { // most backends share one section
				warnings = append(warnings, warning)
			}
		}
	}
	return warnings
}

// Warnings tell what a start does with a valid configuration that is hardly meant. The rules
// and dashboards that cannot be read are not among them: a gateway tells them itself.
func (c *Config) Warnings() []string {
	var warnings []string
	for i := range c.Backends {
		b := &c.Backends[i]
		s := c.Sampling(b)
		if s == nil {
			continue
		}
		if s.Backfill && b.OutOfOrderWindow() == 0 {
			warnings = append(warnings, fmt.Sprintf("backend %s: nothing is ever given back to it: adaptive_sampling.backfill is true, but %s.out_of_order_time_window is 0s; set that to how far behind the backend takes samples", b.Name, b.Kind()))
		}
		for _, warning := range RuleWarnings(s) {
			warning = "adaptive_sampling: " + warning
			if !slices.Contains(warnings, warning) { // most backends share one section
				warnings = append(warnings, warning)
			}
		}
	}
	return warnings
}

// RuleWarnings name the files of from_rules that can be read but have no list groups, and so
// no rules: they are no rule files of Prometheus.
func RuleWarnings(s *sampler.Config) []string {
	var warnings []string
	for i := range s.Classes {
		from := s.Classes[i].FromRules
		if from == nil {
			continue
		}
		for _, glob := range from.Files {
			// What cannot be found or read is told by sampler.Resolve.
			files, _ := filepath.Glob(glob)
			for _, file := range files {
				warning := fmt.Sprintf("%s has no list groups at the top, as rule files of Prometheus have: no rules are taken from it", file)
				if withoutGroups(file) && !slices.Contains(warnings, warning) {
					warnings = append(warnings, warning)
				}
			}
		}
	}
	return warnings
}

// withoutGroups reports whether a file is YAML without the key groups at the top.
func withoutGroups(file string) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	var top map[string]any
	if err := yaml.Unmarshal(text, &top); err != nil {
		return false
	}
	_, ok := top["groups"]
	return !ok
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// inheritSampling gives the backends' sections what the section at the top says.
func inheritSampling(d *strictyaml.Document, c *Config) {
	for i := range c.Backends {
		b := &c.Backends[i]
		if c.AdaptiveSampling == nil || b.AdaptiveSampling == nil {
			continue
		}
		own := *c.AdaptiveSampling
		d.Inherit(fmt.Sprintf("backends[%d].adaptive_sampling", i), &own)
		b.AdaptiveSampling = &own
	}
}

// setSamplingDirectory makes the relative names of rules and dashboards relative to dir.
func (c *Config) setSamplingDirectory(dir string) {
	if c.AdaptiveSampling != nil {
		c.AdaptiveSampling.SetDirectory(dir)
	}
	for i := range c.Backends {
		if s := c.Backends[i].AdaptiveSampling; s != nil {
			s.SetDirectory(dir)
		}
	}
}

type source struct {
	name      string
	directory string // of the file; empty when there is none
	data      []byte
}

func parse(s source) (*Config, error) {
	c := Standard()
	d := strictyaml.Parse(s.name, s.data)
	d.Decode(c)
	inheritSampling(d, c)
	if s.directory != "" {
		c.setSamplingDirectory(s.directory)
	}
	if s.directory != "" {
		for i := range c.Backends {
			c.Backends[i].setDirectory(s.directory)
		}
		for i := range c.Clusters {
			c.Clusters[i].setDirectory(s.directory)
		}
		if c.Lease != nil {
			c.Lease.setDirectory(s.directory)
		}
		d.Report(unreadable(d.Values("_file"), s.directory))
	}
	if d.Parsed() {
		d.Report(c.Validate())
	}
	if err := d.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

// unreadable reports the files among the values that cannot be read.
func unreadable(files []strictyaml.Value, directory string) error {
	var errs []error
	for _, f := range files {
		path := f.Text
		if path == "" {
			continue
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(directory, path)
		}
		if err := readable(path); err != nil {
			errs = append(errs, &fielderror.Error{Path: f.Path, Err: fmt.Errorf("the file cannot be read: %w", err)})
		}
	}
	return errors.Join(errs...)
}

func readable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return &fs.PathError{Op: "read", Path: path, Err: errors.New("is a directory")}
	}
	if !info.Mode().IsRegular() {
		return nil // opening a pipe could wait for its writer
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}
