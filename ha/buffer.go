package ha

import (
	"container/list"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
)

// entry is what one request held of a replica that was not elected: a request of its own,
// without the replica label.
type entry struct {
	key      member
	version  series.Version
	body     []byte // snappy block
	counts   series.Counts
	maxTime  int64 // newest sample, Unix ms
	received time.Time
	// taken is set while the entry is being appended: it is not dropped to make room.
	taken bool
	// at is the entry's place in the buffer; nil when it is not in one.
	at *list.Element
}

// member is a replica of a cluster.
type member struct{ cluster, replica string }

// entryOverhead is about what an entry takes beside its body, in bytes.
const entryOverhead = 256

func (e *entry) size() int64 { return int64(len(e.body) + entryOverhead) }

// buffer holds entries back in the order of receipt, within a bound of bytes.
type buffer struct {
	limit   int64
	metrics *metrics

	mu      sync.Mutex
	entries list.List // of *entry
	bytes   int64
	count   map[member]int
}

// push appends an entry; older ones, of whatever cluster, make room for it.
func (b *buffer) push(e *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.at = b.entries.PushBack(e)
	b.bytes += e.size()
	b.count[e.key]++
	for at := b.entries.Front(); at != nil && b.bytes > b.limit; {
		next := at.Next()
		if !at.Value.(*entry).taken {
			b.metrics.overflow.Inc()
			b.drop(at, ReasonBufferFull)
		}
		at = next
	}
	b.metrics.bytes.Set(float64(b.bytes))
}

// drop removes an entry for a reason; "" is that it was appended.
func (b *buffer) drop(at *list.Element, reason Reason) {
	e := b.entries.Remove(at).(*entry)
	e.at = nil
	b.bytes -= e.size()
	if b.count[e.key]--; b.count[e.key] == 0 {
		delete(b.count, e.key)
	}
	if reason != "" {
		b.metrics.drop(reason, e.counts)
	}
}

func (m *metrics) drop(reason Reason, c series.Counts) {
	m.dropped.WithLabelValues(string(reason)).Add(float64(c.Samples + c.Histograms))
}

// holds reports whether there is an entry of the replica.
func (b *buffer) holds(key member) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count[key] > 0
}

// take is the oldest entry of the replica, nil when there is none. It stays until it is
// removed.
func (b *buffer) take(key member) *entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	for at := b.entries.Front(); at != nil; at = at.Next() {
		if e := at.Value.(*entry); e.key == key {
			e.taken = true
			return e
		}
	}
	return nil
}

// leave gives an entry back that was taken.
func (b *buffer) leave(e *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.taken = false
}

// remove takes an entry out for a reason; "" is that it was appended.
func (b *buffer) remove(e *entry, reason Reason) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.at == nil {
		return
	}
	b.drop(e.at, reason)
	b.metrics.bytes.Set(float64(b.bytes))
}

// sweep takes out the entries that judge says, for its reasons.
func (b *buffer) sweep(judge func(*entry) (Reason, bool)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for at := b.entries.Front(); at != nil; {
		next := at.Next()
		if reason, out := judge(at.Value.(*entry)); out {
			b.drop(at, reason)
		}
		at = next
	}
	b.metrics.bytes.Set(float64(b.bytes))
}
