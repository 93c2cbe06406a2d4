package ledger

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// entry is an Entry with what only the ledger needs of it. Its State is not kept.
type entry struct {
	Entry
	kept    bool // closed without being given back
	passed  bool // lump is in state.withheld
	history bool // closed for good: its steps are put together
	// lump is what was known of a gap when it was made. It counts when the cursor has
	// passed the gap.
	lump series.Counts
}

// view is the entry as others see it, sharing nothing with e.
func (e *entry) view() Entry {
	v := e.clone()
	v.State = e.condition()
	return v
}

func (e *entry) condition() State {
	switch {
	case e.Closed != 0 && e.kept:
		return StateKept
	case e.Closed != 0 && !e.GivenUp.Zero():
		return StateGivenUp
	case e.Closed != 0:
		return StateGivenBack
	case e.isOpen():
		return StateOpen
	case !e.Totals.GivenBack.Zero():
		return StateGivingBack
	}
	return StateOwed
}

// state is what the records of a ledger amount to: each is checked, and then applied.
type state struct {
	entries []*entry // in the order of the journal; only the last one may be open
	configs map[string][]byte
	nextID  uint64

	settled   Mark // of the newest settlement
	committed Mark // of the newest one that cannot be taken back any more
	noted     Time // when settled was recorded
	// withheld is all that was ever withheld before settled.
	withheld series.Counts
	// pending are the settlements behind committed, oldest first.
	pending []pending
	// since bounds the times of samples in entries that are forgotten.
	since Time

	stepCount int  // of entries that are not history
	damaged   bool // records are lost, of which nothing is known
}

// pending is a settlement that may have to be taken back, with what it changed as it was
// before.
type pending struct {
	record   *settleRecord
	time     int64
	settled  Mark
	noted    Time
	withheld series.Counts
	images   []image
}

// image is what a settlement may change of an entry.
type image struct {
	id      uint64
	totals  Tally
	classes map[string]uint64
	givenUp series.Counts
	reason  string
	closed  Time
	kept    bool
	passed  bool
	inexact bool
	steps   map[journal.Position]Tally
}

func newState() *state { return &state{configs: map[string][]byte{}, nextID: 1} }

// last is the newest entry, or nil.
func (s *state) last() *entry {
	if len(s.entries) == 0 {
		return nil
	}
	return s.entries[len(s.entries)-1]
}

// session is the open entry, or nil.
func (s *state) session() *entry {
	if e := s.last(); e != nil && e.isOpen() {
		return e
	}
	return nil
}

// entry is the one with the given id, or nil.
func (s *state) entry(id uint64) *entry {
	for i := len(s.entries) - 1; i >= 0; i-- {
		if s.entries[i].ID == id {
			return s.entries[i]
		}
	}
	return nil
}

// holding is the entry that holds the record at p, or nil.
func (s *state) holding(p journal.Position) *entry {
	for i := len(s.entries) - 1; i >= 0; i-- {
		if e := s.entries[i]; !p.Before(e.From) {
			if e.Holds(p) {
				return e
			}
			return nil
		}
	}
	return nil
}

// owed is the number of entries that are not closed.
func (s *state) owed() int {
	n := 0
	for _, e := range s.entries {
		if e.Closed == 0 {
			n++
		}
	}
	return n
}

// busy reports whether the next settlement has to be written even if nothing is in it: it
// vouches for the counts of what it passes.
func (s *state) busy() bool { return s.owed() > 0 }

// Sizes of records in a file, roughly.
const (
	stepBytes  = 220
	entryBytes = 600
)

// bytes is about what a file with nothing but this state has.
func (s *state) bytes() int64 {
	n := int64(0)
	for _, c := range s.configs {
		n += int64(len(c))/3*4 + 100
	}
	for _, e := range s.entries {
		n += entryBytes + stepBytes*int64(len(e.Steps))
	}
	return n
}

// errRecord is a record that does not follow from those before it.
var errRecord = errors.New("a record does not fit to those before it")

