package remotewrite

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Opened is a request that was decompressed, and the index over it. It is used by one
// goroutine at a time.
type Opened struct {
	Plain   []byte // room for the decompressed request, or that
	Message Message

	// self is this, where the batch that it goes along with can point at it.
	self  series.Companion
	shelf *Shelf // to which it goes back; nil while it is not lent
	size  int64  // what it takes of the shelf
}

// Room is Plain with the length n; its content is undefined.
func (o *Opened) Room(n int) []byte {
	o.Plain = slices.Grow(o.Plain[:0], n)[:n]
	return o.Plain
}

// Footprint is the number of bytes that it keeps for its next use.
func (o *Opened) Footprint() int { return cap(o.Plain) + o.Message.Footprint() }

// Free ends the loan of an Opened: of one that Shelf.Take returned, which must not be used
// afterwards, or, by its batch, of one that nobody took.
func (o *Opened) Free() {
	shelf := o.shelf
	o.shelf = nil
	shelf.lent.Add(-o.size)
	series.Poison(o.Plain)
	shelf.idle.Put(o)
}

// Shelf is where the receiver leaves a request that it has opened for a lane that is about
// to read the batch that was made of it, and would open it once more. Whether there is such
// a reader is known from those that came lately. Its methods may be called from several goroutines.
// A nil Shelf lends nothing.
type Shelf struct {
	most  int64        // bytes that are lent
	lent  atomic.Int64 // bytes
	asked atomic.Int64 // when the newest batch was received that was asked for, Unix ms
	idle  sync.Pool    // of *Opened
}

// NewShelf returns a Shelf that lends up to about most bytes at a time.
func NewShelf(most int64) *Shelf { return &Shelf{most: most} }

// New returns an Opened to use.
func (s *Shelf) New() *Opened {
	if s != nil {
		if o, ok := s.idle.Get().(*Opened); ok {
			return o
		}
	}
	o := &Opened{}
	o.self = o
	return o
}

// near is how far behind the newest batch a reader may be for batches to be opened for it,
// in ms: one that is further behind finds what was lent to it gone from the memory.
const near = 1000

// Leave lends o to the reader of b, which nobody else has yet, and reports whether it did:
// then o must not be used any more.
func (s *Shelf) Leave(b *series.Batch, o *Opened) bool {
	if s == nil || b.Received-s.asked.Load() > near {
		return false
	}
	size := int64(o.Footprint())
	if s.lent.Add(size) > s.most {
		s.lent.Add(-size)
		return false
	}
	o.shelf, o.size = s, size
	b.Accompany(&o.self)
	return true
}

// Take returns what was left for the readers of b, the caller's to use and to Free; nil
// where that was nothing, or somebody else has it.
func (s *Shelf) Take(b *series.Batch) *Opened {
	if s == nil {
		return nil
	}
	if asked := s.asked.Load(); b.Received > asked {
		s.asked.CompareAndSwap(asked, b.Received) // else somebody asked for another one just now
	}
	o, _ := b.TakeCompanion().(*Opened)
	return o
}
