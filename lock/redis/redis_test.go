package redis_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/locktest"
	"github.com/sluice-metrics/sluice/lock/redis"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(address string) redis.Config {
	c := redis.Config{Address: address}
	c.SetDefaults()
	return c
}

func open(t testing.TB, c redis.Config) lock.Store {
	t.Helper()
	require.NoError(t, c.Validate())
	s, err := redis.New(c)
	require.NoError(t, err)
	return s
}

func TestConformance(t *testing.T) {
	server := testutil.StartRedis(t, testutil.RedisOptions{})
	locktest.Run(t, locktest.Harness{
		Open:   func(t testing.TB) lock.Store { return open(t, config(server.Addr)) },
		Fences: true,
		TTL:    time.Second,
	})
}

// The account with the rights that docs/locks.md lists does all; another one, or a wrong
// password, is told so.
func TestLeastPrivilege(t *testing.T) {
	server := testutil.StartRedis(t, testutil.RedisOptions{})
	rights := []any{"+get", "+set", "+incr", "+del", "+pexpire", "+pttl", "+eval", "+evalsha", "+client|setname", "+hello"}
	server.Do(t, append([]any{"ACL", "SETUSER", "sluice", "on", ">hidden", "~" + redis.DefaultPrefix + "*", "-@all"}, rights...)...)
	c := config(server.Addr)
	c.Client.Username, c.Client.PasswordFile = "sluice", "password"
	dir := t.TempDir()
	c.SetDirectory(dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "password"), []byte("wrong\n"), 0o600))
	e := lock.New(open(t, c), lock.EngineOptions{Instance: "one"})
	defer e.Close()
	_, err := e.TryAcquire(context.Background(), "job", lock.Options{})
	require.ErrorContains(t, err, "WRONGPASS")
	require.NotContains(t, err.Error(), "wrong\n")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "password"), []byte("hidden\n"), 0o600))
	l, err := e.TryAcquire(context.Background(), "job", lock.Options{RenewEvery: 20 * time.Millisecond})
	require.NoError(t, err)
	first := l.Deadline()
	require.Eventually(t, func() bool { return l.Deadline().After(first) }, 10*time.Second, time.Millisecond)
	_, err = e.TryAcquire(context.Background(), "job", lock.Options{})
	require.ErrorIs(t, err, lock.ErrHeld)
	info, err := e.Holder(context.Background(), "job")
	require.NoError(t, err)
	require.True(t, info.Held)
	require.NoError(t, l.Release(context.Background()))
}

// A key of somebody else under the prefix is named, and left alone.
func TestForeignKey(t *testing.T) {
	server := testutil.StartRedis(t, testutil.RedisOptions{})
	server.Do(t, "SET", redis.DefaultPrefix+"{job}", "something else")
	e := lock.New(open(t, config(server.Addr)), lock.EngineOptions{Instance: "one"})
	defer e.Close()
	_, err := e.TryAcquire(context.Background(), "job", lock.Options{})
	require.ErrorContains(t, err, `the key holds "something else", which no lock wrote`)
	require.Equal(t, "something else", server.Do(t, "GET", redis.DefaultPrefix+"{job}"))
}

func TestConfig(t *testing.T) {
	tests := map[string]struct {
		change func(*redis.Config)
		want   string
	}{
		"no address":     {func(c *redis.Config) { c.Address = "" }, "address: is missing"},
		"no port":        {func(c *redis.Config) { c.Address = "host" }, `address: "host" is not host:port`},
		"two passwords":  {func(c *redis.Config) { c.Client.Password, c.Client.PasswordFile = "a", "b" }, "password_file: cannot stand beside password"},
		"user alone":     {func(c *redis.Config) { c.Client.Username = "u" }, "password_file: is missing"},
		"database":       {func(c *redis.Config) { c.Client.Database = -1 }, "database: must not be negative"},
		"timeout":        {func(c *redis.Config) { c.Client.Timeout = 0 }, "timeout: must be longer than 0s"},
		"password alone": {func(c *redis.Config) { c.Client.PasswordFile = "a" }, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := config("127.0.0.1:6379")
			test.change(&c)
			if test.want == "" {
				require.NoError(t, c.Validate())
				return
			}
			require.ErrorContains(t, c.Validate(), test.want)
		})
	}
}
