package disk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// cursor is a journal.Cursor.
type cursor struct {
	journal *Journal
	stored  *storedCursor
	closed  chan struct{}
	wakeup  chan struct{} // has a token when there may be something new at the tail
	floored chan struct{} // has a token when the journal's floor was raised

	// using is held by Next, Skip, Commit, Recount and Close.
	using  sync.Mutex
	reader *reader // of the segment read last; nil at first
	count  func(*series.Batch) (series.Counts, error)

	// The rest is guarded by Journal.mu.

	read journal.Position
	// handing is when the record that Next is about to return was received, Unix ms; 0
	// where its ids are not known, or there is none.
	handing int64
	// passed is what lies before read in its segment.
	passed tally
	// unsettled is what was read and not committed, taken its sum.
	unsettled queue[passage]
	taken     tally
	damaged   series.Counts
	// recounted are the counts of segments that were written for other selectors, by
	// segment: of the whole one, or from read on where read stood in it.
	recounted map[uint64]series.Counts
	// first caches when the record at firstAt was received, Unix ms.
	firstAt journal.Position
	first   int64
}

// passage is a record, or with span set any number of them in one segment, between
// the committed position and the read position.
type passage struct {
	start, end journal.Position
	tally      tally
	received   int64 // of the first record, Unix ms; 0 when it is not known
	span       bool
}

// newCursor returns a cursor at the stored position.
func (j *Journal) newCursor(s *storedCursor) (*cursor, error) {
	c := &cursor{
		journal:   j,
		stored:    s,
		closed:    make(chan struct{}),
		wakeup:    make(chan struct{}, 1),
		floored:   make(chan struct{}, 1),
		recounted: map[uint64]series.Counts{},
	}
	j.mu.Lock()
	c.read = s.state.Position
	seg := j.segment(c.read.Segment)
	if seg == nil || c.read.Offset <= seg.first {
		j.mu.Unlock()
		return c, nil
	}
	if c.read.Offset >= seg.end {
		c.passed = seg.tally(s.name)
		j.mu.Unlock()
		return c, nil
	}
	limit := seg.end
	j.mu.Unlock()
	passed, _, err := c.sum(seg, span{seg.first, c.read.Offset, limit})
	c.passed = passed
	return c, errors.Join(err, c.release())
}

// segment returns the segment with the given number, or nil. j.mu is held.
func (j *Journal) segment(id uint64) *segment {
	for _, s := range j.segments {
		if s.id == id {
			return s
		}
	}
	return nil
}

// slowest returns the smallest read position of the open cursors; some is false when
// there is none. j.mu is held.
func (j *Journal) slowest() (p journal.Position, some bool) {
	for _, s := range j.stored {
		if s.open != nil && (!some || s.open.read.Before(p)) {
			p, some = s.open.read, true
		}
	}
	return p, some
}

// trimTail drops from the tail what all open cursors have passed. j.mu is held.
func (j *Journal) trimTail() {
	if p, some := j.slowest(); some {
		j.tail.trim(p)
	} else {
		j.tail.clear()
	}
	j.metrics.tailBytes.Set(float64(j.tail.bytes))
}

// notify tells the cursor that there may be something new.
func (c *cursor) notify() { signal(c.wakeup) }

// signal puts a token into a channel that has room for one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (c *cursor) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// enter moves read to the start of the next record and returns its place. j.mu is held.
func (c *cursor) enter() place {
	j := c.journal
	s, off := j.locate(c.read)
	if s == nil {
		return place{}
	}
	c.stepInto(s, off)
	p := j.placeIn(s, off)
	c.handing, _ = p.idsSince()
	return p
}

// stepInto moves read over a place where there is no record, possibly into a new
// segment. What the old one held by the books, but was not found in it, counts as
// damaged. j.mu is held.
func (c *cursor) stepInto(s *segment, off int64) {
	to := journal.Position{Segment: s.id, Offset: off}
	if s.id == c.read.Segment {
		c.read = to
		return
	}
	_, recounted := c.recounted[c.read.Segment]
	if old := c.journal.segment(c.read.Segment); old != nil && !recounted {
		left := old.tally(c.stored.name)
		left.sub(c.passed)
		if left != (tally{}) {
			c.damaged.Add(left.counts)
			c.keep(passage{start: c.read, end: c.read, tally: left})
		}
	}
	c.read, c.passed = to, tally{}
}

// keep notes what was passed until it is committed. j.mu is held.
func (c *cursor) keep(p passage) {
	c.unsettled.push(p)
	c.taken.add(p.tally)
}

// advance moves read to the end of p.
func (c *cursor) advance(p passage) {
	j := c.journal
	j.mu.Lock()
	c.passed.add(p.tally)
	c.keep(p)
	c.read = p.end
	c.handing = 0
	j.trimTail()
	j.mu.Unlock()
}

// Next implements journal.Cursor.
func (c *cursor) Next(ctx context.Context, wait bool) (rec journal.Record, ok bool, err error) {
	c.using.Lock()
	defer c.using.Unlock()
	for {
		if c.isClosed() {
			return rec, false, journal.ErrClosed
		}
		c.journal.mu.Lock()
		p := c.enter()
		c.journal.mu.Unlock()
		switch {
		case p.batch != nil:
			return c.fromTail(p)
		case p.segment != nil:
			if rec, ok, err = c.fromDisk(p); ok || err != nil {
				return rec, ok, err
			}
			continue
		case !wait:
			return rec, false, nil
		}
		if err := c.await(ctx); err != nil {
			return rec, false, err
		}
	}
}

