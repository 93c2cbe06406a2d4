package config

import (
	"github.com/sluice-metrics/sluice/lock"
	leaseetcd "github.com/sluice-metrics/sluice/lock/etcd"
	"github.com/sluice-metrics/sluice/lock/etcdcas"
	"github.com/sluice-metrics/sluice/lock/local"
	leasepostgres "github.com/sluice-metrics/sluice/lock/postgres"
	leaseredis "github.com/sluice-metrics/sluice/lock/redis"
	"github.com/sluice-metrics/sluice/lock/redlock"
	"github.com/sluice-metrics/sluice/probe/etcd"
	"github.com/sluice-metrics/sluice/probe/kafka"
	"github.com/sluice-metrics/sluice/probe/mariadb"
	"github.com/sluice-metrics/sluice/probe/mysql"
	"github.com/sluice-metrics/sluice/probe/postgres"
	"github.com/sluice-metrics/sluice/probe/redis"
)

// probeKind is one kind of databases.
type probeKind struct {
	key      string
	standard func() ProbeConfig
}

// probeKinds lists the kinds of databases that can be watched: the key in the file, and
// the defaults. No other package imports them.
func probeKinds() []probeKind {
	return []probeKind{
		{"postgres", func() ProbeConfig { c := postgres.DefaultConfig(); return &c }},
		{"mariadb", func() ProbeConfig { return &mariadb.Config{} }},
		{"mysql", func() ProbeConfig { return &mysql.Config{} }},
		{"redis", func() ProbeConfig { return &redis.Config{} }},
		{"etcd", func() ProbeConfig { return &etcd.Config{} }},
		{"kafka", func() ProbeConfig { c := kafka.DefaultConfig(); return &c }},
	}
}

// leaseKind is one kind of leases.
type leaseKind struct {
	key      string
	standard func() LeaseConfig
	open     func(LeaseConfig, LeaseOptions) (lock.Store, error)
}

// leaseKinds lists the kinds of leases: the key in the file, the defaults, and how to open
// one. No other package imports them, but what compares them.
func leaseKinds() []leaseKind {
	return []leaseKind{
		newLease("etcd", func(c *leaseetcd.Config, o LeaseOptions) (lock.Store, error) { return leaseetcd.New(*c, o.Now), nil }),
		newLease("etcdcas", func(c *etcdcas.Config, _ LeaseOptions) (lock.Store, error) { return etcdcas.New(*c), nil }),
		newLease("redis", func(c *leaseredis.Config, _ LeaseOptions) (lock.Store, error) { return leaseredis.New(*c) }),
		newLease("redlock", func(c *redlock.Config, _ LeaseOptions) (lock.Store, error) { return redlock.New(*c) }),
		newLease("postgres", func(c *leasepostgres.Config, o LeaseOptions) (lock.Store, error) {
			return leasepostgres.New(*c, leasepostgres.Options{Pool: "lease", Registerer: o.Registerer, HikariCP: o.HikariCP})
		}),
		newLease("local", func(_ *local.Config, o LeaseOptions) (lock.Store, error) { return local.New(o.Now), nil }),
	}
}

// newLease makes a kind of the functions of a package, whose Config type is C.
func newLease[C any, P interface {
	*C
	LeaseConfig
}](key string, open func(P, LeaseOptions) (lock.Store, error),
) leaseKind {
	return leaseKind{
		key: key,
		standard: func() LeaseConfig {
			c := P(new(C))
			c.SetDefaults()
			return c
		},
		open: func(c LeaseConfig, o LeaseOptions) (lock.Store, error) { return open(c.(P), o) },
	}
}
