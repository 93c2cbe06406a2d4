package ledger

import (
	"maps"
	"slices"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// stepsPerRecord is how many steps a record of a snapshot has at most.
const stepsPerRecord = 512

// snapshot is the state as records, without header and Ready. Settlements that may be
// taken back come as the records that they were.
func (s *state) snapshot() []*record {
	base := s.clone()
	for len(base.pending) > 0 {
		base.takeBack()
	}
	list := []*record{{State: &stateRecord{
		NextID:    base.nextID,
		Settled:   base.settled.wire(),
		Committed: base.committed.wire(),
		Noted:     int64(base.noted),
		Withheld:  wireCounts(base.withheld),
		Since:     int64(base.since),
	}}}
	for _, digest := range slices.Sorted(maps.Keys(base.configs)) {
		list = append(list, &record{Config: &configRecord{digest, base.configs[digest]}})
	}
	for _, e := range base.entries {
		list = append(list, &record{Entry: e.wire()})
		for group := range slices.Chunk(e.Steps, stepsPerRecord) {
			more := &moreRecord{}
			for _, step := range group {
				more.Steps = append(more.Steps, toWire(step))
			}
			list = append(list, &record{More: more})
		}
	}
	for _, p := range s.pending {
		list = append(list, &record{Time: p.time, Settle: p.record})
	}
	return list
}

func (e *entry) wire() *entryRecord {
	return &entryRecord{
		ID: e.ID, Kind: e.Kind,
		From: wirePosition(e.From), To: wirePosition(e.To), Rebuild: wirePosition(e.Rebuild),
		Digest: e.Digest, Cause: e.Cause, Totals: e.Totals.wire(), Classes: e.Classes,
		GivenUp: wireCounts(e.GivenUp), Reason: e.Reason, Closed: int64(e.Closed),
		Inexact: e.Inexact, Kept: e.kept, Passed: e.passed, Lump: wireCounts(e.lump), History: e.history,
		Steps: len(e.Steps),
	}
}

func (r *entryRecord) entry() *entry {
	return &entry{
		kept: r.Kept, passed: r.Passed, lump: series.Counts(r.Lump), history: r.History,
		Entry: Entry{
			ID: r.ID, Kind: r.Kind,
			From: journal.Position(r.From), To: journal.Position(r.To), Rebuild: journal.Position(r.Rebuild),
			Digest: r.Digest, Cause: r.Cause, Totals: r.Totals.tally(), Classes: r.Classes,
			GivenUp: series.Counts(r.GivenUp), Reason: r.Reason, Closed: Time(r.Closed), Inexact: r.Inexact,
		},
	}
}

// restore applies a record of a snapshot.
func (s *state) restore(r *record) error {
	switch {
	case r.State != nil:
		s.nextID = r.State.NextID
		s.settled, s.committed = r.State.Settled.mark(), r.State.Committed.mark()
		s.noted, s.since = Time(r.State.Noted), Time(r.State.Since)
		s.withheld = series.Counts(r.State.Withheld)
	case r.Config != nil:
		s.configs[r.Config.Digest] = append([]byte{}, r.Config.Text...)
	case r.Entry != nil:
		e := r.Entry.entry()
		if last := s.last(); last != nil && (last.isOpen() || e.From.Before(last.To) || len(last.Steps) == 0) {
			return errRecord
		}
		if e.ID >= s.nextID || !e.isOpen() && !e.From.Before(e.To) || e.history && e.Closed == 0 {
			return errRecord
		}
		s.entries = append(s.entries, e)
	case r.More != nil:
		e := s.last()
		if e == nil {
			return errRecord
		}
		for i := range r.More.Steps {
			step := r.More.Steps[i].step()
			if n := len(e.Steps); n == 0 && step.At != e.From || n > 0 && !e.Steps[n-1].At.Before(step.At) {
				return errRecord
			}
			e.Steps = append(e.Steps, step)
		}
		if !e.history {
			s.stepCount += len(r.More.Steps)
		}
	default:
		return errRecord
	}
	return nil
}

// salvage keeps of a snapshot that broke off the entries that are whole, and counts as
// settled only what is before the others.
func (l *loaded) salvage() {
	s := l.state
	if e := s.last(); e != nil && len(e.Steps) < l.steps {
		s.remove(e)
	}
	s.pending = nil
	s.settled, s.withheld = Mark{}, series.Counts{}
	if e := s.last(); e != nil {
		s.settled.Position = e.To
		if e.isOpen() {
			s.settled.Position = e.From
		}
	}
	for _, e := range s.entries {
		s.withheld.Add(e.Totals.Withheld)
	}
}
