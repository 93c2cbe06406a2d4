package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"syscall"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// trimInterval is how often the writer looks for segments that became old enough to
// go; those that go because a cursor moved do not wait for it.
const trimInterval = 5 * time.Second

// request is one append on its way to the writer, which owns it together with a
// reference to the batch until it has sent the outcome to done.
type request struct {
	batch *series.Batch
	done  chan error
}

// writer is what is only used under Journal.writing.
type writer struct {
	file    vfs.File // of Journal.active; nil when that is
	end     int64    // of the last whole record in it, published or not
	pending []pendingRecord
	spare   []*request // the queue's other half
	scratch []byte
	disk    int64 // bytes of all segment files
	full    bool  // appends are refused for the disk budget
	failing bool  // the last append failed
}

// pendingRecord was written, but not yet synced, published and answered.
type pendingRecord struct {
	request    *request
	start, end int64
}

// Append implements journal.Journal. When ctx ends first, the batch is or is not
// kept; the journal holds its own reference until that is decided.
func (j *Journal) Append(ctx context.Context, b *series.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	begin := time.Now()
	r := j.requests.Get().(*request)
	r.batch = b
	j.mu.Lock()
	if j.stopped {
		j.mu.Unlock()
		return journal.ErrClosed
	}
	b.Retain()
	j.queue = append(j.queue, r)
	j.mu.Unlock()
	j.wake()
	select {
	case err := <-r.done:
		r.batch = nil
		j.requests.Put(r)
		j.metrics.appendDuration.Observe(time.Since(begin).Seconds())
		return err
	case <-ctx.Done():
		return fmt.Errorf("append to the journal, outcome unknown: %w", ctx.Err())
	}
}

func (j *Journal) loop(ctx context.Context) {
	tick := time.NewTicker(trimInterval)
	defer tick.Stop()
	for {
		select {
		case <-j.kick:
			j.turn()
		case <-tick.C:
			j.mu.Lock()
			j.trimming = true
			j.mu.Unlock()
			j.turn()
		case <-ctx.Done():
			return
		case <-j.stop:
			return
		}
	}
}

// turn does all work there is.
func (j *Journal) turn() {
	j.writing.Lock()
	defer j.writing.Unlock()
	for {
		j.mu.Lock()
		group, trim := j.queue, j.trimming
		j.queue, j.trimming = j.w.spare[:0], false
		j.mu.Unlock()
		j.w.spare = group
		if len(group) == 0 && !trim {
			return
		}
		if trim {
			j.trim(time.Now())
		}
		j.writeGroup(group)
		clear(group)
	}
}

// writeGroup writes and answers all requests. After a failure of the file system the
// rest of the group fails with the same error: each of them would only fail again,
// and leave another segment behind.
func (j *Journal) writeGroup(group []*request) {
	w := &j.w
	for i, r := range group {
		err := j.write(r)
		if err == nil {
			continue
		}
		var refused *refusedError
		if errors.As(err, &refused) {
			w.answer(r, refused.error)
			continue
		}
		j.abandon()
		for _, r := range group[i:] {
			w.answer(r, err)
		}
		j.failed(err)
		if errors.Is(err, syscall.ENOSPC) {
			j.freePassed(1)
		}
		return
	}
	if j.flush() && w.failing {
		w.failing = false
		j.logger.Info("The journal can be written again.")
	}
}

// refusedError is about one request alone; the file is as it was.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

func (w *writer) answer(r *request, err error) {
	r.batch.Release()
	r.done <- err
}

// write puts the record into the active segment, or a new one, and into pending.
func (j *Journal) write(r *request) error {
	w, b := &j.w, r.batch
	if b.Routed != nil && len(b.Routed) != len(j.backends) {
		return &refusedError{fmt.Errorf("append to the journal: the batch was counted for %d backends, but the journal has %d", len(b.Routed), len(j.backends))}
	}
	if j.active != nil && w.end > j.active.first && w.end+sizeOf(b) > int64(j.config.SegmentSize) {
		j.flush()
		j.seal()
	}
	if err := j.makeRoom(sizeOf(b)); err != nil {
		return &refusedError{err}
	}
	if j.active == nil {
		if err := j.create(); err != nil {
			j.metrics.writeErrors.WithLabelValues(reasonCreate).Inc()
			return fmt.Errorf("append to the journal: %w", err)
		}
	}
	record, err := encode(b, j.active.id, w.end, &w.scratch)
	if err != nil {
		return &refusedError{fmt.Errorf("append to the journal: %w", err)}
	}
	if _, err := w.file.WriteAt(record, w.end); err != nil {
		j.metrics.writeErrors.WithLabelValues(reasonWrite).Inc()
		return fmt.Errorf("append to the journal: %w", err)
	}
	start := w.end
	w.end += int64(len(record))
	w.disk += int64(len(record))
	w.pending = append(w.pending, pendingRecord{r, start, w.end})
	return nil
}

// sizeOf is what the record takes at most.
func sizeOf(b *series.Batch) int64 {
	const number = binary.MaxVarintLen64
	return int64(fixedSize + minHeaderSize*number + 3*number*len(b.Routed) + len(b.Body))
}

