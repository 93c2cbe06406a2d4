package ha

import (
	"errors"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/fielderror"
)

// OnUnavailable is what happens to the samples of the elected replica while the store of
// the elections does not answer.
type OnUnavailable string

// What happens to the samples of the elected replica while the store does not answer.
const (
	// UnavailableKeep goes on accepting them.
	UnavailableKeep OnUnavailable = "keep"
	// UnavailableWait makes the sender wait (503).
	UnavailableWait OnUnavailable = "wait"
)

// Config is the section `ha`: pairs of Prometheus servers that scrape the same targets,
// of which one at a time is believed. Where the gateways agree on it is the section
// `lease`.
type Config struct {
	// Whether samples of HA pairs are deduplicated. false is as if the section was not
	// there.
	Enabled bool `yaml:"enabled"`
	// The label that names the pair. Both servers have the same value in their
	// external_labels.
	ClusterLabel string `yaml:"cluster_label"`
	// The label that tells the servers of a pair apart. It is taken off what is accepted.
	ReplicaLabel string `yaml:"replica_label"`
	// How long nothing must have been accepted from the elected replica before another
	// is elected. Three times the interval at which the pair sends is the least, whatever
	// this says.
	FailoverTimeout model.Duration `yaml:"failover_timeout"`
	// Memory for samples of replicas that are not elected, of all pairs together. When
	// it is full the oldest are dropped, and a failover may leave a gap.
	BufferBytes bytesize.Size `yaml:"buffer_bytes"`
	// Most pairs at the same time. Requests of further ones are answered 400.
	MaxClusters int `yaml:"max_clusters"`
	// While the store does not answer: keep goes on accepting the elected replica; should
	// this gateway alone be cut off from the store, both replicas may be accepted after
	// failover_timeout. wait answers the elected replica's sender 503 until the store is
	// back.
	OnStoreUnavailable OnUnavailable `yaml:"on_store_unavailable"`
}

// minTimeout keeps elections slower than the gateways' look at the record.
const minTimeout = 2 * time.Second

// DefaultConfig is what holds for keys that the file does not have, but Enabled.
func DefaultConfig() Config {
	return Config{
		ClusterLabel:       "cluster",
		ReplicaLabel:       "__replica__",
		FailoverTimeout:    model.Duration(30 * time.Second),
		BufferBytes:        64 * bytesize.MiB,
		MaxClusters:        100,
		OnStoreUnavailable: UnavailableKeep,
	}
}

// SetDefaults sets the values of a section that is present but empty: it turns pairs on.
func (c *Config) SetDefaults() {
	*c = DefaultConfig()
	c.Enabled = true
}

// Validate reports every bad value as a *fielderror.Error.
func (c *Config) Validate() error {
	var errs []error
	check := func(ok bool, path, format string, args ...any) {
		if !ok {
			errs = append(errs, fielderror.Errorf(path, format, args...))
		}
	}
	check(c.ClusterLabel != "", "cluster_label", "is empty; name the label that both servers of a pair share")
	check(c.ReplicaLabel != "", "replica_label", "is empty; name the label that tells the servers of a pair apart")
	check(c.ClusterLabel != c.ReplicaLabel || c.ClusterLabel == "", "replica_label", "must not be cluster_label")
	check(c.ReplicaLabel != model.MetricNameLabel, "replica_label", "must not be the label of metric names")
	check(c.FailoverTimeout >= model.Duration(minTimeout), "failover_timeout", "must be at least %s", minTimeout)
	check(c.BufferBytes >= 0, "buffer_bytes", "must not be negative")
	check(c.MaxClusters >= 1, "max_clusters", "must be 1 or more")
	check(c.OnStoreUnavailable == UnavailableKeep || c.OnStoreUnavailable == UnavailableWait, "on_store_unavailable", "must be %s or %s, not %q", UnavailableKeep, UnavailableWait, string(c.OnStoreUnavailable))
	return errors.Join(errs...)
}
