package ledger

import (
	"slices"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// Causes of entries that are not known.
const (
	// CauseDamaged: the ledger's file was damaged.
	CauseDamaged = "ledger_damaged"
	// CauseIncomplete: the cursor has settled more than the ledger knows of.
	CauseIncomplete = "ledger_incomplete"
)

// resume takes the state back to where the cursor is. changed says that a replay of what
// is written would give another state.
func (s *state) resume(r Resumption, now Time) (res Resumed, changed bool) {
	for len(s.pending) > 0 && !r.reaches(s.pending[len(s.pending)-1].record.Mark.mark()) {
		s.takeBack()
		changed = true
	}
	changed = s.passGaps(r.Position) || changed
	lost := s.lost(r)
	if lost {
		res.Unknown = s.unknown(r, now)
	}
	differs := r.Withheld != nil && *r.Withheld != s.withheld
	res.Inexact = !r.reaches(s.committed) || differs && !lost
	if s.settled.Restore.Before(r.Restore) && s.missedRestore(r, now) {
		res.Inexact = true
	}
	if res.Inexact {
		for _, e := range s.entries {
			e.Inexact = e.Inexact || e.Closed == 0
		}
	}
	changed = changed || lost || res.Inexact || s.damaged
	if r.Withheld != nil {
		s.withheld = *r.Withheld
	}
	s.damaged = false
	s.committed = r.Mark
	s.pass(r.Mark, r.Mark)
	return res, changed
}

// passGaps counts the gaps that the cursor is behind of, where the settlement that did so
// is lost.
func (s *state) passGaps(p journal.Position) bool {
	passed := false
	for _, e := range s.entries {
		if e.Kind == KindGap && !e.passed && !e.endsBehind(p) {
			e.passed, passed = true, true
			s.withheld.Add(e.lump)
		}
	}
	return passed
}

// lost reports whether the cursor settled something that the ledger does not know of: each
// settlement of a cursor that withholds is written first.
func (s *state) lost(r Resumption) bool {
	switch {
	case !s.settled.Position.Before(r.Position):
		return false
	case r.Withheld != nil:
		return !within(*r.Withheld, s.withheld)
	case s.damaged:
		return true
	}
	e := s.session()
	return e != nil && e.From.Before(r.Position)
}

// unknown makes entries of what the cursor settled behind the newest settlement, gaps
// excepted. Steps that are known there go, since others may be missing among them.
func (s *state) unknown(r Resumption, now Time) []Entry {
	from, to := s.settled.Position, r.Position
	for _, e := range slices.Clone(s.entries) {
		if e.Kind != KindSampled || !e.endsBehind(from) || !e.From.Before(to) {
			continue
		}
		if e.From.Before(from) {
			s.cut(e, from)
		} else {
			s.remove(e)
		}
	}
	cause := CauseIncomplete
	if s.damaged {
		cause = CauseDamaged
	}
	t := Tally{First: s.noted, Last: now}
	if r.Withheld != nil {
		t.Withheld = r.Withheld.Without(s.withheld)
	}
	var views []Entry
	for _, hole := range s.holes(from, to) {
		e := &entry{passed: true, Entry: Entry{
			Kind: KindUnknown, From: hole[0], To: hole[1], Rebuild: hole[0], Cause: cause,
			Totals: t, Steps: []Step{{Setting{At: hole[0], Time: s.noted}, t}},
		}}
		s.add(e)
		views = append(views, e.view())
		t.Withheld = series.Counts{} // the first one has it all
	}
	slices.SortStableFunc(s.entries, func(a, b *entry) int {
		switch {
		case a.From.Before(b.From):
			return -1
		case b.From.Before(a.From):
			return 1
		}
		return 0
	})
	return views
}

// holes are the parts of a stretch that no entry holds.
func (s *state) holes(from, to journal.Position) [][2]journal.Position {
	var list [][2]journal.Position
	for _, e := range s.entries {
		if !from.Before(to) || !e.From.Before(to) {
			break
		}
		if !e.endsBehind(from) {
			continue
		}
		if from.Before(e.From) {
			list = append(list, [2]journal.Position{from, e.From})
		}
		from = e.To
	}
	if from.Before(to) {
		list = append(list, [2]journal.Position{from, to})
	}
	return list
}

// missedRestore closes what the cursor says is given back or given up, where the ledger
// does not know which: its totals have it already. It reports whether there was any.
func (s *state) missedRestore(r Resumption, now Time) bool {
	any := false
	for _, e := range s.entries {
		if e.Closed != 0 || !e.From.Before(r.Restore) {
			continue
		}
		any, e.Inexact = true, true
		if !e.endsBehind(r.Restore) && !e.endsBehind(r.Position) {
			e.Closed, e.Reason = now, CauseIncomplete
			s.archive(e)
		}
	}
	return any
}
