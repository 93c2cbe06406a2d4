package sampler

import (
	"math"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"
)

var stale = math.Float64frombits(value.StaleNaN)

// one is a Sampler with one series that is scraped every 5 s, at a pressure where only key
// frames are left.
type one struct {
	t *testing.T
	s *Sampler
	k int64 // scrapes so far
}

const only = 4711

func newOne(t *testing.T, kind Kind, class uint8, change func(*Options)) *one {
	o := Options{Config: DefaultConfig(), Start: someTime}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	require.NoError(t, err)
	require.NoError(t, s.Know(only, Info{Target: 1, Family: 2, Kind: kind, Class: class}))
	return &one{t: t, s: s}
}

func (o *one) at() int64 { return someTime + o.k*5000 }

// scrape feeds the next sample and returns the values that come out.
func (o *one) scrape(v float64) []float64 {
	o.k++
	var out []float64
	for _, s := range o.s.Sample(only, Float(o.at(), v), nil) {
		out = append(out, s.Value())
	}
	return out
}

// is reports what the next scrape will be.
func (o *one) is() (frame, key bool) {
	film := Film{Target: 1, Cadence: 5000, KeyPeriod: 30_000}
	c := &o.s.classes[o.s.units[o.s.entry(only).unit-1].class]
	return film.Frame(o.at()+5000, c.rate, c.keyGap)
}

// until scrapes v until the next scrape is, or is not, what is asked for.
func (o *one) until(v float64, wanted func(frame, key bool) bool) {
	for range 1000 {
		if wanted(o.is()) {
			return
		}
		o.scrape(v)
	}
	require.Fail(o.t, "no such scrape")
}

func frameOnly(frame, key bool) bool { return frame && !key }
func noFrame(frame, _ bool) bool     { return !frame }
func keyFrame(_, key bool) bool      { return key }

func TestSmallState(t *testing.T) {
	require.EqualValues(t, 40, unsafe.Sizeof(entry{}))
	require.EqualValues(t, 192, unsafe.Sizeof(unit{}), "a multiple of a cache line")
	require.EqualValues(t, 64, unsafe.Offsetof(unit{}.ring), "all else is in the first")
}

func TestResetIsSentWithTheSampleBefore(t *testing.T) {
	o := newOne(t, KindCounter, 2, nil)
	for v := range 5 {
		require.Equal(t, []float64{float64(v)}, o.scrape(float64(v)))
	}
	o.s.Set(Step{0.1, 1})
	o.until(4, keyFrame)
	o.scrape(5)
	o.scrape(6)
	require.Empty(t, o.scrape(7))
	require.Equal(t, []float64{7, 1}, o.scrape(1))
	require.Empty(t, o.scrape(2))
}

func TestMarkerIsSentWithTheSampleBefore(t *testing.T) {
	o := newOne(t, KindGauge, 2, nil)
	for range 5 {
		o.scrape(1)
	}
	o.s.Set(Step{0.1, 1})
	o.until(1, keyFrame)
	o.scrape(2)
	require.Empty(t, o.scrape(3))
	o.k++
	out := o.s.Sample(only, Float(o.at(), stale), nil)
	require.Len(t, out, 2)
	require.Equal(t, 3.0, out[0].Value())
	require.True(t, out[1].stale())
	require.Empty(t, o.s.Sample(only, Float(o.at()-5000, 3), nil), "comes again from before the marker")
	require.Equal(t, []float64{9}, o.scrape(9), "a new life")
}

