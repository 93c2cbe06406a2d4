package series

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Table gives every series that is alive a dense id and remembers which backends it
// goes to. It keeps hashes, not labels: a million series cost some tens of MiB.
//
// A series has one ID and one Key per spelling in which it was seen. Their number is
// bounded too, for senders that order labels at random: what is not remembered has to be
// inserted again. Ids of series that were not seen for a while are evicted, and used
// again when nobody keeps anything by them; see Evict and Free.
type Table struct {
	max int

	mu     sync.RWMutex
	shards [tableShards]keyMap
	chunks []*chunk // state per id, id/chunkSize
	free   []ID     // to be used again
	next   ID
	live   int // series with an id of their own
	idle   int // ids that are evicted and not free

	spellings int // keys in shards: one canonical for each live series, and others
	respelled int // those of them that are not spelled canonically

	// now is the mark of a series that is seen now, without a sender.
	now atomic.Uint64
}

const (
	tableShards = 64 // small maps grow one at a time, so that growing never doubles the whole
	chunkSize   = 1 << 13
	maxIDs      = int(idMask)
)

// chunk is the state of chunkSize ids. Everything but seen is written under mu.
type chunk struct {
	seen   [chunkSize]atomic.Uint64 // see mark
	routes [chunkSize]uint64
	// keys is one spelling of each series that has no flags. Senders repeat themselves:
	// the series after one is mostly that with the next id, which is found here without
	// a look into the maps.
	keys [chunkSize]Key
}

// A mark says when and from whom a series was seen last, and in which epoch its routes
// were decided: the tick in the upper 32 bits, then the sender, then the epoch.
const (
	epochBits  = 20
	epochMask  = 1<<epochBits - 1
	senderMask = (1<<32 - 1) &^ epochMask
)

// Sender is a number for who sent a request; 0: nobody knows. What it stands for is the
// caller's business.
type Sender uint16

// MaxSender is the largest Sender.
const MaxSender = Sender(senderMask >> epochBits)

func senderOf(mark uint64) Sender { return Sender(mark & senderMask >> epochBits) }

// Flags of one spelling, kept beside the id.
const (
	respellFlag   uint32 = 1 << 31
	nonLegacyFlag uint32 = 1 << 30
	idMask        uint32 = 1<<30 - 1
)

// Spelling is what the Table knows of one key.
type Spelling struct {
	ID ID
	// Respell says that the labels are not spelled canonically (sorted, no empty
	// values) and are to be written anew before they go on.
	Respell bool
	// NonLegacy says that a name does not fit the RW 1.0 charset.
	NonLegacy bool
}

// NewTable returns an empty table for at most maxSeries series.
func NewTable(maxSeries int) *Table {
	return &Table{max: min(maxSeries, maxIDs-int(Overflow)), next: Overflow}
}

// Tick sets the coarse time that series seen from now on are marked with. Evict
// compares with it.
func (t *Table) Tick(tick uint32) {
	for {
		o := t.now.Load()
		if t.now.CompareAndSwap(o, uint64(tick)<<32|o&epochMask) {
			return
		}
	}
}

// NextEpoch makes all routes stale: Find does not know a series again before it was
// inserted anew. It returns the new epoch. Epochs come again after a million: by then a
// series that was not seen since is evicted.
func (t *Table) NextEpoch() uint32 {
	for {
		o := t.now.Load()
		next := (o + 1) & epochMask
		if t.now.CompareAndSwap(o, o&^epochMask|next) {
			return uint32(next)
		}
	}
}

// Epoch is the present epoch of routes.
func (t *Table) Epoch() uint32 { return uint32(t.now.Load() & epochMask) }

// Len is the number of series with an id of their own.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.live
}

// Reader is a view on the table for many look-ups under one lock. Close it soon.
type Reader struct {
	t    *Table
	now  uint64 // the mark of what is found
	kept uint64 // the bits of older marks that stay: the sender, where this one is not known
	next ID     // the id after the one found last
}

// Reader locks the table for reading, on behalf of a sender.
func (t *Table) Reader(from Sender) Reader {
	t.mu.RLock()
	r := Reader{t: t, now: t.now.Load() | uint64(from)<<epochBits, next: t.next}
	if from == 0 {
		r.kept = senderMask
	}
	return r
}

// Close ends the reading.
func (r *Reader) Close() { r.t.mu.RUnlock() }

// Epoch is the epoch in which the reader's answers hold.
func (r *Reader) Epoch() uint32 { return uint32(r.now & epochMask) }

