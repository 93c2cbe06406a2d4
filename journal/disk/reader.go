package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// errDamaged is returned by reader for bytes that are not what was written. Other
// errors are the file system's.
var errDamaged = errors.New("damaged")

const (
	smallWindow = 1 << 10  // holds a header
	largeWindow = 16 << 10 // holds many small records
)

// reader reads one segment file forwards, with one read a header or run of small
// records and one a body. It is used by one goroutine.
type reader struct {
	file   vfs.File
	id     uint64
	window []byte // bytes of the file from windowAt on
	at     int64
	head   header // of the last call of next; valid until the next one
	last   int64  // size of the last record, by which the window is chosen
	memory []byte
}

func openReader(fs vfs.FS, s *segment) (*reader, error) {
	f, err := fs.Open(s.path)
	if err != nil {
		return nil, fmt.Errorf("open journal segment: %w", err)
	}
	return &reader{file: f, id: s.id}, nil
}

func (r *reader) close() error { return r.file.Close() }

// peek returns n bytes at off, or fewer before limit or the end of the file. The
// result holds until the next call.
func (r *reader) peek(off int64, n int, limit int64) ([]byte, error) {
	n = int(min(int64(n), limit-off))
	if n <= 0 {
		return nil, nil
	}
	if off >= r.at && off+int64(n) <= r.at+int64(len(r.window)) {
		return r.window[off-r.at:][:n], nil
	}
	want := largeWindow
	if r.last > largeWindow {
		want = smallWindow
	}
	want = int(min(int64(max(want, n)), limit-off))
	if cap(r.memory) < want {
		r.memory = make([]byte, max(want, largeWindow))
	}
	r.window = nil
	got, err := r.file.ReadAt(r.memory[:want], off)
	if err != nil && !errors.Is(err, io.EOF) && got < n {
		return nil, fmt.Errorf("read journal segment: %w", err)
	}
	r.window, r.at = r.memory[:got], off
	return r.window[:min(got, n)], nil
}

// next reads the header at off of a record that ends at or before limit into r.head.
func (r *reader) next(off, limit int64) error {
	b, err := r.peek(off, fixedSize, limit)
	if err != nil {
		return err
	}
	if len(b) < fixedSize {
		return errDamaged
	}
	headerSize, bodySize, ok := parseFixed(b)
	if !ok || off+int64(fixedSize+headerSize)+int64(bodySize) > limit {
		return errDamaged
	}
	// The place is compared first: what only looks like a record inside of a body is
	// so found out without reading the large header it claims to have.
	b, err = r.peek(off, fixedSize+min(headerSize, 2*binary.MaxVarintLen64), limit)
	if err != nil {
		return err
	}
	if !placed(b, r.id, off) {
		return errDamaged
	}
	b, err = r.peek(off, fixedSize+headerSize, limit)
	if err != nil {
		return err
	}
	if len(b) < fixedSize+headerSize || !r.head.parse(b, r.id, off) {
		return errDamaged
	}
	r.last = r.head.size()
	return nil
}

// resync returns where the first record at or behind off starts, or limit when there
// is none before it.
func (r *reader) resync(off, limit int64) (int64, error) {
	r.last = 0
	for off < limit {
		b, err := r.peek(off, largeWindow, limit)
		if err != nil {
			return 0, err
		}
		i := bytes.Index(b, []byte(recordMagic))
		switch {
		case i < 0 && len(b) < largeWindow:
			return limit, nil
		case i < 0:
			off += int64(len(b) - len(recordMagic) + 1)
			continue
		}
		off += int64(i)
		switch err := r.next(off, limit); {
		case err == nil:
			return off, nil
		case !errors.Is(err, errDamaged):
			return 0, err
		}
		off++
		r.last = 0
	}
	return limit, nil
}

// body reads and checks the body of r.head.
func (r *reader) body() (*series.Buffer, error) {
	h := &r.head
	buf := series.NewBuffer(h.bodySize)
	buf.B = buf.B[:h.bodySize]
	if err := r.fill(buf.B, h.bodyOffset()); err != nil {
		buf.Free()
		return nil, err
	}
	if crc32.Checksum(buf.B, crcTable()) != h.bodyCRC {
		buf.Free()
		return nil, errDamaged
	}
	return buf, nil
}

func (r *reader) fill(b []byte, off int64) error {
	if off >= r.at && off+int64(len(b)) <= r.at+int64(len(r.window)) {
		copy(b, r.window[off-r.at:])
		return nil
	}
	switch n, err := r.file.ReadAt(b, off); {
	case n == len(b):
		return nil
	case errors.Is(err, io.EOF):
		return errDamaged
	default:
		return fmt.Errorf("read journal segment: %w", err)
	}
}

// batch reads the record of r.head as a batch with one reference.
func (r *reader) batch() (*series.Batch, error) {
	buf, err := r.body()
	if err != nil {
		return nil, err
	}
	h := &r.head
	b := series.NewBatch(buf)
	b.Version = h.version
	b.Decoded = h.decoded
	b.Received = h.received
	b.MinTime, b.MaxTime = h.minTime, h.maxTime
	b.Counts = h.counts
	b.Legacy, b.CustomBuckets = h.legacy, h.custom
	b.Series = h.series
	if h.routed != nil {
		b.Routed = append(make([]series.Counts, 0, len(h.routed)), h.routed...)
	}
	return b, nil
}

// scan calls visit for each record that starts in [from, to), with r.head set, and
// and returns where the first record behind them starts, or limit. Bytes that are no
// record are stepped over; bodies are not read.
func (r *reader) scan(from, to, limit int64, visit func() error) (int64, error) {
	off := from
	for off < to {
		err := r.next(off, limit)
		if errors.Is(err, errDamaged) {
			if off, err = r.resync(off+1, limit); err != nil {
				return off, err
			}
			continue
		}
		if err != nil {
			return off, err
		}
		end := r.head.end()
		if err := visit(); err != nil {
			return off, err
		}
		off = end
	}
	return off, nil
}
