package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"

	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/internal/strictyaml"
	"github.com/sluice-metrics/sluice/lock"
)

// OnUnavailable is what a gateway does while it does not know who has a lease.
type OnUnavailable string

// What a gateway does while the leases' store does not answer.
const (
	// UnavailableStop does not do what a lease is needed for.
	UnavailableStop OnUnavailable = "stop"
	// UnavailableRun does it, with the others.
	UnavailableRun OnUnavailable = "run"
)

// Lease is where several gateways agree on who does what: which of them probes a cluster,
// and which replica of an HA pair is believed.
type Lease struct {
	// How long the others wait when a gateway dies. With etcd's standard timing at least
	// 5s; see docs/locks.md.
	TTL model.Duration `yaml:"ttl"`
	// What a gateway does while the store of the leases does not answer: stop leaves
	// clusters unprobed, run probes them, possibly several times.
	OnUnavailable OnUnavailable `yaml:"on_lock_unavailable"`

	kinds map[string]LeaseConfig // by key; exactly one in a valid configuration
}

// LeaseConfig is the section of one kind of leases: a pointer to the Config of its package.
// A section with names of files also has SetDirectory(dir string).
type LeaseConfig interface {
	Validate() error
	SetDefaults()
}

// LeaseOptions is what the store of leases gets from the gateway.
type LeaseOptions struct {
	// Registerer takes the metrics of the store's own connections.
	Registerer prometheus.Registerer
	// HikariCP adds the names by which dashboards of Java programs know pools.
	HikariCP bool
	Now      func() time.Time
}

// SetDefaults sets what holds for keys that the file does not have.
func (l *Lease) SetDefaults() {
	l.TTL, l.OnUnavailable = model.Duration(lock.DefaultTTL), UnavailableStop
}

// ExtraKeys lists the kinds of leases, each of which is a key.
func (*Lease) ExtraKeys() []string {
	var keys []string
	for _, k := range leaseKinds() {
		keys = append(keys, k.key)
	}
	return keys
}

// Extra returns the section under the key of a kind.
func (l *Lease) Extra(key string, create bool) any {
	if s, ok := l.kinds[key]; ok {
		return s
	}
	if !create {
		return nil
	}
	if l.kinds == nil {
		l.kinds = map[string]LeaseConfig{}
	}
	l.kinds[key] = findLease(key).standard()
	return l.kinds[key]
}

func findLease(key string) leaseKind {
	list := leaseKinds()
	i := slices.IndexFunc(list, func(k leaseKind) bool { return k.key == key })
	if i < 0 {
		panic(fmt.Sprintf("BUG: no kind of leases has the key %q", key))
	}
	return list[i]
}

// Kind is the key of the kind.
func (l *Lease) Kind() string {
	for key := range l.kinds {
		return key
	}
	return ""
}

// KindConfig is the section of the kind, a pointer to the Config of its package.
func (l *Lease) KindConfig() LeaseConfig { return l.kinds[l.Kind()] }

// Store returns what keeps the leases. It connects when it is first used.
func (l *Lease) Store(o LeaseOptions) (lock.Store, error) {
	s, err := findLease(l.Kind()).open(l.KindConfig(), o)
	if err != nil {
		return nil, fmt.Errorf("lease: %s: %w", l.Kind(), err)
	}
	return s, nil
}

// Validate reports every value that is out of range.
func (l *Lease) Validate() error {
	var errs []error
	if l.TTL < model.Duration(lock.MinTTL) {
		errs = append(errs, fielderror.Errorf("ttl", "must be at least %s", lock.MinTTL))
	}
	if l.OnUnavailable != UnavailableStop && l.OnUnavailable != UnavailableRun {
		errs = append(errs, fielderror.Errorf("on_lock_unavailable", "must be %s or %s, not %q", UnavailableStop, UnavailableRun, string(l.OnUnavailable)))
	}
	used := ""
	for _, key := range l.ExtraKeys() {
		s, ok := l.kinds[key]
		if !ok {
			continue
		}
		if used != "" {
			errs = append(errs, fielderror.Errorf(key, "leases are of one kind, and there is %s already", used))
		}
		used = key
		errs = append(errs, strictyaml.Check(key, s))
	}
	if used == "" {
		errs = append(errs, fielderror.Errorf("", "no kind of leases; add one of %s", strings.Join(l.ExtraKeys(), ", ")))
	}
	return errors.Join(errs...)
}

func (l *Lease) setDirectory(dir string) {
	for _, s := range l.kinds {
		if setter, ok := s.(interface{ SetDirectory(string) }); ok {
			setter.SetDirectory(dir)
		}
	}
}
