package disk

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/sluice-metrics/sluice/internal/series"
)

const (
	recordMagic   = "\xf5Sr\x9c"
	fixedSize     = 20      // of a record, before its header
	maxHeaderSize = 1 << 17 // room for the counts of some thousands of backends
	minHeaderSize = 13      // thirteen fields of at least a byte
)

// Flags of a record.
const (
	flagLegacy = 1 << iota
	flagRouted
	flagCustomBuckets
)

func crcTable() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// header is what a record says about its body.
type header struct {
	segment  uint64
	offset   int64 // of the record
	version  series.Version
	legacy   bool
	custom   bool // has histograms with custom buckets
	received int64
	minTime  int64
	maxTime  int64
	decoded  int
	series   int
	counts   series.Counts
	routed   []series.Counts // nil when every backend takes everything

	headerSize int
	bodySize   int
	bodyCRC    uint32
}

func (h *header) end() int64 { return h.offset + h.size() }

// size of the whole record in bytes.
func (h *header) size() int64 { return int64(fixedSize) + int64(h.headerSize) + int64(h.bodySize) }

// bodyOffset is where the body starts in the segment.
func (h *header) bodyOffset() int64 { return h.offset + int64(fixedSize) + int64(h.headerSize) }

// appendHeader appends fixed part and header of b's record to dst, for the given
// place.
func appendHeader(dst []byte, b *series.Batch, segment uint64, offset int64) []byte {
	start := len(dst)
	dst = append(dst, recordMagic...)
	dst = append(dst, make([]byte, fixedSize-len(recordMagic))...)
	dst = binary.AppendUvarint(dst, segment)
	dst = binary.AppendUvarint(dst, uint64(offset))
	var flags byte
	if b.Legacy {
		flags |= flagLegacy
	}
	if b.Routed != nil {
		flags |= flagRouted
	}
	if b.CustomBuckets {
		flags |= flagCustomBuckets
	}
	dst = append(dst, byte(b.Version), flags)
	dst = binary.AppendVarint(dst, b.Received)
	dst = binary.AppendVarint(dst, b.MinTime)
	dst = binary.AppendVarint(dst, b.MaxTime)
	dst = binary.AppendUvarint(dst, uint64(b.Decoded))
	dst = binary.AppendUvarint(dst, uint64(b.Series))
	dst = appendCounts(dst, b.Counts)
	dst = binary.AppendUvarint(dst, uint64(len(b.Routed)))
	for _, c := range b.Routed {
		dst = appendCounts(dst, c)
	}
	fixed := dst[start:]
	binary.LittleEndian.PutUint32(fixed[4:], uint32(len(fixed)-fixedSize))
	binary.LittleEndian.PutUint32(fixed[8:], uint32(len(b.Body)))
	binary.LittleEndian.PutUint32(fixed[12:], crc32.Checksum(b.Body, crcTable()))
	binary.LittleEndian.PutUint32(fixed[16:], headerCRC(fixed))
	return dst
}

func appendCounts(dst []byte, c series.Counts) []byte {
	dst = binary.AppendUvarint(dst, c.Samples)
	dst = binary.AppendUvarint(dst, c.Histograms)
	return binary.AppendUvarint(dst, c.Exemplars)
}

// headerCRC is the CRC of a record's sizes, body CRC and header.
func headerCRC(record []byte) uint32 {
	size := int(binary.LittleEndian.Uint32(record[4:]))
	crc := crc32.Checksum(record[4:16], crcTable())
	return crc32.Update(crc, crcTable(), record[fixedSize:fixedSize+size])
}

// parseFixed reads the sizes of a record from its first fixedSize bytes.
func parseFixed(b []byte) (headerSize, bodySize int, ok bool) {
	hs := binary.LittleEndian.Uint32(b[4:])
	bs := binary.LittleEndian.Uint32(b[8:])
	ok = string(b[:4]) == recordMagic && hs >= minHeaderSize && hs <= maxHeaderSize && bs <= math.MaxInt32
	return int(hs), int(bs), ok
}

// placed reports whether the header that follows the fixed part in b names the given
// place.
func placed(b []byte, segment uint64, offset int64) bool {
	if len(b) < fixedSize {
		return false
	}
	d := decoder{b: b[fixedSize:]}
	return d.uvarint() == segment && d.uvarint() == uint64(offset) && !d.bad
}

// parse reads a header from b, which holds fixed part and header, whole. It reuses
// h.routed. It is false when b is not the header of a record of this place.
func (h *header) parse(b []byte, segment uint64, offset int64) bool {
	hs, bs, ok := parseFixed(b)
	if !ok || len(b) < fixedSize+hs || headerCRC(b) != binary.LittleEndian.Uint32(b[16:]) {
		return false
	}
	d := decoder{b: b[fixedSize : fixedSize+hs]}
	routed := h.routed[:0]
	*h = header{headerSize: hs, bodySize: bs, bodyCRC: binary.LittleEndian.Uint32(b[12:])}
	h.segment = d.uvarint()
	h.offset = int64(d.uvarint())
	h.version = series.Version(d.byte())
	flags := d.byte()
	h.legacy = flags&flagLegacy != 0
	h.custom = flags&flagCustomBuckets != 0
	h.received = d.varint()
	h.minTime = d.varint()
	h.maxTime = d.varint()
	h.decoded = int(d.uvarint())
	h.series = int(d.uvarint())
	h.counts = d.counts()
	n := d.uvarint()
	if n > uint64(len(d.b))/3 || n > 0 && flags&flagRouted == 0 {
		return false
	}
	for range n {
		routed = append(routed, d.counts())
	}
	if flags&flagRouted != 0 {
		h.routed = routed
		if h.routed == nil {
			h.routed = []series.Counts{}
		}
	}
	return !d.bad && len(d.b) == 0 && h.segment == segment && h.offset == offset && h.decoded >= 0 && h.series >= 0
}

// taken is what the backend with the given index in the segment's list takes of a
// record; -1 is a backend that is not in the list.
func taken(all series.Counts, routed []series.Counts, index int) series.Counts {
	switch {
	case routed == nil:
		return all
	case index >= 0 && index < len(routed):
		return routed[index]
	}
	return series.Counts{}
}

// decoder reads numbers from a slice. Past its end it is bad and reads zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	return d.took(v, n)
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	d.took(0, n)
	return v
}

func (d *decoder) took(v uint64, n int) uint64 {
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) counts() series.Counts {
	return series.Counts{Samples: d.uvarint(), Histograms: d.uvarint(), Exemplars: d.uvarint()}
}

// encode returns the record of b for the given place. Where the header fits into the
// headroom the result is part of the batch's own buffer, otherwise a copy. scratch is
// working memory of the caller, kept for the next call.
func encode(b *series.Batch, segment uint64, offset int64, scratch *[]byte) ([]byte, error) {
	if len(b.Body) > math.MaxInt32 {
		return nil, fmt.Errorf("a request of %d bytes is too large for a record", len(b.Body))
	}
	head := appendHeader((*scratch)[:0], b, segment, offset)
	*scratch = head
	if len(head) > fixedSize+maxHeaderSize {
		return nil, fmt.Errorf("the counts of %d backends do not fit into the header of a record", len(b.Routed))
	}
	if len(head) > series.Headroom {
		return append(append(make([]byte, 0, len(head)+len(b.Body)), head...), b.Body...), nil
	}
	record := b.Record()[series.Headroom-len(head):]
	copy(record, head)
	return record, nil
}
