package sampler

import "iter"

// Complement feeds a Sampler and finds what it does not send: together with what it sends
// that is everything that came in. It is used by one goroutine at a time, which may use the
// Sampler besides it for all but Sample. It holds 24 bytes for each sample of which is not
// known yet whether it will be sent, and 4 for each id.
type Complement struct {
	s     *Sampler
	heads []uint32 // by id: place of the oldest pending sample in nodes; 0 is none
	nodes []node   // the first is not used
	free  uint32   // place of the first free node
	last  []uint32 // of the pending times at hand
}

// node is one pending sample of a series.
type node struct {
	bits uint64
	time int64
	next uint32 // place of the next newer one
	hist bool
}

// NewComplement returns a Complement of s, which has been fed no sample that could still
// be sent later.
func NewComplement(s *Sampler) *Complement {
	return &Complement{s: s, nodes: make([]node, 1)}
}

// Sample feeds the Sampler. It appends to sent what is to be sent now, as Sampler.Sample
// does, and to missed those samples of the series, of now or earlier, of which is certain
// now that they are never sent. Each sample ends up in one of: sent, missed, and what Rest
// gives. One that comes twice may end up so twice, but not while the first is pending.
func (c *Complement) Sample(id uint32, in Sample, sent, missed []Sample) (s, m []Sample) {
	before := len(sent)
	sent = c.s.Sample(id, in, sent)
	out := sent[before:]
	withheld := true
	for i := range out {
		withheld = withheld && out[i].Time != in.Time
	}
	head := c.head(id)
	if head == nil || *head == 0 {
		switch {
		case !withheld:
		case c.s.mayMend(id, in.Time):
			c.push(id, in)
		default:
			missed = append(missed, in)
		}
		return sent, missed
	}
	times := c.s.appendMendable(id, c.last[:0])
	c.last = times
	link := head
	for *link != 0 {
		n := &c.nodes[*link]
		if n.time == in.Time {
			withheld = false
		}
		switch {
		case contains(out, n.time):
		case !c.s.isAmong(times, n.time):
			missed = append(missed, n.sample())
		default:
			link = &n.next
			continue
		}
		c.release(link)
	}
	switch {
	case !withheld:
	case c.s.isAmong(times, in.Time):
		c.push(id, in)
	default:
		missed = append(missed, in)
	}
	return sent, missed
}

// Rest appends what is pending of the series, and takes it out: it counts as missed. The
// caller feeds no more of the series, or calls Forget of the Sampler before it does.
func (c *Complement) Rest(id uint32, missed []Sample) []Sample {
	head := c.head(id)
	for head != nil && *head != 0 {
		missed = append(missed, c.nodes[*head].sample())
		c.release(head)
	}
	return missed
}

// All yields the ids of the series with something pending, in their order. Rest may be
// called of the id at hand.
func (c *Complement) All() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for id, head := range c.heads {
			if head != 0 && !yield(uint32(id)) {
				return
			}
		}
	}
}

func (n *node) sample() Sample { return Sample{Time: n.time, Bits: n.bits, Histogram: n.hist} }

// head is where the list of the series begins; nil where it has never had one.
func (c *Complement) head(id uint32) *uint32 {
	if int(id) >= len(c.heads) {
		return nil
	}
	return &c.heads[id]
}

// push makes a sample the newest that is pending of its series.
func (c *Complement) push(id uint32, in Sample) {
	for int(id) >= len(c.heads) {
		c.heads = append(c.heads, 0)
	}
	at := c.free
	if at != 0 {
		c.free = c.nodes[at].next
	} else {
		at = uint32(len(c.nodes))
		c.nodes = append(c.nodes, node{})
	}
	c.nodes[at] = node{bits: in.Bits, time: in.Time, hist: in.Histogram}
	link := &c.heads[id]
	for *link != 0 {
		link = &c.nodes[*link].next
	}
	*link = at
}

// release takes out the node that link leads to.
func (c *Complement) release(link *uint32) {
	at := *link
	*link = c.nodes[at].next
	c.nodes[at].next = c.free
	c.free = at
}

func contains(list []Sample, time int64) bool {
	for i := range list {
		if list[i].Time == time {
			return true
		}
	}
	return false
}

// appendMendable appends the times of the samples that were withheld of the series and may
// still be sent, after the base: the last seen, and the elided frames of the present run.
func (s *Sampler) appendMendable(id uint32, times []uint32) []uint32 {
	e := s.entry(id)
	if e == nil || s.method != MethodFrames || e.flags&live == 0 || e.lastAt == e.sentAt {
		return times
	}
	u := &s.units[e.unit-1]
	if e.flags&hist != 0 && s.classes[u.class].tier != tierCritical {
		return times
	}
	times = append(times, e.lastAt)
	for i, run := 0, e.run; run != 0; i, run = i+1, run>>1 {
		at := u.ring[(e.frame-uint16(i))%ringSize]
		if run&1 != 0 && at > e.sentAt && at < e.lastAt {
			times = append(times, at)
		}
	}
	return times
}

// mayMend reports whether the sample of a time is one that appendMendable gives. It may be
// asked only of the sample that was fed last.
func (s *Sampler) mayMend(id uint32, time int64) bool {
	e := s.entry(id)
	if e == nil || s.method != MethodFrames || e.flags&live == 0 || e.lastAt == e.sentAt || s.base+int64(e.lastAt) != time {
		return false
	}
	return e.flags&hist == 0 || s.classes[s.units[e.unit-1].class].tier == tierCritical
}

// isAmong reports whether a time, in Unix ms, is among those after the base.
func (s *Sampler) isAmong(times []uint32, time int64) bool {
	for _, at := range times {
		if s.base+int64(at) == time {
			return true
		}
	}
	return false
}
