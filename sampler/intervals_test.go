package sampler

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIntervals(t *testing.T) {
	for _, c := range []struct {
		name    string
		method  Method
		step    Step
		cadence int64 // ms
		want    float64
	}{
		{"nothing is withheld", MethodFrames, Step{1, 0}, 5000, 5},
		{"half of the frames", MethodFrames, Step{0.5, 0.12602676}, 5000, 10},
		{"key frames alone", MethodFrames, Step{0.01, 1}, 5000, 120},
		{"key frames of an odd cadence", MethodAligned, Step{0.01, 1}, 7000, 112},
		{"more seldom than key frames", MethodFrames, Step{0.01, 1}, 200_000, 200},
		{"random", MethodRandom, Step{0.1, 0.7}, 5000, 50},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := DefaultConfig()
			config.Method = c.method
			s, err := New(Options{Config: config, Start: someTime})
			require.NoError(t, err)
			require.NoError(t, s.Know(1, Info{Key: 1, Target: 40, Kind: KindGauge, Class: 2}))
			require.NoError(t, s.Know(2, Info{Key: 2, Target: 41, Kind: KindGauge, Class: 2}))
			s.Set(c.step)
			s.Sample(2, Float(someTime, 1), nil) // one scrape says nothing
			last := someTime
			for k := range int64(900) {
				last = someTime + k*c.cadence
				s.Sample(1, Float(last, float64(k)), nil)
			}
			got := map[uint64][2]float64{}
			note := func(target uint64, seconds, cadence float64) { got[target] = [2]float64{seconds, cadence} }
			s.Intervals(last+1, note)
			require.Empty(t, got, "the target was silent since")
			s.Intervals(last, note)
			if c.method == MethodRandom { // which looks at no scrapes
				require.Empty(t, got)
				return
			}
			require.Len(t, got, 1)
			require.InDelta(t, c.want, got[40][0], 0.01)
			require.Equal(t, float64(c.cadence)/1000, got[40][1])
		})
	}
}

// What is told is what comes out.
func TestIntervalsAreTheDistanceOfSamples(t *testing.T) {
	for _, x := range []float64{0.05, 0.3, 0.6, 1} {
		s, err := New(Options{Config: DefaultConfig(), Start: someTime})
		require.NoError(t, err)
		require.NoError(t, s.Know(1, Info{Target: 40, Kind: KindQuantile, Class: 2}))
		s.Set(Step{0.1, x})
		n := 0
		for k := range int64(4800) {
			n += len(s.Sample(1, Float(someTime+k*5000, float64(k)), nil))
		}
		s.Intervals(0, func(_ uint64, seconds, _ float64) {
			require.InEpsilon(t, 4800*5/float64(n), seconds, 0.35, "pressure %v", x)
		})
	}
}
