package locktest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/prometheus/common/config"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/etcd"
	"github.com/sluice-metrics/sluice/lock/etcdcas"
	"github.com/sluice-metrics/sluice/lock/postgres"
	"github.com/sluice-metrics/sluice/lock/redis"
	"github.com/sluice-metrics/sluice/lock/redlock"
)

func TestMain(m *testing.M) {
	if task := os.Getenv(taskEnv); task != "" {
		work(task) // this process is one of the workers, and does not return
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		testutil.RemovePostgres()
		os.Exit(code)
	}))
}

// place is a backend as it can be told to another process.
type place struct {
	Kind      string
	Addresses []string // a DSN for PostgreSQL
}

func (p place) open() (lock.Store, error) {
	switch p.Kind {
	case redis.Kind:
		c := redis.Config{Address: p.Addresses[0]}
		c.SetDefaults()
		return redis.New(c)
	case redlock.Kind:
		c := redlock.Config{Addresses: p.Addresses}
		c.SetDefaults()
		return redlock.New(c)
	case etcd.Kind:
		c := etcd.Config{Endpoints: p.Addresses}
		c.SetDefaults()
		return etcd.New(c, nil), nil
	case etcdcas.Kind:
		var c etcdcas.Config
		c.Endpoints = p.Addresses
		c.SetDefaults()
		return etcdcas.New(c), nil
	case postgres.Kind:
		c := postgres.Config{DSN: config.Secret(p.Addresses[0])}
		c.SetDefaults()
		return postgres.New(c, postgres.Options{})
	}
	return nil, fmt.Errorf("no kind %q", p.Kind)
}

// engine opens the place for a process of this test.
func (p place) engine(t testing.TB, instance string) *lock.Engine {
	t.Helper()
	store, err := p.open()
	require.NoError(t, err)
	e := lock.New(store, lock.EngineOptions{Instance: instance})
	t.Cleanup(func() { _ = e.Close() }) // the backend may be gone by then
	return e
}

func startRedis(t testing.TB, n int) []*testutil.Redis {
	t.Helper()
	var servers []*testutil.Redis
	for range n {
		servers = append(servers, testutil.StartRedis(t, testutil.RedisOptions{}))
	}
	return servers
}

func addresses(servers []*testutil.Redis) []string {
	var list []string
	for _, s := range servers {
		list = append(list, s.Addr)
	}
	return list
}

// allPlaces starts a backend of each kind that several processes can share.
func allPlaces(t testing.TB) []place {
	t.Helper()
	servers := startRedis(t, 3)
	members := testutil.StartEtcd(t, testutil.EtcdOptions{Members: 3}).Endpoints()
	database := testutil.StartPostgres(t, testutil.PostgresOptions{})
	return []place{
		{redis.Kind, addresses(servers)[:1]},
		{redlock.Kind, addresses(servers)},
		{etcd.Kind, members},
		{etcdcas.Kind, members},
		{postgres.Kind, []string{database.DSN("postgres")}},
	}
}

// marshal is for what goes to another process.
func marshal(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return string(text)
}
