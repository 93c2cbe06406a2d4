package disk

import (
	"errors"
	"time"

	"github.com/sluice-metrics/sluice/journal"
)

// tallyOf is what the cursor's backend takes of a segment. Journal.mu is held.
func (c *cursor) tallyOf(s *segment) tally {
	t := s.tally(c.stored.name)
	if counts, ok := c.recounted[s.id]; ok {
		t.counts = counts
	}
	return t
}

// Lag implements journal.Cursor.
func (c *cursor) Lag() journal.Lag {
	j := c.journal
	j.mu.Lock()
	t := c.taken
	for _, s := range j.segments {
		if s.id < c.read.Segment {
			continue
		}
		st := c.tallyOf(s)
		if s.id == c.read.Segment {
			st.sub(c.passed)
		}
		t.add(st)
	}
	if t.records == 0 {
		j.mu.Unlock()
		return lagOf(t, 0)
	}
	for i := range c.unsettled.len() {
		if received := c.unsettled.at(i).received; received != 0 {
			j.mu.Unlock()
			return lagOf(t, received)
		}
	}
	s, off := j.locate(c.read)
	if s == nil {
		// Only damage of which nothing but its size is known.
		var received int64
		if s := j.segment(c.read.Segment); s != nil {
			received = s.oldest
		}
		j.mu.Unlock()
		return lagOf(t, received)
	}
	at := journal.Position{Segment: s.id, Offset: off}
	if e := j.tail.find(at); e != nil {
		c.firstAt, c.first = at, e.batch.Received
	}
	received, known := c.first, c.firstAt == at
	limit := s.end
	j.mu.Unlock()
	if known {
		return lagOf(t, received)
	}
	received, err := j.receivedAt(s, span{from: off, to: limit, limit: limit})
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		return lagOf(t, s.oldest)
	}
	c.firstAt, c.first = at, received
	return lagOf(t, received)
}

// errFound ends a scan.
var errFound = errors.New("found")

// receivedAt is when the first record of a span was received, Unix ms.
func (j *Journal) receivedAt(s *segment, part span) (received int64, err error) {
	err = errNoRecord
	_, serr := j.find(s, part, func(h *header) bool {
		received, err = h.received, nil
		return true
	})
	return received, errors.Join(serr, err)
}

var errNoRecord = errors.New("no record")

// find returns where the first record of a span starts that matches, or limit.
func (j *Journal) find(s *segment, part span, match func(*header) bool) (off int64, err error) {
	r, err := openReader(j.fs, s)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	off, err = r.scan(part.from, part.to, part.limit, func() error {
		if match(&r.head) {
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return off, err
}

// Floor implements journal.Cursor.
func (c *cursor) Floor() journal.Position {
	j := c.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.floor == (journal.Position{}) || !j.canonical(c.stored.state.Position).Before(j.canonical(j.floor)) {
		return journal.Position{}
	}
	return j.floor
}

// FloorRaised implements journal.Cursor.
func (c *cursor) FloorRaised() <-chan struct{} { return c.floored }

// outline is a copy of what PositionAt needs of a segment.
type outline struct {
	segment       *segment
	first, end    int64
	bytes, newest int64
}

// PositionAt implements journal.Cursor. Where a segment cannot be read, the result is
// its start, which is older than asked for.
func (c *cursor) PositionAt(maxBytes int64, oldest time.Time) journal.Position {
	return c.journal.positionAt(maxBytes, oldest)
}

// PositionAt implements journal.Journal. Where a segment cannot be read, the result is
// its start, which is older than asked for.
func (j *Journal) PositionAt(oldest time.Time) journal.Position {
	return j.positionAt(0, oldest)
}

func (j *Journal) positionAt(maxBytes int64, oldest time.Time) journal.Position {
	j.mu.Lock()
	list := make([]outline, 0, len(j.segments))
	for _, s := range j.segments {
		list = append(list, outline{s, s.first, s.end, s.bytes, s.newest})
	}
	tail := j.tailLocked()
	j.mu.Unlock()
	p := j.withinAge(list, oldest, tail)
	if q := j.withinBytes(list, maxBytes, tail); p.Before(q) {
		p = q
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if s, off := j.locate(p); s != nil {
		return journal.Position{Segment: s.id, Offset: off}
	}
	return tail
}

// withinAge is the start of the oldest record received at or after oldest.
func (j *Journal) withinAge(list []outline, oldest time.Time, tail journal.Position) journal.Position {
	for _, o := range list {
		if o.first == o.end || !oldest.IsZero() && time.UnixMilli(o.newest).Before(oldest) {
			continue
		}
		if oldest.IsZero() {
			return journal.Position{Segment: o.segment.id, Offset: o.first}
		}
		return j.firstIn(o, func(h *header) bool { return !time.UnixMilli(h.received).Before(oldest) })
	}
	return tail
}

// withinBytes is the start of the oldest record that with all behind it is not more
// than maxBytes.
func (j *Journal) withinBytes(list []outline, maxBytes int64, tail journal.Position) journal.Position {
	if maxBytes <= 0 {
		return journal.Position{}
	}
	left, p := maxBytes, tail
	for i := len(list) - 1; i >= 0; i-- {
		o := list[i]
		if o.bytes <= left {
			left -= o.bytes
			p = journal.Position{Segment: o.segment.id, Offset: o.first}
			continue
		}
		behind := o.bytes
		return j.firstIn(o, func(h *header) bool {
			fits := behind <= left
			behind -= h.size()
			return fits
		})
	}
	return p
}

// firstIn is the start of the first record in o that matches, or the end of o.
func (j *Journal) firstIn(o outline, match func(*header) bool) journal.Position {
	off, err := j.find(o.segment, span{o.first, o.end, o.end}, match)
	if err != nil {
		off = o.first
	}
	return journal.Position{Segment: o.segment.id, Offset: off}
}
