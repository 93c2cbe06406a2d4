package disk

import (
	"fmt"
	"math"
	"time"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// reasonGivenUp is the reason under which what the journal drops for its disk budget
// is counted in a cursor's totals.
const reasonGivenUp = "journal_full"

// trim removes the segments that all cursors have passed, nobody retains, and that were
// kept long enough.
func (j *Journal) trim(now time.Time) {
	before := now.Add(-time.Duration(j.config.RetainBehind)).UnixMilli()
	if j.config.OnFull == OnFullDropOldest {
		j.moveClosed() // those that were closed since the floor was raised
		j.dropOldest(0)
	}
	for j.removeOldest(func(s *segment) bool { return s.newest < before && !j.isRetained(s) }) {
	}
	j.metrics.retainedBytes.Set(float64(j.retainedBytes(before)))
}

// freePassed removes segments that all cursors have passed, however young and retained
// or not, until n bytes are free or there is no more such segment.
func (j *Journal) freePassed(n int64) {
	goal := j.w.disk - n
	for j.w.disk > goal && j.removeOldest(func(*segment) bool { return true }) {
	}
}

// removeOldest removes the oldest segment and reports true if all cursors have passed
// it and may, called with j.mu held, agrees or it is empty. The newest segment always
// stays.
func (j *Journal) removeOldest(may func(*segment) bool) bool {
	j.mu.Lock()
	if len(j.segments) < 2 {
		j.mu.Unlock()
		return false
	}
	s := j.segments[0]
	if !j.passedByAll(s) || s.records > 0 && !may(s) {
		j.mu.Unlock()
		return false
	}
	// It leaves the list before its file goes, so that a reader which does not find the
	// file knows why.
	gone := j.gone
	j.segments = append(j.segments[:0:0], j.segments[1:]...)
	if s.records > 0 {
		j.gone = s.endPosition()
	}
	j.mu.Unlock()
	if err := j.fs.Remove(s.path); err != nil {
		j.mu.Lock()
		j.segments = append([]*segment{s}, j.segments...)
		j.gone = gone
		j.mu.Unlock()
		j.logger.Warn("A journal segment that is not needed any more could not be removed; it is tried again.", "segment", s.path, "err", err)
		return false
	}
	j.dropSum(s.id)
	j.w.disk -= s.size
	j.mu.Lock()
	n := len(j.segments)
	j.mu.Unlock()
	j.metrics.truncatedSegments.Inc()
	j.metrics.segments.Set(float64(n))
	j.metrics.diskBytes.Set(float64(j.w.disk))
	j.noteCut(s)
	return true
}

// passedByAll reports whether every stored cursor is behind the segment. j.mu is held.
func (j *Journal) passedByAll(s *segment) bool {
	for _, c := range j.stored {
		if c.state.Position.Before(s.endPosition()) {
			return false
		}
	}
	return true
}

// makeRoom makes sure that n more bytes fit into the disk budget, with the header of
// a new segment where one is needed.
func (j *Journal) makeRoom(n int64) error {
	w := &j.w
	if j.active == nil {
		h := segmentHeader{backends: j.backends, previous: journal.Position{Segment: math.MaxUint64, Offset: math.MaxInt64}}
		b, err := h.encode()
		if err != nil {
			return fmt.Errorf("append to the journal: %w", err)
		}
		n += int64(len(b))
	}
	if j.config.OnFull == OnFullDropOldest {
		j.dropOldest(n)
	}
	limit := int64(j.config.MaxDisk)
	if over := w.disk + n - limit; over > 0 {
		j.freePassed(over)
	}
	if w.disk+n <= limit {
		if w.full {
			w.full = false
			j.logger.Info("The journal has room again.", "bytes", w.disk, "max_disk", j.config.MaxDisk)
		}
		return nil
	}
	j.metrics.writeErrors.WithLabelValues(reasonFull).Inc()
	if !w.full {
		w.full = true
		j.logger.Error("The journal is full: requests are refused until the slowest backend has caught up.", "bytes", w.disk, "max_disk", j.config.MaxDisk)
	}
	return fmt.Errorf("%w: %s of max_disk %s are used in %s", journal.ErrFull, bytesize.Size(w.disk), j.config.MaxDisk, j.dir)
}

// dropOldest keeps two segments of the budget free, so that appends of n bytes go on
// while cursors give up their oldest data: it says up to where they must.
func (j *Journal) dropOldest(n int64) {
	w := &j.w
	soft := int64(j.config.MaxDisk - 2*j.config.SegmentSize)
	over := w.disk + n - soft
	if over <= 0 {
		return
	}
	j.freePassed(over)
	over = w.disk + n - soft
	j.mu.Lock()
	var floor journal.Position
	for i := 0; over > 0 && i < len(j.segments)-1; i++ {
		over -= j.segments[i].size
		floor = journal.Position{Segment: j.segments[i+1].id}
	}
	raised := j.floor.Before(floor)
	if raised {
		j.floor = floor
		for _, s := range j.stored {
			if s.open != nil {
				signal(s.open.floored)
			}
		}
	}
	j.mu.Unlock()
	if !raised {
		return
	}
	j.logger.Warn("The disk budget of the journal is nearly used up: backends give up what is before this position.",
		"position", floor, "bytes", w.disk, "max_disk", j.config.MaxDisk)
	j.moveClosed()
	j.freePassed(w.disk + n - soft)
}

// moveClosed moves stored cursors that nobody has open to the floor.
func (j *Journal) moveClosed() {
	j.naming.Lock()
	defer j.naming.Unlock()
	j.mu.Lock()
	floor := j.floor
	var behind []*storedCursor
	for _, s := range j.stored {
		if s.open == nil && s.file != nil && s.state.Position.Before(floor) {
			behind = append(behind, s)
		}
	}
	j.mu.Unlock()
	for _, s := range behind {
		given, err := j.move(s, floor)
		if err != nil {
			j.logger.Error("A journal cursor that is not in use could not be moved on; it keeps the disk full.", "cursor", s.name, "err", err)
			continue
		}
		j.logger.Warn("A journal cursor that is not in use gave up its oldest data for the disk budget.", "cursor", s.name,
			"position", floor, "samples", given.Samples, "histograms", given.Histograms, "exemplars", given.Exemplars)
	}
}

// move gives up what lies between a cursor that is not open and to, the start of a
// segment.
func (j *Journal) move(s *storedCursor, to journal.Position) (series.Counts, error) {
	c, err := j.newCursor(s)
	if err != nil {
		return series.Counts{}, err
	}
	defer c.release()
	skipped, err := c.Skip(to)
	if err != nil {
		return series.Counts{}, err
	}
	j.mu.Lock()
	st := s.state.Clone()
	j.mu.Unlock()
	st.Position = to
	if st.Horizon.Before(to) {
		st.Horizon = to
	}
	if st.Totals.GivenUp == nil {
		st.Totals.GivenUp = map[string]series.Counts{}
	}
	given := skipped.Counts
	damaged := c.Damaged()
	given.Add(damaged)
	total := st.Totals.GivenUp[reasonGivenUp]
	total.Add(given)
	st.Totals.GivenUp[reasonGivenUp] = total
	if err := s.file.write(st, j.sync()); err != nil {
		return series.Counts{}, err
	}
	j.mu.Lock()
	s.state = st
	j.mu.Unlock()
	return given, nil
}