func TestElidedRunOfAGaugeIsReplayedWhenItJumps(t *testing.T) {
	for _, c := range []struct {
		to     float64
		replay bool
	}{{10.5, false}, {20, true}, {math.NaN(), true}} {
		o := newOne(t, KindGauge, 2, nil)
		for range 5 {
			o.scrape(10)
		}
		o.s.Set(Step{0.5, 0.1})
		o.until(10, keyFrame)
		o.scrape(10)
		var frames []float64
		for range 3 {
			o.until(10, func(f, k bool) bool { require.False(t, k); return f })
			require.Empty(t, o.scrape(10))
			frames = append(frames, 10)
		}
		o.until(10, func(f, k bool) bool { require.False(t, k); return !f })
		require.Empty(t, o.scrape(10), "no frame: seen last")
		out := o.scrape(c.to)
		if !c.replay {
			require.Equal(t, []float64{10, c.to}, out, "both sides of the change")
			continue
		}
		require.Equal(t, append(frames, 10), out[:len(out)-1], "the elided frames, and what was seen last")
	}
}

func TestElidedRunOfACounterIsReplayedByItsEnd(t *testing.T) {
	o := newOne(t, KindCounter, 2, nil)
	for range 5 {
		o.scrape(10)
	}
	o.s.Set(Step{0.5, 0.1})
	o.until(10, keyFrame)
	o.scrape(10)
	o.until(10, frameOnly)
	require.Empty(t, o.scrape(10))
	o.until(10, frameOnly)
	require.Empty(t, o.scrape(10))
	newest := o.at()
	o.until(10, frameOnly)
	o.k++
	out := o.s.Sample(only, Float(o.at(), 11), nil)
	require.Equal(t, []Sample{Float(newest, 10), Float(o.at(), 11)}, out)
}

func TestACounterShowsItsZeroSlope(t *testing.T) {
	o := newOne(t, KindCounter, 2, nil)
	for v := range 5 {
		o.scrape(float64(v))
	}
	o.s.Set(Step{0.5, 0.1})
	o.until(4, keyFrame)
	o.scrape(5)
	o.until(5, frameOnly)
	require.Equal(t, []float64{5}, o.scrape(5))
	o.until(5, frameOnly)
	require.Empty(t, o.scrape(5))
}

// A series that was silent while the ring went round is not sent at the times that the
// ring holds now.
func TestReplaySendsOnlyWhatWasSeen(t *testing.T) {
	for _, moves := range []bool{false, true} {
		o := newOne(t, KindGauge, 2, nil)
		require.NoError(t, o.s.Know(only+1, Info{Target: 1, Family: 3, Kind: KindGauge, Class: 2}))
		require.NoError(t, o.s.Know(only+2, Info{Target: 9, Family: 3, Kind: KindGauge, Class: 2}))
		for range 5 {
			o.scrape(10)
		}
		o.s.Set(Step{0.5, 0.1})
		o.until(10, keyFrame)
		o.scrape(10)
		o.until(10, frameOnly)
		require.Empty(t, o.scrape(10))
		last := o.at()
		for range 100 {
			o.k++
			o.s.Sample(only+1, Float(o.at(), 1), nil)
			o.s.Sample(only+2, Float(o.at()-30*5000, 1), nil)
		}
		if moves {
			require.NoError(t, o.s.Know(only, Info{Target: 9, Family: 2, Kind: KindGauge, Class: 2}))
		}
		o.k++
		for _, out := range o.s.Sample(only, Float(o.at(), 99), nil) {
			require.True(t, out.Time == o.at() || out.Time <= last, "%d", out.Time-last)
		}
	}
}

// Requests of one scrape may come after those of the next; what a series replays is in
// order of time all the same.
func TestReplayIsInOrderOfTime(t *testing.T) {
	o := newOne(t, KindGauge, 2, nil)
	require.NoError(t, o.s.Know(only+1, Info{Target: 1, Family: 3, Kind: KindGauge, Class: 2}))
	for range 5 {
		o.scrape(10)
	}
	o.s.Set(Step{0.9, 0.001}) // nearly all are frames
	o.until(10, keyFrame)
	o.scrape(10)
	first, second, third := o.at()+5000, o.at()+10_000, o.at()+15_000
	o.s.Sample(only+1, Float(second, 1), nil)
	require.Empty(t, o.s.Sample(only, Float(first, 10), nil))
	require.Empty(t, o.s.Sample(only, Float(second, 10), nil))
	require.Equal(t, []Sample{Float(first, 10), Float(second, 10), Float(third, 50)}, o.s.Sample(only, Float(third, 50), nil))
}

