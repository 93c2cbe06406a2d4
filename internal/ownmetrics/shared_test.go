package ownmetrics_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/ownmetrics"
)

// point is a sample of the one series.
type point struct {
	at    time.Time
	value float64
}

// shared is a Writer of series that several processes write in turn.
type shared struct {
	active atomic.Bool
	points chan point
	stop   func()
}

func newShared(t *testing.T, ends bool) *shared {
	t.Helper()
	reg := prometheus.NewRegistry()
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "g", Help: "Gauge."})
	g.Set(1)
	reg.MustRegister(g)
	s := &shared{points: make(chan point, 100)}
	w := ownmetrics.New(ownmetrics.Options{
		Gatherer: reg, Job: "sluice", Interval: 5 * time.Second, Active: s.active.Load, Ends: ends,
		Write: func(_ context.Context, body []byte) error {
			plain, err := snappy.Decode(nil, body)
			if err != nil {
				return err
			}
			var req writev2.Request
			if err := req.Unmarshal(plain); err != nil {
				return err
			}
			for _, ts := range req.Timeseries {
				s.points <- point{time.UnixMilli(ts.Samples[0].Timestamp), ts.Samples[0].Value}
			}
			return nil
		},
		Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	s.stop = func() {
		cancel()
		require.NoError(t, <-done)
	}
	return s
}

// Who takes over writes at once, and newer than all that another has written; then all write
// the same times.
func TestShared_Times(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t, true)
		time.Sleep(7300 * time.Millisecond)
		synctest.Wait()
		require.Empty(t, s.points)
		began := time.Now()
		s.active.Store(true)
		first := <-s.points
		require.WithinRange(t, first.at, began, began.Add(500*time.Millisecond))
		for last := first.at; last.Before(began.Add(20 * time.Second)); {
			next := <-s.points
			require.Equal(t, next.at.Truncate(5*time.Second), next.at)
			require.True(t, next.at.After(last))
			require.LessOrEqual(t, next.at.Sub(last), 5*time.Second)
			require.Less(t, time.Since(next.at), time.Second)
			last = next.at
		}
		s.stop()
	})
}

// The end that was meant is marked, newer than what was written last; that of the lease is
// not: another one goes on.
func TestShared_Ends(t *testing.T) {
	for name, test := range map[string]struct{ ends, active, marked bool }{
		"in order":      {true, true, true},
		"without lease": {true, false, false},
		"not asked for": {false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShared(t, test.ends)
				s.active.Store(true)
				last := <-s.points
				synctest.Wait()
				s.active.Store(test.active)
				s.stop()
				if !test.marked {
					require.Empty(t, s.points)
					return
				}
				end := <-s.points
				require.True(t, isStale(end.value))
				require.True(t, end.at.After(last.at), "a sample of the same time would be refused")
				require.Empty(t, s.points)
			})
		})
	}
}
