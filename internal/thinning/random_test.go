package thinning_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler"
)

// weather makes the capacity of the sink wander, and takes it away now and then.
func weather(s *station, rng *rand.Rand) {
	switch rng.IntN(6) {
	case 0:
		s.sink.set(0, true)
	case 1, 2:
		s.sink.set(0, false)
	default:
		s.sink.set(1+rng.Float64()*8, false)
	}
}

func smallSegments(c *disk.Config) {
	c.SegmentSize, c.TailBytes = 32*bytesize.KiB, 64*bytesize.KiB
}

func anyFloor(seed uint64) func(*sampler.Config) {
	return func(c *sampler.Config) {
		if seed%2 == 0 {
			c.Floor = sampler.FloorShed
		}
		c.Method = []sampler.Method{sampler.MethodFrames, sampler.MethodFrames, sampler.MethodAligned, sampler.MethodRandom}[seed%4]
	}
}

// Whatever the backend does, the books are exact at any time, the order of each series is
// kept, and in the end it has the input, nothing twice.
func TestWanderingCapacity(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64Range(0, 1<<20).Draw(rt, "seed")
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 5))
			s := newStation(t, vfs.NewMem(), stationOptions{window: 4 * time.Hour, disk: smallSegments, config: anyFloor(seed)})
			defer func() { s.stop() }()
			l := newLoad(seed, false)
			l.feed(s, time.Minute)
			for range 8 {
				weather(s, rng)
				l.feed(s, time.Duration(20+rng.IntN(160))*time.Second)
				s.check(l)
			}
			s.sink.set(0, false)
			l.feed(s, 3*time.Minute)
			b := s.rest(l, 3*time.Hour)
			require.Zero(t, lossOf(b), "seed %d: %+v", seed, b.Totals)
			s.equal(l, 0)
			require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
			require.Zero(t, b.Totals.Redelivered)
			s.settledEach()
		})
	})
}

// Killed at any time and in any phase nothing is lost, and what comes twice was allowed to.
func TestKilledAtAnyTime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64Range(0, 1<<20).Draw(rt, "seed")
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 6))
			s := newStation(t, vfs.NewMem(), stationOptions{window: 6 * time.Hour, disk: smallSegments, config: anyFloor(seed)})
			defer func() { s.stop() }()
			l := newLoad(seed, false)
			l.feed(s, time.Minute)
			kills := 0
			for range 8 {
				weather(s, rng)
				l.feed(s, time.Duration(10+rng.IntN(120))*time.Second)
				for range rng.IntN(4) {
					time.Sleep(time.Duration(rng.IntN(20_000)) * time.Millisecond)
					s.kill()
					kills++
					s.check(l)
				}
			}
			s.sink.set(0, false)
			for range 1 + rng.IntN(3) {
				l.feed(s, time.Duration(30+rng.IntN(120))*time.Second)
				s.kill()
			}
			l.feed(s, 3*time.Minute)
			b := s.rest(l, 4*time.Hour)
			require.Zero(t, lossOf(b), "seed %d: %+v", seed, b.Totals)
			s.equal(l, 1<<60)
			require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
			require.Equal(t, fmt.Sprint(l.n), fmt.Sprint(b.Totals.Delivered))
			s.settledEach()
		})
	})
}

// settledEach checks that of what each entry withheld, all came back or was given up, and
// nothing beyond that is counted to it.
func (s *station) settledEach() {
	s.t.Helper()
	for _, e := range s.ledger.Entries() {
		gone := e.Totals.Sent
		gone.Add(e.Totals.GivenBack)
		gone.Add(e.GivenUp)
		require.Equal(s.t, e.Totals.Withheld, gone, "entry %d, %s, from %v to %v, %s: %+v, given up %+v",
			e.ID, e.Kind, e.From, e.To, e.State, e.Totals, e.GivenUp)
		require.False(s.t, e.Inexact, "entry %d", e.ID)
	}
}

// A session that is gone on with after a kill takes the same steps, at the same records, as
// its twin that was not interrupted.
func TestResumedSessionIsTheSame(t *testing.T) {
	bubble(t, func(t *testing.T) {
		// The rate is fixed, so that the steps are those of the sampler alone.
		fixed := func(c *sampler.Config) { c.BaseRate, c.MinRate = 0.5, 0.5 }
		s := newStation(t, vfs.NewMem(), stationOptions{window: 6 * time.Hour, config: fixed})
		defer s.stop()
		l := newLoad(40, false)
		l.feed(s, 5*time.Minute)
		open := len(s.ledger.Entries()) - 1
		known := len(s.ledger.Entries()[open].Steps)
		twin := &station{t: t, fs: s.fs.(*vfs.Mem).KillClone(), o: s.o, sink: newSink(), log: &written{}}
		twin.start()
		defer twin.stop()
		l.twin = twin
		l.feed(s, 4*time.Minute)
		require.Positive(t, twin.log.lines("Sampling goes on where it was"))
		a, b := stepsOf(s, open), stepsOf(twin, open)
		n := min(len(a), len(b))
		require.Greater(t, n, known+5)
		require.Equal(t, a[:n], b[:n])
	})
}

// Where nothing is given back, the journal keeps what a session that may be gone on with was
// built from, and no more: what was decided anew could bring samples out of order.
func TestSessionIsResumedWithoutBackfill(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fixed := func(c *sampler.Config) { c.BaseRate, c.MinRate = 0.5, 0.5 }
		s := newStation(t, vfs.NewMem(), stationOptions{disk: smallSegments, config: fixed})
		defer func() { s.stop() }()
		l := newLoad(41, false)
		l.feed(s, 8*time.Minute)
		s.kill()
		l.feed(s, 2*time.Minute)
		require.Equal(t, 1, s.log.lines("Sampling goes on where it was"))
		kept := s.journal.Tail().Segment - s.journal.Oldest().Segment
		l.feed(s, 20*time.Minute)
		require.Less(t, s.journal.Tail().Segment-s.journal.Oldest().Segment, kept)
		s.check(l)
	})
}

// stepsOf are the steps of an entry.
func stepsOf(s *station, entry int) (list []string) {
	for _, x := range s.ledger.Entries()[entry].Steps {
		list = append(list, fmt.Sprint(x.Time, x.Rate, x.Pressure))
	}
	return list
}