func TestTimesMoveWithTheBase(t *testing.T) {
	require.Zero(t, rebased(0, -5), "none stays none")
	require.EqualValues(t, 15, rebased(10, -5))
	require.EqualValues(t, 5, rebased(10, 5))
	require.Zero(t, rebased(10, 10))
	require.Zero(t, rebased(10, 11))
	require.Zero(t, rebased(maxOffset, -1))
}

func TestARunIsNoLongerThanTheRingRemembers(t *testing.T) {
	o := newOne(t, KindGauge, 2, nil)
	at := someTime
	scrape := func(v float64) int {
		at += 1000
		return len(o.s.Sample(only, Float(at, v), nil))
	}
	for range 5 {
		scrape(10)
	}
	o.s.Set(Step{0.9, 0.01})
	o.s.classes[2].keyGap = 120_000 // so that no key frame ends the run
	elided, longest := 0, 0
	for range 1000 {
		before := o.s.Stats().Classes[2].Withheld[ReasonElided]
		if scrape(10) > 0 {
			elided = 0
			continue
		}
		elided += int(o.s.Stats().Classes[2].Withheld[ReasonElided] - before)
		longest = max(longest, elided)
		if elided == longestRun-1 {
			for { // the next frame: replays each of them
				if n := scrape(20); n > 0 {
					require.GreaterOrEqual(t, n, longestRun)
					break
				}
			}
			return
		}
	}
	require.Fail(t, "no run was that long")
}

func TestARunThatFillsTheRingIsBrokenBySending(t *testing.T) {
	o := newOne(t, KindGauge, 2, nil)
	at := someTime
	o.s.Set(Step{0.9, 0.01})
	o.s.classes[2].keyGap = 120_000
	elided := 0
	for range 1000 {
		at += 1000
		before := o.s.Stats().Classes[2].Withheld[ReasonElided]
		if len(o.s.Sample(only, Float(at, 10), nil)) > 0 {
			elided = 0
		}
		elided += int(o.s.Stats().Classes[2].Withheld[ReasonElided] - before)
		require.LessOrEqual(t, elided, longestRun)
	}
}

// Where the scrape that was to be the key frame is lost, the next one stands in.
func TestALostKeyFrameIsMadeUpFor(t *testing.T) {
	o := newOne(t, KindGauge, 2, nil)
	for range 5 {
		o.scrape(1)
	}
	o.s.Set(Step{0.1, 1})
	o.until(1, keyFrame)
	o.scrape(1)
	key := o.at()
	for {
		if _, isKey := o.is(); isKey {
			break
		}
		o.scrape(2)
	}
	o.k++ // lost
	for range 3 {
		require.NoError(t, o.s.Know(only+1, Info{Target: 1, Class: 2}))
		out := o.scrape(3)
		if o.at()-key >= 120_000+2500 {
			require.NotEmpty(t, out)
			u := &o.s.units[o.s.entry(only).unit-1]
			require.True(t, u.decisions[0].is(keyMark), "for all series of the unit")
			return
		}
	}
	require.Fail(t, "nothing stood in")
}

// Key frames are those of the rate before weights, so that all classes share them.
func TestClassesShareTheirKeyFrames(t *testing.T) {
	o := newOne(t, KindGauge, 1, nil)
	for _, x := range []float64{0, 0.1, 0.2} {
		o.s.Set(Step{0.5, x})
		require.Equal(t, min(keyGap(30_000, frameRate(x), 240_000), 240_000), o.s.classes[1].keyGap)
		require.Equal(t, min(o.s.classes[1].keyGap, 120_000), o.s.classes[2].keyGap)
	}
}

