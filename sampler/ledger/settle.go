package ledger

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// ReasonNotFound is why something is given up of which the backfill passed the place
// without finding it: the records were damaged or gone.
const ReasonNotFound = "not_found"

// maxPending bounds the settlements that may have to be taken back. A cursor whose commits
// fail that often is not getting on.
const maxPending = 4096

// mending is for how long a sampler may send after all what it withheld, in ms: widest gap
// of key frames and as much again for slow scrapes. What is given up inside of a session that
// the cursor is in stays that far behind, since the rest of it is still moving.
const mending = Time(10 * time.Minute / time.Millisecond)

// settlement works out what follows from a Settlement.
func (s *state) settlement(o Settlement, backfill bool) (*settleRecord, error) {
	switch {
	case !o.reaches(s.settled):
		return nil, fmt.Errorf("%w: settling %v and %v after %v and %v", ErrOrder, o.Position, o.Restore, s.settled.Position, s.settled.Restore)
	case len(s.pending) >= maxPending:
		return nil, fmt.Errorf("%d settlements were not followed by a stored state of the cursor: see why it cannot be stored", len(s.pending))
	}
	deltas, err := s.attribute(o.Deltas)
	if err != nil {
		return nil, err
	}
	r := &settleRecord{Mark: o.Mark.wire(), Committed: o.Committed.wire(), Deltas: deltas}
	if o.Mark == s.settled {
		return r, nil
	}
	for _, e := range s.entries {
		s.book(r, e, o, backfill)
	}
	return r, nil
}

// attribute finds the step of each delta.
func (s *state) attribute(deltas []Delta) ([]deltaRecord, error) {
	var list []deltaRecord
	for i := range deltas {
		d := &deltas[i]
		e := s.holding(d.At)
		if e == nil || e.Closed != 0 && !d.late() {
			return nil, fmt.Errorf("BUG: counts are settled at %v, where nothing is withheld", d.At)
		}
		list = append(list, deltaRecord{e.ID, wirePosition(e.Steps[e.step(d.At)].At), d.Tally.wire(), d.Classes})
	}
	return list, nil
}

// late reports whether the delta can be of an entry that is closed: a batch that was given
// back and told after the cursor had passed the end.
func (d *Delta) late() bool { return d.Withheld.Zero() && d.Sent.Zero() }

// book adds to the record what it means for an entry.
func (s *state) book(r *settleRecord, e *entry, o Settlement, backfill bool) {
	if e.Closed != 0 {
		return
	}
	passed := !e.endsBehind(o.Position)
	lost := o.Restore
	if o.Lost != (journal.Position{}) && o.Lost.Before(lost) {
		lost = o.Lost
	}
	if passed && !e.passed && e.Kind == KindGap {
		r.Passed = append(r.Passed, e.ID)
	}
	given := r.deltas(e)
	switch {
	case passed && !backfill:
		r.Books = append(r.Books, bookRecord{Entry: e.ID, Close: true, Kept: true})
	case passed && !e.endsBehind(o.Restore):
		sum := e.Totals
		for _, t := range given {
			sum.Add(t)
		}
		up := sum.Outstanding().Without(e.GivenUp)
		b := bookRecord{Entry: e.ID, GivenUp: wireCounts(up), Close: true}
		if !up.Zero() {
			b.Reason = ReasonNotFound
			if o.Reason != "" && !e.endsBehind(lost) {
				b.Reason = o.Reason
			}
		}
		r.Books = append(r.Books, b)
	case backfill && o.Reason != "":
		if up := e.abandoned(lost, given, !passed); !up.Zero() {
			r.Books = append(r.Books, bookRecord{Entry: e.ID, GivenUp: wireCounts(up), Reason: o.Reason})
		}
	}
}

// deltas sums up what the record has of the entry, by the starts of the steps.
func (r *settleRecord) deltas(e *entry) map[journal.Position]Tally {
	sums := map[journal.Position]Tally{}
	for i := range r.Deltas {
		if d := &r.Deltas[i]; d.Entry == e.ID {
			at := journal.Position(d.At)
			sum := sums[at]
			sum.Add(d.tally())
			sums[at] = sum
		}
	}
	return sums
}

// Behind is where the first step begins that has nothing before p: the end of the entry, or
// the start of the last step of an open one, where there is none.
func (e *Entry) Behind(p journal.Position) journal.Position {
	for i := range e.Steps {
		if !e.Steps[i].At.Before(p) {
			return e.Steps[i].At
		}
	}
	if e.isOpen() {
		return e.Steps[len(e.Steps)-1].At
	}
	return e.To
}

// Lost is what would be given up of the entry if nothing before p could be given back, with
// the cursor at settled.
func (e *Entry) Lost(p, settled journal.Position) series.Counts {
	return e.abandoned(p, nil, e.endsBehind(settled))
}

// Owed is, for each step, what is outstanding of it and not given up: of an entry that is
// given up in part, the oldest is.
func (e *Entry) Owed() []series.Counts {
	lost := e.GivenUp
	steps := returned(e.Steps)
	list := make([]series.Counts, len(steps))
	for i := range steps {
		left := steps[i].Outstanding()
		list[i] = left.Without(lost)
		lost = lost.Without(left)
	}
	return list
}