// check says why a record cannot be applied. Applying one that passes cannot fail.
func (s *state) check(r *record) error {
	switch {
	case r.Begin != nil:
		return s.checkBegin(r.Begin)
	case r.Step != nil:
		return s.checkStep(r.Step)
	case r.End != nil:
		return s.checkEnd(journal.Position(*r.End))
	case r.Gap != nil:
		return s.checkGap(r.Gap)
	case r.Settle != nil:
		return s.checkSettle(r.Settle)
	}
	return errRecord
}

// apply changes the state. The record has passed check.
func (s *state) apply(r *record) {
	switch {
	case r.Begin != nil:
		s.begin(r.Begin)
	case r.Step != nil:
		s.step(r.Step.step())
	case r.End != nil:
		s.end(journal.Position(*r.End))
	case r.Gap != nil:
		s.gap(r.Gap)
	case r.Settle != nil:
		s.settle(r.Settle, r.Time)
	}
}

// fresh says why a stretch cannot begin at p.
func (s *state) fresh(p journal.Position) error {
	if e := s.session(); e != nil {
		return fmt.Errorf("%w: the session that began at %v is open: end it first", errRecord, e.From)
	}
	if e := s.last(); e != nil && p.Before(e.To) {
		return fmt.Errorf("%w: %v is before the end of the last entry, %v", ErrOrder, p, e.To)
	}
	if p.Before(s.settled.Position) {
		return fmt.Errorf("%w: %v was settled before, up to %v", ErrOrder, p, s.settled.Position)
	}
	return nil
}

func (s *state) checkBegin(b *beginRecord) error {
	if b.ID != s.nextID || b.Step.at() != journal.Position(b.From) {
		return errRecord
	}
	if b.Config == nil && s.configs[b.Digest] == nil {
		return fmt.Errorf("%w: no configuration with digest %q", errRecord, b.Digest)
	}
	if journal.Position(b.From).Before(journal.Position(b.Rebuild)) {
		return fmt.Errorf("%w: state for %v cannot be rebuilt from %v", ErrOrder, journal.Position(b.From), journal.Position(b.Rebuild))
	}
	return s.fresh(journal.Position(b.From))
}

func (s *state) begin(b *beginRecord) {
	if b.Config != nil {
		s.configs[b.Digest] = b.Config
	}
	s.add(&entry{Entry: Entry{
		Kind:    KindSampled,
		From:    journal.Position(b.From),
		Rebuild: journal.Position(b.Rebuild),
		Digest:  b.Digest,
		Steps:   []Step{b.Step.step()},
	}})
}

// add appends an entry and gives it its number.
func (s *state) add(e *entry) {
	e.ID = s.nextID
	s.nextID++
	s.entries = append(s.entries, e)
	s.stepCount += len(e.Steps)
}

func (s *state) checkStep(r *stepRecord) error {
	e := s.session()
	if e == nil {
		return fmt.Errorf("%w: a step at %v, but no session is open", errRecord, r.at())
	}
	if last := e.Steps[len(e.Steps)-1].At; r.at().Before(last) {
		return fmt.Errorf("%w: a step at %v, before the last one at %v", ErrOrder, r.at(), last)
	}
	return nil
}

func (s *state) step(step Step) {
	e := s.session()
	if last := &e.Steps[len(e.Steps)-1]; last.At == step.At {
		last.Setting = step.Setting
		return
	}
	e.Steps = append(e.Steps, step)
	s.stepCount++
}

func (s *state) checkEnd(at journal.Position) error {
	switch e := s.session(); {
	case e == nil:
		return fmt.Errorf("%w: an end at %v, but no session is open", errRecord, at)
	case at.Before(s.settled.Position):
		return fmt.Errorf("%w: an end at %v, which was settled before, up to %v", ErrOrder, at, s.settled.Position)
	}
	return nil
}

func (s *state) end(at journal.Position) {
	e := s.session()
	if !e.From.Before(at) {
		s.remove(e)
		return
	}
	s.cut(e, at)
}

