package disk

import (
	"errors"

	"github.com/sluice-metrics/sluice/journal"
)

// Skip implements journal.Cursor.
func (c *cursor) Skip(to journal.Position) (journal.Lag, error) {
	c.using.Lock()
	defer c.using.Unlock()
	var skipped passage
	for {
		if c.isClosed() {
			return journal.Lag{}, journal.ErrClosed
		}
		part, more, err := c.skipIn(to)
		if err != nil {
			return journal.Lag{}, err
		}
		if !more {
			return lagOf(skipped.tally, skipped.received), nil
		}
		if skipped.tally.records == 0 {
			skipped.received = part.received
		}
		skipped.tally.add(part.tally)
	}
}

// skipIn moves read towards to within one segment. more is false when it is there.
func (c *cursor) skipIn(to journal.Position) (part passage, more bool, err error) {
	j := c.journal
	j.mu.Lock()
	if tail := j.tailLocked(); tail.Before(to) {
		to = tail
	}
	s, off := j.locate(c.read)
	if s == nil || !c.read.Before(to) {
		j.mu.Unlock()
		return part, false, nil
	}
	c.stepInto(s, off)
	part = passage{start: c.read, span: true}
	limit, oldest := s.end, s.oldest
	rest := c.tallyOf(s)
	rest.sub(c.passed)
	j.mu.Unlock()
	if !part.start.Before(to) {
		return part, false, nil
	}
	r, err := c.readerOf(s)
	if err == nil {
		err = r.next(off, limit)
	}
	switch {
	case err == nil:
		part.received = r.head.received
	case errors.Is(err, errDamaged):
	case to.Before(journal.Position{Segment: s.id, Offset: limit}):
		return part, false, err
	default:
		part.received = oldest // sums of a whole segment are known without its file
	}
	part.tally, part.end = rest, journal.Position{Segment: s.id, Offset: limit}
	if to.Before(part.end) {
		if part.tally, part.end.Offset, err = c.sum(s, span{off, to.Offset, limit}); err != nil {
			return part, false, err
		}
	}
	c.advance(part)
	return part, true, nil
}

// span is a part of a segment: the records that start in [from, to), of those before
// limit.
type span struct{ from, to, limit int64 }

// sum adds up what the backend takes of a span, and returns where it really ends.
func (c *cursor) sum(s *segment, part span) (total tally, end int64, err error) {
	r, err := c.readerOf(s)
	if err != nil {
		return total, 0, err
	}
	index := s.index(c.stored.name)
	end, err = r.scan(part.from, part.to, part.limit, func() error {
		t := tally{records: 1, bytes: r.head.size()}
		if c.isRecounted(s) {
			counts, err := c.recount(s, r, c.count)
			if err != nil {
				return err
			}
			t.counts = counts
		} else {
			t.counts = taken(r.head.counts, r.head.routed, index)
		}
		total.add(t)
		return nil
	})
	return total, end, err
}
