package sampler

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/value"
)

// Sample is one sample of a series on its way through a Sampler.
type Sample struct {
	// Time is the timestamp in Unix ms.
	Time int64
	// Bits is the value: the bits of the float, or a 64-bit hash of a native histogram's
	// encoding. Equal bits mean equal values.
	Bits uint64
	// Histogram says that the sample is a native histogram.
	Histogram bool
	// Reset says that the counter started anew since the sample before, as the caller
	// knows it of native histograms: their count fell, or they say so themselves. Of
	// floats the Sampler sees it by itself.
	Reset bool
	// Stale says that this is a staleness marker. Floats need not say so.
	Stale bool
}

// Float returns the sample of a float.
func Float(time int64, v float64) Sample {
	return Sample{Time: time, Bits: math.Float64bits(v)}
}

// Value is the float of a sample that is no histogram.
func (s Sample) Value() float64 { return math.Float64frombits(s.Bits) }

func (s Sample) stale() bool {
	return s.Stale || !s.Histogram && s.Bits == value.StaleNaN
}

// Step is what the Sampler presses with from some place of the journal on. Feeding the
// same samples and steps again gives the same output.
type Step struct {
	// Rate is the requested share, 0 to 1; 1 sends everything.
	Rate float64
	// Pressure is the place on the ladder, 0 to 5; see Pressure.
	Pressure float64
}

// Options are what a Sampler is made of.
type Options struct {
	// Config is a valid configuration. Infos given to Know are of its classes.
	Config Config
	// Start is the time around which samples are expected, in Unix ms: samples more
	// than 18 days from it, or from the last Tick, may pass without being thinned. Zero
	// takes the time of the first sample.
	Start int64
	// OutOfOrder says that the backend takes samples that are older than the newest of
	// their series. Without it such samples are not sent while the rate is below 1.
	OutOfOrder bool
	// SpreadUntil is for a Sampler whose history is lost: series first seen in a sample
	// older than it (Unix ms) may be known to the backend, and under pressure wait for
	// the next key frame of their unit, instead of being sent all at once as new.
	SpreadUntil int64
}

// Sampler picks the samples that one backend gets. It is used by one goroutine at a time
// and fed in the order of the journal. It starts at rate 1.
type Sampler struct {
	o         Options
	method    Method
	keyPeriod int64 // ms
	idle      int64 // ms of silence after which series, units and targets are new
	pressure  Pressure
	full      bool // the rate is 1
	classes   []classState
	ranges    [needs]int64 // ms of each Need

	base     int64 // Unix ms
	anchored bool  // base is set
	ticked   int64 // Unix ms of the last step of the pressure; 0 before the first

	chunks      []*[chunkSize]entry
	keys        []uint64 // method random: the key of each id
	units       []unit
	targets     []target
	unitOf      map[unitKey]uint32
	targetOf    map[uint64]uint32
	freeUnits   []uint32
	freeTargets []uint32
	series      int

	seen, kept uint64 // not yet counted by the pressure
	unknown    uint64
}

// classState is a class with what the present step makes of it.
type classState struct {
	name       string
	weight     float64
	configured int64 // max_gap in ms
	keepChange float64
	tier       tier
	protected  bool

	rate   float64 // of frames, before weight and pace
	paces  [16]pacedRate
	maxGap int64  // ms, as the pressure widens it
	keyGap int64  // ms between key frames
	shed   uint64 // families with a smaller place are left out
	waits  bool   // new series wait for a frame

	counts ClassStats
}

// stepEvery is how often the pressure is corrected.
const stepEvery = 10 * time.Second

// New returns a Sampler that knows no series. It fails for a configuration that is not
// valid.
func New(o Options) (*Sampler, error) {
	if err := o.Config.Validate(); err != nil {
		return nil, fmt.Errorf("make a sampler: %w", err)
	}
	s := &Sampler{
		o:         o,
		method:    o.Config.Method,
		keyPeriod: time.Duration(o.Config.KeyFrameMin).Milliseconds(),
		idle:      2 * time.Duration(o.Config.Lookback).Milliseconds(),
		pressure:  NewPressure(o.Config.Floor == FloorShed),
		unitOf:    map[unitKey]uint32{},
		targetOf:  map[uint64]uint32{},
	}
	for i := range s.ranges {
		s.ranges[i] = Need(i).Range().Milliseconds()
	}
	if s.method == MethodFrames && o.Config.Affinity == AffinityNone {
		s.method = MethodAligned
	}
	for i := range o.Config.Classes {
		c := &o.Config.Classes[i]
		s.classes = append(s.classes, classState{
			name:       c.Name,
			weight:     c.Weight,
			configured: time.Duration(c.MaxGap).Milliseconds(),
			keepChange: c.KeepChange,
			tier:       c.tier(),
		})
	}
	s.classes = append(s.classes, classState{name: protectedName, tier: tierCritical, weight: 1, protected: true, configured: s.keyPeriod})
	if o.Start != 0 {
		s.anchor(o.Start)
	}
	s.apply()
	return s, nil
}

