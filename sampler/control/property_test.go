package control_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/sampler/control"
)

var names = []string{
	control.QueueLength, control.QueueAge, control.WriteLatency, control.Errors,
	control.Throttled, control.RetryAfter, control.ReplicaLag, control.Memory,
}

// anyAmount is mostly sensible, and now and then what no measurement may be.
func anyAmount(most float64) *rapid.Generator[float64] {
	return rapid.OneOf(
		rapid.Float64Range(0, most),
		rapid.SampledFrom([]float64{0, -1, math.NaN(), math.Inf(1), math.MaxFloat64}),
	)
}

func anyConfig(t *rapid.T) control.Config {
	base := rapid.Float64Range(0.001, 1).Draw(t, "base")
	return control.Config{
		BaseRate:  base,
		MinRate:   base * rapid.Float64Range(0.001, 1).Draw(t, "min"),
		OnUnknown: rapid.SampledFrom([]control.OnUnknown{control.Hold, control.Lower}).Draw(t, "on unknown"),
	}
}

// anyInputs keep to one mood for some ticks, so that times pass.
func anyInputs(t *rapid.T, mood float64) control.Inputs {
	var in control.Inputs
	for _, n := range names {
		if !rapid.Bool().Draw(t, "has "+n) {
			continue
		}
		in.Signals = append(in.Signals, control.Signal{
			Name:      n,
			Value:     anyAmount(mood).Draw(t, n),
			Threshold: rapid.SampledFrom([]float64{0, 1, 1, 1}).Draw(t, "threshold"),
			Known:     rapid.IntRange(0, 9).Draw(t, "known") > 0,
		})
	}
	in.Offered = anyAmount(1e6).Draw(t, "offered")
	in.Acknowledged = anyAmount(1e6).Draw(t, "acknowledged")
	in.AcknowledgedKnown = rapid.IntRange(0, 9).Draw(t, "acknowledged known") > 0
	in.Backlog = anyAmount(1e7).Draw(t, "backlog")
	in.InFlight = anyAmount(1e6).Draw(t, "in flight")
	return in
}

func unknown(in control.Inputs) bool {
	for _, s := range in.Signals {
		if s.Threshold > 0 && (!s.Known || math.IsNaN(s.Value)) {
			return true
		}
	}
	return !in.AcknowledgedKnown
}

func memoryRed(in control.Inputs) bool {
	for _, s := range in.Signals {
		if s.Name == control.Memory && s.Pressure() >= 1 {
			return true
		}
	}
	return false
}

func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyConfig(t)
		require.NoError(t, c.Validate())
		var s control.State
		rate := s.Rate(&c)
		sinceDown, sinceHalved := time.Hour, time.Hour
		for range rapid.IntRange(1, 8).Draw(t, "moods") {
			mood := rapid.SampledFrom([]float64{0.3, 0.8, 3, 100}).Draw(t, "mood")
			for range rapid.IntRange(1, 25).Draw(t, "ticks") {
				dt := time.Duration(rapid.IntRange(200, 3000).Draw(t, "dt")) * time.Millisecond
				sinceDown, sinceHalved = sinceDown+dt, sinceHalved+dt
				in := anyInputs(t, mood)
				before := s
				next, d := control.Step(&c, s, in, dt)

				again, same := control.Step(&c, before, in, dt)
				require.Equal(t, next, again, "a pure function")
				require.Equal(t, d, same)
				s = next

				require.GreaterOrEqual(t, d.Rate, c.MinRate*(1-1e-12))
				require.LessOrEqual(t, d.Rate, c.BaseRate)
				require.InDelta(t, rate, d.Before, 1e-12)
				require.InDelta(t, s.Rate(&c), d.Rate, 1e-12)
				require.GreaterOrEqual(t, d.MaxInFlight, 0.0)
				require.False(t, math.IsInf(d.MaxInFlight, 0) || math.IsNaN(d.MaxInFlight))
				require.Equal(t, d.Direction, sign(d.Rate-rate))
				require.GreaterOrEqual(t, d.Rate, rate/2*(1-1e-12), "at most by half")
				if d.Rate > rate {
					require.False(t, unknown(in), "unknown never raises")
					require.False(t, memoryRed(in))
				}
				if d.Rate < rate {
					byMemory := memoryRed(in) && sinceHalved >= 3*time.Second
					require.True(t, sinceDown >= 3*time.Second || byMemory, "at most every 3 s: %s", d.Why())
					sinceDown = 0
					if byMemory && strings.Contains(d.Why(), "halved at once") {
						sinceHalved = 0
					}
				}
				if d.Event {
					require.NotEmpty(t, d.Cause)
					require.GreaterOrEqual(t, d.Pressure, 1.0)
				}
				require.NotEmpty(t, d.Why())
				rate = d.Rate

				text, err := json.Marshal(s)
				require.NoError(t, err, "every state can be written down")
				var back control.State
				require.NoError(t, json.Unmarshal(text, &back))
				require.Equal(t, s, back)
			}
		}
	})
}

// well is how a backend is doing that takes everything at once.
func well(rate float64) control.Inputs {
	return control.Inputs{
		Signals: []control.Signal{
			{Name: control.QueueLength, Value: 3, Threshold: 5000, Known: true},
			{Name: control.QueueAge, Value: 0.1, Threshold: 10, Known: true},
			{Name: control.WriteLatency, Value: 20, Threshold: 200, Known: true},
		},
		Offered: 1000, Acknowledged: 1000 * rate, AcknowledgedKnown: true, Backlog: 20,
	}
}

func TestReturnsToBase(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyConfig(t)
		c.OnUnknown = control.Hold
		var s control.State
		for range rapid.IntRange(0, 60).Draw(t, "ticks") {
			mood := rapid.SampledFrom([]float64{0.3, 3, 100}).Draw(t, "mood")
			s, _ = control.Step(&c, s, anyInputs(t, mood), time.Second)
		}
		rungs := math.Ceil(math.Log(c.MinRate/c.BaseRate) / math.Log(0.8))
		for range 300 + 3*int(rungs) {
			s, _ = control.Step(&c, s, well(s.Rate(&c)), time.Second)
		}
		require.Equal(t, c.BaseRate, s.Rate(&c))
	})
}

// A larger backlog and less throughput never lead to a higher rate, all else being equal.
func TestMonotone(t *testing.T) {
	c := defaults()
	rapid.Check(t, func(t *rapid.T) {
		var s control.State
		for range 20 {
			s, _ = control.Step(&c, s, lagging(1, 100_000, 0), time.Second)
		}
		age := rapid.Float64Range(1.1, 20).Draw(t, "age")
		taken := rapid.Float64Range(1000, 100_000).Draw(t, "acknowledged")
		more := rapid.Float64Range(1, 5).Draw(t, "more")
		_, a := control.Step(&c, s, lagging(age, taken, 1e5), time.Second)
		_, b := control.Step(&c, s, lagging(age, taken, 1e5*more), time.Second)
		require.LessOrEqual(t, b.Rate, a.Rate, "more waits")
		_, b = control.Step(&c, s, lagging(age, taken/more, 1e5), time.Second)
		require.LessOrEqual(t, b.Rate, a.Rate, "less is taken")
	})
}

// lagging is a backend whose queue is at a share of its threshold.
func lagging(share, taken, backlog float64) control.Inputs {
	return control.Inputs{
		Signals: []control.Signal{{Name: control.QueueAge, Value: 10 * share, Threshold: 10, Known: true}},
		Offered: 100_000, Acknowledged: taken, AcknowledgedKnown: true, Backlog: backlog,
	}
}
