package sampler

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
)

func TestNeedsAreTheNextShorterStep(t *testing.T) {
	for within, want := range map[time.Duration]time.Duration{
		0: 0, -time.Second: 0, time.Millisecond: time.Second, time.Second: time.Second, 9 * time.Second: time.Second,
		time.Minute - 1: 45 * time.Second, time.Minute: time.Minute, 7 * time.Minute: 5 * time.Minute, time.Hour: 30 * time.Minute,
	} {
		require.Equal(t, want, needOf(within).Range(), within)
	}
	steps := needSteps()
	for i := range steps {
		require.Equal(t, Need(i), needOf(steps[i]), "a step is its own")
	}
}

func TestAnsweringGap(t *testing.T) {
	for _, c := range []struct{ within, cadence, want int64 }{
		{60, 1, 29},
		{60, 5, 25},
		{60, 10, 20},
		{60, 12, 30}, // 18 s would be every scrape
		{60, 15, 30},
		{60, 20, 30},
		{60, 60, 60},
		{300, 60, 90 + 60}, // likewise
		{300, 30, 120},
		{60, 0, 30}, // not known yet
	} {
		require.Equal(t, c.want, answeringGap(c.within, c.cadence), "%d s, scraped every %d s", c.within, c.cadence)
	}
}

func TestRulesGiveNeeds(t *testing.T) {
	var critical, low Metrics
	require.NoError(t, critical.AddRules([]byte(someRules), "a.yml", nil))
	require.NoError(t, critical.AddQuery("rate(secret_total[10s])", "q"))
	require.NoError(t, critical.AddQuery("changes(up[2m])", "q"))
	require.NoError(t, low.AddQuery("rate(errors_total[10s])", "of a class that does not get it"))
	require.NoError(t, low.AddQuery("rate(go_gc_total[4m])", "q"))
	c := DefaultConfig()
	c.Protect = []ProtectSelector{{mustSelect("secret_total")[0]}}
	d := NewDescriber(DescriberOptions{Config: c, Metrics: map[string]Metrics{ClassCritical: critical, ClassLow: low}})
	for name, want := range map[string]time.Duration{
		"errors_total": time.Minute, "requests_total": 2 * time.Minute, "rpc_seconds_sum": 5 * time.Minute,
		"heartbeat": 0, "secret_total": 0, "other": 0, "go_gc_total": 4 * time.Minute,
		"up": 2 * time.Minute, // although match puts it into its class
	} {
		require.Equal(t, want, d.Describe(labelsOf(name), remotewrite.MetricUnspecified).Need.Range(), name)
	}
}

// However hard the pressure, a counter has two samples in every stretch as long as its
// range, where the scrapes themselves have as many.
func TestRangesAreAnswered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cadence := rapid.SampledFrom([]int64{1, 2, 5, 7, 10, 12, 15, 20, 30, 60}).Draw(t, "cadence") * 1000
		need := Need(rapid.IntRange(1, needs-1).Draw(t, "need"))
		class := rapid.Uint8Range(0, 2).Draw(t, "class")
		method := rapid.SampledFrom([]Method{MethodFrames, MethodAligned}).Draw(t, "method")
		c := DefaultConfig()
		c.Method = method
		s, err := New(Options{Config: c, Start: someTime})
		require.NoError(t, err)
		require.NoError(t, s.Know(1, Info{Target: rapid.Uint64().Draw(t, "target"), Family: 1, Kind: KindCounter, Class: class, Need: need}))
		s.Set(Step{Rate: 0.05, Pressure: rapid.Float64Range(0, 1).Draw(t, "pressure")})
		within := need.Range().Milliseconds()
		if within < 2*cadence {
			within = 2 * cadence // the scrapes have no two in less
		}
		var sent []int64
		for k := range int64(400) {
			at := someTime + k*cadence
			for _, o := range s.Sample(1, Float(at, float64(k)), nil) {
				sent = append(sent, o.Time)
			}
		}
		limit := min(within, 2*(time.Duration(c.Classes[class].MaxGap).Milliseconds()+cadence))
		for i := 2; i < len(sent); i++ {
			require.LessOrEqual(t, sent[i]-sent[i-2], limit, "range %v", need.Range())
		}
		require.LessOrEqual(t, someTime+399*cadence-sent[len(sent)-2], limit)
	})
}

// The range is answered with a scrape lost, where it has room for that.
func TestALostScrapeLeavesTheRangeAnswered(t *testing.T) {
	for _, cadence := range []int64{1000, 2000, 5000, 10_000} {
		for lost := range int64(60) {
			s, err := New(Options{Config: DefaultConfig(), Start: someTime})
			require.NoError(t, err)
			require.NoError(t, s.Know(1, Info{Target: 77, Kind: KindCounter, Need: needOf(time.Minute)}))
			s.Set(Step{Rate: 0.05, Pressure: 1})
			var sent []int64
			for k := range int64(120) {
				if k == lost+40 {
					continue
				}
				for _, o := range s.Sample(1, Float(someTime+k*cadence, float64(k)), nil) {
					sent = append(sent, o.Time)
				}
			}
			for i := 2; i < len(sent); i++ {
				require.LessOrEqual(t, sent[i]-sent[i-2], int64(60_000), "every %d ms, scrape %d lost", cadence, lost+40)
			}
		}
	}
}

// Pressure widens the gaps of a class, but not those that a range needs.
func TestNeedsAreNotWidened(t *testing.T) {
	c := DefaultConfig()
	c.Floor = FloorShed
	for _, need := range []Need{0, needOf(time.Minute)} {
		t.Run(fmt.Sprint(need.Range()), func(t *testing.T) {
			s, err := New(Options{Config: c, Start: someTime})
			require.NoError(t, err)
			require.NoError(t, s.Know(1, Info{Target: 5, Kind: KindCounter, Need: need}))
			s.Set(Step{Rate: 0.01, Pressure: shedTop})
			n := 0
			for k := range int64(480) {
				n += len(s.Sample(1, Float(someTime+k*5000, float64(k)), nil))
			}
			if need == 0 {
				require.Less(t, n, 20)
			} else {
				require.InDelta(t, 480/5, n, 5)
			}
		})
	}
}

func TestNeedsHaveUnitsOfTheirOwn(t *testing.T) {
	s, err := New(Options{Config: DefaultConfig(), Start: someTime})
	require.NoError(t, err)
	info := Info{Target: 5, Kind: KindCounter, Need: needOf(time.Minute)}
	require.NoError(t, s.Know(1, info))
	require.NoError(t, s.Know(2, info))
	require.Equal(t, 1, s.Stats().Units)
	info.Need = needOf(time.Hour)
	require.NoError(t, s.Know(2, info))
	require.Equal(t, 2, s.Stats().Units)
	info.Need = 0
	require.NoError(t, s.Know(2, info))
	require.NoError(t, s.Know(1, info))
	require.Equal(t, 1, s.Stats().Units, "units without a series are forgotten")
	info.Need = needs
	require.ErrorContains(t, s.Know(1, info), "unknown need")
}