// cut ends an entry at a position inside of it.
func (s *state) cut(e *entry, at journal.Position) {
	n := len(e.Steps)
	for n > 1 && !e.Steps[n-1].At.Before(at) {
		n--
	}
	s.stepCount -= len(e.Steps) - n
	e.Steps = slices.Clip(e.Steps[:n])
	e.To = at
}

// remove takes an entry out as if it had never been.
func (s *state) remove(e *entry) {
	s.stepCount -= len(e.Steps)
	s.entries = slices.DeleteFunc(s.entries, func(o *entry) bool { return o == e })
	s.dropConfigs()
}

func (s *state) checkGap(g *gapRecord) error {
	from, to := journal.Position(g.From), journal.Position(g.To)
	if g.ID != s.nextID || len(g.Pieces) == 0 || g.Pieces[0].at() != from {
		return fmt.Errorf("%w: a gap needs pieces, the first of which is at its start", errRecord)
	}
	for i := range g.Pieces {
		if next := i + 1; next < len(g.Pieces) && !g.Pieces[i].at().Before(g.Pieces[next].at()) {
			return fmt.Errorf("%w: the pieces of a gap", ErrOrder)
		}
	}
	if last := g.Pieces[len(g.Pieces)-1].at(); !last.Before(to) {
		return fmt.Errorf("%w: a gap to %v with a piece at %v", ErrOrder, to, last)
	}
	return s.fresh(from)
}

func (s *state) gap(g *gapRecord) {
	e := &entry{Entry: Entry{
		Kind:    KindGap,
		From:    journal.Position(g.From),
		To:      journal.Position(g.To),
		Rebuild: journal.Position(g.From),
		Cause:   g.Cause,
	}}
	for i := range g.Pieces {
		step := g.Pieces[i].step()
		e.Steps = append(e.Steps, step)
		e.Totals.Add(step.Tally)
	}
	e.lump = e.Totals.Withheld
	s.add(e)
}

// dropConfigs forgets the configurations that no entry needs any more.
func (s *state) dropConfigs() {
	maps.DeleteFunc(s.configs, func(digest string, _ []byte) bool {
		return !slices.ContainsFunc(s.entries, func(e *entry) bool {
			return e.Kind == KindSampled && !e.history && e.Digest == digest
		})
	})
}

// historySteps is how many steps an entry has at most when it is history, and
// maxHistorySteps how many all of these have together.
const (
	historySteps    = 128
	maxHistorySteps = 1 << 14
)

// archive makes history of an entry that is closed and cannot be opened by Resume any
// more.
func (s *state) archive(e *entry) {
	e.history = true
	s.stepCount -= len(e.Steps)
	e.Steps = coarse(e.Steps, historySteps)
	s.dropConfigs()
}

// coarse puts neighbours together so that at most n steps are left.
func coarse(steps []Step, n int) []Step {
	if len(steps) <= n {
		return steps
	}
	var list []Step
	for group := range slices.Chunk(steps, (len(steps)+n-1)/n) {
		sum := group[0]
		for _, step := range group[1:] {
			sum.Tally.Add(step.Tally)
			sum.Rate = min(sum.Rate, step.Rate)
			sum.Pressure = max(sum.Pressure, step.Pressure)
		}
		list = append(list, sum)
	}
	return list
}

// forget drops the history that was closed before the given time, and the oldest that is
// too much.
func (s *state) forget(before Time) {
	total := 0
	for i := len(s.entries) - 1; i >= 0; i-- {
		if e := s.entries[i]; e.history {
			total += len(e.Steps)
			if e.Closed < before || total > maxHistorySteps {
				if !e.Totals.Outstanding().Zero() {
					s.since = max(s.since, e.Totals.Max, e.Totals.Last)
				}
				s.entries = slices.Delete(s.entries, i, i+1)
			}
		}
	}
}

// clone shares no entry with s; what is never altered is shared.
func (s *state) clone() *state {
	c := *s
	c.entries = make([]*entry, len(s.entries))
	for i, e := range s.entries {
		o := *e
		o.Entry = e.Entry.clone()
		c.entries[i] = &o
	}
	c.configs = maps.Clone(s.configs)
	c.pending = slices.Clone(s.pending)
	return &c
}
