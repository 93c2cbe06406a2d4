package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/internal/strictyaml"
	"github.com/sluice-metrics/sluice/probe"
)

// Cluster is one database cluster that is watched: how often, and, under the key of its
// kind, where its servers are.
type Cluster struct {
	probe.Config `yaml:",inline"`

	kinds map[string]ProbeConfig // by key; exactly one in a valid configuration
}

// ProbeConfig is the section of one kind of databases: a pointer to the Config of its
// package. A section with names of files also has SetDirectory(dir string).
type ProbeConfig interface {
	Validate() error
	// Probers returns one for each target. They connect when they are first used.
	Probers() ([]probe.Prober, error)
}

// SetDefaults sets what holds for keys that the file does not have.
func (c *Cluster) SetDefaults() { c.Config = probe.DefaultConfig() }

// ExtraKeys lists the kinds of databases, each of which is a key.
func (*Cluster) ExtraKeys() []string {
	var keys []string
	for _, k := range probeKinds() {
		keys = append(keys, k.key)
	}
	return keys
}

// Extra returns the section under the key of a kind.
func (c *Cluster) Extra(key string, create bool) any {
	if s, ok := c.kinds[key]; ok {
		return s
	}
	if !create {
		return nil
	}
	if c.kinds == nil {
		c.kinds = map[string]ProbeConfig{}
	}
	list := probeKinds()
	i := slices.IndexFunc(list, func(k probeKind) bool { return k.key == key })
	c.kinds[key] = list[i].standard()
	return c.kinds[key]
}

// Kind is the key of the cluster's kind.
func (c *Cluster) Kind() string {
	for key := range c.kinds {
		return key
	}
	return ""
}

// Probers returns one for each target of the cluster.
func (c *Cluster) Probers() ([]probe.Prober, error) {
	list, err := c.kinds[c.Kind()].Probers()
	if err != nil {
		return nil, fmt.Errorf("cluster %q: %w", c.Name, err)
	}
	return list, nil
}

// Validate reports everything that is wrong with this cluster alone.
func (c *Cluster) Validate() error {
	errs := []error{c.Config.Validate()}
	used := ""
	for _, key := range c.ExtraKeys() {
		s, ok := c.kinds[key]
		if !ok {
			continue
		}
		if used != "" {
			errs = append(errs, fielderror.Errorf(key, "a cluster is of one kind, and this one has %s already; make it a second cluster", used))
		}
		used = key
		errs = append(errs, strictyaml.Check(key, s))
	}
	if used == "" {
		errs = append(errs, fielderror.Errorf("", "no servers; add one of %s", strings.Join(c.ExtraKeys(), ", ")))
	}
	return errors.Join(errs...)
}

func (c *Cluster) setDirectory(dir string) {
	for _, s := range c.kinds {
		if setter, ok := s.(interface{ SetDirectory(string) }); ok {
			setter.SetDirectory(dir)
		}
	}
}
