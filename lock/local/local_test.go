package local_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/local"
	"github.com/sluice-metrics/sluice/lock/locktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	store := local.New(nil)
	locktest.Run(t, locktest.Harness{
		Open:   func(testing.TB) lock.Store { return store },
		Fences: true,
		TTL:    500 * time.Millisecond,
	})
}
