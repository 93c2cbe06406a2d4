package thinning

import (
	"math"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// Origin is what was withheld in one step, of samples that come later.
type Origin struct {
	// Step is where the step begins; zero where no step was told.
	Step   journal.Position
	Counts series.Counts
}

// addOrigin adds counts to those of a step. Lists are short, and mostly of the newest steps.
func addOrigin(list []Origin, step journal.Position, n series.Counts) []Origin {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Step == step {
			list[i].Counts.Add(n)
			return list
		}
	}
	return append(list, Origin{step, n})
}

// origins knows in which steps the samples were withheld that a Sampler may still ask for. It
// is told each sample that the Sampler has decided on. When a sample came is not told by its
// time, since each series comes in a request of its own order: so it is kept by series, as the
// step of its newest sample and a list of the steps before. Series whose ids are neighbours
// mostly come in one request, at one time: sixteen of them have one history, as long as it
// is true of each, which makes some two bytes a series, and as much again for each of the
// requests of the last minutes in which a step began.
//
// What it has forgotten it takes for withheld in a later step than it was, never in an
// earlier one: then it is counted as lost, and not as there.
type origins struct {
	steps     []journal.Position // by number; the first stands for no step
	pages     []*[originPage]neighbours
	histories int
	past      []past // the first is not used; each refers to one before it
	most      int    // len(past) at which it is compacted
	compacted bool   // since the present step began
}

// neighbours are series with ids that follow each other.
type neighbours struct {
	all history               // of each, while own is nil
	own *[neighbourly]history // of each alone
}

// history says in which step a series' sample of a time came.
type history struct {
	at   int64  // the largest time, Unix ms
	step uint32 // number of the step in which that came; 0: nothing is known
	past uint32 // place in origins.past of what came in steps before; 0: it is not known
}

// past says in which step samples came up to a time.
type past struct {
	upTo   int64 // Unix ms
	step   uint32
	before uint32 // as history.past
}

const (
	neighbourly = 1 << 4 // ids
	originPage  = 1 << 8 // neighbours
	// originsHorizon is how far back of the newest sample of a series those are whose step is
	// known: longer than a series stays without a sample at any pressure.
	originsHorizon = 15 * time.Minute
	// fewPast is how many pasts there are before any is forgotten, and pastPerHistory bounds
	// them beyond that.
	fewPast        = 1 << 14
	pastPerHistory = 2
	// samePast is how many of the newest pasts are looked at for the same one.
	samePast = 8
)

// enter tells the step in which samples are decided on from now on. Steps come in their order.
func (o *origins) enter(step journal.Position) {
	if len(o.steps) == 0 {
		o.steps, o.past, o.most = make([]journal.Position, 1), make([]past, 1), fewPast
	}
	if o.steps[len(o.steps)-1] == step {
		return
	}
	o.steps = append(o.steps, step)
	if o.compacted {
		o.compacted = false
		o.unite()
	}
}

func (o *origins) now() uint32 { return uint32(max(len(o.steps), 1) - 1) }

// step is the start of the step in which samples are decided on.
func (o *origins) step() journal.Position { return o.start(o.now()) }

func (o *origins) start(number uint32) journal.Position {
	if len(o.steps) == 0 {
		return journal.Position{}
	}
	return o.steps[number]
}

// note takes in a sample that was decided on, newer than all of its series before; sent says
// that it is sent at once.
func (o *origins) note(id series.ID, at int64, sent bool) {
	now := o.now()
	if now == 0 || id.Shared() {
		return
	}
	n := o.neighbours(id)
	x := n.of(id)
	switch {
	case x.step == 0:
		if !sent {
			*x = history{at: at, step: now}
			o.histories++
		}
	case at > x.at:
		if x.step != now {
			x.past = o.remember(past{x.at, x.step, x.past})
		}
		x.at, x.step = at, now
	case o.stepOf(x, at) == now:
	default:
		// It comes in a later step than the others of its time did.
		if n.own == nil {
			n.own = new([neighbourly]history)
			for k := range n.own {
				n.own[k] = n.all
			}
			o.histories += neighbourly - 1
			x = n.of(id)
		}
		step, before := o.find(x, at-1)
		*x = history{at, now, o.remember(past{at - 1, step, before})}
	}
}

