package sampler

import (
	"math"
	"math/bits"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func drawFilm(t *rapid.T) Film {
	return Film{
		Target:    rapid.Uint64().Draw(t, "target"),
		Cadence:   rapid.SampledFrom([]int64{100, 700, 1000, 5000, 7000, 15_000, 30_000, 60_000}).Draw(t, "cadence"),
		KeyPeriod: rapid.SampledFrom([]int64{1000, 10_000, 30_000}).Draw(t, "key period"),
	}
}

const someTime = int64(1_750_000_000_000)

func TestRankOrdersByReversedBits(t *testing.T) {
	for n := uint64(1); n < 130; n++ {
		order := make([]uint64, n)
		for i := range order {
			order[i] = uint64(i)
		}
		slices.SortFunc(order, func(a, b uint64) int {
			if bits.Reverse64(a) < bits.Reverse64(b) {
				return -1
			}
			return 1
		})
		for want, b := range order {
			require.EqualValues(t, want, rank(b, n), "rank of %d of %d", b, n)
		}
	}
}

// At rates that are a power of two below one frame a key period, frames are evenly apart to
// the scrape.
func TestFramesAreEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFilm(t)
		every := f.period() << rapid.IntRange(0, 4).Draw(t, "halvings")
		last := int64(-1)
		for k := range int64(4 * every) {
			if frame, _ := f.Frame(someTime+k*f.Cadence, 1/float64(every), math.MaxInt64/4); !frame {
				continue
			}
			if last >= 0 {
				require.EqualValues(t, every, k-last)
			}
			last = k
		}
		require.GreaterOrEqual(t, last, int64(0))
	})
}

func TestFramesHaveTheDensityOfTheRateAndNoLargeHoles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFilm(t)
		rate := rapid.Float64Range(0.01, 1).Draw(t, "rate")
		period := int64(f.period())
		n := 64 * period * max(1, 2048/(64*period))
		frames, last, largest := 0, int64(-1), int64(0)
		for k := range n {
			if f.Priority(someTime+k*f.Cadence) >= rate {
				continue
			}
			frames++
			if last >= 0 {
				largest = max(largest, k-last)
			}
			last = k
		}
		// A stretch of 64 periods is balanced to one step of each of its ranks.
		require.InDelta(t, rate, float64(frames)/float64(n), 2.0/64)
		require.LessOrEqual(t, float64(largest), max(2/rate, float64(period)))
	})
}

func TestFramesAreNested(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFilm(t)
		a := rapid.Float64Range(0, 1).Draw(t, "rate")
		b := rapid.Float64Range(a, 1).Draw(t, "higher rate")
		narrow := rapid.Int64Range(1000, 300_000).Draw(t, "gap")
		wide := rapid.Int64Range(narrow, 600_000).Draw(t, "wider gap")
		at := someTime + rapid.Int64Range(0, 1e9).Draw(t, "time")
		lowFrame, lowKey := f.Frame(at, a, wide)
		highFrame, highKey := f.Frame(at, b, narrow)
		require.False(t, lowFrame && !highFrame, "frame")
		require.False(t, lowKey && !highKey, "key")
		require.False(t, lowKey && !lowFrame, "a key frame is a frame")
	})
}

func TestKeyFramesKeepTheGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFilm(t)
		gap := rapid.Int64Range(f.KeyPeriod, 300_000).Draw(t, "gap")
		last := int64(-1)
		for k := range 3 * int64(f.keyDistance(gap)) {
			if _, key := f.Frame(someTime+k*f.Cadence, 0, gap); !key {
				continue
			}
			if last >= 0 {
				require.LessOrEqual(t, (k-last)*f.Cadence, max(gap, f.Cadence))
				require.Greater(t, 2*(k-last)*f.Cadence, gap)
			}
			last = k
		}
		require.GreaterOrEqual(t, last, int64(0))
	})
}

// Targets that are scraped at the same times do not all have their frames at once.
func TestTargetsHaveTheirOwnPhases(t *testing.T) {
	const targets = 4000
	for k := range int64(6) {
		keys := 0
		for i := range uint64(targets) {
			f := Film{Target: mix(i), Cadence: 5000, KeyPeriod: 30_000}
			if _, key := f.Frame(someTime+k*5000, 0, 30_000); key {
				keys++
			}
		}
		require.InDelta(t, targets/6, keys, 120)
	}
}

// The numbers of targets that are scraped at the same times step on at different times:
// else jitter could make all of them lose a frame at once.
func TestPhasesAreSpread(t *testing.T) {
	stepped := 0
	for i := range uint64(4000) {
		f := Film{Target: mix(i), Cadence: 5000, KeyPeriod: 30_000}
		if f.number(someTime) != f.number(someTime+1250) {
			stepped++
		}
	}
	require.InDelta(t, 1000, stepped, 120)
}

func TestNumberStepsOnceACadence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFilm(t)
		at := rapid.Int64Range(-1e12, 1e13).Draw(t, "time")
		require.Equal(t, f.number(at)+1, f.number(at+f.Cadence))
		require.LessOrEqual(t, f.number(at+1)-f.number(at), uint64(1))
	})
}

func TestCadence(t *testing.T) {
	for _, c := range []struct {
		name      string
		distances []uint32
		want      int64
	}{
		{"nothing", nil, 0},
		{"the first is believed", []uint32{5000}, 5000},
		{"the smaller of two", []uint32{9000, 5000}, 5000},
		{"jitter is rounded off", []uint32{5003, 4998, 5001}, 5000},
		{"a lost scrape does not matter", []uint32{5000, 5000, 65_000, 5000}, 5000},
		{"tenths below 1.5 s", []uint32{249, 251, 250}, 300},
		{"a second with jitter", []uint32{1004, 998, 1003}, 1000},
		{"never zero", []uint32{1, 2, 3}, 100},
		{"only the last five count", []uint32{5000, 5000, 5000, 15_000, 15_000, 15_000, 15_000, 15_000}, 15_000},
		{"half a second up", []uint32{2500, 2500}, 3000},
	} {
		t.Run(c.name, func(t *testing.T) {
			var cadence Cadence
			for _, d := range c.distances {
				cadence.Add(d)
			}
			require.Equal(t, c.want, cadence.Ms())
		})
	}
}

func TestPacedRates(t *testing.T) {
	for _, cadence := range []int64{100, 1000, 5000, 10_000, 15_000, 60_000, 600_000} {
		before := 0.0
		require.Zero(t, paced(0, cadence))
		for rate := 0.01; rate <= 1; rate += 0.01 {
			r := paced(rate, cadence)
			require.GreaterOrEqual(t, r, before, "cadence %d, rate %v", cadence, rate)
			require.LessOrEqual(t, r, 1.0)
			switch {
			case cadence == usualCadence:
				require.InDelta(t, rate, r, 1e-12)
			case cadence < usualCadence:
				require.LessOrEqual(t, r, rate)
			default:
				require.GreaterOrEqual(t, r, rate)
			}
			before = r
		}
		require.EqualValues(t, 1, paced(1, cadence))
	}
	require.InDelta(t, 0.1*math.Pow(3, 0.75), paced(0.1, 15_000), 1e-12)
}
