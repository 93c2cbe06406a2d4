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
		})
	})
}
