package locktest_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/etcd"
	"github.com/sluice-metrics/sluice/lock/etcdcas"
	"github.com/sluice-metrics/sluice/lock/locktest"
	"github.com/sluice-metrics/sluice/lock/postgres"
	"github.com/sluice-metrics/sluice/lock/redis"
	"github.com/sluice-metrics/sluice/lock/redlock"
)

// A backend that cannot have given the lock is not asked about it, and nothing is taken
// back: one attempt is one call. The error is one line that names the address and the
// cause.
func TestRefusals(t *testing.T) {
	t.Parallel()
	database := testutil.StartPostgres(t, testutil.PostgresOptions{HBA: []string{"host all locked 127.0.0.1/32 scram-sha-256"}})
	database.Exec(t, "CREATE ROLE locked LOGIN PASSWORD 'opEn-seSame'")
	standby := database.StartReplica(t, testutil.PostgresOptions{Name: "r1"})
	cache := testutil.StartRedis(t, testutil.RedisOptions{})
	cache.Do(t, "CONFIG", "SET", "requirepass", "opEn-seSame")
	passworded := testutil.StartRedis(t, testutil.RedisOptions{})
	passworded.Do(t, "CONFIG", "SET", "requirepass", "opEn-seSame")
	copied := testutil.StartRedis(t, testutil.RedisOptions{ReplicaOf: testutil.FreeAddress(t)})
	members := testutil.StartEtcd(t, testutil.EtcdOptions{}).Endpoints()
	silent := map[string]*testutil.Proxy{}
	for kind, address := range map[string]string{
		postgres.Kind: database.Addr, redis.Kind: cache.Addr, etcd.Kind: strings.TrimPrefix(members[0], "http://"),
	} {
		silent[kind] = testutil.StartProxy(t, address)
		silent[kind].Set(testutil.Network{HalfOpen: true})
	}
	nobody := testutil.FreeAddress(t)
	login := func(user, password, address string) string {
		u := url.URL{Scheme: "postgres", User: url.User(user), Host: address, Path: "postgres"}
		if password != "" {
			u.User = url.UserPassword(user, password)
		}
		return u.String()
	}
	for name, test := range map[string]struct {
		place place
		mark  error // nil: the outcome is unknown
		want  string
	}{
		"postgres, wrong password":   {place{postgres.Kind, []string{login("locked", "wrong", database.Addr)}}, lock.ErrRefused, `connect to PostgreSQL at ` + database.Addr + ` as "locked": FATAL: password authentication failed for user "locked" (SQLSTATE 28P01)`},
		"postgres, no such database": {place{postgres.Kind, []string{strings.Replace(database.DSN("postgres"), "/postgres?", "/nothing?", 1)}}, lock.ErrRefused, `database "nothing" does not exist`},
		"postgres, read-only":        {place{postgres.Kind, []string{standby.DSN("postgres")}}, lock.ErrRefused, "read-only: name the primary in dsn"},
		"postgres, nobody there":     {place{postgres.Kind, []string{login("x", "", nobody)}}, lock.ErrUnsent, nobody},
		"postgres, packets dropped":  {place{postgres.Kind, []string{login("x", "", silent[postgres.Kind].Address())}}, lock.ErrUnsent, "at " + silent[postgres.Kind].Address() + ` as "x": no answer in time: is a firewall dropping packets`},
		"redis, no password":         {place{redis.Kind, []string{cache.Addr}}, lock.ErrRefused, "at Redis " + cache.Addr + ": NOAUTH"},
		"redis, read-only":           {place{redis.Kind, []string{copied.Addr}}, lock.ErrRefused, "READONLY"},
		"redis, nobody there":        {place{redis.Kind, []string{nobody}}, lock.ErrUnsent, nobody + ": connect: connection refused"},
		"redis, packets dropped":     {place{redis.Kind, []string{silent[redis.Kind].Address()}}, nil, "is a firewall dropping packets"},
		"redlock, no password":       {place{redlock.Kind, []string{cache.Addr, passworded.Addr, copied.Addr}}, lock.ErrRefused, "no majority of the 3 Redis " + cache.Addr + ", "},
		"redlock, nobody there":      {place{redlock.Kind, []string{nobody, testutil.FreeAddress(t), testutil.FreeAddress(t)}}, lock.ErrWithdrawn, nobody + ": connect: connection refused"},
		"etcd, nobody there":         {place{etcd.Kind, []string{nobody}}, lock.ErrUnsent, "no answer; " + nobody + ": connection refused"},
		"etcd, packets dropped":      {place{etcd.Kind, []string{silent[etcd.Kind].Address()}}, lock.ErrUnsent, silent[etcd.Kind].Address() + ": it takes the connection and does not answer"},
		"etcdcas, nobody there":      {place{etcdcas.Kind, []string{nobody}}, lock.ErrUnsent, "no answer; " + nobody + ": connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, err := test.place.open()
			require.NoError(t, err)
			counted := locktest.NewFaulty(store)
			e := lock.New(counted, lock.EngineOptions{Instance: "one"})
			_, err = e.TryAcquire(context.Background(), "job", lock.Options{TTL: 2 * time.Second})
			require.Error(t, err)
			t.Log(err)
			require.Contains(t, err.Error(), test.want)
			require.NotContains(t, err.Error(), "\n")
			require.NotContains(t, err.Error(), "opEn-seSame")
			if test.mark != nil {
				require.ErrorIs(t, err, test.mark)
				require.Equal(t, 1, counted.AllCalls())
			}
			require.False(t, test.mark == nil && (errors.Is(err, lock.ErrRefused) || errors.Is(err, lock.ErrUnsent)))
			_ = e.Close()
		})
	}
}