// Find returns what is known of the spelling and marks its series as seen. It fails for
// a key that was never inserted and for a series whose routes are of an older epoch.
func (r *Reader) Find(k Key) (Spelling, bool) {
	if id := r.next; id < r.t.next {
		if c := r.t.chunks[id/chunkSize]; c.keys[id%chunkSize] == k {
			return Spelling{ID: id}, r.mark(id)
		}
	}
	m := &r.t.shards[k.Hi>>58]
	if len(m.keys) == 0 {
		return Spelling{}, false
	}
	mask := uint64(len(m.keys) - 1)
	for i := k.Lo & mask; ; i = (i + 1) & mask {
		v := m.ids[i]
		if v == 0 {
			return Spelling{}, false
		}
		if m.keys[i] != k {
			continue
		}
		id := ID(v & idMask)
		return Spelling{ID: id, Respell: v&respellFlag != 0, NonLegacy: v&nonLegacyFlag != 0}, r.mark(id)
	}
}

// mark notes that the series was seen; it reports whether its routes are of this epoch.
func (r *Reader) mark(id ID) bool {
	r.next = id + 1
	seen := &r.t.chunks[id/chunkSize].seen[id%chunkSize]
	s := seen.Load()
	mark := r.now | s&r.kept
	if s == mark {
		return true
	}
	if (s^mark)&epochMask != 0 {
		return false
	}
	seen.Store(mark)
	return true
}

// Seen returns the tick at which the series with the canonical key was seen last, and
// from whom; ok is false for one that the table does not know.
func (t *Table) Seen(canonical Key) (tick uint32, from Sender, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	id, ok := t.idOf(canonical)
	if !ok {
		return 0, 0, false
	}
	s := t.chunks[id/chunkSize].seen[id%chunkSize].Load()
	return uint32(s >> 32), senderOf(s), true
}

// Routes is the set of backends, one bit each, that the series goes to. The id must
// be one of its own, found in the reader's epoch.
func (r *Reader) Routes(id ID) uint64 { return r.t.chunks[id/chunkSize].routes[id%chunkSize] }

// Entry is a series to insert.
type Entry struct {
	Key       Key // of the spelling that was seen
	Canonical Key // of the canonical spelling; equal to Key when that was seen
	Routes    uint64
	Respell   bool
	NonLegacy bool
}

// flags are the bits that go beside the id of the seen spelling.
func (e *Entry) flags() uint32 {
	var f uint32
	if e.Respell {
		f |= respellFlag
	}
	if e.NonLegacy {
		f |= nonLegacyFlag
	}
	return f
}

// Decision is what the entries of one Insert have in common.
type Decision struct {
	Epoch  uint32 // in which their routes were decided
	Sender Sender // from whom they came
}

// Insert makes Find know the entries' spellings from now on and writes the id of each
// to ids. When the epoch in which their routes were decided has passed, the
// entries get ids but have to be inserted again. A series beyond the table's bound
// gets a shared id and is not remembered; Insert returns how many these were.
func (t *Table) Insert(d Decision, entries []Entry, ids []ID) (overflowed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	mark := t.now.Load()&^epochMask | uint64(d.Sender)<<epochBits | uint64(d.Epoch)&epochMask
	for i := range entries {
		e := &entries[i]
		id, ok := t.idOf(e.Canonical)
		switch {
		case ok:
		case t.live+t.idle >= t.max:
			ids[i] = SharedID(e.Canonical)
			overflowed++
			continue
		default:
			id = t.newID()
			t.put(e.Canonical, uint32(id)|e.flags()&^respellFlag)
		}
		if e.Key != e.Canonical {
			t.respell(e.Key, uint32(id)|e.flags())
		}
		c := t.chunks[id/chunkSize]
		c.routes[id%chunkSize] = e.Routes
		if e.flags() == 0 {
			c.keys[id%chunkSize] = e.Key
		}
		if seen := &c.seen[id%chunkSize]; ok && d.Sender == 0 {
			seen.Store(mark | seen.Load()&senderMask)
		} else {
			seen.Store(mark)
		}
		ids[i] = id
	}
	return overflowed
}

// SharedID is the overflow id of a series that has none of its own.
func SharedID(canonical Key) ID { return ID(canonical.Hi % uint64(Overflow)) }

// Evict forgets the series that were last seen before the tick and returns their ids.
// They name no series until Free is called with them: meanwhile the caller tells all
// who keep something by id to forget it. The caller makes sure that nobody holds a
// batch with such an id any more.
func (t *Table) Evict(before uint32) []ID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var gone []ID
	for id := Overflow; id < t.next; id++ {
		seen := &t.chunks[id/chunkSize].seen[id%chunkSize]
		if s := seen.Load(); s < evicted && uint32(s>>32) < before {
			seen.Store(evicted)
			t.chunks[id/chunkSize].keys[id%chunkSize] = noKey()
			gone = append(gone, id)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	t.live -= len(gone)
	t.idle += len(gone)
	t.sweep(func(v uint32) bool {
		id := ID(v & idMask)
		return t.chunks[id/chunkSize].seen[id%chunkSize].Load() < evicted
	})
	return gone
}

// Free lets Insert use the ids again, which Evict returned and nobody keeps anything by
// any more. Each is freed once. Until then evicted ids count against the table's bound.
func (t *Table) Free(ids []ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		if id < Overflow || id >= t.next || !t.chunks[id/chunkSize].seen[id%chunkSize].CompareAndSwap(evicted, dead) {
			panic("BUG: a series id was freed that is not evicted")
		}
	}
	t.free = append(t.free, ids...)
	t.idle -= len(ids)
}

