package disk

import (
	"sort"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// idLogLimit bounds the memory of an idLog in bytes. The ids of a request mostly come as
// a few runs, so that it reaches back over thousands of requests.
const idLogLimit = 4 << 20

// idLog remembers the series ids of batches that the tail had no room for, so that a
// cursor which reads such a batch from the disk does not have to find them out again:
// that would cost it as much as the receiver spent on the request. It is guarded by
// Journal.mu.
type idLog struct {
	entries queue[idEntry]
	bytes   int64
}

type idEntry struct {
	start    journal.Position
	received int64 // Unix ms
	epoch    uint32
	runs     []idRun
}

// idRun is n ids from first on.
type idRun struct {
	first series.ID
	n     uint32
}

const (
	idEntryBytes = 64
	idRunBytes   = 8
)

func (e *idEntry) size() int64 { return idEntryBytes + idRunBytes*int64(len(e.runs)) }

// add notes the ids of a batch that starts behind all others.
func (l *idLog) add(start journal.Position, b *series.Batch) {
	e := idEntry{start: start, received: b.Received, epoch: b.Epoch, runs: runsOf(b.IDs)}
	l.entries.push(e)
	l.bytes += e.size()
	for l.bytes > idLogLimit {
		l.drop()
	}
}

func (l *idLog) drop() {
	e := l.entries.pop()
	l.bytes -= e.size()
}

// trim drops the entries that start before p.
func (l *idLog) trim(p journal.Position) {
	for l.entries.len() > 0 && l.entries.at(0).start.Before(p) {
		l.drop()
	}
}

func (l *idLog) clear() {
	for l.entries.len() > 0 {
		l.drop()
	}
}

// find returns the entry of the batch that starts at p. Its runs are not changed
// afterwards.
func (l *idLog) find(p journal.Position) (idEntry, bool) {
	n := l.entries.len()
	i := sort.Search(n, func(i int) bool { return !l.entries.at(i).start.Before(p) })
	if i == n || l.entries.at(i).start != p {
		return idEntry{}, false
	}
	return *l.entries.at(i), true
}

func runsOf(ids []series.ID) []idRun {
	var runs []idRun
	for _, id := range ids {
		if k := len(runs) - 1; k >= 0 && runs[k].first+series.ID(runs[k].n) == id {
			runs[k].n++
			continue
		}
		runs = append(runs, idRun{id, 1})
	}
	return runs
}

// restore gives the batch its ids.
func (e *idEntry) restore(b *series.Batch) {
	ids := make([]series.ID, 0, b.Series)
	for _, r := range e.runs {
		for i := range r.n {
			ids = append(ids, r.first+series.ID(i))
		}
	}
	if len(ids) == b.Series {
		b.IDs, b.Epoch = ids, e.epoch
	}
}