func TestStateChangesAreSentWithBothSides(t *testing.T) {
	o := newOne(t, KindState, 2, nil)
	for range 5 {
		o.scrape(1)
	}
	o.s.Set(Step{0.1, 1})
	o.until(1, keyFrame)
	o.scrape(1)
	require.Empty(t, o.scrape(1))
	require.Equal(t, []float64{1, 0}, o.scrape(0))
	require.Empty(t, o.scrape(0))
}

func TestCriticalGaugesAreSentWhenTheyMove(t *testing.T) {
	o := newOne(t, KindGauge, 0, nil)
	for range 5 {
		o.scrape(100)
	}
	o.s.Set(Step{0.1, 1})
	o.until(100, keyFrame)
	o.scrape(100)
	require.Equal(t, []float64{101}, o.scrape(101), "it rested")
	require.Empty(t, o.scrape(105), "it did not, and this is a small change")
	require.Equal(t, []float64{105, 113}, o.scrape(113))
}

func TestGaugesThatRestedAreSentWhenTheyChange(t *testing.T) {
	o := newOne(t, KindGauge, 2, nil)
	for range 5 {
		o.scrape(100)
	}
	o.s.Set(Step{0.1, 1})
	o.until(100, keyFrame)
	o.scrape(100)
	require.Empty(t, o.scrape(100))
	require.Equal(t, []float64{100, 100.1}, o.scrape(100.1), "both sides of the change")
	require.Empty(t, o.scrape(200), "it does not rest")
	require.Empty(t, o.scrape(100.1))
}

func TestCriticalCountersAreSentWhenTheyRiseAfterARest(t *testing.T) {
	for _, c := range []struct {
		kind         Kind
		class        uint8
		first, after int
	}{
		{KindCounter, 0, 2, 1},
		{KindCounter, 2, 0, 0},
		{KindHistogram, 0, 0, 0}, // its parts belong together
	} {
		o := newOne(t, c.kind, c.class, nil)
		for range 5 {
			o.scrape(1)
		}
		o.s.Set(Step{0.1, 1})
		o.until(1, keyFrame)
		o.scrape(1)
		require.Empty(t, o.scrape(1))
		require.Len(t, o.scrape(2), c.first, "%s of class %d: before and after the rise", c.kind, c.class)
		require.Len(t, o.scrape(2), c.after, "%s of class %d: so that irate sees its end", c.kind, c.class)
		require.Empty(t, o.scrape(2), "%s of class %d", c.kind, c.class)
	}
}

// Were a critical counter to rest for as long as any, what rate makes of it at the ends of
// its range would differ too much.
func TestCriticalCountersRestShortly(t *testing.T) {
	for class, longest := range map[uint8]int{0: 2, 2: 5} {
		o := newOne(t, KindCounter, class, nil)
		for range 5 {
			o.scrape(1)
		}
		o.s.Set(Step{0.9, 0.001}) // all are frames
		o.until(1, keyFrame)
		o.scrape(1)
		rests := 0
		for len(o.scrape(1)) == 0 {
			rests++
		}
		require.Equal(t, longest, rests, "class %d", class)
	}
}

func TestShedFamilies(t *testing.T) {
	o := newOne(t, KindGauge, 1, func(o *Options) { o.Config.Floor = FloorShed })
	for range 5 {
		o.scrape(1)
	}
	o.s.Set(Step{0.1, 2})
	for range 200 {
		require.Empty(t, o.scrape(1))
	}
	require.EqualValues(t, 200, o.s.Stats().Classes[1].Withheld[ReasonFamily])
	o.s.Set(Step{0.1, 0.4})
	o.until(1, func(frame, _ bool) bool { return frame })
	require.Equal(t, []float64{1}, o.scrape(1), "a family that comes back is sent at its next frame")
	o.s.Set(Step{0.1, 2})
	require.Empty(t, o.scrape(1))
	require.Len(t, o.scrape(stale), 1, "a marker of what was sent goes through")
	require.Empty(t, o.scrape(1))
	require.Empty(t, o.scrape(stale), "of what was not sent there is no marker")
}

