package remotewrite

// labelMemo is the labels written last, as the source spelled them and as the request
// spells them. Neighbours in a request share most of their labels, often all behind
// the metric name: those are found by one comparison and written by one copy.
//
// It holds as long as the source message and the request stay the same.
type labelMemo struct {
	in   []byte // as the source spells them: V1 label fields, or V2 packed references
	last []memoLabel

	// What in became: V1 label fields, which stand in the request's body at base, or V2
	// packed references in out.
	out  []byte
	base int
	size int

	spare []memoLabel
}

type memoLabel struct {
	in, out     uint32 // where the label starts in what it was and became
	name, value uint32 // symbols: of the source (V2 to V1) or of the request
}

func (l *labelMemo) reset() { l.in, l.last = l.in[:0], l.last[:0] }

// ends reports whether rest is how the last labels ended, from the k-th on.
func (l *labelMemo) ends(k int, rest []byte) bool {
	return k < len(l.last) && string(rest) == string(l.in[l.last[k].in:])
}

// find returns the place among the last labels, from the k-th on, of the label with
// a name; if there is none, k.
func (l *labelMemo) find(k int, name uint32) (at int, ok bool) {
	switch {
	case k < len(l.last) && l.last[k].name == name:
		return k, true
	case k+1 < len(l.last) && l.last[k+1].name == name:
		return k + 1, true
	}
	return k, false
}

// tail appends the last labels from the k-th on to next, moved to start at in and out.
func (l *labelMemo) tail(next []memoLabel, k int, in, out uint32) []memoLabel {
	in -= l.last[k].in
	out -= l.last[k].out
	for _, x := range l.last[k:] {
		next = append(next, memoLabel{x.in + in, x.out + out, x.name, x.value})
	}
	return next
}

// keep makes next the last labels, whose source spelling was in.
func (l *labelMemo) keep(in []byte, next []memoLabel) {
	l.in = append(l.in[:0], in...)
	l.last, l.spare = next, l.last
}

// packedRef reads the reference at b[p], whose length is n, of packed references that
// the walk has found whole.
func packedRef(b []byte, p int) (ref uint32, n int) {
	c := b[p]
	if c < 0x80 {
		return uint32(c), 1
	}
	if d := b[p+1]; d < 0x80 {
		return uint32(c&0x7f) | uint32(d)<<7, 2
	}
	return longRef(b[p:])
}

func longRef(b []byte) (ref uint32, n int) {
	v, n := uvarint(b)
	return uint32(v), n
}

// expandRefs appends to the body the label fields that the packed refs of m spell.
func (b *Builder) expandRefs(m *Message, refs []byte) {
	memo := &b.labels
	next := memo.spare[:0]
	body, base := b.body, len(b.body)
	k := 0
	for p := 0; p < len(refs); {
		at := uint32(len(body) - base)
		if memo.ends(k, refs[p:]) {
			next = memo.tail(next, k, uint32(p), at)
			body = append(body, body[memo.base+int(memo.last[k].out):memo.base+memo.size]...)
			break
		}
		name, n := packedRef(refs, p)
		value, v := packedRef(refs, p+n)
		next = append(next, memoLabel{uint32(p), at, name, value})
		p += n + v
		j, ok := memo.find(k, name)
		k = j
		if ok {
			k++
			if l := memo.last[j]; l.value == value {
				to := memo.size
				if k < len(memo.last) {
					to = int(memo.last[k].out)
				}
				body = append(body, body[memo.base+int(l.out):memo.base+to]...)
				continue
			}
		}
		body = appendLabelField(body, m.Symbol(int(name)), m.Symbol(int(value)))
	}
	b.body = body
	memo.base, memo.size = base, len(body)-base
	memo.keep(refs, next)
}

// remap puts the packed refs of m into b.refs as references of the request.
func (b *Builder) remap(m *Message, refs []byte) {
	if b.source.verbatim {
		b.refs = append(b.refs[:0], refs...)
		return
	}
	memo := &b.labels
	next, to := memo.spare[:0], b.refs[:0]
	for p, k := 0, 0; p < len(refs); k++ {
		at := uint32(len(to))
		if memo.ends(k, refs[p:]) {
			next = memo.tail(next, k, uint32(p), at)
			to = append(to, memo.out[memo.last[k].out:]...)
			break
		}
		name, n := packedRef(refs, p)
		value, v := packedRef(refs, p+n)
		next = append(next, memoLabel{in: uint32(p), out: at})
		p += n + v
		to = appendRef(appendRef(to, b.ref(m, name)), b.ref(m, value))
	}
	b.refs = to
	memo.out = append(memo.out[:0], to...)
	memo.keep(refs, next)
}

// symbolize puts a run of V1 label fields into b.refs and returns the reference of
// the metric name, 0 when there is none; ok is false for broken labels.
func (b *Builder) symbolize(run []byte) (metric uint32, ok bool) {
	memo := &b.labels
	next, to := memo.spare[:0], b.refs[:0]
	k := 0
	for p := 0; p < len(run); {
		at := uint32(len(to))
		if memo.ends(k, run[p:]) {
			next = memo.tail(next, k, uint32(p), at)
			to = append(to, memo.out[memo.last[k].out:]...)
			break
		}
		l, rest, ok := splitLabel(run[p:])
		if !ok {
			memo.reset()
			return 0, false
		}
		x := memoLabel{in: uint32(p), out: at}
		p = len(run) - len(rest)
		j, ok := b.findName(k, l.Name)
		k = j
		if ok {
			k++
			x.name, x.value = memo.last[j].name, memo.last[j].value
			if !b.spells(x.value, l.Value) {
				x.value = b.table.intern(l.Value)
			}
		} else {
			x.name, x.value = b.table.intern(l.Name), b.table.intern(l.Value)
		}
		to = appendRef(appendRef(to, x.name), x.value)
		next = append(next, x)
	}
	b.refs = to
	memo.out = append(memo.out[:0], to...)
	memo.keep(run, next)
	return b.metricOf(next), true
}

// findName is labelMemo.find for a name that has not been looked up.
func (b *Builder) findName(k int, name []byte) (at int, ok bool) {
	last := b.labels.last
	switch {
	case k < len(last) && b.spells(last[k].name, name):
		return k, true
	case k+1 < len(last) && b.spells(last[k+1].name, name):
		return k + 1, true
	}
	return k, false
}

// spells reports whether a symbol of the request is text.
func (b *Builder) spells(ref uint32, text []byte) bool {
	return string(b.table.symbol(ref)) == string(text)
}

// metricOf is the reference of the metric name among labels of the request, or 0.
func (b *Builder) metricOf(ls []memoLabel) uint32 {
	for i := range ls {
		if string(b.table.symbol(ls[i].name)) == nameLabel {
			return ls[i].value
		}
	}
	return 0
}
