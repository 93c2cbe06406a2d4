package disk

import (
	"errors"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// place is where the next record is, for a cursor or a replay.
type place struct {
	segment *segment // nil at the tail
	offset  int64
	limit   int64         // the end of what may be read of the segment
	batch   *series.Batch // with a reference; nil when the tail does not have it
	end     journal.Position
	ids     idEntry // of the record, where the tail only remembers these
	hasIDs  bool
}

// placeIn is the place of the record at off, with a reference to its batch when the
// tail has it. j.mu is held.
func (j *Journal) placeIn(s *segment, off int64) place {
	p := place{segment: s, offset: off, limit: s.end}
	if e := j.tail.find(p.start()); e != nil {
		e.batch.Retain()
		p.batch, p.end = e.batch, e.end
		return p
	}
	p.ids, p.hasIDs = j.tail.ids.find(p.start())
	return p
}

func (p *place) start() journal.Position {
	return journal.Position{Segment: p.segment.id, Offset: p.offset}
}

// idsSince is when the record was received, Unix ms, if its ids are known.
func (p *place) idsSince() (ms int64, known bool) {
	switch {
	case p.batch != nil:
		return p.batch.Received, true
	case p.hasIDs:
		return p.ids.received, true
	}
	return 0, false
}

// finding is what was read at a place.
type finding struct {
	batch *series.Batch // with one reference; nil where there is damage
	end   journal.Position
	lost  *header // of a record whose body cannot be read; nil where the header cannot either
}

// read reads what is at the place. Damage is reported and is no error.
func (j *Journal) read(r *reader, p place) (finding, error) {
	s := p.segment
	switch err := r.next(p.offset, p.limit); {
	case errors.Is(err, errDamaged):
		found, err := r.resync(p.offset+1, p.limit)
		if err != nil {
			return finding{}, err
		}
		return j.unreadable(s, damage{offset: p.offset, bytes: found - p.offset}), nil
	case err != nil:
		return finding{}, err
	}
	b, err := r.batch()
	switch {
	case errors.Is(err, errDamaged):
		return j.unreadable(s, damage{offset: p.offset, bytes: r.head.size(), lost: &r.head}), nil
	case err != nil:
		return finding{}, err
	}
	if p.hasIDs {
		p.ids.restore(b)
	}
	return finding{batch: b, end: journal.Position{Segment: s.id, Offset: r.head.end()}}, nil
}

// probe looks whether the file system fails to give what is at the place, reports that
// as damage and returns what is to be stepped over. held is as in readerOf.
func (j *Journal) probe(held **reader, p place) (f finding, unreadable bool) {
	r, err := j.readerOf(held, p.segment)
	if err == nil {
		f, err = j.read(r, p)
	}
	if err == nil {
		if f.batch != nil {
			f.batch.Release()
		}
		return finding{}, false
	}
	d := damage{offset: p.offset, bytes: p.limit - p.offset, cause: err}
	if r != nil && r.next(p.offset, p.limit) == nil {
		d.bytes, d.lost = r.head.size(), &r.head
	}
	return j.unreadable(p.segment, d), true
}

// readerOf returns the reader that is kept in held, opened for s.
func (j *Journal) readerOf(held **reader, s *segment) (*reader, error) {
	if *held != nil && (*held).id == s.id {
		return *held, nil
	}
	if err := closeReader(held); err != nil {
		return nil, err
	}
	r, err := openReader(j.fs, s)
	if err != nil {
		return nil, err
	}
	*held = r
	return r, nil
}

// closeReader closes the reader that is kept in held, if there is one.
func closeReader(held **reader) error {
	if *held == nil {
		return nil
	}
	err := (*held).close()
	*held = nil
	return err
}

// damage is something in a segment that cannot be read.
type damage struct {
	offset, bytes int64
	lost          *header // of the record that it is; nil when it is not known
	cause         error   // of the file system; nil when the bytes are wrong
}

// unreadable reports damage the first time that somebody meets it, and returns what is
// to be stepped over.
func (j *Journal) unreadable(s *segment, d damage) finding {
	f := finding{end: journal.Position{Segment: s.id, Offset: d.offset + d.bytes}, lost: d.lost}
	j.mu.Lock()
	seen := s.damaged[d.offset]
	s.damaged[d.offset] = true
	j.mu.Unlock()
	if seen {
		return f
	}
	if d.lost == nil {
		j.dropSum(s.id) // it counts what is found no more
	}
	j.metrics.damagedRecords.Inc()
	j.metrics.damagedBytes.Add(float64(d.bytes))
	attrs := []any{"segment", s.path, "offset", d.offset, "bytes", d.bytes}
	if h := d.lost; h != nil {
		attrs = append(attrs, "samples", h.counts.Samples, "histograms", h.counts.Histograms, "exemplars", h.counts.Exemplars)
	}
	if d.cause != nil {
		attrs = append(attrs, "err", d.cause)
	}
	j.logger.Error("Stepped over a damaged record of the journal.", attrs...)
	return f
}