func TestNewSeriesWaitWhereFamiliesAreShed(t *testing.T) {
	for _, c := range []struct {
		class uint8
		waits bool
	}{{0, false}, {2, true}} {
		o := newOne(t, KindGauge, c.class, func(o *Options) { o.Config.Floor = FloorShed })
		for range 5 {
			o.scrape(1)
		}
		o.s.Set(Step{0.1, 1})
		o.scrape(stale)
		o.until(stale, func(_, key bool) bool { return !key })
		o.k++
		out := o.s.Sample(only, Float(o.at(), 1), nil)
		require.Equal(t, c.waits, len(out) == 0)
		o.until(2, keyFrame)
		require.Equal(t, []float64{2}, o.scrape(2))
	}
}

func TestUnknownHistorySpreadsItsSeries(t *testing.T) {
	o := newOne(t, KindGauge, 2, func(o *Options) { o.SpreadUntil = someTime + 1e6 })
	require.NoError(t, o.s.Know(only+1, Info{Target: 1, Family: 3, Kind: KindGauge, Class: 2}))
	o.s.Set(Step{0.1, 0.8})
	for range 5 {
		o.scrape(1)
	}
	o.until(1, noFrame)
	require.Empty(t, o.s.Sample(only+1, Float(o.at()+5000, 1), nil))
	o.until(1, keyFrame)
	require.Len(t, o.s.Sample(only+1, Float(o.at()+5000, 1), nil), 1)
}

func TestLateSamples(t *testing.T) {
	for _, outOfOrder := range []bool{false, true} {
		o := newOne(t, KindGauge, 2, func(o *Options) { o.OutOfOrder = outOfOrder })
		for v := range 10 {
			o.scrape(float64(v))
		}
		require.Len(t, o.s.Sample(only, Float(o.at()-4000, 1), nil), 1, "at rate 1")
		o.s.Set(Step{0.1, 0.3})
		sent := 0
		for at := o.at() - 1e6; at < o.at(); at += 5000 {
			sent += len(o.s.Sample(only, Float(at, 1), nil))
		}
		if outOfOrder {
			require.InDelta(t, 200*frameRate(0.3), sent, 8)
		} else {
			require.Zero(t, sent)
		}
	}
}

func TestHistogramsThatNobodyKeepsAreNotSentAgain(t *testing.T) {
	for _, class := range []uint8{0, 2} {
		o := newOne(t, KindNative, class, nil)
		require.Equal(t, class == 0, o.s.Keeps(only))
		feed := func(bits uint64, reset bool) []Sample {
			o.k++
			return o.s.Sample(only, Sample{Time: o.at(), Bits: bits, Histogram: true, Reset: reset}, nil)
		}
		for bits := range uint64(5) {
			require.Len(t, feed(bits, false), 1)
		}
		o.s.Set(Step{0.1, 1})
		for {
			if _, key := o.is(); key {
				break
			}
			feed(5, false)
		}
		feed(6, false)
		require.Empty(t, feed(7, false))
		out := feed(1, true)
		if class == 0 {
			require.Equal(t, []Sample{{Time: o.at() - 5000, Bits: 7, Histogram: true}, {Time: o.at(), Bits: 1, Histogram: true, Reset: true}}, out)
		} else {
			require.Len(t, out, 1)
		}
		feed(2, false)
		out = o.s.Sample(only, Float(o.at()+5000, 3), nil)
		require.Equal(t, Float(o.at()+5000, 3), out[len(out)-1], "another type is sent at once")
	}
}

func TestProtectedSeriesAreNotThinned(t *testing.T) {
	for _, method := range []Method{MethodFrames, MethodAligned, MethodRandom} {
		o := newOne(t, KindGauge, ClassProtected, func(o *Options) { o.Config.Method = method })
		o.s.Set(Step{0.01, 1})
		for range 100 {
			require.Equal(t, []float64{1}, o.scrape(1))
		}
	}
}

