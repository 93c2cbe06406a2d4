package disk

import (
	"fmt"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// replay is a journal.Reader.
type replay struct {
	journal *Journal
	backend string

	// using is held by Next, StepOver and Close.
	using  sync.Mutex
	reader *reader // of the segment read last; nil at first

	// The rest is guarded by Journal.mu.

	closed bool
	at     journal.Position
	// passed is what lies before at in its segment.
	passed  tally
	damaged series.Counts
	holds   queue[hold]
}

// hold keeps the ids of records in use.
type hold struct {
	last  journal.Position // start of the last of the records
	since int64            // no id of them was seen last before this, Unix ms
}

const (
	// holdStep is what times of one hold may differ by, ms: eviction counts in minutes.
	holdStep = 10_000
	// maxHolds bounds the memory of who never says that he is done.
	maxHolds = 1 << 12
)

// OpenReader implements journal.Journal.
func (j *Journal) OpenReader(backend string, from journal.Position) (journal.Reader, error) {
	r := &replay{journal: j, backend: backend}
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil, journal.ErrClosed
	}
	r.at = from
	if from == (journal.Position{}) {
		r.at = j.oldestLocked()
	}
	j.replays[r] = struct{}{}
	s := j.segment(r.at.Segment)
	if s == nil || r.at.Offset <= s.first {
		j.mu.Unlock()
		return r, nil
	}
	whole := s.tally(backend)
	before := span{from: s.first, to: min(r.at.Offset, s.end), limit: s.end}
	j.mu.Unlock()
	passed, err := r.sum(s, before)
	if err != nil {
		// What was lost of this segment will not be told. What cannot be read, Next says.
		passed = whole
	}
	j.mu.Lock()
	r.passed = passed
	j.mu.Unlock()
	return r, nil
}

// sum adds up what the backend takes of a span.
func (r *replay) sum(s *segment, part span) (total tally, err error) {
	file, err := r.journal.readerOf(&r.reader, s)
	if err != nil {
		return total, err
	}
	index := s.index(r.backend)
	_, err = file.scan(part.from, part.to, part.limit, func() error {
		h := &file.head
		total.add(tally{records: 1, bytes: h.size(), counts: taken(h.counts, h.routed, index)})
		return nil
	})
	return total, err
}

// Next implements journal.Reader.
func (r *replay) Next() (rec journal.Record, ok bool, err error) {
	r.using.Lock()
	defer r.using.Unlock()
	for {
		p, err := r.enter()
		if err != nil || p.segment == nil {
			return rec, false, err
		}
		f := finding{batch: p.batch, end: p.end}
		if f.batch == nil {
			f, err = r.read(p)
		}
		switch {
		case err != nil && r.removed(p.segment):
			continue // the file went in between; enter knows more now
		case err != nil:
			return rec, false, err
		case f.batch == nil:
			r.stepOver(p, f)
			continue
		}
		counts := taken(f.batch.Counts, f.batch.Routed, p.segment.index(r.backend))
		r.advance(f.end, tally{records: 1, bytes: f.end.Offset - p.offset, counts: counts})
		return journal.Record{Batch: f.batch, Start: p.start(), End: f.end, Counts: counts}, true, nil
	}
}

// enter moves to the start of the next record and returns its place, whose ids are in
// use from now on.
func (r *replay) enter() (place, error) {
	j := r.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	if r.closed {
		return place{}, journal.ErrClosed
	}
	if from := r.at; from.Before(j.gone) {
		r.at, r.passed = j.oldestLocked(), tally{}
		return place{}, &journal.GoneError{From: from, To: r.at}
	}
	s, off := j.locate(r.at)
	if s == nil {
		return place{}, nil
	}
	if r.at.Segment != s.id {
		r.leave()
	}
	r.at = journal.Position{Segment: s.id, Offset: off}
	p := j.placeIn(s, off)
	since, known := p.idsSince()
	if !known {
		since = time.Now().UnixMilli() // the caller looks them up later than now
	}
	r.hold(r.at, since)
	return p, nil
}

// leave ends the reading of a segment. What it held by the books, but was not found in
// it, counts as damaged. j.mu is held.
func (r *replay) leave() {
	if s := r.journal.segment(r.at.Segment); s != nil {
		left := s.tally(r.backend)
		left.sub(r.passed)
		r.damaged.Add(left.counts)
	}
	r.passed = tally{}
}

// hold keeps the ids of the record at start in use. j.mu is held.
func (r *replay) hold(start journal.Position, since int64) {
	if n := r.holds.len(); n > 0 {
		h := r.holds.at(n - 1)
		if d := since - h.since; n >= maxHolds || d > -holdStep && d < holdStep {
			h.last, h.since = start, min(h.since, since)
			return
		}
	}
	r.holds.push(hold{last: start, since: since})
}

// Done implements journal.Reader.
func (r *replay) Done(upTo journal.Position) {
	r.journal.mu.Lock()
	defer r.journal.mu.Unlock()
	for r.holds.len() > 0 && r.holds.at(0).last.Before(upTo) {
		r.holds.pop()
	}
}

// read reads what is at the place from the disk.
func (r *replay) read(p place) (finding, error) {
	segment, err := r.journal.readerOf(&r.reader, p.segment)
	if err != nil {
		return finding{}, err
	}
	return r.journal.read(segment, p)
}

// removed reports whether the segment is no longer part of the journal.
func (r *replay) removed(s *segment) bool {
	r.journal.mu.Lock()
	defer r.journal.mu.Unlock()
	return r.journal.segment(s.id) == nil
}

// stepOver passes what could not be read.
func (r *replay) stepOver(p place, f finding) {
	var t tally
	if h := f.lost; h != nil {
		t = tally{records: 1, bytes: h.size(), counts: taken(h.counts, h.routed, p.segment.index(r.backend))}
	}
	r.journal.mu.Lock()
	r.damaged.Add(t.counts)
	r.journal.mu.Unlock()
	r.advance(f.end, t)
}

// advance moves to the end of a record that holds t.
func (r *replay) advance(end journal.Position, t tally) {
	r.journal.mu.Lock()
	defer r.journal.mu.Unlock()
	r.at = end
	r.passed.add(t)
}

// StepOver implements journal.Reader.
func (r *replay) StepOver() error {
	r.using.Lock()
	defer r.using.Unlock()
	p, err := r.enter()
	switch {
	case err != nil || p.segment == nil:
		return err
	case p.batch != nil:
		p.batch.Release()
		return nil
	}
	if f, unreadable := r.journal.probe(&r.reader, p); unreadable {
		r.stepOver(p, f)
	}
	return nil
}

// Position implements journal.Reader.
func (r *replay) Position() journal.Position {
	r.journal.mu.Lock()
	defer r.journal.mu.Unlock()
	return r.at
}

// Damaged implements journal.Reader.
func (r *replay) Damaged() series.Counts {
	r.journal.mu.Lock()
	defer r.journal.mu.Unlock()
	d := r.damaged
	r.damaged = series.Counts{}
	return d
}

// Close implements journal.Reader.
func (r *replay) Close() error {
	r.using.Lock()
	defer r.using.Unlock()
	r.journal.mu.Lock()
	r.closed = true
	delete(r.journal.replays, r)
	r.journal.mu.Unlock()
	if err := closeReader(&r.reader); err != nil {
		return fmt.Errorf("close journal reader for %q: %w", r.backend, err)
	}
	return nil
}
