// Package config reads the configuration file. It composes the Config types of the
// packages, lists the kinds of backends, and reports everything that is wrong with a
// file at once, each problem with its place.
//
// To add a section, add a field to Config and its defaults to Standard. To add a kind
// of backend, add a line to kinds.
package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sluice-metrics/sluice/exporter/tsdb"
	"github.com/sluice-metrics/sluice/ha"
	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/internal/strictyaml"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/receiver"
	"github.com/sluice-metrics/sluice/router"
	"github.com/sluice-metrics/sluice/sampler"
)

//go:generate go run ./gendocs ../docs/config.md schema.json

// Config is the whole configuration. Get one from Load, Parse or Default; it is not
// changed afterwards and may be read by several goroutines.
type Config struct {
	// What is taken in, and how much at a time.
	Receiver receiver.Config `yaml:"receiver"`
	// The durable log between the receiver and the backends.
	Journal disk.Config `yaml:"journal"`
	// The table of known series.
	Series Series `yaml:"series"`
	// When present, the gateway writes its own metrics into its own pipeline, as
	// job="sluice". Absent: it does not.
	OwnMetrics *OwnMetrics `yaml:"own_metrics,omitempty"`
	// What is withheld from a backend that lags, and when it is given back. Absent: nothing
	// is withheld from backends without a section of their own.
	AdaptiveSampling *sampler.Config `yaml:"adaptive_sampling,omitempty"`
	// Database clusters that are watched: how far their replicas lag, and who blocks whom.
	Clusters []Cluster `yaml:"clusters,omitempty"`
	// Where several gateways agree on who does what. Absent: each does everything.
	Lease *Lease `yaml:"lease,omitempty"`
	// Pairs of Prometheus servers that scrape the same targets, of which one at a time is
	// believed; needs lease. Absent: what both send goes on.
	HA *ha.Config `yaml:"ha,omitempty"`
	// Where spans of leases are sent; needs lease, and clusters, which the leases are for.
	// Absent: none are made.
	Tracing *Tracing `yaml:"tracing,omitempty"`
	// Names under which some metrics are exported too.
	Compat Compat `yaml:"compat"`
	// How long the place in the journal of a backend that was removed from the file is
	// kept. When the backend comes back in time, it goes on where it was; afterwards
	// what it had not been sent is given up.
	OrphanRetention model.Duration `yaml:"orphan_retention"`
	// How long the gateway goes on delivering when it is told to stop, to backends that
	// take data at that moment. What is left then stays in the journal for the next start.
	ShutdownTimeout model.Duration `yaml:"shutdown_timeout"`
	// Where the samples go. At least one backend is required. Each takes at its own
	// pace; a slow one does not hold up the others.
	Backends []Backend `yaml:"backends"`
}

// Compat are other names of metrics, for dashboards that know them or to keep names apart.
type Compat struct {
	// The gateway's own pools of database connections also as hikaricp_connections_* and
	// jdbc_statement_timeout_total.
	HikariCP bool `yaml:"hikaricp"`
	// What the names of all metrics of the probes begin with, such as sluice_ for
	// sluice_replica_lag_seconds, where another exporter has the same names. Sluice's
	// dashboards and alerts read the names without it. A change takes a restart.
	ProbePrefix string `yaml:"probe_prefix,omitempty"`
}

var metricPrefix = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)?$`)

// Validate reports every value that is out of range.
func (c *Compat) Validate() error {
	if !metricPrefix.MatchString(c.ProbePrefix) {
		return fielderror.Errorf("probe_prefix", "%q cannot begin the name of a metric: letters, digits, '_' and ':', no digit first", c.ProbePrefix)
	}
	return nil
}

// Series bounds the table of known series.
type Series struct {
	// Most series known at the same time; about 60 bytes of memory each. Series beyond
	// it are taken all the same, but cost more time per sample.
	Max int `yaml:"max"`
	// How long a series is known after its last sample.
	IdleAfter model.Duration `yaml:"idle_after"`
}

// OwnMetrics is how the gateway writes its own metrics into its own pipeline.
type OwnMetrics struct {
	// Time between two rounds.
	Interval model.Duration `yaml:"interval"`
}

const (
	ownMetricsInterval = model.Duration(15 * time.Second)
	// maxSeries is how many ids there are.
	maxSeries = 1 << 29
)

// Standard is what holds for keys that a file does not have. It is not valid, because
// it has no backends.
func Standard() *Config {
	return &Config{
		Receiver:        receiver.DefaultConfig(),
		Journal:         disk.DefaultConfig(),
		Series:          Series{Max: 2_000_000, IdleAfter: model.Duration(30 * time.Minute)},
		OrphanRetention: model.Duration(time.Hour),
		ShutdownTimeout: model.Duration(30 * time.Second),
		Compat:          Compat{HikariCP: true},
	}
}

// Default is the configuration of a gateway that was started without a file: one
// embedded store, named local, and the gateway's own metrics in it.
func Default() *Config {
	c := Standard()
	c.OwnMetrics = &OwnMetrics{Interval: ownMetricsInterval}
	local := Backend{Name: "local"}
	local.Extra(kindTSDB, true)
	c.Backends = []Backend{local}
	return c
}

// SetDefaults sets the values of a section that is present but empty.
func (m *OwnMetrics) SetDefaults() { m.Interval = ownMetricsInterval }

// Validate reports every value that is out of range.
func (m *OwnMetrics) Validate() error {
	if m.Interval < model.Duration(time.Second) {
		return fielderror.Errorf("interval", "must be at least 1s, is %s", m.Interval)
	}
	return nil
}

// Validate reports every value that is out of range.
func (s *Series) Validate() error {
	var errs []error
	if s.Max < 1 || s.Max > maxSeries {
		errs = append(errs, fielderror.Errorf("max", "must be from 1 to %d, is %d", maxSeries, s.Max))
	}
	if s.IdleAfter <= 0 {
		errs = append(errs, fielderror.Errorf("idle_after", "must be longer than 0s; a series has to outlive the time between two of its samples"))
	}
	return errors.Join(errs...)
}

// Sampling is what holds for a backend of the configuration; nil where nothing is ever
// withheld from it.
func (c *Config) Sampling(b *Backend) *sampler.Config {
	s := b.AdaptiveSampling
	if s == nil {
		s = c.AdaptiveSampling
	}
	if s == nil || !s.Enabled {
		return nil
	}
	return s
}

const minimal = `  backends:
    - name: main
      remote_write:
        url: http://127.0.0.1:9090/api/v1/write`

