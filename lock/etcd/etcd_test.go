package etcd_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/etcd"
	"github.com/sluice-metrics/sluice/lock/locktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(t testing.TB, endpoints []string) etcd.Config {
	t.Helper()
	c := etcd.Config{Endpoints: endpoints}
	c.SetDefaults()
	require.NoError(t, c.Validate())
	return c
}

func TestConformance(t *testing.T) {
	c := config(t, testutil.StartEtcd(t, testutil.EtcdOptions{Members: 3}).Endpoints())
	locktest.Run(t, locktest.Harness{
		Open:   func(testing.TB) lock.Store { return etcd.New(c, nil) },
		Fences: true,
		TTL:    time.Second,
	})
}
