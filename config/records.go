package config

import (
	"fmt"

	"github.com/sluice-metrics/sluice/ha"
	"github.com/sluice-metrics/sluice/internal/fielderror"
	leaseetcd "github.com/sluice-metrics/sluice/lock/etcd"
	"github.com/sluice-metrics/sluice/lock/local"
	leasepostgres "github.com/sluice-metrics/sluice/lock/postgres"
	leaseredis "github.com/sluice-metrics/sluice/lock/redis"
)

// Records returns what keeps the election records of HA pairs: the store of the leases, by
// a connection of its own. It connects when it is first used.
func (l *Lease) Records(o LeaseOptions) (ha.Store, error) {
	var s ha.Store
	var err error
	switch c := l.KindConfig().(type) {
	case *leaseetcd.Config:
		s = leaseetcd.NewClient(*c)
	case *leaseredis.Config:
		s, err = leaseredis.New(*c)
	case *leasepostgres.Config:
		s, err = leasepostgres.New(*c, leasepostgres.Options{Pool: "ha", Registerer: o.Registerer, HikariCP: o.HikariCP})
	case *local.Config:
		s = ha.NewMemory()
	default:
		return nil, fmt.Errorf("lease: %s keeps no records", l.Kind())
	}
	if err != nil {
		return nil, fmt.Errorf("ha: records in the lease's store: %s: %w", l.Kind(), err)
	}
	return s, nil
}

// keepsRecords reports whether Records knows the kind.
func (l *Lease) keepsRecords() bool {
	switch l.KindConfig().(type) {
	case *leaseetcd.Config, *leaseredis.Config, *leasepostgres.Config, *local.Config:
		return true
	}
	return false
}

// PairsEnabled reports whether samples of HA pairs are deduplicated.
func (c *Config) PairsEnabled() bool { return c.HA != nil && c.HA.Enabled }

func (c *Config) validateHA() error {
	switch {
	case !c.PairsEnabled():
		return nil
	case c.Lease == nil:
		return fielderror.Errorf("ha", "needs a section lease, where the gateways agree on which replica is elected; for a single gateway that gets both replicas it is lease: {local: {}}")
	case c.Lease.Kind() != "" && !c.Lease.keepsRecords():
		return fielderror.Errorf("ha", "leases of the kind %s keep no records; use etcd, redis, postgres or local", c.Lease.Kind())
	}
	return nil
}