// sweep forgets the spellings that keep does not want.
func (t *Table) sweep(keep func(v uint32) bool) {
	t.spellings, t.respelled = 0, 0
	for i := range t.shards {
		t.shards[i].sweep(func(v uint32) bool {
			if !keep(v) {
				return false
			}
			t.spellings++
			if v&respellFlag != 0 {
				t.respelled++
			}
			return true
		})
	}
}

// Marks of ids that no series has, in the place of when they were seen. Their tick is
// never reached: Tick would have to count for more than a century of seconds.
const (
	evicted = 1<<64 - 2 // Evict returned it, Free was not called yet
	dead    = 1<<64 - 1 // free, or never used
)

// noKey stands where an id has no plain spelling. It is not the zero Key, which who has
// no labels to hash looks for.
func noKey() Key { return Key{Hi: 1<<64 - 1, Lo: 1<<64 - 1} }

func (t *Table) newID() ID {
	t.live++
	if n := len(t.free); n > 0 {
		id := t.free[n-1]
		t.free = t.free[:n-1]
		return id
	}
	id := t.next
	t.next++
	for int(id/chunkSize) >= len(t.chunks) {
		c := new(chunk)
		for i := range c.seen {
			c.seen[i].Store(dead)
			c.keys[i] = noKey()
		}
		t.chunks = append(t.chunks, c)
	}
	return id
}

func (t *Table) idOf(k Key) (ID, bool) {
	v := t.shards[k.Hi>>58].get(k)
	return ID(v & idMask), v != 0
}

func (t *Table) put(k Key, v uint32) {
	if !t.shards[k.Hi>>58].put(k, v) {
		return
	}
	t.spellings++
	if v&respellFlag != 0 {
		t.respelled++
	}
}

// respell puts a spelling beside the canonical one of a series, within bounds. Those that
// are to be written anew are forgotten all together when they are as many as there may be
// series, and learnt again as they come; of the others, which RW 2.0 needs one of for
// each series, no more are learnt.
func (t *Table) respell(k Key, v uint32) {
	switch {
	case v&respellFlag != 0 && t.respelled >= t.max:
		t.sweep(func(v uint32) bool { return v&respellFlag == 0 })
	case v&respellFlag == 0 && t.spellings-t.live-t.respelled >= 2*t.max:
		return
	}
	t.put(k, v)
}

// keyMap is an open-addressing table from keys to ids with flags; 0 is no entry,
// since no id of the table's own is 0.
type keyMap struct {
	keys []Key
	ids  []uint32
	used int
}

func (m *keyMap) get(k Key) uint32 {
	if len(m.keys) == 0 {
		return 0
	}
	mask := uint64(len(m.keys) - 1)
	for i := k.Lo & mask; ; i = (i + 1) & mask {
		if m.ids[i] == 0 || m.keys[i] == k {
			return m.ids[i]
		}
	}
}

// put sets the value of a key; added tells that the key is new.
func (m *keyMap) put(k Key, v uint32) (added bool) {
	if (m.used+1)*4 > len(m.keys)*3 {
		m.resize(m.used + 1)
	}
	mask := uint64(len(m.keys) - 1)
	for i := k.Lo & mask; ; i = (i + 1) & mask {
		if m.ids[i] == 0 {
			m.keys[i], m.ids[i] = k, v
			m.used++
			return true
		}
		if m.keys[i] == k {
			m.ids[i] = v
			return false
		}
	}
}

// resize makes room for n entries at a load of at most three quarters.
func (m *keyMap) resize(n int) {
	o := *m
	size := max(16, 1<<bits.Len(uint(n*4/3)))
	m.keys, m.ids, m.used = make([]Key, size), make([]uint32, size), 0
	for i, v := range o.ids {
		if v != 0 {
			m.put(o.keys[i], v)
		}
	}
}

// sweep keeps the entries that keep says.
func (m *keyMap) sweep(keep func(uint32) bool) {
	n := 0
	for i, v := range m.ids {
		if v == 0 {
			continue
		}
		if keep(v) {
			n++
		} else {
			m.ids[i] |= idMask // no id is that large: a mark to be left out below
		}
	}
	if n == m.used {
		return
	}
	o := *m
	*m = keyMap{}
	if n == 0 {
		return
	}
	m.resize(n)
	for i, v := range o.ids {
		if v != 0 && v&idMask != idMask {
			m.put(o.keys[i], v)
		}
	}
}
