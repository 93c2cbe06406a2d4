package control_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/incident"
	"github.com/sluice-metrics/sluice/sampler/control"
)

const (
	simulated = 600 // seconds
	troubled  = 60  // second at which the trouble begins
)

// scenario is a load and a capacity over time, both as shares of the usual load.
type scenario struct {
	name     string
	load     func(second float64) float64
	capacity func(second float64) float64
	refuses  func(second float64) bool
	over     float64 // second at which the trouble is over; 0: it goes on

	most limits
}

// limits are the figures to keep to, in seconds but for the changes of direction.
type limits struct{ starved, lagging, turns, recovery int }

func within(from, to float64, inside, outside float64) func(float64) float64 {
	return func(s float64) float64 {
		if s >= from && s < to {
			return inside
		}
		return outside
	}
}

func always(v float64) func(float64) float64 { return func(float64) float64 { return v } }

func never(float64) bool { return false }

// scenarios has those of the design; spare is the capacity in normal times.
func scenarios(spare float64) []scenario {
	return []scenario{
		{"capacity falls to 30 %", always(1), within(troubled, 240, 0.3, spare), never, 240, limits{22, 46, 16, 76}},
		{"outage of 60 s, hanging", always(1), within(troubled, 120, 0, spare), never, 120, limits{47, 76, 16, 76}},
		{"outage of 60 s, refusing", always(1), always(spare), func(s float64) bool { return s >= troubled && s < 120 }, 120, limits{47, 76, 16, 76}},
		{"three times the load", within(troubled, 240, 3, 1), always(spare), never, 240, limits{22, 75, 16, 76}},
		{"capacity in waves", always(1), func(s float64) float64 { return 1 + 0.7*math.Sin(2*math.Pi*s/300) }, never, 0, limits{22, 103, 16, 0}},
	}
}

// plant is what a scenario is played with.
type plant struct {
	rate    float64 // samples a second in normal times
	request int     // samples
	burst   int     // seconds between bursts; 0: requests come evenly
	noise   float64
	sensing int
	seed    uint64
	// far is the latency from the beginning of the trouble on, 0 the usual one.
	far time.Duration
}

func (p plant) String() string {
	return fmt.Sprintf("%.0f/s burst=%d noise=%.1f sensing=%d seed=%d", p.rate, p.burst, p.noise, p.sensing, p.seed)
}

// steer is a controller under test.
type steer func(in control.Inputs, seen incident.Observation) (rate float64, d control.Decision)

// score is how a run went.
type score struct {
	limits
	kept   float64
	lowest float64
}

func thresholds() incident.Thresholds {
	return incident.Thresholds{Batches: 5000, Age: 10 * time.Second, Latency: 200 * time.Millisecond, ErrorShare: 0.1}
}

// play runs the scenario. Base is the rate that is wanted when nothing lags.
func (p plant) play(s scenario, by steer, each func(second int, o incident.Observation, d control.Decision, rate, feasible float64)) score {
	r := rand.New(rand.NewPCG(p.seed, 17))
	rate := 1.0
	noisy := func(v float64) float64 { return v * max(0.1, 1+p.noise*r.NormFloat64()) }
	swing := 1.0
	m := incident.NewModel(incident.ModelOptions{
		Conditions: func(at time.Duration) incident.Conditions {
			t := at.Seconds()
			return incident.Conditions{
				Capacity: max(0, s.capacity(t)) * p.rate * swing,
				Latency:  time.Duration(noisy(float64(p.latency(t)))),
				Burst:    250 * time.Millisecond,
				Refuses:  s.refuses(t),
			}
		},
		Thin:       func(_ int, a incident.Arrival) float64 { return rate * float64(a.Samples) },
		Thresholds: thresholds(),
		Shards:     16,
		Parcel:     10000,
		Sensing:    p.sensing,
	})
	var out score
	out.lowest, out.recovery = 1, -1
	var sent, read float64
	direction, due := 0, 0.0
	for second := range simulated {
		swing = noisy(1)
		truth, seen := m.Advance(p.arrivals(s, second, noisy, &due))
		before := rate
		var d control.Decision
		rate, d = by(seen.Inputs(thresholds()), seen)
		m.SetMaxInFlight(d.MaxInFlight)
		sent, read = sent+truth.Sent, read+float64(truth.Read)
		out.lowest = min(out.lowest, rate)
		t := float64(second)
		capacity := s.capacity(t)
		if s.refuses(t) {
			capacity = 0
		}
		feasible := min(1, max(0.01, capacity/s.load(t)))
		if rate < feasible/2 {
			out.starved++
		}
		if truth.Pressure(thresholds()) >= 1 {
			out.lagging++
		}
		if now := sign(rate - before); now != 0 {
			if direction != 0 && now != direction {
				out.turns++
			}
			direction = now
		}
		if s.over > 0 && t >= s.over && out.recovery < 0 && rate >= 0.9 {
			out.recovery = second - int(s.over)
		}
		if each != nil {
			each(second, truth, d, rate, feasible)
		}
	}
	if out.recovery < 0 && s.over > 0 {
		out.recovery = simulated
	}
	out.kept = sent / read
	return out
}

