package sampler

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Resolved is a configuration with what it names: the metrics that the rules and
// dashboards read which it says to look into.
type Resolved struct {
	Config    Config
	Describer *Describer
	// Metrics are those read out of files, by the name of the class.
	Metrics map[string]Metrics
	// Text says all that decisions depend on beside the samples and the steps, and Digest
	// identifies it.
	Text   []byte
	Digest string
}

// Resolve reads the rules and dashboards of a valid configuration. Where some of them
// cannot be read, the error says so, and the Resolved goes without.
func Resolve(c Config) (*Resolved, error) {
	r := &Resolved{Config: c, Metrics: map[string]Metrics{}}
	var errs []error
	for i := range c.Classes {
		class := &c.Classes[i]
		var found Metrics
		if class.FromRules != nil {
			m, err := LoadRules("", *class.FromRules)
			found.Add(m)
			errs = append(errs, err)
		}
		if len(class.FromDashboards) > 0 {
			m, err := LoadDashboards("", class.FromDashboards)
			found.Add(m)
			errs = append(errs, err)
		}
		r.Metrics[class.Name] = found
	}
	r.Describer = NewDescriber(DescriberOptions{Config: c, Metrics: r.Metrics})
	text, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("write down the configuration of sampling: %w", err)
	}
	var b strings.Builder
	b.Write(text)
	for _, class := range slices.Sorted(maps.Keys(r.Metrics)) {
		m := r.Metrics[class]
		for _, line := range m.lines() {
			fmt.Fprintf(&b, "# %s: %s\n", class, line)
		}
	}
	r.Text = []byte(b.String())
	sum := sha256.Sum256(r.Text)
	r.Digest = hex.EncodeToString(sum[:8])
	return r, errors.Join(errs...)
}

// lines name all metrics, sorted.
func (m *Metrics) lines() []string {
	var list []string
	for name := range m.names {
		list = append(list, name)
	}
	for name := range m.families {
		list = append(list, name+" and its parts")
	}
	for i := range m.patterns {
		list = append(list, m.patterns[i].name.String())
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// SetDirectory makes the relative globs of rules and dashboards relative to dir.
func (c *Config) SetDirectory(dir string) {
	c.Classes = slices.Clone(c.Classes)
	for i := range c.Classes {
		class := &c.Classes[i]
		if class.FromRules != nil {
			rules := *class.FromRules
			rules.Files = within(dir, rules.Files)
			class.FromRules = &rules
		}
		class.FromDashboards = within(dir, class.FromDashboards)
	}
}

func within(dir string, globs []string) []string {
	list := slices.Clone(globs)
	for i, g := range list {
		if !filepath.IsAbs(g) {
			list[i] = filepath.Join(dir, g)
		}
	}
	return list
}
