package thinning_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// thinnedFor brings a station into a session, and through some minutes of it.
func thinnedFor(t *testing.T, s *station, l *load, d time.Duration) {
	l.feed(s, time.Minute)
	s.sink.set(4, false)
	s.awaitThinned(l, 0.9)
	l.feed(s, d)
	require.Positive(t, s.check(l).Totals.Withheld.Samples)
}

// Without a window, or without backfill, what is withheld stays withheld: it is neither
// owed nor given up, the journal keeps nothing for it, and the newest never goes first.
func TestNothingIsGivenBack(t *testing.T) {
	for name, o := range map[string]stationOptions{
		"strict order": {disk: smallSegments},
		"no backfill":  {disk: smallSegments, window: time.Hour, config: func(c *sampler.Config) { c.Backfill = false }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStation(t, vfs.NewMem(), o)
				defer s.stop()
				l := newLoad(20, false)
				thinnedFor(t, s, l, 3*time.Minute)
				require.Zero(t, s.thinner.FreshFirst())
				s.sink.set(0, true)
				l.feed(s, 2*time.Minute)
				s.sink.set(0, false)
				l.feed(s, 8*time.Minute)
				b := s.rest(l, time.Minute)
				require.Zero(t, lossOf(b))
				out := b.Totals.Withheld
				out.Sub(b.Totals.Restored)
				require.Equal(t, len(l.input)-len(s.sink.got), int(out.Samples+out.Histograms))
				for x := range l.stale {
					require.Positive(t, s.sink.got[x], "marker %s", x)
				}
				for _, e := range s.ledger.Entries() {
					require.Equal(t, ledger.KindSampled, e.Kind)
					require.Equal(t, ledger.StateKept, e.State)
				}
				require.Less(t, s.journal.Tail().Segment-s.journal.Oldest().Segment, uint64(3))
				require.Zero(t, s.metric("remote_write_debt_samples"))
			})
		})
	}
}

// Shadow mode sends everything, and tells what it would have withheld.
func TestShadow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour, config: func(c *sampler.Config) { c.Mode = sampler.ModeShadow }})
		defer s.stop()
		l := newLoad(21, false)
		l.feed(s, time.Minute)
		s.sink.set(4, false)
		l.feed(s, 5*time.Minute)
		require.Equal(t, 1.0, s.thinner.Kept())
		v := s.thinner.View()
		require.Less(t, v.Rate, 1.0)
		require.Less(t, v.Kept, 1.0)
		require.Positive(t, s.metric("remote_write_samples_shed_total"))
		s.sink.set(0, true)
		l.feed(s, 2*time.Minute)
		s.sink.set(0, false)
		l.feed(s, 6*time.Minute)
		b := s.rest(l, time.Minute)
		require.Zero(t, b.Totals.Withheld)
		require.Empty(t, s.ledger.Entries())
		require.Empty(t, s.sink.told)
		s.equal(l, 0)
	})
}

// After a change to shadow mode in the middle of a session it sends everything, and gives
// back what was withheld before.
func TestShadowAfterASession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour})
		defer func() { s.stop() }()
		l := newLoad(22, false)
		thinnedFor(t, s, l, time.Minute)
		s.sink.set(0, true)
		l.feed(s, time.Minute)
		s.sink.set(0, false)
		l.feed(s, 5*time.Second) // a gap too
		s.restart(func(o *stationOptions) { o.config = func(c *sampler.Config) { c.Mode = sampler.ModeShadow } })
		before := s.check(l).Totals.Withheld
		l.feed(s, 4*time.Minute)
		b := s.rest(l, time.Hour)
		require.Equal(t, before, b.Totals.Withheld)
		require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
		require.Empty(t, s.sink.wrong)
	})
}

// A base rate below 1 is a session that does not end; the controller goes down from there.
func TestBaseRate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour, config: func(c *sampler.Config) { c.BaseRate = 0.5 }})
		defer s.stop()
		l := newLoad(23, false)
		l.feed(s, 6*time.Minute)
		require.Equal(t, 0.5, s.thinner.View().Rate)
		require.Less(t, s.thinner.Kept(), 0.7)
		l.feed(s, 10*time.Minute)
		b := s.check(l)
		require.Positive(t, b.Totals.Withheld.Samples)
		require.Len(t, s.ledger.Entries(), 1)
		require.Equal(t, ledger.StateOpen, s.ledger.Entries()[0].State)
	})
}

