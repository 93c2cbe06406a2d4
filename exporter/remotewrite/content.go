package remotewrite

import (
	"errors"
	"io"
	"sync"
)

// source is a body that can be read again and again.
type source interface {
	io.Reader
	io.WriterTo // of what was not read yet
	Len() int   // of the whole body, in bytes
	Rewind()    // lets Read start at the first byte
}

// stored is a source over bytes that it borrows.
type stored struct {
	body []byte
	off  int
}

func (s *stored) Read(p []byte) (int, error) {
	if s.off == len(s.body) {
		return 0, io.EOF
	}
	n := copy(p, s.body[s.off:])
	s.off += n
	return n, nil
}

func (s *stored) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(s.body[s.off:])
	s.off += n
	return int64(n), err
}

func (s *stored) Len() int { return len(s.body) }
func (s *stored) Rewind()  { s.off = 0 }

// errRevoked ends a write that an attempt left behind.
var errRevoked = errors.New("the attempt is over")

// content lends its source to one reader at a time. The HTTP transport may go on
// reading a request's body after it has returned the answer, when the bytes may already
// belong to somebody else: once revoke has returned no reader touches them.
type content struct {
	mu     sync.Mutex
	src    source
	kept   float64 // the share of the samples that it holds; see provenance
	holder *reader // who may read now
	read   int64   // bytes read since begin, by all readers
}

// begin starts an attempt.
func (c *content) begin() io.ReadCloser {
	c.mu.Lock()
	c.read = 0
	c.mu.Unlock()
	return c.open()
}

// open returns a reader that starts at the first byte and ends the one before it.
func (c *content) open() io.ReadCloser {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.src.Rewind()
	c.holder = &reader{content: c, left: c.src.Len()}
	return c.holder
}

// revoke ends the attempt and returns how many bytes the connection took of the source,
// at most; 0 means that nothing of it can have reached the backend.
func (c *content) revoke() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holder = nil
	return c.read
}

// reader is the body of one request.
type reader struct {
	content *content
	left    int
}

func (r *reader) Read(p []byte) (int, error) {
	c := r.content
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.left == 0 {
		return 0, io.EOF // a body that is sent must not fail: the connection is to be used again
	}
	if c.holder != r {
		return 0, errRevoked
	}
	n, err := c.src.Read(p)
	r.left -= n
	c.read += int64(n)
	return n, err
}

// writeTo writes what is left, if that is limit bytes, to a connection; else nothing.
// revoke waits for it: whoever ends an attempt closes its connection, which ends the
// writing.
func (r *reader) writeTo(w io.Writer, limit int64) (int64, error) {
	c := r.content
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.left == 0 || int64(r.left) != limit:
		return 0, nil
	case c.holder != r:
		return 0, errRevoked
	}
	n, err := c.src.WriteTo(w)
	r.left -= int(n)
	c.read += n
	return n, err
}

func (r *reader) Close() error { return nil }
