package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/internal/strictyaml"
	"github.com/sluice-metrics/sluice/sampler"
)

// Backend is one destination: what it takes, how far it may fall behind, and, under the
// key of its kind, how it is reached.
type Backend struct {
	// Name of the backend in metrics, logs and paths, and of its place in the journal:
	// a backend that is renamed starts anew. Letters, digits, '_' and '-', unique.
	// Required.
	Name string `yaml:"name"`
	// PromQL series selectors, such as '{job=~"node|api"}'. The backend takes the
	// series that any of them selects. Absent: all series.
	Match []Selector `yaml:"match,omitempty"`
	// How far the backend may fall behind. Beyond it its oldest data is given up and
	// counted. Absent: a backend that is the only one, as far as the journal reaches; one of
	// several, three quarters of journal.max_disk, so that one which is down does not
	// fill the journal for all (with journal.on_full drop_oldest, as far as it reaches).
	MaxBacklog exporter.Backlog `yaml:"max_backlog"`

	// What is withheld from this backend while it lags: keys that differ from the section
	// adaptive_sampling at the top.
	AdaptiveSampling *sampler.Config `yaml:"adaptive_sampling,omitempty"`

	// The cluster of databases that stands behind the backend: the lag of its replicas is
	// one of the signals of adaptive_sampling.
	LagFrom *LagFrom `yaml:"lag_from,omitempty"`

	kinds map[string]KindConfig // by key; exactly one in a valid configuration
}

// LagFrom names a cluster.
type LagFrom struct {
	// Name of one of clusters. Required.
	Cluster string `yaml:"cluster"`
}

// ExtraKeys lists the kinds of backends, each of which is a key.
func (*Backend) ExtraKeys() []string {
	list := kinds()
	keys := make([]string, len(list))
	for i, k := range list {
		keys[i] = k.key
	}
	return keys
}

// Extra returns the section under the key of a kind.
func (b *Backend) Extra(key string, create bool) any {
	if c, ok := b.kinds[key]; ok {
		return c
	}
	if !create {
		return nil
	}
	if b.kinds == nil {
		b.kinds = map[string]KindConfig{}
	}
	b.kinds[key] = findKind(key).standard()
	return b.kinds[key]
}

// Kind is the key of the backend's kind.
func (b *Backend) Kind() string {
	for key := range b.kinds {
		return key
	}
	return ""
}

// KindConfig is the section of the backend's kind, a pointer to the Config of its
// package.
func (b *Backend) KindConfig() KindConfig { return b.kinds[b.Kind()] }

// Selectors are the parsed selectors of Match, as the router takes them; none means all
// series.
func (b *Backend) Selectors() [][]*labels.Matcher {
	var list [][]*labels.Matcher
	for _, s := range b.Match {
		list = append(list, s.Matchers())
	}
	return list
}

// Digest identifies what the backend selects: equal for two lists that differ in
// order, spaces or repetition only; "all" for no selectors.
func (b *Backend) Digest() string { return digest(b.Match) }

// Lane is how the backend's lane collects, sends and retries.
func (b *Backend) Lane() exporter.LaneConfig { return findKind(b.Kind()).lane(b.KindConfig()) }

// Open opens the backend. It may take long where there is a store to recover. The
// caller closes it.
func (b *Backend) Open(o OpenOptions) (exporter.Backend, error) {
	backend, err := findKind(b.Kind()).open(b.KindConfig(), b.Name, o)
	if err != nil {
		return nil, fmt.Errorf("open backend %q: %w", b.Name, err)
	}
	return backend, nil
}

// OutOfOrderWindow is how far behind the newest sample of a series the backend takes
// samples; 0 is not at all.
func (b *Backend) OutOfOrderWindow() time.Duration { return b.KindConfig().OutOfOrderWindow() }

// SameDelivery reports whether the two differ at most in what they select, so that a
// lane and its Backend can stay as they are when one replaces the other.
func (b *Backend) SameDelivery(o *Backend) bool {
	return b.Name == o.Name && b.MaxBacklog == o.MaxBacklog && reflect.DeepEqual(b.kinds, o.kinds)
}

// Validate reports everything that is wrong with this backend alone.
func (b *Backend) Validate() error {
	var errs []error
	switch {
	case b.Name == "":
		errs = append(errs, fielderror.Errorf("name", "is missing; it names the backend in metrics and its place in the journal"))
	case !backendName.MatchString(b.Name):
		errs = append(errs, fielderror.Errorf("name", "%q has other characters than letters, digits, '_' and '-', or more than 64", b.Name))
	}
	if b.Match != nil && len(b.Match) == 0 {
		errs = append(errs, fielderror.Errorf("match", "the list is empty; remove the key to take all series"))
	}
	used := ""
	for _, key := range b.ExtraKeys() {
		c, ok := b.kinds[key]
		if !ok {
			continue
		}
		if used != "" {
			errs = append(errs, fielderror.Errorf(key, "a backend is of one kind, and this one has %s already; make it a second backend", used))
		}
		used = key
		errs = append(errs, strictyaml.Check(key, c))
	}
	if used == "" {
		errs = append(errs, fielderror.Errorf("", "no destination; add one of %s", strings.Join(b.ExtraKeys(), ", ")))
	}
	return errors.Join(errs...)
}

// setDirectory makes relative names of files in the sections of kinds relative to dir.
func (b *Backend) setDirectory(dir string) {
	for _, c := range b.kinds {
		if setter, ok := c.(interface{ SetDirectory(string) }); ok {
			setter.SetDirectory(dir)
		}
	}
}

func findKind(key string) kind {
	list := kinds()
	i := slices.IndexFunc(list, func(k kind) bool { return k.key == key })
	if i < 0 {
		panic(fmt.Sprintf("BUG: no kind of backends has the key %q", key))
	}
	return list[i]
}
