// Package capture reads recordings of remote-write traffic: request bodies as they were
// posted, with the times at which they arrived.
//
// A capture is a sequence of records to the end of the file: the length of the body in
// four bytes and the time of receipt in eight (Unix ms), both big-endian, then the body,
// an RW 1.0 request as a snappy block.
package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/s2"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// Bounds on one request. They are above what Prometheus accepts, so a capture that
// breaks them is damaged.
const (
	MaxBody    = 64 << 20  // bytes of a body as posted
	MaxDecoded = 256 << 20 // bytes of a body after decompression
)

const headerSize = 12

// ErrDamaged is wrapped by every error about the content of a capture, as opposed to
// errors of reading it.
var ErrDamaged = errors.New("damaged capture")

// Request is one recorded request. It and all that it leads to hold until the next call
// of the Reader's Next.
type Request struct {
	Received int64  // Unix ms
	Body     []byte // as posted: a snappy block
	Message  *remotewrite.Message
}

// Reader reads a capture front to back. It holds one request at a time, so its memory
// is bounded by MaxBody, MaxDecoded and the index over the latter. It is used by one
// goroutine at a time.
type Reader struct {
	from    *bufio.Reader
	offset  int64 // of the record at hand
	record  int   // its number, from 1
	body    []byte
	decoded []byte
	message remotewrite.Message
	request Request
	failed  error
}

// NewReader returns a Reader of the capture that from yields from its first byte on.
func NewReader(from io.Reader) *Reader {
	return &Reader{from: bufio.NewReaderSize(from, 1<<16)}
}

// Next returns the next request. The error is io.EOF behind the last whole record and
// wraps ErrDamaged where the content is not a capture; it names the record and its
// offset in bytes. Every later call gives the same error.
func (r *Reader) Next() (*Request, error) {
	if r.failed != nil {
		return nil, r.failed
	}
	if err := r.next(); err != nil {
		r.failed = err
		return nil, err
	}
	return &r.request, nil
}

func (r *Reader) next() error {
	r.offset += r.size()
	r.record++
	r.body = r.body[:0]
	var header [headerSize]byte
	switch n, err := io.ReadFull(r.from, header[:]); {
	case errors.Is(err, io.EOF):
		return io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return r.damaged("the file ends after %d of %d bytes of its header; it may have been cut short", n, headerSize)
	case err != nil:
		return fmt.Errorf("read record %d at byte %d of the capture: %w", r.record, r.offset, err)
	}
	length := binary.BigEndian.Uint32(header[:])
	received := int64(binary.BigEndian.Uint64(header[4:]))
	switch {
	case length == 0:
		return r.damaged("it has no body")
	case length > MaxBody:
		return r.damaged("its body claims %d bytes, the limit is %d", length, MaxBody)
	case received <= 0:
		return r.damaged("its time of receipt is %d, not Unix milliseconds", received)
	}
	if err := r.readBody(int(length)); err != nil {
		return err
	}
	return r.decode(received)
}

// size is the length of the record that was read last.
func (r *Reader) size() int64 {
	if r.record == 0 {
		return 0
	}
	return headerSize + int64(len(r.body))
}

// step is how much room is made at a time, so that a wrong length costs no more memory
// than the file is long.
const step = 1 << 20

func (r *Reader) readBody(length int) error {
	for len(r.body) < length {
		at := len(r.body)
		n := min(step, length-at)
		if cap(r.body)-at < n {
			r.body = append(r.body, make([]byte, n)...)
		} else {
			r.body = r.body[:at+n]
		}
		switch got, err := io.ReadFull(r.from, r.body[at:]); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return r.damaged("the file ends after %d of %d bytes of its body; it may have been cut short", at+got, length)
		case err != nil:
			return fmt.Errorf("read record %d at byte %d of the capture: %w", r.record, r.offset, err)
		}
	}
	return nil
}

func (r *Reader) decode(received int64) error {
	n, err := s2.DecodedLen(r.body)
	if err != nil {
		return r.damaged("its body is no snappy block: %w", err)
	}
	if n > MaxDecoded {
		return r.damaged("its body claims %d bytes after decompression, the limit is %d", n, MaxDecoded)
	}
	// Snappy makes at most 64 bytes out of three, so that a larger claim is not worth
	// its memory.
	if n > 32*len(r.body) {
		return r.damaged("its body of %d bytes claims %d after decompression", len(r.body), n)
	}
	if r.decoded, err = s2.Decode(r.decoded[:cap(r.decoded)], r.body); err != nil {
		return r.damaged("its body is no snappy block: %w", err)
	}
	if err := r.message.Index(series.V1, r.decoded, 0); err != nil {
		return r.damaged("its body is no RW 1.0 request: %w", err)
	}
	for i := range r.message.Series {
		s := &r.message.Series[i]
		if reason := s.Invalid(); reason != "" && s.Samples+s.Histograms > 0 {
			return r.damaged("series %d of it is invalid: %s", i, reason)
		}
	}
	r.request = Request{Received: received, Body: r.body, Message: &r.message}
	return nil
}

func (r *Reader) damaged(format string, args ...any) error {
	return fmt.Errorf("%w: record %d at byte %d: %w", ErrDamaged, r.record, r.offset, fmt.Errorf(format, args...))
}

// AppendRecord appends a record to dst: a body as posted (RW 1.0, snappy) and its time
// of receipt in Unix ms. What NewReader reads is records one behind the other.
func AppendRecord(dst []byte, received int64, body []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)))
	dst = binary.BigEndian.AppendUint64(dst, uint64(received))
	return append(dst, body...)
}
