package control_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/sampler/control"
)

// after steps on with the same inputs for some seconds.
func after(c control.Config, s control.State, in control.Inputs, seconds int) (control.State, control.Decision) {
	var d control.Decision
	for range seconds {
		s, d = control.Step(&c, s, in, time.Second)
	}
	return s, d
}

func settled(c control.Config) control.State {
	s, _ := after(c, control.State{}, well(1), 20)
	return s
}

func TestSignals(t *testing.T) {
	for _, tc := range []struct {
		signal   control.Signal
		pressure float64
		text     string
	}{
		{control.Signal{Name: control.QueueAge, Value: 12.44, Threshold: 10, Known: true}, 1.244, "queue_age is 12.4 s of 10 s"},
		{control.Signal{Name: control.QueueLength, Value: 12345, Threshold: 5000, Known: true}, 2.469, "queue_length is 12345 batches of 5000 batches"},
		{control.Signal{Name: control.WriteLatency, Value: 30, Threshold: 200, Known: true}, 0.15, "write_latency is 30 ms of 200 ms"},
		{control.Signal{Name: control.Errors, Value: 0.5, Threshold: 0.1, Known: true}, 5, "errors is 50 % of 10 %"},
		{control.Signal{Name: control.ReplicaLag, Value: 5, Known: true}, 0, "replica_lag is 5 s of 0 s"},
		{control.Signal{Name: control.ReplicaLag, Value: 5, Threshold: 1}, 0, "replica_lag is not known"},
		{control.Signal{Name: control.Memory, Value: math.NaN(), Threshold: 1, Known: true}, 0, "memory is not known"},
		{control.Signal{Name: control.QueueAge, Value: -1, Threshold: 1, Known: true}, 0, "queue_age is -1 s of 1 s"},
	} {
		require.InDelta(t, tc.pressure, tc.signal.Pressure(), 1e-9)
		require.Equal(t, tc.text, tc.signal.String())
	}
}

func TestConfigIsChecked(t *testing.T) {
	c := control.Config{BaseRate: 2, MinRate: 3, OnUnknown: "guess"}
	err := c.Validate()
	require.ErrorContains(t, err, "base_rate: must be above 0 and at most 1")
	require.ErrorContains(t, err, "min_rate: must be above 0 and at most base_rate")
	require.ErrorContains(t, err, `backpressure_thresholds.on_unknown: must be hold or lower, not "guess"`)
	c = defaults()
	require.NoError(t, c.Validate())
}

func TestStart(t *testing.T) {
	c := defaults()
	for _, rate := range []float64{1, 0.8, 0.7, 0.37, 0.0116, 0.01, 0.001} {
		got := control.Start(&c, rate).Rate(&c)
		require.LessOrEqual(t, got, max(rate, c.MinRate)+1e-12)
		require.Greater(t, got, 0.79*rate)
	}
	c.MinRate = 1
	require.Equal(t, 1.0, control.Start(&c, 0.5).Rate(&c), "a ladder of one rung")
}

// unwell is a signal that is over its threshold, beside a queue in which nothing waits.
func unwell(name string, value, threshold float64) control.Inputs {
	in := well(1)
	in.Signals[2] = control.Signal{Name: name, Value: value, Threshold: threshold, Known: true}
	return in
}

func TestEachSignalLowersTheRate(t *testing.T) {
	for _, name := range []string{control.Errors, control.Throttled, control.ReplicaLag, control.Memory} {
		t.Run(name, func(t *testing.T) {
			c := defaults()
			s, d := after(c, settled(c), unwell(name, 2, 1), 30)
			require.Less(t, s.Rate(&c), 1.0)
			require.Equal(t, name, d.Cause)
			require.True(t, d.Event)
		})
	}
}

func TestMemoryHalvesAtOnce(t *testing.T) {
	c := defaults()
	_, d := after(c, settled(c), unwell(control.Memory, 0.9, 0.85), 1)
	require.InDelta(t, 0.512, d.Rate, 1e-9)
	require.Equal(t, "memory is 90 % of 85 %; the rate goes from 1 to 0.512: halved at once", d.Why())

	s, d := after(c, settled(c), lagging(2, 0, 1e6), 4)
	require.Equal(t, -1, sign(d.Rate-1), "a step has just been made")
	_, next := after(c, s, unwell(control.Memory, 0.9, 0.85), 1)
	require.Less(t, next.Rate, d.Rate, "memory does not wait")
}

