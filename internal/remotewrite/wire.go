package remotewrite

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// The wire types of protobuf. Groups (3 and 4) are refused everywhere.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// tagOf is the tag of a field, as uvarint reads it.
func tagOf(field, wireType uint64) uint64 { return field<<3 | wireType }

// malformed is the error for bytes at an offset of the request that are not what
// they should be.
func malformed(at uint, what string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrMalformed, what, at)
}

// uvarint reads a varint of at most ten bytes. n is its length, or at most 0 when b
// ends inside of it or it does not fit into 64 bits.
func uvarint(b []byte) (v uint64, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return longUvarint(b)
}

// longUvarint is apart so that uvarint can be inlined.
//
//go:noinline
func longUvarint(b []byte) (v uint64, n int) {
	if len(b) > 1 && b[1] < 0x80 {
		return uint64(b[0]&0x7f) | uint64(b[1])<<7, 2
	}
	return binary.Uvarint(b)
}

// lenDelim splits b, which starts with a length, into what that length covers and
// what follows.
func lenDelim(b []byte) (p, rest []byte, ok bool) {
	v, n := uvarint(b)
	if n <= 0 || v > uint64(len(b)-n) {
		return nil, nil, false
	}
	end := n + int(v)
	return b[n:end:end], b[end:], true
}

// delimited is lenDelim by place: the length stands at b[at], what it covers at
// from..to.
func delimited(b []byte, at uint) (from, to uint, ok bool) {
	if at+1 < uint(len(b)) {
		n := uint(b[at])
		if n < 0x80 {
			return at + 1, at + 1 + n, at+1+n <= uint(len(b))
		}
		if c := uint(b[at+1]); c < 0x80 {
			n = n&0x7f | c<<7
			return at + 2, at + 2 + n, at+2+n <= uint(len(b))
		}
	}
	if at > uint(len(b)) {
		return 0, 0, false
	}
	p, rest, ok := lenDelim(b[at:])
	to = uint(len(b) - len(rest))
	return to - uint(len(p)), to, ok
}

// nextField splits the first field off b: its tag and what follows the tag. ok is
// false for a broken tag, field number 0 and field numbers beyond protobuf's limit.
func nextField(b []byte) (tag uint64, rest []byte, ok bool) {
	if len(b) > 0 && b[0]-8 < 0x80-8 {
		return uint64(b[0]), b[1:], true
	}
	return longTag(b)
}

// longTag is apart so that nextField can be inlined.
func longTag(b []byte) (tag uint64, rest []byte, ok bool) {
	tag, n := uvarint(b)
	if n <= 0 || tag < 8 || tag > math.MaxUint32 {
		return 0, nil, false
	}
	return tag, b[n:], true
}

// fieldAt reads the field at b[at], at < len(b): its tag and the place of its value,
// for a length-delimited one that of its inside. The next field starts at to.
func fieldAt(b []byte, at uint) (tag uint64, from, to uint, ok bool) {
	tag, rest, ok := nextField(b[at:])
	if !ok {
		return 0, 0, 0, false
	}
	from = uint(len(b) - len(rest))
	if tag&7 == wireBytes {
		from, to, ok = delimited(b, from)
		return tag, from, to, ok
	}
	after, ok := skipField(rest, tag)
	return tag, from, uint(len(b) - len(after)), ok
}

// skipField returns what follows the value at the start of b, whose tag has been
// read. ok is false when the value is cut short and for groups.
func skipField(b []byte, tag uint64) (rest []byte, ok bool) {
	switch tag & 7 {
	case wireVarint:
		_, n := uvarint(b)
		if n <= 0 {
			return nil, false
		}
		return b[n:], true
	case wireFixed64:
		if len(b) < 8 {
			return nil, false
		}
		return b[8:], true
	case wireBytes:
		_, rest, ok = lenDelim(b)
		return rest, ok
	case wireFixed32:
		if len(b) < 4 {
			return nil, false
		}
		return b[4:], true
	}
	return nil, false
}

// zigzag undoes the zigzag encoding of sint64 and sint32 fields.
func zigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// appendUvarint appends v in as few bytes as it takes.
func appendUvarint(dst []byte, v uint64) []byte { return binary.AppendUvarint(dst, v) }

// sizeUvarint is the number of bytes appendUvarint appends.
func sizeUvarint(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// appendTag appends the tag of a field.
func appendTag(dst []byte, field, wireType uint64) []byte {
	return appendUvarint(dst, tagOf(field, wireType))
}

// appendBytesField appends a whole length-delimited field.
func appendBytesField(dst []byte, field uint64, p []byte) []byte {
	dst = appendTag(dst, field, wireBytes)
	dst = appendUvarint(dst, uint64(len(p)))
	return append(dst, p...)
}

// sizeBytesField is the number of bytes appendBytesField appends for n bytes of content.
func sizeBytesField(field uint64, n int) int {
	return sizeUvarint(tagOf(field, wireBytes)) + sizeUvarint(uint64(n)) + n
}

// appendVarintField appends a whole varint field.
func appendVarintField(dst []byte, field, v uint64) []byte {
	return appendUvarint(appendTag(dst, field, wireVarint), v)
}

// appendFixed64Field appends a whole fixed64 or double field.
func appendFixed64Field(dst []byte, field, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(appendTag(dst, field, wireFixed64), v)
}
