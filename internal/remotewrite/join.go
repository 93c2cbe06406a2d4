package remotewrite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// ErrSnappy is wrapped by errors about bodies that are not a snappy block.
var ErrSnappy = errors.New("not a snappy block")

// SnappyParts splits a snappy block into the decoded length that it declares, in
// bytes, and its elements, which are borrowed from body. The elements are not
// checked: only bodies that were decoded once are fit for joining.
func SnappyParts(body []byte) (decodedLen int, elements []byte, err error) {
	v, n := binary.Uvarint(body)
	if n <= 0 || v > math.MaxUint32 {
		return 0, nil, fmt.Errorf("%w: broken length at byte 0 of %d", ErrSnappy, len(body))
	}
	return int(v), body[n:], nil
}

// AppendSnappyPreamble appends the length that a snappy block of decodedLen bytes
// starts with.
func AppendSnappyPreamble(dst []byte, decodedLen int) []byte {
	return binary.AppendUvarint(dst, uint64(decodedLen))
}

// Joined is one snappy body made of several RW 1.0 bodies without opening them.
// Concatenated WriteRequests are one WriteRequest with their series in order, and the
// copies in a snappy block look back only, by distances, so that the elements of
// several blocks under one length are a block. RW 2.0 bodies must not be joined: their
// references are into tables of their own.
//
// Joined borrows the bodies until Reset. It is read as often as needed, each time
// after Rewind; it is used by one goroutine at a time. The zero Joined is empty and
// ready.
type Joined struct {
	preamble [binary.MaxVarintLen64]byte
	head     int // bytes of preamble
	parts    [][]byte
	size     int
	decoded  int

	part, off int // next to read; part 0 is the preamble
}

// Reset empties j and lets the bodies go.
func (j *Joined) Reset() {
	clear(j.parts)
	*j = Joined{parts: j.parts[:0]}
}

// Add puts a body behind those that j holds. Reading starts anew. An error leaves j
// as it was.
func (j *Joined) Add(body []byte) error {
	n, elements, err := SnappyParts(body)
	if err != nil {
		return err
	}
	if j.decoded > math.MaxUint32-n {
		return fmt.Errorf("%w: %d and %d bytes joined are more than a block can hold", ErrSnappy, j.decoded, n)
	}
	j.decoded += n
	j.size += len(elements)
	if len(elements) > 0 {
		j.parts = append(j.parts, elements)
	}
	j.Rewind()
	return nil
}

// Len is the number of bytes of the whole body, read or not.
func (j *Joined) Len() int { return sizeUvarint(uint64(j.decoded)) + j.size }

// Decoded is the length of the body after decompression, in bytes.
func (j *Joined) Decoded() int { return j.decoded }

// Rewind lets reading start at the first byte, for the first attempt as for a retry.
func (j *Joined) Rewind() { j.part, j.off = 0, 0 }

// Read implements io.Reader.
func (j *Joined) Read(p []byte) (n int, err error) {
	for n < len(p) {
		rest, ok := j.rest()
		if !ok {
			break
		}
		k := copy(p[n:], rest)
		n += k
		j.advance(k, len(rest))
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// WriteTo implements io.WriterTo: it writes what was not read yet, part by part.
func (j *Joined) WriteTo(w io.Writer) (n int64, err error) {
	for {
		rest, ok := j.rest()
		if !ok {
			return n, nil
		}
		k, err := w.Write(rest)
		n += int64(k)
		j.advance(k, len(rest))
		if err != nil {
			return n, fmt.Errorf("writing a joined body at byte %d of %d: %w", n, j.Len(), err)
		}
		if k < len(rest) {
			return n, io.ErrShortWrite
		}
	}
}

// AppendTo appends the whole body to dst, whatever was read.
func (j *Joined) AppendTo(dst []byte) []byte {
	dst = AppendSnappyPreamble(dst, j.decoded)
	for _, p := range j.parts {
		dst = append(dst, p...)
	}
	return dst
}

// rest is what is left of the part being read.
func (j *Joined) rest() (rest []byte, ok bool) {
	switch {
	case j.part > len(j.parts):
		return nil, false
	case j.part > 0:
		return j.parts[j.part-1][j.off:], true
	}
	j.head = binary.PutUvarint(j.preamble[:], uint64(j.decoded))
	return j.preamble[j.off:j.head], true
}

func (j *Joined) advance(n, of int) {
	j.off += n
	if n == of {
		j.part, j.off = j.part+1, 0
	}
}
