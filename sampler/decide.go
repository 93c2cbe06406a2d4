package sampler

import "math"

// Reason says why a sample was withheld.
type Reason uint8

// Reasons.
const (
	// ReasonFrame: the scrape is no frame.
	ReasonFrame Reason = iota
	// ReasonElided: the value is still the one that was sent last.
	ReasonElided
	// ReasonFamily: the whole family is left out.
	ReasonFamily
	// ReasonLate: the series has been sent with a newer sample or, where the same
	// time was seen before, it was withheld then.
	ReasonLate

	reasons
)

func (r Reason) String() string {
	return [reasons]string{"frame", "elided", "family", "late"}[r]
}

// replayChange is the relative change at which a run of elided frames of a gauge is
// replayed when it ends; below it averages over time are right enough without.
const replayChange = 0.1

// restingPart is the part of max_gap for which a critical counter rests at most. What rate
// adds at the ends of its range depends on how far apart samples are, and an alert that
// compares a sum of many slow counters with a limit sees it.
const restingPart = 3

// known is one decision on a sample of a known series in the making. It is filled field by
// field, and points at the sample: a struct that is copied right after its fields were
// written waits for the stores, which was nearly half of a decision (BenchmarkSample).
type known struct {
	s  *Sampler
	e  *entry
	u  *unit
	c  *classState
	in *Sample
	at uint32
}

// frames decides by section 4 of the design: events first, then frames.
func (k *known) frames(out []Sample) []Sample {
	e, c := k.e, k.c
	if e.lastAt != 0 && k.at > e.lastAt && int64(k.at-e.lastAt) > k.s.idle {
		e.renew()
	}
	if e.lastAt != 0 && k.at <= e.lastAt {
		return k.old(out)
	}
	d := k.s.decide(k.u, k.at)
	shed := uint64(e.place) < c.shed
	switch {
	case k.in.stale():
		return k.end(out, shed)
	case e.flags&live == 0:
		return k.begin(out, d, shed)
	case (e.flags&hist != 0) != k.in.Histogram:
		return k.send(k.catchUp(out)) // state is of one type
	case shed:
		return k.shed(out)
	case (k.s.full || c.protected) && e.lastAt == e.sentAt:
		return k.send(out)
	case k.rises():
		out = k.send(k.held(out))
		e.flags |= stirred
		return out
	case e.flags&stirred != 0:
		return k.send(out)
	case k.event():
		if e.kind == KindGauge {
			out = k.replay(out)
		}
		return k.send(k.held(out))
	}
	key := d.is(keyMark) || k.s.full || c.protected || k.overdue()
	switch {
	case !key && !d.is(frameMark):
		return k.withhold(out, ReasonFrame)
	case !key && k.elide(d):
		return k.withhold(out, ReasonElided)
	case e.sent != k.in.Bits:
		out = k.replay(out)
	}
	return k.send(out)
}

// old answers for a sample that is not newer than the last of its series. It changes no
// state: requests may come twice.
func (k *known) old(out []Sample) []Sample {
	take := k.s.full || k.c.protected
	switch {
	case take:
	case k.at == k.e.lastAt:
		take = k.at == k.e.sentAt
	case k.s.o.OutOfOrder:
		take = k.s.wanted(k.u, k.in.Time)
	}
	if !take {
		k.s.withheld(k.c, ReasonLate)
		return out
	}
	return k.s.keep(out, k.c, *k.in)
}

// end sends a staleness marker, and before it the sample that it ends.
func (k *known) end(out []Sample, shed bool) []Sample {
	e := k.e
	if e.flags&waiting != 0 {
		out = k.withhold(out, ReasonFrame)
		e.flags &= described
		return out
	}
	if e.flags&live != 0 && !shed {
		out = k.catchUp(out)
	}
	out = k.s.keep(out, k.c, *k.in)
	// The times stay: what comes again from before the marker is old.
	e.renew()
	e.sentAt, e.lastAt = k.at, k.at
	return out
}

// begin decides on a series that the backend does not have. As a rule it is sent at once.
func (k *known) begin(out []Sample, d decision, shed bool) []Sample {
	wait, reason := shed, ReasonFamily
	if !wait {
		spread := k.s.pressure.x > 0 && k.in.Time < k.s.o.SpreadUntil && !d.is(keyMark)
		wait, reason = spread || k.c.waits && !d.is(frameMark), ReasonFrame
	}
	if !wait {
		k.e.sentAt = 0 // nothing of this life
		return k.send(out)
	}
	k.e.flags |= waiting
	return k.withhold(out, reason)
}

// shed leaves the sample out with its family.
func (k *known) shed(out []Sample) []Sample {
	k.e.run = 0
	k.e.flags = k.e.flags&^(flat|stirred) | absent
	return k.withhold(out, ReasonFamily)
}

