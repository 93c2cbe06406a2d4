package probe_test

import (
	"sort"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/probe"
)

var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return began.Add(time.Duration(seconds * float64(time.Second))) }

func TestRing(t *testing.T) {
	type seen struct {
		head uint64
		at   float64
	}
	for name, test := range map[string]struct {
		heads    []seen
		position uint64
		at       float64
		want     probe.Behind
	}{
		"has all":            {[]seen{{100, 0}}, 100, 5, probe.Behind{}},
		"is beyond the head": {[]seen{{100, 0}}, 120, 5, probe.Behind{}},
		"idle for a night, then one write": {
			[]seen{{100, 0}, {100, 30000}, {110, 30001}},
			100, 30002,
			probe.Behind{Age: 2 * time.Second, Distance: 10},
		},
		"between two heads it is interpolated": {
			[]seen{{100, 0}, {200, 10}},
			150, 12,
			probe.Behind{Age: 7 * time.Second, Distance: 50},
		},
		"older than the ring": {
			[]seen{{100, 0}, {200, 10}},
			50, 12,
			probe.Behind{Age: 12 * time.Second, Distance: 150, LowerBound: true},
		},
		"read before the change was made": {[]seen{{100, 0}, {100, 9}, {200, 10}}, 100, 8, probe.Behind{Distance: 100}},
		"one head only, and behind it":    {[]seen{{100, 0}}, 50, 3, probe.Behind{Age: 3 * time.Second, Distance: 50, LowerBound: true}},
		"went back: begins anew":          {[]seen{{100, 0}, {10, 5}}, 10, 9, probe.Behind{}},
	} {
		t.Run(name, func(t *testing.T) {
			r := probe.NewRing(16)
			for i, s := range test.heads {
				require.Equal(t, i > 0 && s.head < test.heads[i-1].head, r.Observe(s.head, at(s.at)))
			}
			got, known := r.Behind(test.position, at(test.at))
			require.True(t, known)
			require.Equal(t, test.want, got)
		})
	}
	_, known := probe.NewRing(16).Behind(1, at(0))
	require.False(t, known, "an empty ring knows nothing")
}

// writes is a world that makes changes at some times; the ring looks once per tick.
type writes []time.Duration // when the change from position i to i+1 was made

// head is the position at a time.
func (w writes) head(d time.Duration) uint64 {
	return uint64(sort.Search(len(w), func(i int) bool { return w[i] > d }))
}

// age is the truth: how long ago the oldest change beyond the position was made.
func (w writes) age(position uint64, d time.Duration) time.Duration {
	if position >= w.head(d) {
		return 0
	}
	return d - w[position]
}

func drawWrites(t *rapid.T, n int) writes {
	var w writes
	now := time.Duration(0)
	for range n {
		gap := rapid.OneOf(rapid.Just(0), rapid.IntRange(1, 500), rapid.IntRange(1, 60_000)).Draw(t, "gap")
		now += time.Duration(gap) * time.Millisecond
		w = append(w, now)
	}
	return w
}

// Within what the ring keeps precisely, its answer is at most one tick from the truth, for
// every position at every time at which it looks.
func TestRing_WithinOneTick(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWrites(t, rapid.IntRange(1, 60).Draw(t, "writes"))
		tick := time.Duration(rapid.IntRange(250, 1000).Draw(t, "tick")) * time.Millisecond
		r := probe.NewRing(4096)
		for d := time.Duration(0); d <= w[len(w)-1]+3*tick; d += tick {
			r.Observe(w.head(d), began.Add(d))
			for _, position := range []uint64{0, w.head(d) / 2, w.head(d), uint64(len(w))} {
				b, known := r.Behind(position, began.Add(d))
				require.True(t, known)
				if !b.LowerBound {
					require.InDelta(t, w.age(position, d), b.Age, float64(tick), "position %d at %v", position, d)
				} else {
					require.LessOrEqual(t, b.Age, w.age(position, d))
				}
			}
		}
	})
}

// A ring that had to forget is a ring that says so: what it gives is precise to a small
// share of the age, or a lower bound; and it never keeps more than it may.
func TestRing_LongRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w writes
		now := time.Duration(0)
		for range 3000 {
			gap := rapid.SampledFrom([]int{100, 100, 100, 900, 2000, 40_000}).Draw(t, "gap")
			now += time.Duration(gap) * time.Millisecond
			w = append(w, now)
		}
		r := probe.NewRing(256)
		const tick = time.Second
		for d := time.Duration(0); d <= now; d += tick {
			r.Observe(w.head(d), began.Add(d))
		}
		end := now - now%tick
		for position := uint64(0); position < w.head(end); position += 7 {
			b, _ := r.Behind(position, began.Add(end))
			truth := w.age(position, end)
			if b.LowerBound {
				require.LessOrEqual(t, b.Age, truth+tick)
				continue
			}
			require.InDelta(t, truth, b.Age, float64(tick)+float64(truth)/10, "position %d", position)
		}
	})
}

func TestRing_KeepsIdleTimes(t *testing.T) {
	r := probe.NewRing(64)
	r.Observe(1, at(0))
	r.Observe(1, at(10))
	r.Observe(2, at(11)) // idle from here
	r.Observe(2, at(8*3600))
	for i := range 300 { // far more than it can keep
		r.Observe(uint64(3+i), at(8*3600+1+float64(i)))
	}
	b, _ := r.Behind(2, at(8*3600+300))
	require.False(t, b.LowerBound)
	require.InDelta(t, 300*time.Second, b.Age, float64(10*time.Second), "not eight hours")
}

func BenchmarkRing_Observe(b *testing.B) {
	r := probe.NewRing(4096)
	b.ReportAllocs()
	for i := range b.N {
		r.Observe(uint64(i), began.Add(time.Duration(i)*time.Second))
	}
}
