package exporter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBackoffDoublesUpToItsLimit(t *testing.T) {
	for _, c := range []struct {
		first, limit time.Duration
		n            int
		want         time.Duration
	}{
		{time.Second, time.Minute, 0, time.Second},
		{time.Second, time.Minute, 5, 32 * time.Second},
		{time.Second, time.Minute, 6, time.Minute},
		{time.Second, time.Minute, 1 << 40, time.Minute},
		{20 * time.Second, time.Minute, 29, time.Minute},
		{time.Hour, 3 * time.Hour, 22, 3 * time.Hour},
		{1, 1 << 62, 61, 1 << 61},
		{1, 1 << 62, 62, 1 << 62},
		{5 * time.Second, time.Second, 0, time.Second},
	} {
		require.Equal(t, c.want, backoff(c.first, c.limit, c.n), "%+v", c)
	}
}