// await waits until there may be something new at the tail. Commit goes on meanwhile.
func (c *cursor) await(ctx context.Context) error {
	c.using.Unlock()
	defer c.using.Lock()
	select {
	case <-c.wakeup:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.closed:
	}
	return nil
}

func (c *cursor) fromTail(p place) (journal.Record, bool, error) {
	counts, err := c.countsOf(p.segment, p.batch, p.batch.Routed)
	if err != nil {
		p.batch.Release()
		return journal.Record{}, false, err
	}
	return c.hand(p, p.batch, p.end, counts), true, nil
}

// fromDisk returns ok false when it stepped over damage.
func (c *cursor) fromDisk(p place) (rec journal.Record, ok bool, err error) {
	r, err := c.readerOf(p.segment)
	if err != nil {
		return rec, false, err
	}
	f, err := c.journal.read(r, p)
	switch {
	case err != nil:
		return rec, false, err
	case f.batch == nil:
		c.stepOver(p, f)
		return rec, false, nil
	}
	counts, err := c.countsOf(p.segment, f.batch, f.batch.Routed)
	if err != nil {
		f.batch.Release()
		return rec, false, err
	}
	return c.hand(p, f.batch, f.end, counts), true, nil
}

// stepOver passes what could not be read.
func (c *cursor) stepOver(p place, f finding) {
	pass := passage{start: p.start(), end: f.end}
	if h := f.lost; h != nil {
		pass.received = h.received
		pass.tally = tally{records: 1, bytes: h.size()}
		if !c.isRecounted(p.segment) {
			pass.tally.counts = taken(h.counts, h.routed, p.segment.index(c.stored.name))
		}
		c.journal.mu.Lock()
		c.damaged.Add(pass.tally.counts)
		c.journal.mu.Unlock()
	}
	c.advance(pass)
}

// StepOver implements journal.Cursor.
func (c *cursor) StepOver() error {
	c.using.Lock()
	defer c.using.Unlock()
	if c.isClosed() {
		return journal.ErrClosed
	}
	c.journal.mu.Lock()
	p := c.enter()
	c.handing = 0
	c.journal.mu.Unlock()
	if p.batch != nil {
		p.batch.Release()
		return nil
	}
	if p.segment == nil {
		return nil
	}
	if f, unreadable := c.journal.probe(&c.reader, p); unreadable {
		c.stepOver(p, f)
	}
	return nil
}

// hand moves behind the record and returns it with the reference to its batch.
func (c *cursor) hand(p place, b *series.Batch, end journal.Position, counts series.Counts) journal.Record {
	rec := journal.Record{
		Batch:  b,
		Start:  p.start(),
		End:    end,
		Counts: counts,
	}
	c.advance(passage{
		start:    rec.Start,
		end:      end,
		tally:    tally{records: 1, bytes: end.Offset - p.offset, counts: counts},
		received: b.Received,
	})
	return rec
}

func (c *cursor) isRecounted(s *segment) bool {
	_, ok := c.recounted[s.id]
	return ok
}

// countsOf is what the backend takes of a batch in s.
func (c *cursor) countsOf(s *segment, b *series.Batch, routed []series.Counts) (series.Counts, error) {
	if !c.isRecounted(s) {
		return taken(b.Counts, routed, s.index(c.stored.name)), nil
	}
	counts, err := c.count(b)
	if err != nil {
		return counts, fmt.Errorf("count a journal record in segment %s for cursor %q: %w", s.path, c.stored.name, err)
	}
	return counts, nil
}

// readerOf returns the cursor's reader, opened for s.
func (c *cursor) readerOf(s *segment) (*reader, error) {
	return c.journal.readerOf(&c.reader, s)
}

// release closes the file that the cursor reads.
func (c *cursor) release() error { return closeReader(&c.reader) }

// Damaged implements journal.Cursor.
func (c *cursor) Damaged() series.Counts {
	c.journal.mu.Lock()
	defer c.journal.mu.Unlock()
	d := c.damaged
	c.damaged = series.Counts{}
	return d
}

// Read implements journal.Cursor.
func (c *cursor) Read() journal.Position {
	c.journal.mu.Lock()
	defer c.journal.mu.Unlock()
	return c.read
}

// Close implements journal.Cursor. A Next that waits returns ErrClosed.
func (c *cursor) Close() error {
	j := c.journal
	j.mu.Lock()
	if c.isClosed() {
		j.mu.Unlock()
		return nil
	}
	close(c.closed)
	j.mu.Unlock()
	c.using.Lock()
	defer c.using.Unlock()
	j.mu.Lock()
	c.stored.open = nil
	j.trimTail()
	if j.floor != (journal.Position{}) {
		j.trimming = true
		j.wake()
	}
	j.mu.Unlock()
	if err := c.release(); err != nil {
		return fmt.Errorf("close journal cursor %q: %w", c.stored.name, err)
	}
	return nil
}

func lagOf(t tally, received int64) journal.Lag {
	lag := journal.Lag{Records: t.records, Bytes: t.bytes, Counts: t.counts}
	if t.records > 0 {
		lag.Oldest = time.UnixMilli(received)
	}
	return lag
}