// What decides about samples was changed between withholding and giving back: nobody knows
// what was sent, so all of the stretch is sent again. Nothing is lost, and the books balance.
func TestAnotherConfiguration(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour})
		defer func() { s.stop() }()
		l := newLoad(24, false)
		thinnedFor(t, s, l, time.Minute)
		s.sink.set(0, true)
		l.feed(s, time.Minute)
		s.sink.set(0, false)
		l.feed(s, 5*time.Second)
		gap := 0
		for _, e := range s.ledger.Entries() {
			if e.Kind == ledger.KindGap {
				gap += int(e.Totals.Withheld.Samples)
			}
		}
		require.Positive(t, gap)
		s.restart(func(o *stationOptions) {
			o.config = func(c *sampler.Config) { c.KeyFrameMin *= 2; c.Classes[0].MaxGap *= 2 }
		})
		l.feed(s, 4*time.Minute)
		b := s.rest(l, time.Hour)
		require.Zero(t, lossOf(b))
		require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
		require.Len(t, s.sink.got, len(l.input))
		s.settledEach()
		require.Positive(t, s.log.lines("The configuration of sampling is another one now"))
	})
}

// With the floor method all but key frames is sent a second time: nothing is lost, and what
// comes twice is not counted twice.
func TestFloorMethod(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour, config: func(c *sampler.Config) { c.BackfillMethod = sampler.BackfillFloor }})
		defer func() { s.stop() }()
		l := newLoad(26, false)
		thinnedFor(t, s, l, time.Minute)
		l.feed(s, 4*time.Minute)
		b := s.rest(l, time.Hour)
		require.Positive(t, b.Totals.Withheld.Samples)
		require.Zero(t, lossOf(b))
		require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
		require.Len(t, s.sink.got, len(l.input))
		s.settledEach()
	})
}

// A change of when less is sent, or how fast it is given back, costs nothing of what is
// owed.
func TestAnotherThreshold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour})
		defer func() { s.stop() }()
		l := newLoad(29, false)
		thinnedFor(t, s, l, time.Minute)
		s.restart(func(o *stationOptions) {
			o.config = func(c *sampler.Config) { c.Thresholds.QueueLength, c.BackfillShare, c.MinRate = 100, 0.5, 0.02 }
		})
		require.Zero(t, s.log.lines("has changed"))
		s.sink.set(0, false)
		l.feed(s, 4*time.Minute)
		b := s.rest(l, time.Hour)
		require.Zero(t, lossOf(b))
		s.equal(l, 0)
	})
}

// Readers of the backend are told how far apart samples are while a target is thinned, and
// only then. That is not in the books.
func TestCompanion(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour})
		defer s.stop()
		l := newLoad(25, false)
		l.feed(s, time.Minute)
		require.Empty(t, s.sink.told)
		s.sink.set(4, false)
		s.awaitThinned(l, 0.6)
		l.feed(s, 2*time.Minute)
		s.sink.mu.Lock()
		told := s.sink.told
		s.sink.mu.Unlock()
		targets := map[string]bool{}
		for _, m := range told {
			require.Regexp(t, `^"__name__"="sluice_sampling_interval_seconds" "instance"="host-\d" "job"="api" $`, m.labels)
			targets[m.labels] = true
		}
		require.Len(t, targets, 3)
		s.sink.set(0, false)
		l.feed(s, 8*time.Minute)
		b := s.rest(l, time.Hour)
		require.Equal(t, l.n, b.Totals.Delivered)
		last := map[string]message{}
		for _, m := range s.sink.told {
			last[m.labels] = m
		}
		require.Len(t, last, 3)
		for _, m := range last {
			require.True(t, m.points[0].stale, "%s ends", m.labels)
		}
		n := len(s.sink.told)
		l.feed(s, time.Minute)
		require.Len(t, s.sink.told, n)
	})
}

