package thinning_test

import (
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler"
)

// otherDecisions are others than those of before.
func otherDecisions(o *stationOptions) {
	o.config = func(c *sampler.Config) { neverFresh(c); c.KeyFrameMin *= 2; c.Classes[0].MaxGap *= 2 }
}

func neverFresh(c *sampler.Config) { c.FreshFirstAfter = model.Duration(time.Hour) }

// A reload, or a restart, that changes what decides about samples while the backend lags does
// not send everything to it.
func TestAnotherConfigurationKeepsTheRate(t *testing.T) {
	for name, again := range map[string]func(s *station){
		"reload":  func(s *station) { s.reload(otherDecisions) },
		"restart": func(s *station) { s.restart(otherDecisions) },
		"killed":  func(s *station) { otherDecisions(&s.o); s.kill() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour, config: neverFresh})
				defer func() { s.stop() }()
				l := newLoad(52, false)
				thinnedFor(t, s, l, 3*time.Minute)
				s.sink.set(2, false)
				// The bound of what is in flight comes with the lag, and is gone in between where
				// a trial of it cost throughput.
				for n := 0; s.lastRate() > 0.7 || s.thinner.View().Rate > 0.7 || s.thinner.View().MaxInFlight == 0; l.feed(s, scrapeEvery) {
					n++
					require.Less(t, n, 200)
				}
				old, before := s.thinner, s.thinner.View()
				known := len(s.ledger.Entries())
				again(s)
				if name != "reload" {
					before.Rate = s.lastRate() // that is what is written down
				}
				const step = 1.26 // it may be one higher by then
				require.LessOrEqual(t, s.thinner.View().Rate, step*before.Rate, "from the start")
				if name == "reload" {
					require.Equal(t, old.View().MaxInFlight, s.thinner.View().MaxInFlight)
				}
				l.feed(s, scrapeEvery)
				require.Less(t, s.thinner.View().Rate, 1.0)
				l.feed(s, 4*scrapeEvery)
				entries := s.ledger.Entries()
				require.Len(t, entries, known+1)
				require.Equal(t, entries[known-1].To, entries[known].From, "nothing is sent whole between them")
				s.sink.set(0, false)
				for n := 0; s.lane.Balance().Batches > 0; time.Sleep(time.Second) {
					n++
					require.Less(t, n, 400)
				}
				sum := func(c series.Counts) int { return int(c.Samples + c.Histograms) }
				counted, there := s.lane.Balance().Totals.Redelivered, s.twice(l) // of parcels that were in flight
				l.feed(s, 4*time.Minute)
				b := s.rest(l, time.Hour)
				require.Zero(t, lossOf(b))
				require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
				s.settledEach()
				twice := s.twice(l) - there
				if counted := sum(b.Totals.Redelivered) - sum(counted); name == "killed" {
					// What was on its way may have been there.
					require.InDelta(t, twice, counted, float64(len(l.w.actors)))
				} else {
					require.Equal(t, twice, counted, "what came twice is counted")
				}
				if name == "reload" {
					require.Zero(t, twice, "it is given back by the decisions of then")
				} else {
					require.Positive(t, twice)
				}
			})
		})
	}
}

// twice is how many samples the sink has more often than they were received.
func (s *station) twice(l *load) (n int) {
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	for x, k := range l.input {
		n += max(0, s.sink.got[x]-k)
	}
	return n
}