// event reports whether the sample is to be sent with the one before it, whatever the
// frames say.
func (k *known) event() bool {
	e, in := k.e, k.in
	switch {
	case in.Histogram:
		return in.Reset
	case e.kind.Integral():
		return in.Reset || in.Value() < math.Float64frombits(e.last)
	case e.kind == KindState:
		return in.Bits != e.last
	case e.kind == KindGauge:
		return k.stirs() || k.c.keepChange > 0 && changed(e.sent, in.Bits, k.c.keepChange)
	}
	return false
}

// rises reports whether a critical counter that rested counts again. It is sent then, and
// at the scrape after it: with the rise alone irate would take its slope for the present
// one. Parts of histograms wait for a frame with the others.
func (k *known) rises() bool {
	return k.e.kind == KindCounter && k.c.tier == tierCritical && !k.in.Histogram && k.stirs() && k.in.Value() > math.Float64frombits(k.e.last)
}

// stirs reports whether a gauge that rested changes. Such gauges are start times, versions
// and configured limits: they say something just when they change. One that changes often
// does not get to rest, and so costs few samples more.
func (k *known) stirs() bool {
	e := k.e
	return e.flags&flat != 0 && e.last == e.sent && e.last != k.in.Bits
}

// overdue reports whether the series has been without a sample for as long as its class
// allows: it may have missed the key frames of its unit. One that was shed waits for a
// frame, or all that come back would come at once.
func (k *known) overdue() bool {
	return k.e.flags&absent == 0 && int64(k.at-k.e.sentAt) >= k.s.answering(k.u, k.c.maxGap)+k.s.targets[k.u.target].cadence.Ms()/2
}

// elide leaves out a frame that says nothing new, if it can be told later that it did.
func (k *known) elide(d decision) bool {
	e := k.e
	if !d.is(ringMark) || e.sent != k.in.Bits || e.flags&absent != 0 {
		return false
	}
	integral := e.kind.Integral() || k.in.Histogram
	switch {
	case e.kind == KindState, integral && e.flags&flat == 0:
		return false
	case integral && k.c.tier == tierCritical && int64(k.at-e.sentAt) > k.c.maxGap/restingPart:
		return false
	}
	if e.run == 0 {
		e.run, e.frame = 1, d.number
		return true
	}
	ahead := int16(d.number - e.frame)
	switch {
	case ahead > 0 && ahead < longestRun && e.run>>(longestRun-ahead) == 0:
		e.run = e.run<<ahead | 1
		e.frame = d.number
	case ahead < 0 && ahead > -longestRun:
		e.run |= 1 << -ahead // its request came after that of a later scrape
	default:
		return false
	}
	return true
}

// catchUp sends what a series that ends is in debt with.
func (k *known) catchUp(out []Sample) []Sample {
	if k.e.last != k.e.sent && (k.e.kind.Integral() || k.e.flags&hist != 0) {
		out = k.replay(out)
	}
	return k.held(out)
}

// held sends the sample seen last, if it was withheld.
func (k *known) held(out []Sample) []Sample {
	e := k.e
	if e.lastAt == e.sentAt || !k.keeps() {
		return out
	}
	out = k.s.mend(out, k.c, k.sample(e.lastAt, e.last))
	k.sent(e.last, e.lastAt)
	return out
}

// replay sends of the elided frames of a run that ends those that queries need.
func (k *known) replay(out []Sample) []Sample {
	e := k.e
	if e.run == 0 || !k.keeps() {
		return out
	}
	integral := e.kind.Integral() || e.flags&hist != 0
	if !integral && !changed(e.sent, k.in.Bits, replayChange) {
		return out
	}
	first := len(out)
	for i, run := 0, e.run; run != 0; i, run = i+1, run>>1 {
		at := k.u.ring[(e.frame-uint16(i))%ringSize]
		// A number may have come round again since: then the time tells.
		if run&1 == 0 || at <= e.sentAt || at > e.lastAt {
			continue
		}
		out = insert(out, first, k.sample(at, e.sent))
		if integral {
			break
		}
	}
	for range out[first:] {
		k.s.mended(k.c)
	}
	if n := len(out); n > first {
		at, _ := k.s.offset(out[n-1].Time)
		k.sent(e.sent, at)
	}
	return out
}

// insert puts a sample into the part of out from first on, which is in order of time.
func insert(out []Sample, first int, in Sample) []Sample {
	out = append(out, in)
	for i := len(out) - 1; i > first && out[i-1].Time > in.Time; i-- {
		out[i], out[i-1] = out[i-1], out[i]
	}
	return out
}

// keeps reports whether the caller has the content of samples that are older than the one
// at hand; see Sampler.Keeps.
func (k *known) keeps() bool { return k.e.flags&hist == 0 || k.c.tier == tierCritical }

