package e2e

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// controlled is how the control of a backend did, in seconds but for the changes of
// direction.
type controlled struct {
	starved  int // the rate was below half of what the backend could take
	lagging  int // a signal was over its threshold
	turns    int // the rate changed its direction
	recovery int // from the end of the trouble until 0.9 of the base rate
	lowest   float64
}

func (c controlled) String() string {
	return fmt.Sprintf("below half of the feasible rate %d s, over threshold %d s, %d changes of direction, 0.9 of the base rate after %d s, lowest %.3f",
		c.starved, c.lagging, c.turns, c.recovery, c.lowest)
}

// ordeal is what a backend, or its load, goes through.
type ordeal struct {
	name string
	// capacity is what the backend takes, as a share of the usual load; 0 takes nothing, and
	// answers nothing.
	capacity func(since time.Duration) float64
	load     int // in usual loads
	last     time.Duration
	most     controlled
}

func constant(share float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return share }
}

// wave is the last two thirds of a wave of five minutes: down from more than enough to a
// third, and up again.
func wave(since time.Duration) float64 {
	return 1 + 0.7*math.Sin(2*math.Pi*(since+100*time.Second).Seconds()/300)
}

// TestSampling_Control steers in front of a real receiver that takes less for a while, or
// gets more. The limits are those of the simulation of the controller.
func TestSampling_Control(t *testing.T) {
	t.Parallel()
	const (
		load  = 4000 // samples a second
		usual = 1.3  // capacity
		// The receiver works off what it holds at once when its pace is set anew.
		paceFor = 10 * time.Second
	)
	for _, o := range []ordeal{
		{"capacity falls to 30 %", constant(0.3), 1, 70 * time.Second, controlled{starved: 22, lagging: 46, turns: 16, recovery: 76}},
		{"outage", constant(0), 1, time.Minute, controlled{starved: 47, lagging: 76, turns: 16, recovery: 76}},
		{"three times the load", constant(usual), 3, 70 * time.Second, controlled{starved: 22, lagging: 75, turns: 16, recovery: 76}},
		{"capacity in waves", wave, 1, 200 * time.Second, controlled{starved: 22, lagging: 103, turns: 16, recovery: 76}},
	} {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			sink := testutil.StartSink(t, testutil.SinkOptions{})
			pace := func(share float64) {
				sink.Behave(testutil.Fault{Hang: share == 0, Pace: int(share * load)})
			}
			pace(usual)
			s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText(`
adaptive_sampling:
  backpressure_thresholds: {queue_length: 5000, write_latency_ms: 1000, queue_age_seconds: 5}
`, backend{name: "main", url: sink.URL(), extra: "max_shards: 4"})})
			start := func(name string, times int) *testutil.Load {
				return testutil.StartLoad(t, testutil.LoadOptions{
					URL: s.WriteURL(), Name: name, Series: times * 20 * load / 4, Target: 100, Batch: 200, Senders: 4, Rate: times * load, Step: 5 * time.Second,
				})
			}
			streams := []*testutil.Load{start("load", 1)}
			w := &watch{sluice: s, feasible: 1}
			w.follow(t, 25*time.Second)
			require.Zero(t, w.score.turns, "the rate moves while nothing lags: %v", w.score)

			if o.load > 1 {
				streams = append(streams, start("more", o.load-1))
			}
			for since := time.Duration(0); since < o.last; since += paceFor {
				share := o.capacity(since)
				pace(share)
				w.feasible = min(1, share/float64(o.load))
				w.follow(t, paceFor)
			}
			if o.load > 1 {
				streams[1].Stop(t, 10*time.Second)
			}
			pace(usual)
			w.feasible, w.over = 1, time.Now()
			w.follow(t, 80*time.Second)
			t.Log(w.score)
			require.LessOrEqual(t, w.score.starved, o.most.starved, "seconds below half of the feasible rate")
			require.LessOrEqual(t, w.score.lagging, o.most.lagging, "seconds over threshold")
			require.LessOrEqual(t, w.score.turns, o.most.turns, "changes of direction")
			require.Positive(t, w.score.recovery, "the rate is not back")
			require.LessOrEqual(t, w.score.recovery, o.most.recovery, "seconds until the rate is back")
			require.Less(t, w.score.lowest, 0.9, "nothing was thinned")
			streams[0].Stop(t, 10*time.Second)
			requireSettled(t, s, "main")
		})
	}
}

// watch reads every second how the control does.
type watch struct {
	sluice   *testutil.Sluice
	feasible float64   // share that the backend can take
	over     time.Time // when the trouble ended; zero before
	seconds  int
	rate     float64
	rising   int // direction of the last change
	score    controlled
}

func (w *watch) follow(t *testing.T, d time.Duration) {
	t.Helper()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-tick.C
		w.read(t)
	}
}

func (w *watch) read(t *testing.T) {
	t.Helper()
	w.seconds++
	m := w.sluice.Metrics(t)
	rate := m.Get("remote_write_sampling_rate", "backend", "main")
	const signals = "remote_write_backpressure_signal_ratio"
	highest, worst := 0.0, ""
	for _, name := range m.Labels(signals, "signal") {
		if v := m.Get(signals, "backend", "main", "signal", name); v > highest {
			highest, worst = v, name
		}
	}
	if w.score.lowest == 0 || rate < w.score.lowest {
		w.score.lowest = rate
	}
	if rate < w.feasible/2 {
		w.score.starved++
	}
	if highest >= 1 {
		w.score.lagging++
	}
	if w.rate != 0 && rate != w.rate {
		direction := 1
		if rate < w.rate {
			direction = -1
		}
		if direction != w.rising {
			w.score.turns++
		}
		w.rising = direction
		t.Logf("second %d: rate %.3f, kept %.3f, %s at %.2f of its threshold, %.0f samples wait",
			w.seconds, rate, m.Get("remote_write_sampling_kept_ratio", "backend", "main"), worst, highest, m.Get("sluice_in_journal", "backend", "main"))
	}
	w.rate = rate
	if !w.over.IsZero() && w.score.recovery == 0 && rate >= 0.9 {
		w.score.recovery = max(1, int(time.Since(w.over).Seconds()))
	}
}
