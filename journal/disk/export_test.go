package disk

import (
	"encoding/binary"
	"hash/crc32"
)

// SegmentOfVersion returns the header of a segment of another format.
func SegmentOfVersion(v uint32) []byte {
	var h segmentHeader
	b, err := h.encode()
	if err != nil {
		panic(err)
	}
	b = b[:len(b)/2]
	binary.LittleEndian.PutUint32(b[4:], v)
	binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], crcTable()))
	return b
}

// HeaderSize is where the first record of a segment starts.
func HeaderSize(segment []byte) int64 {
	h, _, err := parseSegmentHeader(segment)
	if err != nil {
		panic(err)
	}
	return h.size
}
