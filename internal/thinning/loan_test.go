package thinning_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// A backend that takes a part of the load for a while gets the rest afterwards, each
// sample once.
func TestLoanIsGivenBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour})
		defer s.stop()
		l := newLoad(1, false)
		l.feed(s, 2*time.Minute)
		s.sink.set(4, false)
		s.awaitThinned(l, 0.6)
		l.feed(s, 4*time.Minute)
		b := s.check(l)
		require.Positive(t, b.Totals.Withheld.Samples)
		t.Log(b.Totals, s.thinner.View().Rate, s.thinner.Kept())
		s.sink.set(0, false)
		l.feed(s, 4*time.Minute)
		b = s.rest(l, time.Hour)
		require.Zero(t, lossOf(b), "%+v", b.Totals)
		s.equal(l, 0)
		require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
		require.Equal(t, l.n, b.Totals.Delivered)
	})
}
