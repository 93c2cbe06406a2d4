package ledger

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// A frame is a magic number, the length of the payload, the number of the frame in its
// file, the CRC-32C of those two and of the payload, and the payload. The magic number
// is not in any payload, since it is no UTF-8.
const (
	frameMagic  = "\xf5Ld\x9c"
	frameHeader = 20
)

func checksum(numbers, payload []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(numbers, table), table, payload)
}

func appendFrame(dst []byte, number uint64, payload []byte) []byte {
	start := len(dst)
	dst = append(dst, frameMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	dst = binary.LittleEndian.AppendUint64(dst, number)
	dst = binary.LittleEndian.AppendUint32(dst, checksum(dst[start+4:], payload))
	return append(dst, payload...)
}

// parseFrame returns the frame at the start of b; ok is false when there is none.
func parseFrame(b []byte) (number uint64, payload []byte, ok bool) {
	if len(b) < frameHeader || string(b[:4]) != frameMagic {
		return 0, nil, false
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if n > maxPayload || int(n) > len(b)-frameHeader {
		return 0, nil, false
	}
	payload = b[frameHeader : frameHeader+int(n)]
	if checksum(b[4:16], payload) != binary.LittleEndian.Uint32(b[16:]) {
		return 0, nil, false
	}
	return binary.LittleEndian.Uint64(b[8:]), payload, true
}

// framesFollow reports whether somewhere in b is a frame with at least the given number.
// Frames with lower ones are what a failed write left behind.
func framesFollow(b []byte, number uint64) bool {
	for {
		i := bytes.Index(b, []byte(frameMagic))
		if i < 0 {
			return false
		}
		if n, _, ok := parseFrame(b[i:]); ok && n >= number {
			return true
		}
		b = b[i+1:]
	}
}
