// Package router decides which backends a series goes to. The decision is made once
// per series, from its labels, and kept with its id in the series table.
package router

import (
	"fmt"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// MaxBackends is how many backends one gateway can have: a series' routes are the
// bits of one word.
const MaxBackends = 64

// Backend is one destination and what it takes.
type Backend struct {
	Name string
	// Selectors are alternatives; each is a list of matchers that must all match.
	// None takes everything.
	Selectors [][]*labels.Matcher
	Digest    string // of the selectors
}

// Table is a list of backends in force. A backend's bit in routes is its place in the
// list.
type Table struct {
	Epoch    uint32
	Backends []Backend
	all      uint64 // bit set for each backend
	open     uint64 // those without selectors
}

// Bit returns the place of the named backend.
func (t *Table) Bit(name string) (uint, bool) {
	for i := range t.Backends {
		if t.Backends[i].Name == name {
			return uint(i), true
		}
	}
	return 0, false
}

// TakesAll reports whether the backend at bit takes every series.
func (t *Table) TakesAll(bit uint) bool { return t.open&(1<<bit) != 0 }

// Router resolves the series of requests to ids and routes. All methods may be called
// from several goroutines.
type Router struct {
	series *series.Table
	seed   uint64

	mu    sync.RWMutex // held for reading while a request is resolved
	table *Table
}

// New returns a router without backends. seed keys the hashes of labels; it should
// differ from process to process, so that nobody can prepare collisions.
func New(t *series.Table, seed uint64) *Router {
	return &Router{series: t, seed: seed, table: &Table{Epoch: t.Epoch()}}
}

// Seed is what Message.Index is to be called with.
func (r *Router) Seed() uint64 { return r.seed }

// SetBackends replaces the list. Routes of all series are decided anew as they are
// seen again.
func (r *Router) SetBackends(list []Backend) (*Table, error) {
	if len(list) > MaxBackends {
		return nil, fmt.Errorf("%d backends: at most %d are possible", len(list), MaxBackends)
	}
	t := &Table{Backends: list}
	for i := range list {
		t.all |= 1 << i
		if len(list[i].Selectors) == 0 {
			t.open |= 1 << i
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t.Epoch = r.series.NextEpoch()
	r.table = t
	return t, nil
}

// Table is the list in force.
func (r *Router) Table() *Table {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.table
}

// Resolution is what Resolve found out about a request. It is reused by the next
// Resolve.
type Resolution struct {
	// Sender is who sent the request. It is the caller's to set before Resolve; 0: nobody
	// knows.
	Sender series.Sender

	Epoch uint32
	IDs   []series.ID // one per series
	// Routed is what each backend takes, in the order of the table's list; nil when
	// all backends take everything.
	Routed []series.Counts
	// Invalid lists the series whose labels are not acceptable. They have no id.
	Invalid []Invalid
	// Respell lists the series whose labels are acceptable but not spelled
	// canonically.
	Respell []int
	// NonLegacy says that some name does not fit the RW 1.0 charset.
	NonLegacy bool
	// New is how many series were not known, Overflowed how many of them found no
	// room in the table.
	New, Overflowed int

	missed  []int
	entries []series.Entry
	ids     []series.ID
	routes  []uint64 // per series, only where needed
	labels  []remotewrite.Label
	copied  []remotewrite.Label
}

// Invalid is a series with unacceptable labels.
type Invalid struct {
	Series int
	Reason remotewrite.Reason
}

// Resolve finds the id of every series of an indexed message, deciding about those
// that it does not know.
func (r *Router) Resolve(m *remotewrite.Message, res *Resolution) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	t := r.table
	partial := t.open != t.all
	n := len(m.Series)
	res.reset(n, t.Epoch, partial)

	rd := r.series.Reader(res.Sender)
	for i := range m.Series {
		sp, ok := rd.Find(m.Series[i].Key)
		if !ok {
			res.missed = append(res.missed, i)
			continue
		}
		res.IDs[i] = sp.ID
		if sp.Respell {
			res.Respell = append(res.Respell, i)
		}
		res.NonLegacy = res.NonLegacy || sp.NonLegacy
		if partial {
			res.routes[i] = rd.Routes(sp.ID)
		}
	}
	rd.Close()
	if len(res.missed) > 0 {
		r.decide(t, m, res)
	}
	if partial {
		res.count(t, m)
	}
}

// Seen returns the tick of the series table at which the series with these canonical
// labels was seen last, and from whom; ok is false for one that is not known now.
func (r *Router) Seen(canonical []remotewrite.Label) (tick uint32, from series.Sender, ok bool) {
	return r.series.Seen(remotewrite.CanonicalKey(canonical, r.seed))
}

// decide looks at the labels of the missed series.
func (r *Router) decide(t *Table, m *remotewrite.Message, res *Resolution) {
	known := res.missed[:0]
	for _, i := range res.missed {
		ls, err := m.AppendLabels(res.labels[:0], i)
		res.labels = ls
		if err != nil {
			reason := remotewrite.ReasonMalformedLabels
			if m.Version == series.V2 {
				reason = remotewrite.ReasonInvalidRefs
			}
			res.reject(i, reason)
			continue
		}
		res.copied = append(res.copied[:0], ls...)
		canonical, changed, reason := remotewrite.CanonicalLabels(res.copied)
		if reason != "" {
			res.reject(i, reason)
			continue
		}
		e := series.Entry{
			Key:       m.Series[i].Key,
			Canonical: remotewrite.CanonicalKey(canonical, r.seed),
			Routes:    t.route(canonical),
			Respell:   changed,
			NonLegacy: !remotewrite.LegacyNames(canonical),
		}
		known = append(known, i)
		res.entries = append(res.entries, e)
		if changed {
			res.Respell = append(res.Respell, i)
		}
		res.NonLegacy = res.NonLegacy || e.NonLegacy
		if t.open != t.all {
			res.routes[i] = e.Routes
		}
	}
	if len(known) == 0 {
		return
	}
	res.New = len(known)
	res.ids = append(res.ids[:0], make([]series.ID, len(known))...)
	res.Overflowed = r.series.Insert(series.Decision{Epoch: t.Epoch, Sender: res.Sender}, res.entries, res.ids)
	for j, i := range known {
		res.IDs[i] = res.ids[j]
	}
}

func (res *Resolution) reject(i int, reason remotewrite.Reason) {
	res.Invalid = append(res.Invalid, Invalid{i, reason})
	res.IDs[i] = 0
}

// route matches canonical labels against every backend's selectors.
func (t *Table) route(ls []remotewrite.Label) uint64 {
	routes := t.open
	for b := range t.Backends {
		for _, sel := range t.Backends[b].Selectors {
			if matches(sel, ls) {
				routes |= 1 << b
				break
			}
		}
	}
	return routes
}

func matches(sel []*labels.Matcher, ls []remotewrite.Label) bool {
	for _, m := range sel {
		v := ""
		for _, l := range ls {
			if string(l.Name) == m.Name {
				v = string(l.Value)
				break
			}
		}
		if !m.Matches(v) {
			return false
		}
	}
	return true
}

func (res *Resolution) reset(n int, epoch uint32, partial bool) {
	res.Epoch = epoch
	if cap(res.IDs) < n {
		res.IDs = make([]series.ID, n+n/4)
	}
	res.IDs = res.IDs[:n]
	res.Routed = nil
	res.Invalid, res.Respell, res.missed, res.entries = res.Invalid[:0], res.Respell[:0], res.missed[:0], res.entries[:0]
	res.NonLegacy, res.New, res.Overflowed = false, 0, 0
	if partial {
		if cap(res.routes) < n {
			res.routes = make([]uint64, n+n/4)
		}
		res.routes = res.routes[:n]
	}
}

// count sums up what each backend takes. Invalid series have no routes.
func (res *Resolution) count(t *Table, m *remotewrite.Message) {
	for _, bad := range res.Invalid {
		res.routes[bad.Series] = 0
	}
	res.Routed = make([]series.Counts, len(t.Backends))
	// Neighbours mostly share their routes: count runs, then spread them.
	var run series.Counts
	last := uint64(0)
	spread := func() {
		for b := range res.Routed {
			if last&(1<<b) != 0 {
				res.Routed[b].Add(run)
			}
		}
		run = series.Counts{}
	}
	for i := range m.Series {
		if res.routes[i] != last {
			spread()
			last = res.routes[i]
		}
		s := &m.Series[i]
		run.Samples += uint64(s.Samples)
		run.Histograms += uint64(s.Histograms)
		run.Exemplars += uint64(s.Exemplars)
	}
	spread()
}

// Takes returns the ordinals of the series that the backend at bit takes, and their
// number. t is the table that the resolution was made with. A nil set takes all.
func (res *Resolution) Takes(t *Table, bit uint) (set series.Set, n int) {
	if t.TakesAll(bit) {
		return nil, len(res.IDs)
	}
	set = series.NewSet(len(res.IDs))
	for i, routes := range res.routes {
		if routes&(1<<bit) != 0 {
			set.Add(i)
			n++
		}
	}
	if n == len(res.IDs) {
		return nil, n
	}
	return set, n
}

// TakesOf is Takes for a batch that was resolved before. ok is false when its routes
// cannot be told from the ids alone: it was resolved for another table, or a series
// shares its id. Resolve its body anew then.
func (r *Router) TakesOf(t *Table, bit uint, b *series.Batch) (set series.Set, n int, ok bool) {
	if t.TakesAll(bit) {
		return nil, len(b.IDs), true
	}
	if b.Epoch != t.Epoch {
		return nil, 0, false
	}
	rd := r.series.Reader(0)
	defer rd.Close()
	if rd.Epoch() != t.Epoch {
		return nil, 0, false // the bits of routes may be those of another list by now
	}
	set = series.NewSet(len(b.IDs))
	for i, id := range b.IDs {
		if id.Shared() {
			return nil, 0, false
		}
		if rd.Routes(id)&(1<<bit) != 0 {
			set.Add(i)
			n++
		}
	}
	if n == len(b.IDs) {
		set = nil
	}
	return set, n, true
}
