package sampler

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// plant keeps what a stream with elision does: less than the rate of its frames, more than
// its floor.
func plant(x float64) float64 { return 0.03 + 0.8*frameRate(x) }

func TestPressureFindsTheShare(t *testing.T) {
	for _, rate := range []float64{0.8, 0.5, 0.25, 0.1, 0.05} {
		p := NewPressure(false)
		p.SetRate(rate)
		for range 12 {
			p.Add(100_000, uint64(100_000*plant(p.At())))
			p.Correct()
		}
		require.InEpsilon(t, rate, plant(p.At()), 0.1, "rate %v", rate)
		require.InEpsilon(t, rate, p.Share(), 0.15, "rate %v", rate)
		require.False(t, p.Bound())
	}
}

// What was kept before the rate fell is no reason to press harder than the new one needs.
func TestPressureDoesNotOvershootAChangeOfRate(t *testing.T) {
	p := NewPressure(false)
	for range 10 {
		p.Add(1000, 1000)
		p.Correct()
	}
	p.SetRate(0.25)
	want := p.At()
	for range 10 {
		p.Add(100_000, 25_000)
		p.Correct()
		require.InDelta(t, want, p.At(), 1e-6)
	}
	require.InDelta(t, 0.25, p.Share(), 0.01, "the share is what was really kept")
}

func TestPressureStopsAtTheFloor(t *testing.T) {
	p := NewPressure(false)
	p.SetRate(0.01)
	for range 200 {
		p.Add(1000, 50)
		p.Correct()
	}
	require.EqualValues(t, holdTop, p.At())
	require.True(t, p.Bound())

	p = NewPressure(true)
	p.SetRate(0.01)
	for range 200 {
		p.Add(1000, 50)
		p.Correct()
	}
	require.EqualValues(t, shedTop, p.At())
	require.True(t, p.Bound())

	p.SetRate(1)
	require.Zero(t, p.At())
	require.False(t, p.Bound())
}

func TestPressureWithoutSamplesStays(t *testing.T) {
	p := NewPressure(false)
	p.SetRate(0.25)
	before := p.At()
	p.Correct()
	require.Equal(t, before, p.At())
	require.EqualValues(t, 1, p.Share())
}

func TestPressureStaysOnTheLadder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := NewPressure(rapid.Bool().Draw(t, "shed"))
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "rate changes") {
				p.SetRate(rapid.Float64Range(0.001, 1).Draw(t, "rate"))
			}
			seen := rapid.Uint64Range(0, 1000).Draw(t, "seen")
			p.Add(seen, rapid.Uint64Range(0, 2*seen).Draw(t, "kept"))
			p.Correct()
			require.False(t, math.IsNaN(p.At()))
			require.True(t, p.At() >= 0 && p.At() <= p.top, "at %v", p.At())
		}
	})
}

func TestLadder(t *testing.T) {
	limit := int64(240_000)
	for _, c := range []struct {
		x                 float64
		low, normal       float64 // shed
		lowGap, gap, crit int64   // s
	}{
		{0, 0, 0, 240, 120, 30},
		{1, 0, 0, 240, 120, 30},
		{1.25, 0.25, 0, 240, 120, 30},
		{2, 1, 0, 240, 120, 30},
		{2.1, 1, 0, 240, 240, 30},
		{3.5, 1, 0.5, 240, 240, 30},
		{4.2, 1, 1, 240, 240, 60},
		{4.5, 1, 1, 240, 240, 120},
		{5, 1, 1, 240, 240, 240},
	} {
		require.InDelta(t, c.low, shedShare(tierLow, c.x), 1e-9)
		require.InDelta(t, c.normal, shedShare(tierNormal, c.x), 1e-9)
		require.Zero(t, shedShare(tierCritical, c.x))
		require.Equal(t, c.lowGap*1000, widened(tierLow, c.x, 240_000, limit))
		require.Equal(t, c.gap*1000, widened(tierNormal, c.x, 120_000, limit))
		require.Equal(t, c.crit*1000, widened(tierCritical, c.x, 30_000, limit))
	}
}
