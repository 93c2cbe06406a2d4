package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"

	"github.com/sluice-metrics/sluice/internal/series"
)

// A sum file says what a segment holds that is not written any more, so that a start
// need not look at the header of each record, which a cold disk takes seconds for. It is
// never needed: where it is missing, damaged or of something else, records are counted.
//
//	magic    4 bytes, with the format version
//	numbers  variable-length, see appendSum
//	CRC      4 bytes, CRC-32C of all before it
const (
	sumMagic  = "SLS\x01"
	sumSuffix = ".sum"
)

// maxSumSize bounds what is read of a sum file: the counts of some thousands of backends.
const maxSumSize = 1 << 17

func (j *Journal) sumsDir() string { return path.Join(j.dir, "sums") }
func (j *Journal) sumPath(segmentID uint64) string {
	return path.Join(j.sumsDir(), fmt.Sprintf("%020d%s", segmentID, sumSuffix))
}

// appendSum appends the sum file of s to dst. The time of its creation and its end say
// whether a segment is still the one that was summed up. Journal.mu is held.
func appendSum(dst []byte, s *segment) []byte {
	start := len(dst)
	dst = append(dst, sumMagic...)
	dst = binary.AppendUvarint(dst, s.id)
	dst = binary.AppendVarint(dst, s.created)
	dst = binary.AppendUvarint(dst, uint64(s.end))
	dst = binary.AppendUvarint(dst, uint64(s.records))
	dst = binary.AppendUvarint(dst, uint64(s.bytes))
	dst = binary.AppendVarint(dst, s.oldest)
	dst = binary.AppendVarint(dst, s.newest)
	dst = appendCounts(dst, s.whole)
	dst = binary.AppendUvarint(dst, uint64(len(s.routed)))
	for _, c := range s.routed {
		dst = appendCounts(dst, c)
	}
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], crcTable()))
}

// parseSum sets what s holds from its sum file. It is false, and s as it was, when b is
// not the sum file of s.
func parseSum(b []byte, s *segment) bool {
	n := len(b) - crc32.Size
	if n < len(sumMagic) || string(b[:len(sumMagic)]) != sumMagic || crc32.Checksum(b[:n], crcTable()) != binary.LittleEndian.Uint32(b[n:]) {
		return false
	}
	d := decoder{b: b[len(sumMagic):n]}
	if d.uvarint() != s.id || d.varint() != s.created || d.uvarint() != uint64(s.end) {
		return false
	}
	sum := segment{records: int64(d.uvarint()), bytes: int64(d.uvarint()), oldest: d.varint(), newest: d.varint(), whole: d.counts()}
	backends := d.uvarint()
	if backends > uint64(len(d.b))/3 {
		return false
	}
	for range backends {
		sum.routed = append(sum.routed, d.counts())
	}
	if d.bad || len(d.b) > 0 || sum.records < 0 || sum.bytes < 0 {
		return false
	}
	s.records, s.bytes, s.oldest, s.newest, s.whole, s.routed = sum.records, sum.bytes, sum.oldest, sum.newest, sum.whole, sum.routed
	return true
}

// writeSum stores what s holds. It is called when s is not written any more.
func (j *Journal) writeSum(s *segment) {
	j.mu.Lock()
	known := s.records > 0 && s.created != 0
	b := appendSum(nil, s)
	j.mu.Unlock()
	if !known || len(b) > maxSumSize {
		return
	}
	if err := j.replaceSum(s.id, b); err != nil {
		j.logger.Warn("What a journal segment holds could not be noted; the next start takes longer.", "segment", s.path, "err", err)
	}
}

func (j *Journal) replaceSum(id uint64, b []byte) (err error) {
	p := j.sumPath(id)
	f, err := j.fs.Create(p)
	if errors.Is(err, fs.ErrExist) {
		f, err = j.fs.Open(p)
		if err == nil {
			err = f.Truncate(0)
		}
	}
	if f == nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	return err
}

// readSum sets what s holds from its sum file and reports whether there is one of it.
func (j *Journal) readSum(s *segment) bool {
	f, err := j.fs.Open(j.sumPath(s.id))
	if err != nil {
		return false
	}
	size, err := f.Size()
	if err != nil || size > maxSumSize {
		_ = f.Close() // it was only read
		return false
	}
	b := make([]byte, size)
	n, err := f.ReadAt(b, 0)
	if cerr := f.Close(); cerr != nil || err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	return parseSum(b[:n], s)
}

// dropSum makes the next start count the records of a segment.
func (j *Journal) dropSum(id uint64) {
	if err := j.fs.Remove(j.sumPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		j.logger.Warn("The note of what a journal segment holds could not be removed.", "file", j.sumPath(id), "err", err)
	}
}

// recountAt counts the records of the segments in which cursors stand. A cursor takes
// what it has passed from them, and both have to be counted in the same way: a record
// that was damaged since is in neither.
func (j *Journal) recountAt() error {
	for _, c := range j.stored {
		p := c.state.Position
		s := j.segment(p.Segment)
		if s == nil || !s.summed || p.Offset <= s.first || p.Offset >= s.end {
			continue
		}
		s.summed = false
		s.records, s.bytes, s.oldest, s.newest, s.whole, s.routed = 0, 0, 0, 0, series.Counts{}, nil
		if err := j.count(s, s.end); err != nil {
			return fmt.Errorf("segment %s: %w", s.path, err)
		}
	}
	return nil
}

// dropForeignSums removes the sum files of segments that are gone.
func (j *Journal) dropForeignSums() error {
	names, err := j.fs.List(j.sumsDir())
	if err != nil {
		return err
	}
	for _, name := range names {
		if id, ok := parseNumbered(name, sumSuffix); ok && j.segment(id) == nil {
			j.dropSum(id)
		}
	}
	return nil
}
