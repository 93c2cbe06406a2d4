package thinning_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler"
)

// ended checks that the companion series of all three targets was told, and has ended.
func (s *station) ended() {
	s.t.Helper()
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	last := map[string]bool{}
	for _, m := range s.sink.told {
		last[m.labels] = m.points[0].stale
	}
	require.Len(s.t, last, 3)
	for labels, stale := range last {
		require.True(s.t, stale, labels)
	}
}

// Where a reload ends the thinning, or sampling altogether, the companion series ends too.
func TestCompanion_EndsWithAReload(t *testing.T) {
	for name, change := range map[string]func(*stationOptions){
		"shadow mode": func(o *stationOptions) { o.config = func(c *sampler.Config) { c.Mode = sampler.ModeShadow } },
		"off":         func(o *stationOptions) { o.none = true },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour})
				defer func() { s.stop() }()
				l := newLoad(53, false)
				l.feed(s, time.Minute)
				s.sink.set(4, false)
				s.awaitThinned(l, 0.6)
				l.feed(s, time.Minute)
				old := s.thinner
				s.sink.set(0, false)
				s.reload(change)
				if s.thinner == nil {
					ctx, cancel := context.WithCancel(t.Context())
					done := make(chan struct{})
					go func() {
						defer close(done)
						old.Steering().EndTold(ctx, s.shim, time.Now)
					}()
					defer func() { cancel(); <-done }()
				}
				l.feed(s, time.Minute)
				s.ended()
				n := len(s.sink.told)
				l.feed(s, time.Minute)
				require.Len(t, s.sink.told, n, "once")
			})
		})
	}
}

// The share that is told is that of the session: not of the minutes before it, in which
// everything was sent.
func TestKeptShareIsToldSoon(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour})
		defer func() { s.stop() }()
		l := newLoad(54, false)
		l.feed(s, 5*time.Minute)
		s.restart(func(o *stationOptions) {
			o.config = func(c *sampler.Config) { c.BaseRate, c.MinRate = 0.25, 0.25 }
		})
		for n := 0; s.thinner.View().Since == nil; l.feed(s, scrapeEvery) {
			n++
			require.Less(t, n, 10)
		}
		before := s.lane.Balance()
		l.feed(s, 30*time.Second)
		synctest.Wait()
		after := s.lane.Balance()
		routed, sent := after.Routed, after.Totals.Delivered
		routed.Sub(before.Routed)
		sent.Sub(before.Totals.Delivered)
		share := float64(sent.Samples+sent.Histograms) / float64(routed.Samples+routed.Histograms)
		require.Less(t, share, 0.6)
		require.InDelta(t, share, s.thinner.Kept(), 0.2)
		require.Equal(t, s.thinner.Kept(), s.thinner.View().Kept)
	})
}