func TestStepsToTheCapacity(t *testing.T) {
	c := defaults()
	s := control.State{}
	for range 30 {
		s, _ = control.Step(&c, s, lagging(0.01, 100_000, 500), time.Second)
	}
	// Half of what is offered is taken, and a little waits: two steps are enough.
	var d control.Decision
	var rates []float64
	for i := range 6 {
		s, d = control.Step(&c, s, lagging(0.3+0.3*float64(i), 50_000, 50_000*float64(i+1)), time.Second)
		if d.Direction != 0 {
			rates = append(rates, d.Rate)
			require.Equal(t, control.QueueAge, d.Cause)
		}
	}
	require.NotEmpty(t, rates)
	require.Less(t, rates[len(rates)-1], 0.5)
	require.Greater(t, rates[len(rates)-1], 0.25)
}

func TestHalvesWithoutAMeasuredRate(t *testing.T) {
	c := defaults()
	in := lagging(2, 0, 1e6)
	in.AcknowledgedKnown = false
	s, _ := after(c, settled(c), in, 1)
	require.InDelta(t, 0.512, s.Rate(&c), 1e-9)
	s, _ = after(c, s, in, 2)
	require.InDelta(t, 0.512, s.Rate(&c), 1e-9, "not before three seconds have passed")
	s, _ = after(c, s, in, 1)
	require.InDelta(t, 0.262, s.Rate(&c), 1e-3)
}

func TestUnknown(t *testing.T) {
	c := defaults()
	in := well(1)
	in.Signals = append(in.Signals, control.Signal{Name: control.ReplicaLag, Threshold: 5})
	_, d := after(c, control.Start(&c, 0.5), in, 120)
	require.InDelta(t, 0.41, d.Rate, 0.01, "it is neither raised nor lowered")
	require.False(t, d.Event)
	require.Equal(t, "replica_lag is not known; the rate stays at 0.41: not raised before that is known", d.Why())

	in.Signals[3].Threshold = 0
	_, d = after(c, control.Start(&c, 0.5), in, 120)
	require.Equal(t, 1.0, d.Rate, "what is off need not be known")

	c.OnUnknown = control.Lower
	in.Signals[3].Threshold = 5
	_, d = after(c, control.Start(&c, 0.5), in, 300)
	require.InDelta(t, c.MinRate, d.Rate, 1e-9)
	require.Equal(t, control.ReplicaLag, d.Cause)
	require.True(t, d.Event)
}

// A backend that is far away and keeps up is not starved because of its latency.
func TestSlowBackendThatKeepsUp(t *testing.T) {
	c := defaults()
	for _, from := range []float64{1, 0.01} {
		s := control.Start(&c, from)
		var d control.Decision
		for range 900 {
			in := well(s.Rate(&c))
			in.Signals[2].Value = 400
			s, d = control.Step(&c, s, in, time.Second)
		}
		require.InDelta(t, 0.512, d.Rate, 1e-3, "from %v", from)
		require.Contains(t, d.Why(), "sending less did not help")
	}
}

// One that answers in half of its threshold, forever, is no reason to withhold.
func TestLatencyInAmberDoesNotHoldTheRate(t *testing.T) {
	c := defaults()
	s := control.Start(&c, 0.1)
	for range 200 {
		in := well(s.Rate(&c))
		in.Signals[2].Value = 140
		s, _ = control.Step(&c, s, in, time.Second)
	}
	require.Equal(t, 1.0, s.Rate(&c))
}

func TestNothingRisesBeforeTheBackendTakesAnything(t *testing.T) {
	c := defaults()
	in := well(0)
	in.Acknowledged = 0
	s, d := after(c, control.Start(&c, 0.1), in, 300)
	require.InDelta(t, 0.0859, s.Rate(&c), 1e-3)
	require.Contains(t, d.Why(), "until the backend takes anything again")
}

func TestNoSignal(t *testing.T) {
	c := defaults()
	_, d := after(c, control.State{}, control.Inputs{}, 1)
	require.Equal(t, 1.0, d.Rate)
	require.Empty(t, d.Cause)
	require.Equal(t, "no signal is on; the rate stays at 1: nothing is withheld beyond the base rate", d.Why())
}

func TestStepAllocatesNothing(t *testing.T) {
	c := defaults()
	s := settled(c)
	red, green := lagging(3, 10_000, 1e6), well(0.5)
	n := testing.AllocsPerRun(200, func() {
		s, _ = control.Step(&c, s, red, time.Second)
		s, _ = control.Step(&c, s, green, time.Second)
	})
	require.Zero(t, n)
}

