package disk

import (
	"github.com/sluice-metrics/sluice/journal"
)

// retention is what an owner wants to be kept although all cursors have passed it.
type retention struct {
	from journal.Position
	// cut says that some of it had to go and that this was logged.
	cut bool
}

// Retain implements journal.Journal.
func (j *Journal) Retain(owner string, from journal.Position) {
	j.mu.Lock()
	j.retain(owner, from)
	j.trimming = true
	j.mu.Unlock()
	j.wake()
}

// retain is Retain with j.mu held.
func (j *Journal) retain(owner string, from journal.Position) {
	if from == (journal.Position{}) {
		delete(j.retained, owner)
		return
	}
	r := j.retained[owner]
	if r == nil {
		r = &retention{}
		j.retained[owner] = r
	}
	r.from = from
	r.cut = r.cut && from.Before(j.gone)
}

// isRetained reports whether anybody retains something of the segment. j.mu is held.
func (j *Journal) isRetained(s *segment) bool {
	for _, r := range j.retained {
		if r.from.Before(s.endPosition()) {
			return true
		}
	}
	return false
}

// retainedBytes is the size of the segments that would go if nobody retained them, when
// those that were written before the given time (Unix ms) may.
func (j *Journal) retainedBytes(before int64) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	sum := int64(0)
	for i, s := range j.segments {
		if i == len(j.segments)-1 || !j.passedByAll(s) || s.records > 0 && s.newest >= before {
			break
		}
		sum += s.size
	}
	return sum
}

// noteCut logs once for each owner that what it retains had to go with the segment.
func (j *Journal) noteCut(s *segment) {
	var owners []string
	j.mu.Lock()
	for owner, r := range j.retained {
		if s.records > 0 && r.from.Before(s.endPosition()) && !r.cut {
			r.cut = true
			owners = append(owners, owner)
		}
	}
	oldest := j.oldestLocked()
	j.mu.Unlock()
	for _, owner := range owners {
		j.logger.Warn("The disk budget of the journal is used up: the oldest that was kept to be sent later goes first.",
			"owner", owner, "oldest", oldest, "bytes", j.w.disk, "max_disk", j.config.MaxDisk)
	}
}
