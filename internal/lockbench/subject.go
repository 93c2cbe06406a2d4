package lockbench

import (
	"errors"
	"fmt"

	"github.com/prometheus/common/config"

	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/internal/strictyaml"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/etcd"
	"github.com/sluice-metrics/sluice/lock/etcdcas"
	"github.com/sluice-metrics/sluice/lock/local"
	"github.com/sluice-metrics/sluice/lock/postgres"
	"github.com/sluice-metrics/sluice/lock/redis"
	"github.com/sluice-metrics/sluice/lock/redlock"
)

// Subject is one backend to measure.
type Subject struct {
	// Name in the report.
	Name string
	// Kind is the key of the kind in the configuration.
	Kind string
	// Addresses of the servers.
	Addresses []string
	// Encrypted says that the servers cannot be reached by another address, because
	// their certificates would not fit.
	Encrypted bool
	// Open opens a Store on the addresses.
	Open func(addresses []string) (lock.Store, error)
}

// Servers are somebody's servers, for a comparison without a file.
type Servers struct {
	Etcd     []string // client addresses of the members
	Redis    []string // host:port of independent servers
	Postgres string   // DSN
}

// Subjects are all kinds that the servers allow, and the local one for comparison: etcd
// and etcdcas; redis on the first Redis, and redlock when there are three or more.
func (s Servers) Subjects() ([]Subject, error) {
	leases := []*lease{{Name: local.Kind, Local: &local.Config{}}}
	if len(s.Etcd) > 0 {
		kept, cas := &etcd.Config{}, &etcdcas.Config{}
		kept.SetDefaults()
		cas.SetDefaults()
		kept.Endpoints, cas.Endpoints = s.Etcd, s.Etcd
		leases = append(leases, &lease{Name: etcd.Kind, Etcd: kept}, &lease{Name: etcdcas.Kind, EtcdCAS: cas})
	}
	if len(s.Redis) > 0 {
		one := &redis.Config{}
		one.SetDefaults()
		one.Address = s.Redis[0]
		leases = append(leases, &lease{Name: redis.Kind, Redis: one})
	}
	if len(s.Redis) > 1 {
		several := &redlock.Config{}
		several.SetDefaults()
		several.Addresses = s.Redis
		leases = append(leases, &lease{Name: redlock.Kind, Redlock: several})
	}
	if s.Postgres != "" {
		database := &postgres.Config{}
		database.SetDefaults()
		database.DSN = config.Secret(s.Postgres)
		leases = append(leases, &lease{Name: postgres.Kind, Postgres: database})
	}
	return subjects(leases)
}

func subjects(leases []*lease) ([]Subject, error) {
	var list []Subject
	for _, l := range leases {
		if err := l.Validate(); err != nil {
			return nil, err
		}
		list = append(list, l.subject())
	}
	return list, nil
}

// file is a file with leases to compare.
type file struct {
	// Leases to compare.
	Leases []*lease `yaml:"leases"`
}

// Validate reports an empty list.
func (f *file) Validate() error {
	var errs []error
	if len(f.Leases) == 0 {
		errs = append(errs, fielderror.Errorf("leases", "is missing; list what to compare, such as [{name: main, etcd: {endpoints: [127.0.0.1:2379]}}]"))
	}
	for i, l := range f.Leases {
		errs = append(errs, fielderror.Within(fmt.Sprintf("leases[%d]", i), l.Validate()))
	}
	return errors.Join(errs...)
}

// lease is the section of one lease, with one of the kinds.
type lease struct {
	Name     string           `yaml:"name"`
	Etcd     *etcd.Config     `yaml:"etcd,omitempty"`
	EtcdCAS  *etcdcas.Config  `yaml:"etcdcas,omitempty"`
	Redlock  *redlock.Config  `yaml:"redlock,omitempty"`
	Redis    *redis.Config    `yaml:"redis,omitempty"`
	Postgres *postgres.Config `yaml:"postgres,omitempty"`
	Local    *local.Config    `yaml:"local,omitempty"`
}

