package remotewrite

import (
	"math/bits"

	"github.com/sluice-metrics/sluice/internal/series"
)

// waitingExemplars are the exemplars of a series that had nothing else. RW 1.0
// senders write each exemplar so; in RW 2.0 they must stand in a series with a sample
// (M3), which may come later in the same request.
type waitingExemplars struct {
	ordinal  int
	refs     span // packed references of the labels, in Builder.pending
	fields   span // exemplar fields, likewise
	counts   series.Counts
	next     int // another one with the same hash of labels, or -1
	attached bool
}

// wait keeps b.exemplars for a series whose labels are b.refs.
func (b *Builder) wait(counts series.Counts) {
	at := len(b.pending)
	b.pending = append(b.pending, b.refs...)
	in := len(b.pending)
	b.pending = b.appendExemplarsV2(b.pending, b.exemplars)
	b.waiting = append(b.waiting, waitingExemplars{
		ordinal: b.added, counts: counts,
		refs: span{uint32(at), uint32(in)}, fields: span{uint32(in), uint32(len(b.pending))},
	})
}

// exemplarFinder finds the waiting exemplars for a series.
type exemplarFinder struct {
	first map[uint64]int // by hash of labels: index of the first in Builder.waiting
	a, b  []uint32
	body  []byte // the body being written anew
}

// attachExemplars puts each waiting exemplar into the first series with its labels;
// the rest are dropped.
func (b *Builder) attachExemplars() {
	if len(b.waiting) == 0 {
		return
	}
	f := &b.finder
	b.enlist()
	f.body = f.body[:0]
	for rest := b.body; len(rest) > 0; {
		field := rest
		_, after, _ := nextField(rest)
		content, next, ok := lenDelim(after)
		if !ok {
			panic("BUG: Builder.body is not a run of series")
		}
		rest = next
		first, n := b.waitingFor(content)
		if n == 0 {
			f.body = append(f.body, field[:len(field)-len(rest)]...)
			continue
		}
		f.body = append(f.body, tagV2Series)
		f.body = appendUvarint(f.body, uint64(len(content)+n))
		f.body = append(f.body, content...)
		for w := first; w >= 0; w = b.waiting[w].next {
			if x := &b.waiting[w]; b.fits(x) {
				f.body = append(f.body, b.pending[x.fields.from:x.fields.to]...)
				x.attached = true
			}
		}
	}
	b.body, f.body = f.body, b.body
	for _, w := range b.waiting {
		if !w.attached {
			b.counts.Sub(w.counts)
			b.late = append(b.late, LateDrop{w.ordinal, w.counts, ReasonExemplarWithoutSample})
		}
	}
	b.waiting, b.pending = b.waiting[:0], b.pending[:0]
}

// enlist chains the waiting exemplars by the hash of their labels, in order.
func (b *Builder) enlist() {
	f := &b.finder
	if f.first == nil {
		f.first = make(map[uint64]int)
	}
	clear(f.first)
	if len(b.table.at) != b.table.count {
		b.table.index()
	}
	for w := len(b.waiting) - 1; w >= 0; w-- {
		x := &b.waiting[w]
		f.a, _ = appendRefs(f.a[:0], b.pending[x.refs.from:x.refs.to])
		h := b.hash(f.a)
		x.next = -1
		if next, ok := f.first[h]; ok {
			x.next = next
		}
		f.first[h] = w
	}
}

// waitingFor returns the chain of exemplars that may belong to a series with this
// content, and the bytes that those take which do. It leaves the series' references
// in finder.b for fits.
func (b *Builder) waitingFor(content []byte) (first, n int) {
	f := &b.finder
	f.b = seriesRefs(f.b[:0], content)
	first, ok := f.first[b.hash(f.b)]
	if !ok {
		return -1, 0
	}
	for w := first; w >= 0; w = b.waiting[w].next {
		if x := &b.waiting[w]; b.fits(x) {
			n += int(x.fields.to - x.fields.from)
		}
	}
	return first, n
}

// fits reports whether w still waits and has the labels of the series in finder.b.
// Contents are compared, since a table that was taken over may hold a symbol twice.
func (b *Builder) fits(w *waitingExemplars) bool {
	f := &b.finder
	if w.attached {
		return false
	}
	f.a, _ = appendRefs(f.a[:0], b.pending[w.refs.from:w.refs.to])
	if len(f.a) != len(f.b) {
		return false
	}
	for i := range f.a {
		if f.a[i] != f.b[i] && string(b.table.symbol(f.a[i])) != string(b.table.symbol(f.b[i])) {
			return false
		}
	}
	return true
}

// hash is a hash of the symbols that refs name, in order.
func (b *Builder) hash(refs []uint32) uint64 {
	h := b.table.seed
	for _, r := range refs {
		h = bits.RotateLeft64(h, 23)*0x9e3779b97f4a7c15 ^ b.table.hash[r]
	}
	return h
}

// seriesRefs appends the label references in the content of a V2 TimeSeries, which in a
// Builder's body are one leading field.
func seriesRefs(dst []uint32, content []byte) []uint32 {
	if len(content) == 0 || content[0] != tagV2Refs {
		return dst
	}
	p, _, _ := lenDelim(content[1:])
	dst, _ = appendRefs(dst, p)
	return dst
}
