package thinning

import (
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// trace is what the newest sample of a series said besides its value.
type trace struct {
	at    int64   // its time, Unix ms; 0 when there is none
	start int64   // start timestamp, Unix ms; 0 when there is none
	count float64 // of a native histogram
}

const tracePage = 1 << 12 // ids

// traces are those of series with native histograms or start timestamps, by id. Others
// take no memory but for the pages they are on.
type traces struct {
	pages []*[tracePage]trace
}

func (t *traces) get(id series.ID) trace {
	if at := t.find(id); at != nil {
		return *at
	}
	return trace{}
}

func (t *traces) find(id series.ID) *trace {
	page := int(id / tracePage)
	if page >= len(t.pages) || t.pages[page] == nil {
		return nil
	}
	return &t.pages[page][id%tracePage]
}

// note takes in a sample that is newer than the last; false says that it is not.
func (t *traces) note(id series.ID, in *input, count float64) bool {
	at := t.find(id)
	if at == nil {
		if in.hist < 0 && in.start == 0 {
			return true
		}
		at = t.make(id)
	}
	if at.at != 0 && in.Time <= at.at {
		return false
	}
	at.at, at.start = in.Time, in.start
	if in.hist >= 0 {
		at.count = count
	}
	return true
}

func (t *traces) make(id series.ID) *trace {
	page := int(id / tracePage)
	for page >= len(t.pages) {
		t.pages = append(t.pages, nil)
	}
	if t.pages[page] == nil {
		t.pages[page] = new([tracePage]trace)
	}
	return &t.pages[page][id%tracePage]
}

func (t *traces) forget(id series.ID) {
	if at := t.find(id); at != nil {
		*at = trace{}
	}
}

// encodings are native histograms of series whose Sampler may still ask for those seen
// last and sent last; see Sampler.Keeps.
type encodings struct {
	of    map[series.ID]*encoded
	bytes int
	most  int
}

// encoded are the two of one series. Seen is in use while the last one was withheld and
// differs from the one sent.
type encoded struct{ sent, seen encoding }

type encoding struct {
	bits    uint64 // hash
	content []byte // without its timestamp
	custom  bool   // buckets
	used    bool
}

// encodingCost is about what one series takes besides the contents, in bytes.
const encodingCost = 160

// noted is a histogram on which the Sampler decided.
type noted struct {
	id   series.ID
	bits uint64
	kept bool
}

// note keeps the newest histogram of a series. It returns false, and nothing is kept of
// the series, when there is no room.
func (e *encodings) note(m *remotewrite.Message, i int, h remotewrite.HistogramRef, n noted) bool {
	x := e.of[n.id]
	if x == nil {
		x = &encoded{}
		e.of[n.id] = x
		e.bytes += encodingCost
	}
	slot := &x.seen
	switch {
	case n.kept:
		slot = &x.sent
		if x.seen.used && x.seen.bits == n.bits {
			x.sent, x.seen = x.seen, x.sent
		}
		x.seen.used = false
	case x.sent.used && x.sent.bits == n.bits:
		x.seen.used = false
		return true
	}
	if !slot.used || slot.bits != n.bits {
		before := cap(slot.content)
		slot.content = m.AppendHistogramContent(slot.content[:0], i, h)
		e.bytes += cap(slot.content) - before
		slot.bits, slot.custom, slot.used = n.bits, h.Custom(), true
	}
	if e.bytes > e.most {
		e.forget(n.id)
		return false
	}
	return true
}

// find is the content of a histogram by its hash. It holds until the next note.
func (e *encodings) find(id series.ID, bits uint64) (content []byte, custom, ok bool) {
	x := e.of[id]
	if x == nil {
		return nil, false, false
	}
	for _, slot := range [...]*encoding{&x.sent, &x.seen} {
		if slot.used && slot.bits == bits {
			return slot.content, slot.custom, true
		}
	}
	return nil, false, false
}

func (e *encodings) forget(id series.ID) {
	x := e.of[id]
	if x == nil {
		return
	}
	e.bytes -= encodingCost + cap(x.sent.content) + cap(x.seen.content)
	delete(e.of, id)
}
