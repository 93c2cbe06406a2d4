package disk

import (
	"sort"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// entryOverhead is what a batch in the tail costs beside body and ids.
const entryOverhead = series.Headroom + 256

// tail holds references to the newest batches, in order of their positions, while
// they fit into limit bytes and an open cursor still has to pass them. It is guarded
// by Journal.mu.
type tail struct {
	entries queue[tailEntry]
	bytes   int64
	limit   int64
	ids     idLog // of batches that had to make room
}

type tailEntry struct {
	start, end journal.Position
	batch      *series.Batch
	bytes      int64
}

// add takes over a reference to b.
func (t *tail) add(start, end journal.Position, b *series.Batch) {
	n := int64(cap(b.Body)) + 4*int64(cap(b.IDs)) + entryOverhead
	for t.entries.len() > 0 && t.bytes+n > t.limit {
		oldest := t.entries.at(0)
		t.ids.add(oldest.start, oldest.batch)
		t.drop()
	}
	if n > t.limit {
		t.ids.add(start, b)
		b.Release()
		return
	}
	t.entries.push(tailEntry{start, end, b, n})
	t.bytes += n
}

func (t *tail) drop() {
	e := t.entries.pop()
	t.bytes -= e.bytes
	e.batch.Release()
}

// trim drops the entries that start before p.
func (t *tail) trim(p journal.Position) {
	t.ids.trim(p)
	for t.entries.len() > 0 && t.entries.at(0).start.Before(p) {
		t.drop()
	}
}

func (t *tail) clear() {
	t.ids.clear()
	for t.entries.len() > 0 {
		t.drop()
	}
}

// find returns the entry that starts at p, or nil. It holds until Journal.mu is
// released.
func (t *tail) find(p journal.Position) *tailEntry {
	n := t.entries.len()
	i := sort.Search(n, func(i int) bool { return !t.entries.at(i).start.Before(p) })
	if i == n || t.entries.at(i).start != p {
		return nil
	}
	return t.entries.at(i)
}