func sign(v float64) int {
	switch {
	case v > 0:
		return 1
	case v < 0:
		return -1
	}
	return 0
}

// latency is how long the smallest request takes.
func (p plant) latency(second float64) time.Duration {
	if p.far > 0 && second >= troubled {
		return p.far
	}
	return 40 * time.Millisecond
}

// arrivals are the requests of a second; due is what is left of a request.
func (p plant) arrivals(s scenario, second int, noisy func(float64) float64, due *float64) []incident.Arrival {
	samples := noisy(s.load(float64(second)) * p.rate)
	if p.burst > 0 {
		if second%p.burst != 0 {
			return nil
		}
		samples *= float64(p.burst)
	}
	*due += samples
	var out []incident.Arrival
	n := int(*due) / p.request
	for i := range n {
		at := time.Duration(second)*time.Second + time.Duration(i)*time.Second/time.Duration(n)
		out = append(out, incident.Arrival{At: at, Samples: p.request})
	}
	*due -= float64(n * p.request)
	return out
}

func ladder(c control.Config) steer {
	var s control.State
	return func(in control.Inputs, _ incident.Observation) (float64, control.Decision) {
		var d control.Decision
		s, d = control.Step(&c, s, in, incident.Tick)
		return d.Rate, d
	}
}

func unsampled(control.Inputs, incident.Observation) (float64, control.Decision) {
	return 1, control.Decision{Rate: 1}
}

// halving halves the rate while there is pressure, and restores it by a tenth when there
// is none.
func halving() steer {
	rate := 1.0
	return func(in control.Inputs, _ incident.Observation) (float64, control.Decision) {
		p := 0.0
		for _, s := range in.Signals {
			p = max(p, s.Pressure())
		}
		if p >= 1 {
			rate = max(0.01, rate/2)
		} else {
			rate = min(1, rate*2)
		}
		return rate, control.Decision{Rate: rate}
	}
}

func defaults() control.Config {
	return control.Config{BaseRate: 1, MinRate: 0.01, OnUnknown: control.Hold}
}

// figures are the means of some runs, and the worst of each figure.
type figures struct {
	runs                              int
	starved, lagging, turns, recovery float64
	worst                             limits
}

func (f *figures) add(s score) {
	n := float64(f.runs)
	f.runs++
	mean := func(m *float64, v int, worst *int) {
		*m = (*m*n + float64(v)) / (n + 1)
		*worst = max(*worst, v)
	}
	mean(&f.starved, s.starved, &f.worst.starved)
	mean(&f.lagging, s.lagging, &f.worst.lagging)
	mean(&f.turns, s.turns, &f.worst.turns)
	mean(&f.recovery, s.recovery, &f.worst.recovery)
}

func (f figures) String() string {
	return fmt.Sprintf("%3d runs: starved %5.1f s (worst %3d), lagging %5.1f s (worst %3d), turns %4.1f (worst %2d), back after %5.1f s (worst %3d)",
		f.runs, f.starved, f.worst.starved, f.lagging, f.worst.lagging, f.turns, f.worst.turns, f.recovery, f.worst.recovery)
}

func (l limits) require(t *testing.T, of limits) {
	t.Helper()
	require.LessOrEqual(t, of.starved, l.starved, "seconds below half of the feasible rate")
	require.LessOrEqual(t, of.lagging, l.lagging, "seconds with a signal above its threshold")
	require.LessOrEqual(t, of.turns, l.turns, "changes of direction")
	require.LessOrEqual(t, of.recovery, l.recovery, "seconds until the base rate is back")
}