// sample is an older one of the series.
func (k *known) sample(at uint32, bits uint64) Sample {
	return Sample{Time: k.s.base + int64(at), Bits: bits, Histogram: k.e.flags&hist != 0}
}

// send sends the sample at hand.
func (k *known) send(out []Sample) []Sample {
	k.sent(k.in.Bits, k.at)
	k.e.last, k.e.lastAt = k.in.Bits, k.at
	k.e.flags = k.e.flags&(flat|described) | live
	if k.in.Histogram {
		k.e.flags |= hist
	}
	return k.s.keep(out, k.c, *k.in)
}

// sent notes that a sample of the series was sent.
func (k *known) sent(bits uint64, at uint32) {
	e := k.e
	e.flags &^= flat
	// What was sent before the series was away is no second sample to show a slope with.
	if e.sentAt != 0 && e.sent == bits && e.flags&absent == 0 {
		e.flags |= flat
	}
	e.sent, e.sentAt, e.run = bits, at, 0
}

// withhold notes that the sample at hand was seen.
func (k *known) withhold(out []Sample, reason Reason) []Sample {
	k.e.last, k.e.lastAt = k.in.Bits, k.at
	k.s.withheld(k.c, reason)
	return out
}

// changed reports whether two floats differ by more than the share of the larger.
func changed(a, b uint64, share float64) bool {
	if a == b {
		return false
	}
	x, y := math.Float64frombits(a), math.Float64frombits(b)
	distance := math.Abs(x - y)
	if math.IsNaN(distance) { // of a number and none, or of two infinities
		return true
	}
	return distance > share*max(math.Abs(x), math.Abs(y))
}

// decide says whether the scrape at a time is a frame of the unit. All members of a scrape
// get the same answer, as long as the unit remembers it.
func (s *Sampler) decide(u *unit, at uint32) decision {
	if d := u.decisions[0]; d.at == at {
		return d
	}
	oldest, newest := 0, uint32(0)
	for i := range u.decisions {
		if u.decisions[i].at == at {
			return u.decisions[i]
		}
		if u.decisions[i].at < u.decisions[oldest].at {
			oldest = i
		}
		newest = max(newest, u.decisions[i].at)
	}
	if newest != 0 && at > newest && int64(at-newest) > s.idle {
		u.renew()
	}
	if at < u.decisions[oldest].at {
		return decision{at: at, marks: s.pure(u, at)}
	}
	d := s.judge(u, at)
	u.decisions[oldest] = u.decisions[0]
	u.decisions[0] = d
	return d
}

// judge decides anew and notes the frame.
func (s *Sampler) judge(u *unit, at uint32) decision {
	s.targets[u.target].observe(at, s.idle)
	d := decision{at: at, marks: s.pure(u, at)}
	if s.method == MethodFrames && u.lastKey != 0 && at > u.lastKey {
		// Scrapes may be lost, and with them the key frame.
		limit := s.answering(u, s.classes[u.class].keyGap) + s.targets[u.target].cadence.Ms()/2
		if int64(at-u.lastKey) >= limit {
			d.marks |= frameMark | keyMark
		}
	}
	if d.is(keyMark) || u.lastKey == 0 {
		u.lastKey = max(u.lastKey, at)
	}
	if d.is(frameMark) {
		u.newest++
		u.ring[u.newest%ringSize] = at
		d.number = u.newest
		d.marks |= ringMark
	}
	return d
}

// pure asks the Film. While the cadence is not known yet everything is a key frame.
func (s *Sampler) pure(u *unit, at uint32) (m marks) {
	t, c := &s.targets[u.target], &s.classes[u.class]
	cadence := t.cadence.Ms()
	if cadence == 0 {
		return frameMark | keyMark
	}
	film := Film{Target: t.key, Cadence: cadence, KeyPeriod: s.answering(u, s.keyPeriod)}
	isFrame, isKey := film.Frame(s.base+int64(at), c.weight*c.paced(cadence), s.answering(u, c.keyGap))
	if isFrame {
		m |= frameMark
	}
	if isKey {
		m |= keyMark
	}
	return m
}

// answering is the gap, in ms, or as much of it as the need of the unit leaves. A pressure
// that widens gaps does not widen this.
func (s *Sampler) answering(u *unit, gap int64) int64 {
	if u.need == 0 {
		return gap
	}
	return min(gap, answeringGap(s.ranges[u.need], s.targets[u.target].cadence.Ms()))
}

// wanted reports whether a scrape in Unix ms is a frame of the unit, were it in time.
func (s *Sampler) wanted(u *unit, t int64) bool {
	target, c := &s.targets[u.target], &s.classes[u.class]
	cadence := target.cadence.Ms()
	if cadence == 0 {
		return true
	}
	film := Film{Target: target.key, Cadence: cadence, KeyPeriod: s.answering(u, s.keyPeriod)}
	return film.Priority(t) < c.weight*c.paced(cadence)
}
