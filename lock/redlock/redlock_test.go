package redlock_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/locktest"
	"github.com/sluice-metrics/sluice/lock/redlock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t testing.TB, n int) ([]*testutil.Redis, redlock.Config) {
	t.Helper()
	var c redlock.Config
	c.SetDefaults()
	var servers []*testutil.Redis
	for range n {
		server := testutil.StartRedis(t, testutil.RedisOptions{})
		servers = append(servers, server)
		c.Addresses = append(c.Addresses, server.Addr)
	}
	require.NoError(t, c.Validate())
	return servers, c
}

func open(t testing.TB, c redlock.Config) lock.Store {
	t.Helper()
	s, err := redlock.New(c)
	require.NoError(t, err)
	return s
}

func TestConformance(t *testing.T) {
	_, c := start(t, 3)
	locktest.Run(t, locktest.Harness{
		Open: func(t testing.TB) lock.Store { return open(t, c) },
		TTL:  time.Second,
	})
}