// lasting is the scenario with trouble that is over at another time. How soon the rate is
// back depends on how long before it was tried last, so that one time says little.
func (s scenario) lasting(over, spare float64) scenario {
	if s.over == 0 || s.name[0] == 'o' {
		return s
	}
	s.over = over
	if s.load(troubled) > 1 {
		s.load = within(troubled, over, 3, 1)
	} else {
		s.capacity = within(troubled, over, 0.3, spare)
	}
	return s
}

const firstSeed, seeds = 201, 4

func (p plant) playMany(s scenario, spare float64, by func() steer) figures {
	var f figures
	for seed := range uint64(seeds) {
		p.seed = firstSeed + seed
		for over := 180.0; over <= 300; over += 15 {
			f.add(p.play(s.lasting(over, spare), by(), nil))
		}
	}
	return f
}

func mine() steer { return ladder(defaults()) }

func TestSimulation(t *testing.T) {
	const spare = 1.5
	p := plant{rate: 100_000, request: 2000, noise: 0.1, sensing: 1}
	for _, s := range scenarios(spare) {
		t.Run(s.name, func(t *testing.T) {
			plain := p.playMany(s, spare, func() steer { return unsampled })
			half := p.playMany(s, spare, halving)
			own := p.playMany(s, spare, mine)
			t.Logf("%-14s %s", "no sampling", plain)
			t.Logf("%-14s %s", "halve/restore", half)
			t.Logf("%-14s %s", "this", own)
			s.most.require(t, own.worst) // in each run
			require.Less(t, own.lagging, plain.lagging)
		})
	}
}

func (s score) String() string {
	return fmt.Sprintf("below half of what is feasible %3d s, lagging %3d s, %3d turns, back after %3d s, kept %.2f, lowest %.2f",
		s.starved, s.lagging, s.turns, s.recovery, s.kept, s.lowest)
}

// Other loads, bursts, noise and later signals: the figures are not those of TestSimulation
// any more, and yet far from those of halving and restoring.
func TestSimulationOfOtherLoads(t *testing.T) {
	const spare = 1.5
	for _, p := range []plant{
		{rate: 6_700, request: 200, noise: 0.1, sensing: 1},
		{rate: 6_700, request: 2000, noise: 0.1, sensing: 1},
		{rate: 1_000_000, request: 2000, noise: 0.1, sensing: 1},
		{rate: 100_000, request: 2000, noise: 0.1, sensing: 2},
		{rate: 100_000, request: 2000, noise: 0.25, sensing: 1},
		{rate: 100_000, request: 2000, noise: 0.1, sensing: 1, burst: 15},
	} {
		p.seed = firstSeed
		t.Run(p.String(), func(t *testing.T) {
			for _, s := range scenarios(spare) {
				own, half := p.play(s, mine(), nil), p.play(s, halving(), nil)
				t.Logf("%-26s this          %s", s.name, own)
				t.Logf("%-26s halve/restore %s", s.name, half)
				if s.over-troubled == 60 { // an outage: there is nothing to hold on to
					require.LessOrEqual(t, own.recovery, s.most.recovery)
					continue
				}
				require.Less(t, 2*own.starved, half.starved)
				require.Less(t, own.turns, half.turns)
			}
		})
	}
}

// A backend that is far away from now on is over the threshold whatever is sent to it. The
// rate is lowered to see whether that helps, and no further; above all, the little that a
// bound of the samples in flight lets through is not taken for what the backend can take.
func TestSimulationOfADistantBackend(t *testing.T) {
	for _, far := range []time.Duration{170 * time.Millisecond, 300 * time.Millisecond, 600 * time.Millisecond} {
		t.Run(far.String(), func(t *testing.T) {
			p := plant{rate: 100_000, request: 2000, noise: 0.1, sensing: 1, seed: firstSeed, far: far}
			last := 1.0
			own := p.play(scenario{capacity: always(1.5), load: always(1), refuses: never}, mine(),
				func(second int, _ incident.Observation, _ control.Decision, rate, _ float64) { last = rate })
			t.Log(own)
			require.LessOrEqual(t, own.starved, 40)
			require.LessOrEqual(t, own.turns, 16)
			require.GreaterOrEqual(t, last, 0.5)
		})
	}
}