func TestWhatIsNotKnownIsSent(t *testing.T) {
	o := newOne(t, KindGauge, 2, nil)
	o.s.Set(Step{0.01, 1})
	for i := range int64(100) {
		require.Len(t, o.s.Sample(7, Float(someTime+i, 1), nil), 1)
		require.Len(t, o.s.Sample(1<<30, Float(someTime+i, 1), nil), 1)
	}
	stats := o.s.Stats()
	require.EqualValues(t, 200, stats.Unknown)
	require.EqualValues(t, 200, stats.Seen())
	require.EqualValues(t, 200, stats.Sent())
	require.Error(t, o.s.Know(8, Info{Class: 3}))
	require.Error(t, o.s.Know(8, Info{Kind: kinds}))
	require.False(t, o.s.Knows(8))
}

func TestTimesFarFromThePresentPass(t *testing.T) {
	o := newOne(t, KindGauge, 2, nil)
	for range 10 {
		o.scrape(1)
	}
	o.s.Set(Step{0.01, 1})
	o.until(1, keyFrame)
	o.scrape(1)
	for _, at := range []int64{math.MinInt64 / 2, -1, 0, someTime * 2, math.MaxInt64 / 2} {
		require.Len(t, o.s.Sample(only, Float(at, 1), nil), 1)
	}
	require.Empty(t, o.scrape(1), "the state is as before")
	o.s.Advance(math.MaxInt64 / 2)
	o.s.Advance(someTime)
	require.Equal(t, []float64{1}, o.scrape(1), "the state was lost")
}

func TestForget(t *testing.T) {
	o := newOne(t, KindGauge, 2, nil)
	require.NoError(t, o.s.Know(only+1, Info{Target: 1, Class: 1}))
	require.NoError(t, o.s.Know(only+2, Info{Target: 2, Class: 2}))
	stats := o.s.Stats()
	require.Equal(t, [3]int{3, 3, 2}, [3]int{stats.Series, stats.Units, stats.Targets})
	o.s.Forget([]uint32{only + 1, only + 1, 9, 1 << 31})
	require.NoError(t, o.s.Know(only+2, Info{Target: 1, Class: 2}))
	stats = o.s.Stats()
	require.Equal(t, [3]int{2, 1, 1}, [3]int{stats.Series, stats.Units, stats.Targets})
	require.NoError(t, o.s.Know(only+3, Info{Target: 5, Class: 2}))
	require.Len(t, o.s.units, 3, "places are used again")
	require.Len(t, o.s.targets, 2)
}

func TestTickCorrectsEveryTenSeconds(t *testing.T) {
	o := newOne(t, KindCounter, 2, nil)
	_, changed := o.s.Tick(someTime)
	require.False(t, changed)
	o.s.SetRate(0.5)
	for v := range 4 {
		o.scrape(float64(v))
	}
	_, changed = o.s.Tick(someTime + 9_999)
	require.False(t, changed)
	before := o.s.Step()
	step, changed := o.s.Tick(someTime + stepEvery.Milliseconds())
	require.True(t, changed)
	require.Greater(t, step.Pressure, before.Pressure, "everything was kept")
	require.Equal(t, time.Second*10, stepEvery)
}

func TestRandomSendsTheShare(t *testing.T) {
	o := newOne(t, KindCounter, 2, func(o *Options) { o.Config.Method = MethodRandom })
	o.s.SetRate(0.25)
	sent := 0
	for v := range 20_000 {
		sent += len(o.scrape(float64(v)))
	}
	require.InDelta(t, 5000, sent, 300)
}

func TestKnownSamplesAllocateNothing(t *testing.T) {
	for _, step := range []Step{{1, 0}, {0.25, 0.25}, {0.01, 1}} {
		f := newFleet(t, 2000, false, step)
		require.Zero(t, testing.AllocsPerRun(20_000, f.next))
	}
}