func BenchmarkStep(b *testing.B) {
	c := defaults()
	s := settled(c)
	in := well(1)
	b.ReportAllocs()
	for b.Loop() {
		s, _ = control.Step(&c, s, in, time.Second)
	}
}

// behind is a backend of a capacity behind which more waits from second to second, and that
// takes as long as what is in flight takes it.
type behind struct {
	capacity, waits, limit float64
	far                    time.Duration
}

// tick plays a second in which what is in flight is limited.
func (b *behind) tick(offered, rate float64) control.Inputs {
	takes := b.capacity
	if b.limit > 0 && b.far > 0 {
		takes = min(takes, b.limit/b.far.Seconds())
	}
	b.waits += offered*rate - takes
	taken := takes
	if b.waits < 0 {
		taken, b.waits = takes+b.waits, 0
	}
	flying := b.waits
	if b.limit > 0 {
		flying = min(flying, b.limit)
	}
	latency := max(1000*flying/b.capacity, float64(b.far.Milliseconds()))
	return control.Inputs{
		Signals: []control.Signal{
			{Name: control.QueueAge, Value: b.waits / rate / offered, Threshold: 10, Known: true},
			{Name: control.WriteLatency, Value: latency, Threshold: 200, Known: true},
		},
		Offered: offered, Acknowledged: taken, AcknowledgedKnown: true,
		Backlog: b.waits / rate, InFlight: flying,
	}
}

func (b *behind) play(c control.Config, s control.State, seconds int) (control.State, control.Decision) {
	var d control.Decision
	for range seconds {
		s, d = control.Step(&c, s, b.tick(100_000, s.Rate(&c)), time.Second)
		b.limit = d.MaxInFlight
	}
	return s, d
}

func TestInFlightIsCapacityTimesLatency(t *testing.T) {
	b := &behind{capacity: 150_000, far: 20 * time.Millisecond}
	s, d := b.play(defaults(), control.State{}, 30)
	require.Zero(t, d.MaxInFlight, "nothing lags")
	b.capacity = 30_000
	s, d = b.play(defaults(), s, 60)
	require.InDelta(t, 30_000*0.2*0.4, d.MaxInFlight, 500)
	require.InDelta(t, 0.3, d.Rate, 0.1)
	b.capacity = 150_000
	s, d = b.play(defaults(), s, 40)
	require.Equal(t, 1.0, d.Rate)
	require.Zero(t, d.MaxInFlight, "it is over")

	for i, c := range []func(*control.Inputs){
		func(in *control.Inputs) { in.AcknowledgedKnown = false },
		func(in *control.Inputs) { in.Signals[1].Threshold = 0 },
		func(in *control.Inputs) { in.Signals[1].Known = false },
	} {
		in := (&behind{capacity: 10_000, waits: 1e6}).tick(100_000, 1)
		c(&in)
		_, d = after(defaults(), s, in, 3)
		require.Zero(t, d.MaxInFlight, "%d: what it takes, or for how long, is not known", i)
	}
}

// A bound that lets less through, and makes nothing quicker, is taken back.
func TestABoundThatThrottles(t *testing.T) {
	b := &behind{capacity: 150_000, far: 20 * time.Millisecond}
	s, _ := b.play(defaults(), control.State{}, 30)
	b.far = 400 * time.Millisecond
	_, d := b.play(defaults(), s, 120)
	require.GreaterOrEqual(t, d.MaxInFlight, 0.4*100_000*d.Rate, "less than what has to be in flight")
	require.GreaterOrEqual(t, d.Rate, 0.4)
}

// A batch that alone is more than should be in flight makes a bound pointless: such a
// backend is kept from being always busy, by the rate.
func TestNoBoundBelowABatch(t *testing.T) {
	quick := &behind{capacity: 1e6, far: 20 * time.Millisecond}
	quiet, _ := after(defaults(), control.State{}, quick.tick(2000, 1), 20)
	for batches, bounded := range map[float64]bool{10: false, 100_000: true} {
		in := (&behind{capacity: 1000, waits: 1e5}).tick(2000, 1)
		in.Signals = append(in.Signals, control.Signal{Name: control.QueueLength, Value: batches, Known: true})
		_, d := after(defaults(), quiet, in, 20)
		require.Equal(t, bounded, d.MaxInFlight > 0, "%v batches", batches)
	}
}
