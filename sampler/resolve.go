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

// algorithm is the version of how decisions are made. It is raised whenever the same samples
// and steps give another output than before, so that what was withheld by another version
// is not looked for with this one (TestDecisionsAreThoseOfTheAlgorithm).
const algorithm = 2

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
	// Decisions identifies what of it decides which samples are sent at a rate: all but
	// when less is sent, and what is done about it later.
	Decisions string
}

// Resolve reads the rules and dashboards of a valid configuration. Where some of them
// cannot be read, the error says so, and the Resolved goes without.
func Resolve(c Config) (*Resolved, error) {
	r := &Resolved{Config: c, Metrics: map[string]Metrics{}}
	var errs []error
	var all rules // the recording rules of all classes, of what any of them reads
	perClass := make([]rules, len(c.Classes))
	for i := range c.Classes {
		if from := c.Classes[i].FromRules; from != nil {
			var err error
			perClass[i], err = loadRules("", from.Files)
			all.join(perClass[i])
			errs = append(errs, err)
		}
	}
	for i := range c.Classes {
		class := &c.Classes[i]
		var found Metrics
		if class.FromRules != nil {
			found = perClass[i].read(class.FromRules.Severity)
			found.follow(all)
		}
		if len(class.FromDashboards) > 0 {
			m, err := LoadDashboards("", class.FromDashboards)
			m.follow(all)
			found.Add(m.atInstants())
			errs = append(errs, err)
		}
		r.Metrics[class.Name] = found
	}
	r.Describer = NewDescriber(DescriberOptions{Config: c, Metrics: r.Metrics})
	var err error
	if r.Text, r.Digest, err = r.write(c); err != nil {
		return nil, err
	}
	if _, r.Decisions, err = r.write(decisive(c)); err != nil {
		return nil, err
	}
	return r, errors.Join(errs...)
}

// Problems are the errors that Resolve joined, each in one line and once.
func Problems(err error) []string {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []string{strings.Join(strings.Fields(err.Error()), " ")}
	}
	var list []string
	for _, each := range joined.Unwrap() {
		for _, problem := range Problems(each) {
			if !slices.Contains(list, problem) {
				list = append(list, problem)
			}
		}
	}
	return list
}

// decisive is a configuration without what decides about no sample.
func decisive(c Config) Config {
	d := DefaultConfig()
	d.Method, d.Floor, d.Protect, d.Affinity, d.TargetLabels = c.Method, c.Floor, c.Protect, c.Affinity, c.TargetLabels
	d.KeyFrameMin, d.Lookback, d.Classes = c.KeyFrameMin, c.Lookback, c.Classes
	return d
}

// write returns a configuration with the metrics that were found, and its digest.
func (r *Resolved) write(c Config) (text []byte, digest string, err error) {
	text, err = yaml.Marshal(c)
	if err != nil {
		return nil, "", fmt.Errorf("write down the configuration of sampling: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# algorithm %d\n", algorithm)
	b.Write(text)
	for _, class := range slices.Sorted(maps.Keys(r.Metrics)) {
		m := r.Metrics[class]
		for _, line := range m.lines() {
			fmt.Fprintf(&b, "# %s: %s\n", class, line)
		}
	}
	text = []byte(b.String())
	sum := sha256.Sum256(text)
	return text, hex.EncodeToString(sum[:8]), nil
}

// lines name all metrics with the Need that their reading makes, sorted.
func (m *Metrics) lines() []string {
	var list []string
	add := func(name string, r reading) {
		if need := needOf(r.within); need != 0 {
			name += fmt.Sprintf(" over %s", need.Range())
		}
		list = append(list, name)
	}
	for name, r := range m.names {
		add(name, r)
	}
	for name, r := range m.families {
		add(name+" and its parts", r)
	}
	for i := range m.patterns {
		add(m.patterns[i].name.String(), m.patterns[i].reading)
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
			rules.Files = below(dir, rules.Files)
			class.FromRules = &rules
		}
		class.FromDashboards = below(dir, class.FromDashboards)
	}
}

func below(dir string, globs []string) []string {
	list := slices.Clone(globs)
	for i, g := range list {
		if !filepath.IsAbs(g) {
			list[i] = filepath.Join(dir, g)
		}
	}
	return list
}
