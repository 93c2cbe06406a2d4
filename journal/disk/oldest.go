package disk

import "github.com/sluice-metrics/sluice/journal"

// IDsOldest is when the oldest batch was received, Unix ms, of those whose series ids are
// in use: in the tail, remembered beside it, on the way out of Next, read by a cursor
// and not committed, or by a reader that is not done with it. ok is false when there is
// none. Whoever evicts series ids keeps those that this batch may hold.
func (j *Journal) IDsOldest() (ms int64, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	note := func(received int64) {
		if !ok || received < ms {
			ms, ok = received, true
		}
	}
	if j.tail.ids.entries.len() > 0 {
		note(j.tail.ids.entries.at(0).received)
	}
	if j.tail.entries.len() > 0 {
		note(j.tail.entries.at(0).batch.Received)
	}
	for _, s := range j.stored {
		c := s.open
		if c == nil {
			continue
		}
		if c.handing != 0 {
			note(c.handing)
		}
		if c.unsettled.len() > 0 {
			note(c.unsettled.at(0).received) // 0 where it is not known: nothing is evicted then
		}
	}
	for r := range j.replays {
		for i := range r.holds.len() {
			note(r.holds.at(i).since)
		}
	}
	return ms, ok
}

// Oldest implements journal.Journal.
func (j *Journal) Oldest() journal.Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.oldestLocked()
}

// Gone implements journal.Journal.
func (j *Journal) Gone() journal.Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.gone
}

func (j *Journal) oldestLocked() journal.Position {
	if s, off := j.locate(journal.Position{}); s != nil {
		return journal.Position{Segment: s.id, Offset: off}
	}
	return j.tailLocked()
}