// flush makes the pending records durable, visible and answered, and reports whether
// there were any. When the sync fails none of them is.
func (j *Journal) flush() bool {
	w := &j.w
	if len(w.pending) == 0 {
		return false
	}
	if j.sync() {
		if err := j.syncActive(); err != nil {
			err = fmt.Errorf("append to the journal: %w", err)
			failed := w.pending
			w.pending = w.pending[:0]
			w.disk -= w.end - failed[0].start
			w.end = failed[0].start
			j.failed(err)
			j.abandon()
			for _, p := range failed {
				w.answer(p.request, err)
			}
			clear(failed)
			return false
		}
	}
	j.publish()
	for _, p := range w.pending {
		p.request.done <- nil
	}
	clear(w.pending)
	w.pending = w.pending[:0]
	return true
}

func (j *Journal) syncActive() error {
	begin := time.Now()
	err := j.w.file.Sync()
	j.metrics.fsyncDuration.Observe(time.Since(begin).Seconds())
	if err != nil {
		j.metrics.writeErrors.WithLabelValues(reasonSync).Inc()
	}
	return err
}

// publish shows the pending records to the cursors. The tail takes over the writer's
// references.
func (j *Journal) publish() {
	w := &j.w
	bytes := int64(0)
	j.mu.Lock()
	s := j.active
	for _, p := range w.pending {
		b := p.request.batch
		s.add(p.end-p.start, b.Received, b.Counts, b.Routed)
		bytes += p.end - p.start
		j.tail.add(journal.Position{Segment: s.id, Offset: p.start}, journal.Position{Segment: s.id, Offset: p.end}, b)
	}
	s.end, s.size = w.end, w.end
	j.trimTail()
	for _, c := range j.stored {
		if c.open != nil {
			c.open.notify()
		}
	}
	j.mu.Unlock()
	j.metrics.appendedRecords.Add(float64(len(w.pending)))
	j.metrics.appendedBytes.Add(float64(bytes))
	j.metrics.diskBytes.Set(float64(w.disk))
}

// failed logs the first of a row of failures.
func (j *Journal) failed(err error) {
	if !j.w.failing {
		j.w.failing = true
		j.logger.Error("The journal could not be written; the next request is tried in a new segment.", "err", err)
	}
}

// create makes the next segment and writes its header.
func (j *Journal) create() error {
	w := &j.w
	j.mu.Lock()
	s := &segment{
		id:       j.next,
		path:     path.Join(j.segmentsDir(), segmentName(j.next)),
		created:  time.Now().UnixMilli(),
		backends: j.backends,
		damaged:  map[int64]bool{},
	}
	j.next++
	h := segmentHeader{created: s.created, backends: s.backends}
	if n := len(j.segments); n > 0 {
		h.previous = journal.Position{Segment: j.segments[n-1].id, Offset: j.segments[n-1].end}
	}
	j.mu.Unlock()
	b, err := h.encode()
	if err != nil {
		return err
	}
	f, err := j.fs.Create(s.path)
	if err != nil {
		return fmt.Errorf("create segment: %w", err)
	}
	_, err = f.WriteAt(b, 0)
	if err == nil && j.sync() {
		err = j.fs.SyncDir(j.segmentsDir())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("create segment: %w", err), f.Close(), j.fs.Remove(s.path))
	}
	s.first, s.end, s.size = h.size, h.size, h.size
	w.file, w.end = f, h.size
	w.disk += h.size
	j.mu.Lock()
	j.segments = append(j.segments, s)
	j.active = s
	n := len(j.segments)
	j.mu.Unlock()
	j.metrics.segments.Set(float64(n))
	return nil
}

// seal ends the active segment, of which nothing is pending.
func (j *Journal) seal() {
	j.mu.Lock()
	s := j.active
	j.active = nil
	j.trimming = true
	j.mu.Unlock()
	j.w.seal()
	if s != nil {
		j.writeSum(s)
	}
}

// seal closes the file that was written. All that it holds was published, so an error
// of the close says nothing that matters.
func (w *writer) seal() {
	if w.file != nil {
		_ = w.file.Close()
		w.file = nil
	}
}

// abandon cuts the active segment back to the end of its last whole record after a
// failure and, but for what is pending in it, never touches it again.
func (j *Journal) abandon() {
	w := &j.w
	s := j.active
	if s == nil {
		return
	}
	if err := w.file.Truncate(w.end); err != nil {
		j.logger.Warn("An abandoned segment of the journal could not be cut behind its last record; the next segment says where it ends.",
			"segment", s.path, "offset", w.end, "err", err)
	}
	j.flush()
	if j.active != s {
		return // the sync failed too, and flush came back to here
	}
	j.seal()
	if s.records > 0 {
		return
	}
	// Without this every failed append to a full disk would leave an empty segment.
	if err := j.fs.Remove(s.path); err != nil {
		return
	}
	w.disk -= s.size
	j.mu.Lock()
	j.segments = j.segments[:len(j.segments)-1]
	n := len(j.segments)
	j.mu.Unlock()
	j.metrics.segments.Set(float64(n))
}

// finish makes the last segment survive a power loss in either durability, because a
// stop has the time for it.
func (j *Journal) finish() error {
	w := &j.w
	if w.file == nil {
		return nil
	}
	err := w.file.Sync()
	j.mu.Lock()
	j.active = nil
	j.mu.Unlock()
	w.seal()
	return err
}
