package sampler

const (
	chunkSize = 1 << 13 // ids; state grows a chunk at a time, so that growing copies nothing

	ringSize = 32 // frames that a unit remembers
	// longestRun is how many frames a run of elided ones may span. It is shorter than
	// the ring, so that the run's times are still there when it ends.
	longestRun = 28
	decisions  = 6 // timestamps whose decisions a unit remembers
)

// entry is what is known of one series. All zero is a series that is not known. Times are
// ms after the sampler's base; 0 is none.
type entry struct {
	sent   uint64 // bits of the sample sent last
	last   uint64 // bits of the sample seen last
	sentAt uint32
	lastAt uint32
	// run has a bit for each frame that was elided since the sample sent last: bit i
	// for the frame with the number frame-i.
	run   uint32
	unit  uint32 // index + 1
	place uint32 // of the family in its target; families of low place are shed first
	frame uint16
	kind  Kind
	flags flags
}

type flags uint8

const (
	// live: the backend has the series, and its last sample was no staleness marker.
	live flags = 1 << iota
	// flat: the last two samples sent have equal values.
	flat
	// hist: the sample sent last is a native histogram.
	hist
	// waiting: the series was seen, but nothing of it sent yet.
	waiting
	// absent: the series was shed, and is sent at its next frame in any case.
	absent
	// described: what the series is was told since the last Redescribe. It says nothing
	// of samples, and outlives all of the above.
	described
	// stirred: the sample sent last is the first rise after a rest.
	stirred
)

// rebase moves the times along with the base.
func (e *entry) rebase(by int64) {
	e.sentAt, e.lastAt = rebased(e.sentAt, by), rebased(e.lastAt, by)
	if e.lastAt == 0 {
		e.renew()
	}
}

// renew makes a known series one of which nothing was seen yet.
func (e *entry) renew() {
	*e = entry{unit: e.unit, place: e.place, kind: e.kind, flags: e.flags & described}
}

type unitKey struct {
	target uint64
	class  uint8
	need   Need
}

// unit is the series of one class and need in one target: what has a rate of frames. All
// but the ring, which few samples need, is in one cache line.
type unit struct {
	target    uint32
	lastKey   uint32 // time of the newest key frame
	series    uint32
	newest    uint16 // number of the newest frame
	class     uint8
	need      Need
	decisions [decisions]decision // the first is the one made last
	ring      [ringSize]uint32    // time of each frame, by its number
}

// decision is what a unit decided for the scrape at a time.
type decision struct {
	at     uint32
	number uint16 // of the frame, where ringMark is set
	marks  marks
}

type marks uint8

const (
	frameMark marks = 1 << iota
	keyMark
	// ringMark: the frame's time is in the ring.
	ringMark
)

func (d decision) is(m marks) bool { return d.marks&m != 0 }

// renew makes the unit one that has seen no scrape. Its series have seen none for as long
// as it has, so that none has a run in its ring.
func (u *unit) renew() {
	*u = unit{target: u.target, class: u.class, need: u.need, series: u.series}
}

func (u *unit) rebase(by int64) {
	for i := range u.decisions {
		u.decisions[i].at = rebased(u.decisions[i].at, by)
	}
	for i := range u.ring {
		u.ring[i] = rebased(u.ring[i], by)
	}
	u.lastKey = rebased(u.lastKey, by)
}

// target is what is scraped at one time.
type target struct {
	key     uint64
	lastAt  uint32
	units   uint32
	cadence Cadence
}

// observe notes a scrape, unless it is older than one before. A target that was silent
// for longer than idle is a new one.
func (t *target) observe(at uint32, idle int64) {
	if at <= t.lastAt {
		return
	}
	switch {
	case t.lastAt == 0:
	case int64(at-t.lastAt) > idle:
		t.cadence = Cadence{}
	default:
		t.cadence.Add(at - t.lastAt)
	}
	t.lastAt = at
}

// rebased is a time after the base moved; what falls out of range is forgotten.
func rebased(at uint32, by int64) uint32 {
	moved := int64(at) - by
	if at == 0 || moved <= 0 || moved > maxOffset {
		return 0
	}
	return uint32(moved)
}

const (
	maxOffset = 1<<32 - 1
	// middle is where the present is kept, in ms after the base.
	middle = 1 << 31
	// drift is how far from the middle the present may go before the base moves.
	drift = 1 << 29
)

// offset is t as ms after the base; ok is false when it is too far from the present.
func (s *Sampler) offset(t int64) (at uint32, ok bool) {
	if !s.anchored {
		s.anchor(t)
	}
	d := t - s.base
	return uint32(d), d > 0 && d <= maxOffset
}

// anchor puts the present into the middle of the times that can be told.
func (s *Sampler) anchor(now int64) {
	by := now - middle - s.base
	if s.anchored && by < drift && by > -drift {
		return
	}
	s.base += by
	if !s.anchored {
		s.anchored = true
		return
	}
	for _, c := range s.chunks {
		for i := range c {
			c[i].rebase(by)
		}
	}
	for i := range s.units {
		s.units[i].rebase(by)
	}
	for i := range s.targets {
		s.targets[i].lastAt = rebased(s.targets[i].lastAt, by)
	}
}

// entry is the state of a known series, else nil.
func (s *Sampler) entry(id uint32) *entry {
	chunk := int(id / chunkSize)
	if chunk >= len(s.chunks) {
		return nil
	}
	e := &s.chunks[chunk][id%chunkSize]
	if e.unit == 0 {
		return nil
	}
	return e
}

// join returns the index of the unit, which has one more series now.
func (s *Sampler) join(key unitKey) uint32 {
	i, ok := s.unitOf[key]
	if !ok {
		u := unit{target: s.joinTarget(key.target), class: key.class, need: key.need}
		if n := len(s.freeUnits); n > 0 {
			i = s.freeUnits[n-1]
			s.freeUnits = s.freeUnits[:n-1]
			s.units[i] = u
		} else {
			i = uint32(len(s.units))
			s.units = append(s.units, u)
		}
		s.unitOf[key] = i
	}
	s.units[i].series++
	return i
}

func (s *Sampler) joinTarget(key uint64) uint32 {
	i, ok := s.targetOf[key]
	if !ok {
		if n := len(s.freeTargets); n > 0 {
			i = s.freeTargets[n-1]
			s.freeTargets = s.freeTargets[:n-1]
			s.targets[i] = target{key: key}
		} else {
			i = uint32(len(s.targets))
			s.targets = append(s.targets, target{key: key})
		}
		s.targetOf[key] = i
	}
	s.targets[i].units++
	return i
}

// leave takes a series from the unit. A unit and a target without any are forgotten.
func (s *Sampler) leave(i uint32) {
	u := &s.units[i]
	if u.series--; u.series > 0 {
		return
	}
	t := &s.targets[u.target]
	delete(s.unitOf, unitKey{t.key, u.class, u.need})
	s.freeUnits = append(s.freeUnits, i)
	if t.units--; t.units == 0 {
		delete(s.targetOf, t.key)
		s.freeTargets = append(s.freeTargets, u.target)
	}
}
