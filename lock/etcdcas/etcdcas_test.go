package etcdcas_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/etcdcas"
	"github.com/sluice-metrics/sluice/lock/locktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	var c etcdcas.Config
	c.Endpoints = testutil.StartEtcd(t, testutil.EtcdOptions{Members: 3}).Endpoints()
	c.SetDefaults()
	require.NoError(t, c.Validate())
	locktest.Run(t, locktest.Harness{
		Open:   func(testing.TB) lock.Store { return etcdcas.New(c) },
		Fences: true,
		TTL:    time.Second,
	})
}
