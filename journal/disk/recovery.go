package disk

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// recover builds what is known of segments and cursors from the files. It is called
// once, before anybody else knows the journal.
func (j *Journal) recover() error {
	begin := time.Now()
	if err := j.recoverSegments(); err != nil {
		return err
	}
	if err := j.recoverCursors(); err != nil {
		return err
	}
	if err := errors.Join(j.recountAt(), j.dropForeignSums()); err != nil {
		return err
	}
	var all tally
	for _, s := range j.segments {
		all.records += s.records
		all.bytes += s.bytes
		j.w.disk += s.size
	}
	j.metrics.segments.Set(float64(len(j.segments)))
	j.metrics.diskBytes.Set(float64(j.w.disk))
	j.logger.Info("Journal opened.", "dir", j.dir, "durability", j.config.Durability, "segments", len(j.segments),
		"records", all.records, "bytes", j.w.disk, "cursors", len(j.stored), "took", time.Since(begin))
	return nil
}

func (j *Journal) recoverSegments() error {
	names, err := j.fs.List(j.segmentsDir())
	if err != nil {
		return err
	}
	var headers []segmentHeader
	for _, name := range names {
		id, ok := parseSegmentName(name)
		if !ok {
			j.logger.Warn("A file among the segments of the journal is not one and is left alone.", "file", path.Join(j.segmentsDir(), name))
			continue
		}
		s := &segment{id: id, path: path.Join(j.segmentsDir(), name), damaged: map[int64]bool{}}
		h, err := j.inspect(s)
		if err != nil {
			return fmt.Errorf("segment %s: %w", s.path, err)
		}
		j.next = id + 1
		j.segments = append(j.segments, s)
		headers = append(headers, h)
	}
	if err := j.removeEmptyEnd(); err != nil {
		return err
	}
	if len(j.segments) > 0 {
		j.gone = headers[0].previous
		if oldest := j.segments[0]; oldest.created == 0 {
			j.gone = journal.Position{Segment: oldest.id}
		}
	}
	for i, s := range j.segments {
		// What a failed write left behind the end was never acknowledged.
		if i+1 < len(headers) && headers[i+1].previous.Segment == s.id {
			s.end = min(s.end, headers[i+1].previous.Offset)
		}
		last := i == len(j.segments)-1
		if s.summed = !last && j.readSum(s); s.summed {
			continue
		}
		if last {
			err = j.cutTornTail(s)
		} else {
			err = j.count(s, s.end)
		}
		if err != nil {
			return fmt.Errorf("segment %s: %w", s.path, err)
		}
		j.writeSum(s)
	}
	return nil
}

// inspect reads the header of a segment.
func (j *Journal) inspect(s *segment) (h segmentHeader, err error) {
	r, err := openReader(j.fs, s)
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if s.size, err = r.file.Size(); err != nil {
		return h, err
	}
	s.end = s.size
	found := false
	for _, n := range []int64{largeWindow, maxSegmentHeader} {
		b := make([]byte, min(n, s.size))
		if _, err := r.file.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
			return h, err
		}
		h, found, err = parseSegmentHeader(b)
		if found || err != nil || s.size <= n {
			break
		}
	}
	if err != nil {
		return h, err
	}
	if found {
		s.created, s.backends, s.first = h.created, h.backends, h.size
		return h, nil
	}
	s.first, err = r.resync(0, s.end)
	if err == nil && s.first < s.end {
		j.logger.Error("The header of a journal segment is damaged: for which backends its records are is not known, and counted only where all take everything.",
			"segment", s.path, "bytes", s.first)
	}
	return h, err
}

// removeEmptyEnd removes newest segments that a crash left without a header and
// without a record.
func (j *Journal) removeEmptyEnd() error {
	for n := len(j.segments); n > 0; n-- {
		s := j.segments[n-1]
		if s.created != 0 || s.first < s.end {
			return nil
		}
		if err := j.fs.Remove(s.path); err != nil {
			return err
		}
		j.metrics.tornBytes.Add(float64(s.size))
		j.logger.Warn("Removed a journal segment that was not finished when the process ended.", "segment", s.path, "bytes", s.size)
		j.segments = j.segments[:n-1]
	}
	return nil
}

// cutTornTail cuts the newest segment behind its last whole record and counts the
// rest.
func (j *Journal) cutTornTail(s *segment) (err error) {
	r, err := openReader(j.fs, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	good := min(s.first, s.end)
	var torn series.Counts // of records behind good whose headers are whole
	_, err = r.scan(s.first, s.end, s.end, func() error {
		buf, err := r.body()
		if errors.Is(err, errDamaged) {
			torn.Add(r.head.counts)
			return nil
		}
		if err != nil {
			return err
		}
		buf.Free()
		good, torn = r.head.end(), series.Counts{}
		return nil
	})
	if err != nil {
		return err
	}
	if cut := s.size - good; cut > 0 {
		if err := r.file.Truncate(good); err != nil {
			return fmt.Errorf("cut %d incomplete bytes: %w", cut, err)
		}
		j.metrics.tornBytes.Add(float64(cut))
		j.logger.Warn("Cut an incomplete record from the end of the journal.", "segment", s.path, "offset", good, "bytes", cut,
			"samples", torn.Samples, "histograms", torn.Histograms, "exemplars", torn.Exemplars)
	}
	s.end, s.size = good, good
	if j.sync() {
		// Records may have been written but not synced when the process ended. Cursors
		// see them from now on, so they must be as durable as the rest.
		if err := r.file.Sync(); err != nil {
			return err
		}
	}
	return j.count(s, good)
}

// count adds up the records of s before limit.
func (j *Journal) count(s *segment, limit int64) (err error) {
	r, err := openReader(j.fs, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	_, err = r.scan(s.first, limit, limit, func() error {
		s.add(r.head.size(), r.head.received, r.head.counts, r.head.routed)
		return nil
	})
	return err
}

func (j *Journal) recoverCursors() error {
	names, err := j.fs.List(j.cursorsDir())
	if err != nil {
		return err
	}
	var lost []*storedCursor
	for _, file := range names {
		p := path.Join(j.cursorsDir(), file)
		name, ok := parseCursorFileName(file)
		if !ok {
			j.logger.Warn("A file among the cursors of the journal is not one and is left alone.", "file", p)
			continue
		}
		sf, st, err := openState(j.fs, p)
		if err != nil && !errors.Is(err, errNoState) {
			return err
		}
		s := &storedCursor{name: name, file: sf, state: st}
		if err != nil {
			lost = append(lost, s)
		}
		j.stored[name] = s
		j.next = max(j.next, st.Position.Segment+1, st.Horizon.Segment+1)
	}
	for _, s := range lost {
		// From the start of everything: all of it may have been sent before.
		s.state = journal.State{Horizon: j.tailLocked()}
		j.logger.Error("Both stored states of a journal cursor are damaged: its backend is sent everything again that the journal still holds, and its totals start at zero.",
			"cursor", s.name, "file", s.file.path)
	}
	j.segments = slices.Clip(j.segments)
	if len(j.segments) == 0 {
		j.gone = j.tailLocked()
	}
	return nil
}
