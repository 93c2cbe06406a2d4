package disk

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

const (
	segmentMagic   = "SLSG"
	segmentVersion = 1
	// maxSegmentHeader bounds the search for the second copy of a damaged header.
	maxSegmentHeader = 1 << 20
	segmentSuffix    = ".seg"
)

// errVersion is returned for a segment whose format this program does not know.
var errVersion = errors.New("written in an unknown format, probably by a newer version: run that version, or give this one another directory with --storage.path")

// segmentHeader is the beginning of a segment.
type segmentHeader struct {
	created  int64 // Unix ms
	size     int64 // of both copies, which is where the first record starts
	backends []journal.Backend
	previous journal.Position // where the segment before it ends
}

type segmentJSON struct {
	Backends []backendJSON    `json:"backends,omitempty"`
	Previous journal.Position `json:"previous"`
}

type backendJSON struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

// encode returns both copies and sets size.
func (h *segmentHeader) encode() ([]byte, error) {
	doc := segmentJSON{Previous: h.previous}
	for _, b := range h.backends {
		doc.Backends = append(doc.Backends, backendJSON(b))
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode the segment header: %w", err)
	}
	b := append(make([]byte, 0, 2*(len(text)+24)), segmentMagic...)
	b = binary.LittleEndian.AppendUint32(b, segmentVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.created))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	b = append(b, text...)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crcTable()))
	b = append(b, b...)
	if len(b) > maxSegmentHeader {
		return nil, fmt.Errorf("a list of %d backends does not fit into the header of a segment", len(h.backends))
	}
	h.size = int64(len(b))
	return b, nil
}

// parseSegmentHeader finds a good copy of the header at the beginning of a segment. ok
// is false when there is none.
func parseSegmentHeader(b []byte) (h segmentHeader, ok bool, err error) {
	for at := 0; at < len(b); at++ {
		i := bytes.Index(b[at:], []byte(segmentMagic))
		if i < 0 {
			break
		}
		at += i
		size, ok, err := h.parseCopy(b[at:])
		if err != nil {
			return h, false, err
		}
		// The first copy is at the start, the second one right behind it.
		if ok && (at == 0 || at == size) {
			h.size = int64(2 * size)
			return h, true, nil
		}
	}
	return segmentHeader{}, false, nil
}

func (h *segmentHeader) parseCopy(b []byte) (size int, ok bool, err error) {
	if len(b) < 24 {
		return 0, false, nil
	}
	n := binary.LittleEndian.Uint32(b[16:])
	if uint64(n)+24 > uint64(len(b)) {
		return 0, false, nil
	}
	size = int(n) + 24
	if crc32.Checksum(b[:size-4], crcTable()) != binary.LittleEndian.Uint32(b[size-4:]) {
		return 0, false, nil
	}
	if v := binary.LittleEndian.Uint32(b[4:]); v != segmentVersion {
		return 0, false, fmt.Errorf("format %d: %w", v, errVersion)
	}
	var doc segmentJSON
	if err := json.Unmarshal(b[20:size-4], &doc); err != nil {
		return 0, false, nil
	}
	h.created = int64(binary.LittleEndian.Uint64(b[8:]))
	h.previous = doc.Previous
	h.backends = nil
	for _, e := range doc.Backends {
		h.backends = append(h.backends, journal.Backend(e))
	}
	return size, true, nil
}

// tally is what a run of records holds, for one backend.
type tally struct {
	records int64
	bytes   int64
	counts  series.Counts
}

func (t *tally) add(o tally) {
	t.records += o.records
	t.bytes += o.bytes
	t.counts.Add(o.counts)
}

// sub takes o away, but never goes below zero: what a damaged disk says twice may not
// agree.
func (t *tally) sub(o tally) {
	t.records = max(t.records-o.records, 0)
	t.bytes = max(t.bytes-o.bytes, 0)
	t.counts.Samples -= min(t.counts.Samples, o.counts.Samples)
	t.counts.Histograms -= min(t.counts.Histograms, o.counts.Histograms)
	t.counts.Exemplars -= min(t.counts.Exemplars, o.counts.Exemplars)
}

// segment is what the journal knows of a segment file. It is guarded by Journal.mu.
type segment struct {
	id       uint64
	path     string
	created  int64             // Unix ms, 0 when the header is damaged
	backends []journal.Backend // of the header; never altered
	first    int64             // where records start; 0 when the header is damaged
	end      int64             // behind the last record that cursors may see
	size     int64             // what the file takes of the disk budget

	records int64
	bytes   int64           // of records
	whole   series.Counts   // of records that all backends take whole
	routed  []series.Counts // of the others, by the index of the backend
	oldest  int64           // smallest and largest time of receipt, Unix ms
	newest  int64
	summed  bool // these are from the sum file

	// damaged are the offsets of damage that was reported, so that it is reported once
	// and not once a cursor.
	damaged map[int64]bool
}

// endPosition is behind the last record. Journal.mu is held.
func (s *segment) endPosition() journal.Position {
	return journal.Position{Segment: s.id, Offset: s.end}
}

func (s *segment) index(name string) int {
	return slices.IndexFunc(s.backends, func(b journal.Backend) bool { return b.Name == name })
}

// digest is the backend's in the list the segment was written with.
func digest(list []journal.Backend, name string) (string, bool) {
	for _, b := range list {
		if b.Name == name {
			return b.Digest, true
		}
	}
	return "", false
}

// add counts one record.
func (s *segment) add(size, received int64, all series.Counts, routed []series.Counts) {
	if s.records == 0 || received < s.oldest {
		s.oldest = received
	}
	if s.records == 0 || received > s.newest {
		s.newest = received
	}
	s.records++
	s.bytes += size
	if routed == nil {
		s.whole.Add(all)
		return
	}
	for len(s.routed) < len(routed) {
		s.routed = append(s.routed, series.Counts{})
	}
	for i, c := range routed {
		s.routed[i].Add(c)
	}
}

// tally is what the named backend takes of the segment.
func (s *segment) tally(name string) tally {
	t := tally{records: s.records, bytes: s.bytes, counts: s.whole}
	if i := s.index(name); i >= 0 && i < len(s.routed) {
		t.counts.Add(s.routed[i])
	}
	return t
}

func segmentName(id uint64) string { return fmt.Sprintf("%020d%s", id, segmentSuffix) }

func parseSegmentName(name string) (uint64, bool) { return parseNumbered(name, segmentSuffix) }

// parseNumbered returns the number of a segment in the name of one of its files.
func parseNumbered(name, suffix string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	id, err := strconv.ParseUint(digits, 10, 64)
	return id, err == nil && id > 0
}