// Unreturned is where the first step begins of which something is outstanding, not to count
// those that have nothing behind p; to where it is not known in which step it was that
// samples were sent after all. ok is false where nothing is.
func (e *Entry) Unreturned(p journal.Position) (from journal.Position, ok bool) {
	steps := returned(e.Steps)
	for i := range steps {
		if next := i + 1; next < len(steps) && !p.Before(steps[next].At) {
			continue
		}
		if !steps[i].Outstanding().Zero() {
			return steps[i].At, true
		}
	}
	return from, false
}

// abandoned is what the steps before p owe that was not given up yet, with what is now
// added to them: not what is added behind p, for that is no part of it. moving says that the cursor is not behind the entry yet.
func (e *Entry) abandoned(p journal.Position, now map[journal.Position]Tally, moving bool) series.Counts {
	if !e.From.Before(p) {
		return series.Counts{}
	}
	steps := slices.Clone(e.Steps)
	for i := range steps {
		if steps[i].At.Before(p) {
			steps[i].Add(now[steps[i].At])
		}
	}
	steps = returned(steps)
	limit := steps[e.step(p)].Time - mending
	var sum Tally
	for i := range steps {
		if next := i + 1; next == len(steps) {
			if e.endsBehind(p) {
				break
			}
		} else if p.Before(steps[next].At) || moving && e.Kind == KindSampled && steps[next].Time > limit {
			break
		}
		sum.Add(steps[i].Tally)
	}
	return sum.Outstanding().Without(e.GivenUp)
}

func (s *state) checkSettle(r *settleRecord) error {
	if !r.Mark.mark().reaches(s.settled) {
		return ErrOrder
	}
	for i := range r.Deltas {
		d := &r.Deltas[i]
		at := journal.Position(d.At)
		if e := s.entry(d.Entry); e == nil || !e.Holds(at) || e.Steps[e.step(at)].At != at {
			return errRecord
		}
	}
	for _, id := range r.Passed {
		if s.entry(id) == nil {
			return errRecord
		}
	}
	for i := range r.Books {
		b := &r.Books[i]
		if e := s.entry(b.Entry); e == nil || e.Closed != 0 || b.Close && e.endsBehind(journal.Position(r.Mark.Position)) {
			return errRecord
		}
	}
	return nil
}

func (s *state) settle(r *settleRecord, at int64) {
	p := pending{record: r, time: at, settled: s.settled, noted: s.noted, withheld: s.withheld}
	taken := map[uint64]int{}
	touch := func(id uint64) (*entry, *image) {
		e := s.entry(id)
		i, ok := taken[id]
		if !ok {
			i = len(p.images)
			taken[id] = i
			p.images = append(p.images, image{
				id: id, totals: e.Totals, classes: maps.Clone(e.Classes), givenUp: e.GivenUp, reason: e.Reason,
				closed: e.Closed, kept: e.kept, passed: e.passed, inexact: e.Inexact, steps: map[journal.Position]Tally{},
			})
		}
		return e, &p.images[i]
	}
	for i := range r.Deltas {
		e, before := touch(r.Deltas[i].Entry)
		s.count(e, before, &r.Deltas[i])
	}
	for _, id := range r.Passed {
		e, _ := touch(id)
		e.passed = true
		s.withheld.Add(e.lump)
	}
	for i := range r.Books {
		b := &r.Books[i]
		e, _ := touch(b.Entry)
		e.GivenUp.Add(series.Counts(b.GivenUp))
		if b.Reason != "" {
			e.Reason = b.Reason
		}
		if b.Close {
			e.Closed, e.kept = Time(max(at, 1)), b.Kept
		}
	}
	s.pending = append(s.pending, p)
	s.noted = Time(at)
	s.pass(r.Mark.mark(), r.Committed.mark())
}

// count adds a delta to its step and entry.
func (s *state) count(e *entry, before *image, d *deltaRecord) {
	at := journal.Position(d.At)
	step := &e.Steps[e.step(at)]
	if _, ok := before.steps[at]; !ok {
		before.steps[at] = step.Tally
	}
	t := d.tally()
	step.Add(t)
	e.Totals.Add(t)
	e.Inexact = e.Inexact || e.Closed != 0
	s.withheld.Add(t.Withheld)
	for class, n := range d.Classes {
		if e.Classes == nil {
			e.Classes = map[string]uint64{}
		}
		e.Classes[class] += n
	}
}

// pass moves to a mark, and keeps for good what is stored for good.
func (s *state) pass(settled, committed Mark) {
	s.settled = settled
	if committed.reaches(s.committed) {
		s.committed = committed
	}
	for len(s.pending) > 0 && s.committed.reaches(s.pending[0].record.Mark.mark()) {
		for _, b := range s.pending[0].record.Books {
			if b.Close {
				s.archive(s.entry(b.Entry))
			}
		}
		s.pending = s.pending[1:]
	}
	if len(s.pending) == 0 {
		s.pending = nil
	}
}

// takeBack undoes the newest settlement.
func (s *state) takeBack() {
	p := s.pending[len(s.pending)-1]
	s.pending = s.pending[:len(s.pending)-1]
	s.settled, s.noted, s.withheld = p.settled, p.noted, p.withheld
	for _, i := range p.images {
		e := s.entry(i.id)
		e.Totals, e.Classes, e.GivenUp, e.Reason = i.totals, maps.Clone(i.classes), i.givenUp, i.reason
		e.Closed, e.kept, e.passed, e.Inexact = i.closed, i.kept, i.passed, i.inexact
		for at, t := range i.steps {
			e.Steps[e.step(at)].Tally = t
		}
	}
}