// Know tells what a series is, before its first sample and whenever that changes; what was
// sent of it stays known. Ids should be dense. The caller calls Forget before it gives an
// id to another series. Know fails for a class, kind or need
// that there is not.
func (s *Sampler) Know(id uint32, info Info) error {
	class := int(info.Class)
	if info.Class == ClassProtected {
		class = len(s.classes) - 1
	} else if class >= len(s.classes)-1 {
		return fmt.Errorf("sampler: series %d is of class %d, but there are %d", id, class, len(s.classes)-1)
	}
	if info.Kind >= kinds {
		return errors.New("sampler: unknown kind of series")
	}
	if info.Need >= needs {
		return errors.New("sampler: unknown need of a series")
	}
	for int(id/chunkSize) >= len(s.chunks) {
		s.chunks = append(s.chunks, new([chunkSize]entry))
		if s.method == MethodRandom {
			s.keys = append(s.keys, make([]uint64, chunkSize)...)
		}
	}
	e := &s.chunks[id/chunkSize][id%chunkSize]
	before := e.unit
	e.unit = s.join(unitKey{info.Target, uint8(class), info.Need}) + 1
	if before != 0 {
		s.leave(before - 1)
	} else {
		s.series++
	}
	if before != e.unit {
		e.run = 0 // its frames are of another ring
	}
	e.kind = info.Kind
	e.flags |= described
	e.place = uint32(mix(info.Target^mix(info.Family)) >> 32)
	if s.method == MethodRandom {
		s.keys[id] = info.Key
	}
	return nil
}

// Knows reports whether the series was told by Know and not forgotten since.
func (s *Sampler) Knows(id uint32) bool { return s.entry(id) != nil }

// Described reports whether the series was told by Know since the last Redescribe. It is
// false of series that are not known.
func (s *Sampler) Described(id uint32) bool {
	e := s.entry(id)
	return e != nil && e.flags&described != 0
}

// Redescribe asks for all series to be told anew, for what is made of their labels has
// changed: Described is false of each until Know. Until then they are what they were.
func (s *Sampler) Redescribe() {
	for _, c := range s.chunks {
		for i := range c {
			c[i].flags &^= described
		}
	}
}

// Idle reports whether the newest sample of a known series is from so long before t (Unix
// ms), that a sample from after t counts as that of a new series: twice the lookback. To
// forget an idle series changes nothing of what is sent afterwards, unless a sample comes
// that is older than t.
func (s *Sampler) Idle(id uint32, t int64) bool {
	e := s.entry(id)
	if e == nil {
		return false
	}
	return e.lastAt == 0 || t-(s.base+int64(e.lastAt)) >= s.idle
}

// Newer reports whether a sample of the time (Unix ms) would be the newest of a known series.
func (s *Sampler) Newer(id uint32, t int64) bool {
	e := s.entry(id)
	return e != nil && (e.lastAt == 0 || t > s.base+int64(e.lastAt))
}

// Keeps reports whether the caller has to keep the encodings of the native histograms
// that it saw last and sent last of the series, since Sample may ask for them: those of
// critical series. Of others no histogram is sent but the one at hand.
func (s *Sampler) Keeps(id uint32) bool {
	e := s.entry(id)
	return e != nil && s.classes[s.units[e.unit-1].class].tier == tierCritical
}

// Forget drops the state of series that are no more. Ids that are not known are passed
// over.
func (s *Sampler) Forget(ids []uint32) {
	for _, id := range ids {
		e := s.entry(id)
		if e == nil {
			continue
		}
		s.leave(e.unit - 1)
		*e = entry{}
		s.series--
	}
}

// Touch reads the state of the series, so that it is in the caches for the calls of Sample
// that follow. It pays off where there are some 100,000 series and more, for some dozens
// of ids at a time. It returns a meaningless number.
func (s *Sampler) Touch(ids []uint32) (sum uint32) {
	for _, id := range ids {
		// An entry may lie in two cache lines: read its first field and one of its last.
		if e := s.entry(id); e != nil {
			sum += uint32(e.sent) + e.place
		}
	}
	return sum
}