// Validate checks the kind, of which there has to be one.
func (l *lease) Validate() error {
	var errs []error
	kinds := 0
	check := func(key string, there bool, validate func() error) {
		if there {
			kinds++
			errs = append(errs, fielderror.Within(key, validate()))
		}
	}
	check(etcd.Kind, l.Etcd != nil, l.Etcd.Validate)
	check(etcdcas.Kind, l.EtcdCAS != nil, func() error { return l.EtcdCAS.Validate() })
	check(redlock.Kind, l.Redlock != nil, l.Redlock.Validate)
	check(redis.Kind, l.Redis != nil, l.Redis.Validate)
	check(postgres.Kind, l.Postgres != nil, l.Postgres.Validate)
	check(local.Kind, l.Local != nil, l.Local.Validate)
	if l.Name == "" {
		errs = append(errs, fielderror.Errorf("name", "is missing; it names the lease in the report"))
	}
	if kinds != 1 {
		errs = append(errs, fielderror.Errorf("", "%d kinds; give one of etcd, etcdcas, redlock, redis, postgres, local", kinds))
	}
	return errors.Join(errs...)
}

// subject is the lease as something to measure. Its section is valid.
func (l *lease) subject() Subject {
	s := Subject{Name: l.Name}
	switch {
	case l.Etcd != nil:
		s.Kind, s.Addresses, s.Encrypted = etcd.Kind, l.Etcd.Endpoints, l.Etcd.TLSConfig != nil
		s.Open = func(addresses []string) (lock.Store, error) {
			c := *l.Etcd
			c.Endpoints = addresses
			return etcd.New(c, nil), nil
		}
	case l.EtcdCAS != nil:
		s.Kind, s.Addresses, s.Encrypted = etcdcas.Kind, l.EtcdCAS.Endpoints, l.EtcdCAS.TLSConfig != nil
		s.Open = func(addresses []string) (lock.Store, error) {
			c := *l.EtcdCAS
			c.Endpoints = addresses
			return etcdcas.New(c), nil
		}
	case l.Redlock != nil:
		s.Kind, s.Addresses, s.Encrypted = redlock.Kind, l.Redlock.Addresses, l.Redlock.Client.TLSConfig != nil
		s.Open = func(addresses []string) (lock.Store, error) {
			c := *l.Redlock
			c.Addresses = addresses
			return redlock.New(c)
		}
	case l.Redis != nil:
		s.Kind, s.Addresses = redis.Kind, []string{l.Redis.Address}
		s.Open = func([]string) (lock.Store, error) { return redis.New(*l.Redis) }
	case l.Postgres != nil:
		s.Kind = postgres.Kind
		s.Open = func([]string) (lock.Store, error) { return postgres.New(*l.Postgres, postgres.Options{Pool: l.Name}) }
	case l.Local != nil:
		store := local.New(nil)
		s.Kind = local.Kind
		s.Open = func([]string) (lock.Store, error) { return store, nil }
	default:
		panic("BUG: a lease that was checked has no kind")
	}
	return s
}

// Parse reads a file with the key leases, strictly. name stands for it in errors, dir is
// what relative names of files in it start from.
func Parse(name, dir string, data []byte) ([]Subject, error) {
	var f file
	d := strictyaml.Parse(name, data)
	d.Decode(&f)
	for _, l := range f.Leases {
		l.setDirectory(dir)
	}
	if d.Parsed() {
		d.Report(f.Validate())
	}
	if err := d.Err(); err != nil {
		return nil, err
	}
	return subjects(f.Leases)
}

func (l *lease) setDirectory(dir string) {
	if l.Etcd != nil {
		l.Etcd.SetDirectory(dir)
	}
	if l.EtcdCAS != nil {
		l.EtcdCAS.SetDirectory(dir)
	}
	if l.Redlock != nil {
		l.Redlock.SetDirectory(dir)
	}
	if l.Redis != nil {
		l.Redis.SetDirectory(dir)
	}
	if l.Postgres != nil {
		l.Postgres.SetDirectory(dir)
	}
}