// of is the start of the step in which a sample was withheld that is among those which may
// still be sent.
func (o *origins) of(id series.ID, at int64) journal.Position {
	p, k := id/neighbourly/originPage, id/neighbourly%originPage
	if int(p) >= len(o.pages) || o.pages[p] == nil {
		return o.step()
	}
	x := o.pages[p][k].of(id)
	if x.step == 0 || at > x.at {
		return o.step()
	}
	return o.start(o.stepOf(x, at))
}

func (o *origins) stepOf(x *history, at int64) uint32 {
	step, _ := o.find(x, at)
	return step
}

// find returns the step in which a sample of the time came, and the place in past of what
// came in steps before.
func (o *origins) find(x *history, at int64) (step, before uint32) {
	step, before = x.step, x.past
	for before != 0 && at <= o.past[before].upTo {
		step, before = o.past[before].step, o.past[before].before
	}
	return step, before
}

func (n *neighbours) of(id series.ID) *history {
	if n.own == nil {
		return &n.all
	}
	return &n.own[id%neighbourly]
}

// forget lets the id be given to another series. A history that others share stays: it is
// true of what comes next, or is left then.
func (o *origins) forget(id series.ID) {
	p, k := id/neighbourly/originPage, id/neighbourly%originPage
	if int(p) >= len(o.pages) || o.pages[p] == nil || o.pages[p][k].own == nil {
		return
	}
	if x := o.pages[p][k].of(id); x.step != 0 {
		*x = history{}
		o.histories--
	}
}

func (o *origins) neighbours(id series.ID) *neighbours {
	p := int(id / neighbourly / originPage)
	for p >= len(o.pages) {
		o.pages = append(o.pages, nil)
	}
	if o.pages[p] == nil {
		o.pages[p] = new([originPage]neighbours)
	}
	return &o.pages[p][id/neighbourly%originPage]
}

// remember returns the place of p. Series follow each other as they did the time before, so
// that most have the same past as one just before them.
func (o *origins) remember(p past) uint32 {
	for n := len(o.past) - 1; n > max(0, len(o.past)-1-samePast); n-- {
		if o.past[n] == p {
			return uint32(n)
		}
	}
	if len(o.past) >= o.most {
		p.before = o.compact(p)
	}
	o.past = append(o.past, p)
	return uint32(len(o.past) - 1)
}

// compact forgets what is beyond the horizon of each series that refers to it, and everything
// where that is still too much. It returns the new place of what comes before p.
func (o *origins) compact(p past) (before uint32) {
	newest := make([]int64, len(o.past)) // of what refers to each
	for k := range newest {
		newest[k] = math.MinInt64
	}
	newest[p.before] = p.upTo
	o.each(func(x *history) { newest[x.past] = max(newest[x.past], x.at) })
	horizon := originsHorizon.Milliseconds()
	for k := len(newest) - 1; k > 0; k-- {
		if newest[k] == math.MinInt64 {
			continue
		}
		if newest[k]-o.past[k].upTo > horizon {
			newest[k] = math.MinInt64
			continue
		}
		b := o.past[k].before
		newest[b] = max(newest[b], newest[k])
	}
	to := make([]uint32, len(o.past))
	n := 1
	for k := 1; k < len(newest); k++ {
		if newest[k] == math.MinInt64 {
			continue
		}
		q := o.past[k]
		q.before = to[q.before]
		o.past[n], to[k] = q, uint32(n)
		n++
	}
	if n > fewPast+pastPerHistory*o.histories {
		clear(to)
		n = 1
	}
	o.past = append([]past(nil), o.past[:n]...)
	o.most = max(fewPast, 2*n)
	o.each(func(x *history) { x.past = to[x.past] })
	o.compacted = true
	return to[p.before]
}

// unite gives neighbours one history again where each has the same, as they do when what
// they did not have in common is forgotten.
func (o *origins) unite() {
	for _, page := range o.pages {
		if page == nil {
			continue
		}
		for i := range page {
			n := &page[i]
			if n.own == nil || n.own[0].step == 0 || *n.own != sameHistory(n.own[0]) {
				continue
			}
			n.all, n.own = n.own[0], nil
			o.histories -= neighbourly - 1
		}
	}
}

func sameHistory(x history) (all [neighbourly]history) {
	for k := range all {
		all[k] = x
	}
	return all
}

func (o *origins) each(do func(*history)) {
	for _, page := range o.pages {
		if page == nil {
			continue
		}
		for i := range page {
			n := &page[i]
			if n.own == nil {
				if n.all.step != 0 {
					do(&n.all)
				}
				continue
			}
			for k := range n.own {
				do(&n.own[k])
			}
		}
	}
}