var backendName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// Validate reports everything that is wrong with the values, in all sections and
// between them, as *fielderror.Error with paths from the top of the file.
func (c *Config) Validate() error {
	errs := []error{strictyaml.CheckFields(c)}
	if c.ShutdownTimeout <= 0 {
		errs = append(errs, fielderror.Errorf("shutdown_timeout", "must be longer than 0s"))
	}
	switch n := len(c.Backends); {
	case n == 0:
		errs = append(errs, fielderror.Errorf("backends", "no backend: nothing would be delivered. A minimal file is\n\n%s\n", minimal))
	case n > router.MaxBackends:
		errs = append(errs, fielderror.Errorf("backends", "%d backends; at most %d are possible", n, router.MaxBackends))
	}
	errs = append(errs, c.validateHA())
	if c.Tracing != nil && c.Lease == nil {
		errs = append(errs, fielderror.Errorf("tracing", "has no effect without a section lease: the spans are those of leases; add lease, or remove tracing"))
	}
	clusters := map[string]int{}
	for i := range c.Clusters {
		cl, path := &c.Clusters[i], fmt.Sprintf("clusters[%d]", i)
		errs = append(errs, strictyaml.Check(path, cl))
		if other, ok := clusters[cl.Name]; ok && cl.Name != "" {
			errs = append(errs, fielderror.Errorf(path+".name", "%q is the name of clusters[%d] too; names are unique", cl.Name, other))
		}
		clusters[cl.Name] = i
	}
	first := map[string]int{}
	for i := range c.Backends {
		b, path := &c.Backends[i], fmt.Sprintf("backends[%d]", i)
		errs = append(errs, strictyaml.Check(path, b))
		if other, ok := first[b.Name]; ok && b.Name != "" {
			errs = append(errs, fielderror.Errorf(path+".name", "%q is the name of backends[%d] too; names are unique, because each is a place in the journal", b.Name, other))
			continue
		}
		first[b.Name] = i
		errs = append(errs, c.validateStore(i))
		if from := b.LagFrom; from != nil {
			if _, ok := clusters[from.Cluster]; !ok {
				errs = append(errs, fielderror.Errorf(path+".lag_from.cluster", "no cluster is named %q; see clusters", from.Cluster))
			}
		}
	}
	return errors.Join(errs...)
}

// ownDirectories are those that the gateway itself has below the storage path.
func ownDirectories() []string { return []string{"journal", "ledger", "dead-letters"} }

// validateStore reports a backend whose store would be in a directory of the gateway or of a
// backend before it.
func (c *Config) validateStore(i int) error {
	b, path := &c.Backends[i], fmt.Sprintf("backends[%d]", i)
	store, ok := b.KindConfig().(*tsdb.Config)
	switch {
	case !ok:
		return nil
	case store.Path == "" && slices.Contains(ownDirectories(), b.Name):
		return fielderror.Errorf(path+".name", "the store of the backend %q would be in the gateway's own directory %q below the storage path; name the backend otherwise, or give it a tsdb.path", b.Name, b.Name)
	case store.Path == "":
		return nil
	}
	for j := range i {
		before := &c.Backends[j]
		if o, ok := before.KindConfig().(*tsdb.Config); ok && o.Path != "" && sameDirectory(o.Path, store.Path) {
			return fielderror.Errorf(path+".tsdb.path", "%q is the directory of the backend %q too; %q needs one of its own", store.Path, before.Name, b.Name)
		}
	}
	return nil
}

// sameDirectory reports whether two paths from the working directory name one directory.
func sameDirectory(a, b string) bool {
	x, errA := filepath.Abs(a)
	y, errB := filepath.Abs(b)
	return errA == nil && errB == nil && x == y
}

// String is the configuration in force as a file, with all defaults filled in and
// marked, and with secrets hidden. Parse takes it back.
func (c *Config) String() string {
	text, err := strictyaml.Encode(c, Standard())
	if err != nil {
		return "# BUG: the configuration cannot be written: " + err.Error() + "\n"
	}
	return text
}