// Sample appends to out what is to be sent of the series now, oldest first: nothing, in
// itself, or in after samples of the same series that came before and were withheld then.
// Those carry Bits as they were seen; see Keeps for where a caller finds their histograms.
// A series that is not known is not thinned.
func (s *Sampler) Sample(id uint32, in Sample, out []Sample) []Sample {
	s.seen++
	e := s.entry(id)
	if e == nil {
		s.unknown++
		s.kept++
		return append(out, in)
	}
	u := &s.units[e.unit-1]
	c := &s.classes[u.class]
	c.counts.Seen++
	at, ok := s.offset(in.Time)
	switch {
	case !ok:
		return s.keep(out, c, in)
	case s.method == MethodFrames:
		var k known
		k.s, k.e, k.u, k.c, k.in, k.at = s, e, u, c, &in, at
		return k.frames(out)
	case s.method == MethodRandom:
		e.lastAt = max(e.lastAt, at)
		return s.random(s.keys[id], c, in, out)
	}
	return s.aligned(e, u, in, out)
}

// aligned decides without state of series: markers and frames are sent.
func (s *Sampler) aligned(e *entry, u *unit, in Sample, out []Sample) []Sample {
	c := &s.classes[u.class]
	at, _ := s.offset(in.Time)
	d := s.decide(u, at)
	e.lastAt = max(e.lastAt, at)
	switch {
	case s.full, c.protected, in.stale():
	case uint64(e.place) < c.shed:
		s.withheld(c, ReasonFamily)
		return out
	case !d.is(frameMark):
		s.withheld(c, ReasonFrame)
		return out
	}
	return s.keep(out, c, in)
}

// random decides by a hash of series and time.
func (s *Sampler) random(key uint64, c *classState, in Sample, out []Sample) []Sample {
	hash := mix(mix(key^randomSalt) + uint64(in.Time))
	if !c.protected && float64(hash>>11)/(1<<53) >= s.pressure.rate {
		s.withheld(c, ReasonFrame)
		return out
	}
	return s.keep(out, c, in)
}

func (s *Sampler) keep(out []Sample, c *classState, in Sample) []Sample {
	s.kept++
	c.counts.Kept++
	return append(out, in)
}

// mend appends a sample that was withheld before.
func (s *Sampler) mend(out []Sample, c *classState, in Sample) []Sample {
	s.mended(c)
	return append(out, in)
}

func (s *Sampler) mended(c *classState) {
	s.kept++
	c.counts.Replayed++
}

func (s *Sampler) withheld(c *classState, reason Reason) { c.counts.Withheld[reason]++ }

// Set puts rate and pressure where a recorded step says, from the next sample on.
func (s *Sampler) Set(step Step) {
	s.pressure.Set(step)
	s.apply()
}

// SetRate asks for another share, from the next sample on; the pressure follows. It
// returns the step to record.
func (s *Sampler) SetRate(rate float64) Step {
	s.count()
	s.pressure.SetRate(rate)
	s.apply()
	return s.Step()
}

// count hands to the pressure what was done under the present rate.
func (s *Sampler) count() {
	s.pressure.Add(s.seen, s.kept)
	s.seen, s.kept = 0, 0
}

// Step is what is pressed with now.
func (s *Sampler) Step() Step { return Step{s.pressure.rate, s.pressure.x} }

// Tick tells the time, in Unix ms. Every ten seconds it corrects the pressure by the share
// that was kept; changed says that there is another step to record, in force from the next
// sample on. A Sampler that follows recorded steps is told the time by Advance instead.
func (s *Sampler) Tick(now int64) (step Step, changed bool) {
	s.Advance(now)
	if s.ticked != 0 && now-s.ticked < stepEvery.Milliseconds() && now >= s.ticked {
		return s.Step(), false
	}
	first := s.ticked == 0
	s.ticked = now
	if first {
		return s.Step(), false
	}
	before := s.Step()
	s.count()
	s.pressure.Correct()
	s.apply()
	return s.Step(), s.Step() != before
}

// Advance tells the time, in Unix ms, and changes no step.
func (s *Sampler) Advance(now int64) { s.anchor(now) }

// apply works out what the step means for each class.
func (s *Sampler) apply() {
	rate, x := s.pressure.rate, s.pressure.x
	s.full = rate >= 1
	limit := (time.Duration(s.o.Config.Lookback) - lookbackMargin).Milliseconds()
	for i := range s.classes {
		c := &s.classes[i]
		c.rate = frameRate(x)
		c.maxGap = widened(c.tier, x, c.configured, limit)
		c.keyGap = keyGap(s.keyPeriod, frameRate(x), c.maxGap)
		c.shed = uint64(math.Ceil(shedShare(c.tier, x) * (1 << 32)))
		c.waits = x >= holdTop && s.pressure.top > holdTop && c.tier != tierCritical
	}
}
