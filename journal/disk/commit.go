package disk

import (
	"fmt"

	"github.com/sluice-metrics/sluice/journal"
)

// Committed implements journal.Cursor.
func (c *cursor) Committed() journal.State {
	c.journal.mu.Lock()
	defer c.journal.mu.Unlock()
	return c.stored.state.Clone()
}

// Commit implements journal.Cursor.
func (c *cursor) Commit(st journal.State) error {
	c.using.Lock()
	defer c.using.Unlock()
	if c.isClosed() {
		return journal.ErrClosed
	}
	j := c.journal
	settled, part, err := c.settle(st.Position)
	if err != nil {
		return fmt.Errorf("commit journal cursor %q: %w", c.stored.name, err)
	}
	st = st.Clone()
	if err := c.stored.file.write(st, j.sync()); err != nil {
		return fmt.Errorf("commit journal cursor %q: %w", c.stored.name, err)
	}
	j.mu.Lock()
	for range settled {
		p := c.unsettled.pop()
		c.taken.sub(p.tally)
	}
	if part != nil {
		head := c.unsettled.at(0)
		head.start = st.Position
		head.tally.sub(part.tally)
		head.received = part.received
		c.taken.sub(part.tally)
	}
	old := c.stored.state.Position
	c.stored.state = st
	if old.Segment != st.Position.Segment || old.Before(j.floor) {
		j.trimming = true
		j.wake()
	}
	j.mu.Unlock()
	return nil
}

// settle returns how many passages end at or before p, and what of the next one,
// where p stands inside of a skipped span: its received is then that of the first
// record behind p. It is an error when p is no boundary between the committed and the
// read position.
func (c *cursor) settle(p journal.Position) (whole int, part *passage, err error) {
	j := c.journal
	j.mu.Lock()
	at := j.canonical(p)
	committed, read := c.stored.state.Position, c.read
	if at.Before(j.canonical(committed)) || j.canonical(read).Before(at) || j.tailLocked().Before(p) {
		j.mu.Unlock()
		return 0, nil, fmt.Errorf("position %s is not between the committed %s and the read %s", p, committed, read)
	}
	boundary := committed
	for whole < c.unsettled.len() && !at.Before(j.canonical(c.unsettled.at(whole).end)) {
		boundary = c.unsettled.at(whole).end
		whole++
	}
	exact := at == j.canonical(boundary) || at == j.canonical(read)
	var next passage
	var s *segment
	limit := int64(0)
	if whole < c.unsettled.len() {
		next = *c.unsettled.at(whole)
		exact = exact || at == j.canonical(next.start)
		if s = j.segment(next.start.Segment); s != nil {
			limit = s.end
		}
	}
	j.mu.Unlock()
	switch {
	case exact:
		return whole, nil, nil
	case !next.span || s == nil || p.Segment != s.id:
		return 0, nil, fmt.Errorf("position %s is not the boundary of a record", p)
	}
	sum, end, err := c.sum(s, span{next.start.Offset, p.Offset, limit})
	if err != nil {
		return 0, nil, err
	}
	r := c.reader
	if end != p.Offset {
		return 0, nil, fmt.Errorf("position %s is not the boundary of a record", p)
	}
	if err := r.next(p.Offset, limit); err != nil {
		return 0, nil, err
	}
	return whole, &passage{tally: sum, received: r.head.received}, nil
}
