package remotewrite

import (
	"math/bits"

	"github.com/zeebo/xxh3"
)

// tagSymbol is the tag of Request.symbols in RW 2.0: field 4, length-delimited.
const tagSymbol = 0x22

// symbolTable is the table of strings of one RW 2.0 request under construction. The
// symbols are held as the protobuf fields that go over the wire, so that writing the
// table is one copy and taking another request's table over is one copy too. Such a
// table is taken into the hash table only when a symbol has to be looked up. Symbol 0
// is always the empty string (M1).
type symbolTable struct {
	seed  uint64
	raw   []byte // the fields of all symbols, in order
	count int    // symbols in raw

	// at and hash have an entry for each symbol in the hash table, which are the first
	// len(at) in raw. A slot holds the upper half of the hash and the reference; empty
	// is 0, since symbol 0 has no slot.
	at    []span
	hash  []uint64
	slots []uint64
	next  int // where in raw the first symbol without an entry starts
}

func (t *symbolTable) reset() {
	t.raw = append(t.raw[:0], tagSymbol, 0)
	t.count = 1
	t.forget()
}

// forget empties the hash table.
func (t *symbolTable) forget() {
	if len(t.at) > 0 {
		clear(t.slots)
	}
	t.at, t.hash, t.next = t.at[:0], t.hash[:0], 0
}

// fresh reports whether the table holds nothing but symbol 0.
func (t *symbolTable) fresh() bool { return t.count == 1 }

// take replaces the table by that of m. References into m's table are good for t
// afterwards. The table must be fresh.
func (t *symbolTable) take(m *Message) {
	n := m.Symbols()
	t.raw, t.count = t.raw[:0], n
	t.forget()
	size := 0
	for i := range m.symbols {
		l := int(m.symbols[i].to - m.symbols[i].from)
		size += 1 + sizeUvarint(uint64(l)) + l
	}
	// The fields stand in Data as one run in their shortest form, unless the sender is odd.
	from := int(m.symbols[0].from) - 2
	to := int(m.symbols[n-1].to)
	if from >= 0 && to-from == size && m.Data[from] == tagSymbol && m.Data[from+1] == 0 {
		t.raw = append(t.raw, m.Data[from:to]...)
		return
	}
	for i := range n {
		t.raw = appendBytesField(t.raw, 4, m.Symbol(i))
	}
}

// intern returns the reference of the symbol p, which is copied when it is new.
func (t *symbolTable) intern(p []byte) uint32 {
	if len(p) == 0 {
		return 0
	}
	if len(t.at) != t.count {
		t.index()
	}
	h := xxh3.HashSeed(p, t.seed)
	mask := uint64(len(t.slots) - 1)
	for i := h & mask; t.slots[i] != 0; i = (i + 1) & mask {
		if s := t.slots[i]; s>>32 == h>>32 && string(t.symbol(uint32(s))) == string(p) {
			return uint32(s)
		}
	}
	ref := uint32(t.count)
	t.makeRoom(t.count + 1)
	t.raw = append(t.raw, tagSymbol)
	t.raw = appendUvarint(t.raw, uint64(len(p)))
	t.raw = append(t.raw, p...)
	t.count++
	t.next = len(t.raw)
	t.enter(span{uint32(len(t.raw) - len(p)), uint32(len(t.raw))}, h)
	return ref
}

// symbol returns the content of a symbol that is in the hash table. It holds until
// the next intern.
func (t *symbolTable) symbol(ref uint32) []byte {
	s := t.at[ref]
	return t.raw[s.from:s.to]
}

// index takes those symbols of raw into the hash table that are not there yet. Of a
// symbol that occurs twice, the first is found later.
func (t *symbolTable) index() {
	t.makeRoom(t.count)
	for t.next < len(t.raw) {
		p, rest, ok := lenDelim(t.raw[t.next+1:])
		if !ok {
			panic("BUG: symbolTable.raw is not a run of fields")
		}
		t.next = len(t.raw) - len(rest)
		t.enter(span{uint32(t.next - len(p)), uint32(t.next)}, xxh3.HashSeed(p, t.seed))
	}
}

// enter gives the next symbol of raw, which is at s, its entry. There is a free slot.
func (t *symbolTable) enter(s span, h uint64) {
	ref := uint32(len(t.at))
	t.at = append(t.at, s)
	t.hash = append(t.hash, h)
	if s.from != s.to { // the empty string is symbol 0, never looked up
		t.insert(h, ref)
	}
}

func (t *symbolTable) insert(h uint64, ref uint32) {
	mask := uint64(len(t.slots) - 1)
	i := h & mask
	for t.slots[i] != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = h&^0xffffffff | uint64(ref)
}

// makeRoom makes room for n symbols in all, at most half of the slots.
func (t *symbolTable) makeRoom(n int) {
	if n <= len(t.slots)/2 {
		return
	}
	t.slots = make([]uint64, 1<<bits.Len(uint(max(n, 128)*2-1)))
	for ref, s := range t.at {
		if s.from != s.to {
			t.insert(t.hash[ref], uint32(ref))
		}
	}
}
