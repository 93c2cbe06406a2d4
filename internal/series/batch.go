package series

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Headroom is the room kept free before a body, so that the journal can put its
// record header there and write header and body in one call.
const Headroom = 1024

// Batch is one remote-write request that passed validation. It is shared by the
// journal's tail and all lanes; everything but the reference count and the companion is
// read-only once the journal has it.
type Batch struct {
	Version  Version
	Body     []byte // snappy block as it goes over the wire; borrowed until Release
	Decoded  int    // length of the body after decompression, in bytes
	Received int64  // Unix ms of receipt
	MinTime  int64  // smallest timestamp in it, ms; MaxTime+1 or more when it has none
	MaxTime  int64  // largest timestamp in it, ms
	Counts   Counts // all that it holds
	Legacy   bool   // every metric and label name fits the RW 1.0 charset
	// CustomBuckets says that some native histogram has custom buckets, which RW 1.0
	// backends are not to be sent.
	CustomBuckets bool

	// Series is the number of TimeSeries messages in the body. IDs has one entry
	// for each in body order, or is nil when the batch came from the disk and has
	// not been resolved yet. IDs hold while Epoch is the router's.
	Series int
	IDs    []ID
	Epoch  uint32

	// Routed is what each backend takes of it, in the order of the journal's list
	// of backends at the append; nil means that all take everything.
	Routed []Counts

	buf       *Buffer
	refs      atomic.Int32
	companion atomic.Pointer[Companion]
}

// Companion is what goes along with a batch while that is in memory, until somebody takes
// it.
type Companion interface {
	// Free is called once, by any goroutine, where the batch ends and nobody has taken it.
	Free()
}

// NewBatch returns a batch with one reference, whose body is buf's content. The
// batch owns buf from now on.
func NewBatch(buf *Buffer) *Batch {
	b := &Batch{Body: buf.B, buf: buf}
	b.refs.Store(1)
	return b
}

// Accompany gives the batch a companion, before anybody else has the batch.
func (b *Batch) Accompany(c *Companion) { b.companion.Store(c) }

// TakeCompanion returns the companion, which is the caller's from then on; nil when there
// is none, or somebody has taken it.
func (b *Batch) TakeCompanion() Companion {
	if c := b.companion.Swap(nil); c != nil {
		return *c
	}
	return nil
}

// Retain adds a reference.
func (b *Batch) Retain() { b.refs.Add(1) }

// Release gives a reference back; after the last one the body's buffer is reused.
func (b *Batch) Release() {
	switch n := b.refs.Add(-1); {
	case n == 0:
		if c := b.TakeCompanion(); c != nil {
			c.Free()
		}
		Poison(b.buf.B)
		b.buf.Free()
		b.Body, b.buf = nil, nil
	case n < 0:
		panic("BUG: series.Batch released more often than retained")
	}
}

// Record returns Headroom bytes and the body behind them as one slice. Only the
// journal's writer may use the headroom, once.
func (b *Batch) Record() []byte { return b.buf.all[:Headroom+len(b.Body)] }

// Buffer is a reusable byte slice with Headroom before its content.
type Buffer struct {
	B   []byte // the content; append through it, then keep the result in it
	all []byte
}

var buffers [32]sync.Pool // by the power of two that holds Headroom and content

// NewBuffer returns an empty buffer for n bytes of content.
func NewBuffer(n int) *Buffer {
	class := bits.Len(uint(n + Headroom - 1))
	if class < len(buffers) {
		if b, ok := buffers[class].Get().(*Buffer); ok {
			b.B = b.all[Headroom:Headroom]
			return b
		}
		n = 1<<class - Headroom
	}
	b := &Buffer{all: make([]byte, Headroom+n)}
	b.B = b.all[Headroom:Headroom]
	return b
}

// Grow makes room for n more bytes of content.
func (b *Buffer) Grow(n int) {
	if cap(b.B)-len(b.B) >= n {
		return
	}
	g := NewBuffer(max(len(b.B)+n, 2*len(b.B)))
	g.B = append(g.B, b.B...)
	*b, *g = *g, *b
	g.Free()
}

// Free gives the buffer back. Its content must not be used afterwards.
func (b *Buffer) Free() {
	if n := len(b.all); n&(n-1) == 0 {
		buffers[bits.Len(uint(n-1))].Put(b)
	}
}
