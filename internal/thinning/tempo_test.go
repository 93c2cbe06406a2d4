package thinning_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler"
)

// Giving back takes backfill_share of what the backend was seen to take, and no more: a
// backend with room for that does not lag because of it, and the debt goes.
func TestGivingBackKeepsToItsShare(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: 8 * time.Hour, config: func(c *sampler.Config) {
			c.BackfillShare = 0.2
			c.Thresholds.WriteLatencyMS, c.Thresholds.QueueAgeSeconds = 10_000, 10
		}})
		defer s.stop()
		l := newLoad(50, false)
		l.w.actors = many(l.w.actors, 200)
		l.feed(s, 2*time.Minute)
		offered := s.thinner.View().OfferedPerSecond
		capacity := offered / 0.67
		s.sink.set(capacity/4, false)
		s.awaitThinned(l, 0.6)
		l.feed(s, 3*time.Minute)
		require.Positive(t, s.thinner.View().Debt.Samples)
		s.sink.set(capacity, false)
		for end := time.Now().Add(10 * time.Minute); s.thinner.View().GivingBack == nil; l.feed(s, scrapeEvery) {
			require.True(t, time.Now().Before(end), "%+v", s.thinner.View())
		}
		debt := s.thinner.View().Debt
		require.NotNil(t, debt.ETASeconds)
		began := time.Now()
		for s.owed() > 0 {
			l.feed(s, scrapeEvery)
			v := s.thinner.View()
			require.Equal(t, 1.0, v.Rate, "%s: %s", time.Since(began), v.Why)
			require.Less(t, time.Since(began), time.Hour, "%+v", v.Debt)
		}
		// A fifth of all that the backend takes, or more slowly.
		took := time.Since(began)
		t.Log(debt.Samples, "samples were given back in", took, "at a capacity of", capacity, "told", *debt.ETASeconds)
		require.Greater(t, took.Seconds(), float64(debt.Samples)/capacity)
		require.InEpsilon(t, took.Seconds(), *debt.ETASeconds, 0.7)
		b := s.rest(l, time.Minute)
		require.Zero(t, lossOf(b))
		s.equal(l, 0)
	})
}