// The end of a target is told also when the backend does not take it at the first try.
func TestCompanion_EndIsTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour})
		defer s.stop()
		refused := 0
		s.shim.refuse = func(b *series.Batch) bool {
			if !chosen(b, nil)[0].points[0].stale || refused == 2 {
				return false
			}
			refused++
			return true
		}
		l := newLoad(26, false)
		l.feed(s, time.Minute)
		s.sink.set(4, false)
		s.awaitThinned(l, 0.6)
		l.feed(s, time.Minute)
		s.sink.set(0, false)
		l.feed(s, 8*time.Minute)
		require.Equal(t, 2, refused)
		last := map[string]bool{}
		for _, m := range s.sink.told {
			last[m.labels] = m.points[0].stale
		}
		require.Len(t, last, 3)
		for labels, stale := range last {
			require.True(t, stale, labels)
		}
	})
}

// Each signal is shown with its value, or as not known.
func TestView(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var known atomic.Bool
		s := newStation(t, vfs.NewMem(), stationOptions{
			window: time.Hour,
			memory: func() (float64, bool) { return 0.5, true }, replica: func() (float64, bool) { return 3, known.Load() },
			config: func(c *sampler.Config) { c.Thresholds.ReplicaLagSeconds = 10 },
		})
		defer s.stop()
		l := newLoad(27, false)
		l.feed(s, 30*time.Second)
		signals := func() map[string]thinning.Signal {
			m := map[string]thinning.Signal{}
			for _, x := range s.thinner.View().Signals {
				m[x.Name] = x
			}
			return m
		}
		got := signals()
		require.Len(t, got, 8)
		require.False(t, got["replica_lag"].Known)
		require.Nil(t, got["replica_lag"].Value)
		require.Nil(t, got["replica_lag"].Pressure)
		require.Equal(t, 0.5, *got["memory"].Value)
		require.True(t, got["errors"].Known)
		known.Store(true)
		l.feed(s, 5*time.Second)
		got = signals()
		require.Equal(t, 3.0, *got["replica_lag"].Value)
		require.InDelta(t, 0.3, *got["replica_lag"].Pressure, 1e-9)
		s.sink.set(0, true)
		l.feed(s, 20*time.Second)
		got = signals()
		require.Equal(t, 1.0, *got["errors"].Value)
		require.Greater(t, *got["queue_age"].Value, 10.0)
		require.NotEmpty(t, s.thinner.View().Why)
		s.sink.set(0, false)
		l.feed(s, time.Minute)
	})
}

// Signals that nothing measures are listed, as not known.
func TestView_WhatIsNotMeasured(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour})
		defer s.stop()
		l := newLoad(27, false)
		l.feed(s, 10*time.Second)
		list := s.thinner.View().Signals
		require.Len(t, list, 8)
		for _, x := range list {
			require.Equal(t, x.Name != "replica_lag" && x.Name != "memory", x.Known, x.Name)
			require.Equal(t, x.Known, x.Value != nil, x.Name)
		}
	})
}

// The metrics keep to the conventions, and say what the View says.
func TestMetrics(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour})
		defer s.stop()
		l := newLoad(28, false)
		thinnedFor(t, s, l, time.Minute)
		synctest.Wait()
		problems, err := testutil.GatherAndLint(s.metrics)
		require.NoError(t, err)
		for _, p := range problems {
			require.False(t, strings.HasPrefix(p.Metric, "remote_write_"), "%+v", p)
		}
		v := s.thinner.View()
		require.Equal(t, v.Rate, s.metric("remote_write_sampling_rate"))
		require.Equal(t, v.Kept, s.metric("remote_write_sampling_kept_ratio"))
		require.Equal(t, float64(v.Debt.Samples), s.metric("remote_write_debt_samples"))
		require.Positive(t, s.metric("remote_write_sampler_series"))
		require.Positive(t, s.metric("remote_write_sampler_batches_total", "lane"), "nobody opens them before")
		require.Zero(t, s.metric("remote_write_sampler_batches_total", "receiver"))
		require.Positive(t, s.metric("remote_write_backpressure_events_total"))
		require.Equal(t, 1.0, s.metric("remote_write_sampling_mode", "active"))
	})
}
