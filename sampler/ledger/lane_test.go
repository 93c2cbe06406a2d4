package ledger_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// plan is what a lane decided: the rate of each record, by stretches.
type plan []stretch

type stretch struct {
	from, to int // to is -1 while it is open
	gap      bool
	late     bool // a gap that is counted when it is passed
	settings []setpoint
}

type setpoint struct {
	at   int
	rate float64
}

func (p plan) open() bool { return len(p) > 0 && p[len(p)-1].to < 0 }

// frontier is where the next decision may be made.
func (p plan) frontier() int {
	if len(p) == 0 {
		return 0
	}
	s := p[len(p)-1]
	if s.to < 0 {
		return s.settings[len(s.settings)-1].at
	}
	return s.to
}

// rate is that of record n: 1 where nothing is withheld, 0 in a gap.
func (p plan) rate(n int) float64 {
	for _, s := range p {
		if n < s.from || s.to >= 0 && n >= s.to {
			continue
		}
		r := 1.0
		for _, set := range s.settings {
			if set.at <= n {
				r = set.rate
			}
		}
		return r
	}
	return 1
}

// gap is the end of the gap in which n is, or n.
func (p plan) gap(n int) int {
	for _, s := range p {
		if s.gap && s.from <= n && n < s.to {
			return s.to
		}
	}
	return n
}

// late reports whether n is in a gap that is counted when it is passed.
func (p plan) late(n int) bool {
	return slices.ContainsFunc(p, func(s stretch) bool { return s.late && s.from <= n && n < s.to })
}

func (p plan) clone() plan {
	c := slices.Clone(p)
	for i := range c {
		c[i].settings = slices.Clone(c[i].settings)
	}
	return c
}

func (p plan) begun(n int, rate float64) plan {
	return append(p.clone(), stretch{from: n, to: -1, settings: []setpoint{{n, rate}}})
}

func (p plan) stepped(n int, rate float64) plan {
	c := p.clone()
	s := &c[len(c)-1]
	s.settings = append(s.settings, setpoint{n, rate})
	return c
}

func (p plan) ended(n int) plan {
	c := p.clone()
	s := &c[len(c)-1]
	if n <= s.from {
		return c[:len(c)-1]
	}
	s.to = n
	return c
}

func (p plan) passedOver(from, to int, late bool) plan {
	return append(p.clone(), stretch{from: from, to: to, gap: true, late: late, settings: []setpoint{{from, 0}}})
}

// lacking is how many of the samples of record n are withheld at a rate.
func lacking(n int, rate float64) uint64 {
	return uint64((1 - rate) * float64(10+n%7))
}

// cursor is a stored state.
type cursor struct {
	position, restore            int
	withheld, givenBack, givenUp uint64
}

func (c cursor) mark() ledger.Mark { return mark(c.position, c.restore) }

// lane uses a ledger as a lane does, at random, and knows what it should say.
type lane struct {
	rng  *rand.Rand
	open func() (*ledger.Ledger, error)
	l    *ledger.Ledger

	plan plan
	// maybe are the plans that hold if a record was written of which it was said that it
	// was not.
	maybe   []plan
	read    int
	stored  cursor // as the journal has it
	settled cursor // as the ledger was told
}

func newLane(seed uint64, fs vfs.FS, change ...func(*ledger.Options)) *lane {
	return &lane{
		rng:  rand.New(rand.NewPCG(seed, 7)),
		open: func() (*ledger.Ledger, error) { return ledger.Open(options(fs, change...)) },
	}
}

// restart opens the ledger as after the death of the process, and compares it with what
// the lane knows.
func (a *lane) restart() error {
	l, err := a.open()
	if err != nil {
		return err
	}
	withheld := samples(a.stored.withheld)
	res, err := l.Resume(ledger.Resumption{Mark: a.stored.mark(), Withheld: &withheld})
	if err != nil {
		return err
	}
	if len(res.Unknown) > 0 || res.Inexact {
		return fmt.Errorf("something is lost: %+v", res)
	}
	a.l, a.settled = l, a.stored
	a.read = a.stored.position
	return errors.Join(a.adopt(), a.compare())
}

// adopt finds which of the possible plans the ledger has.
func (a *lane) adopt() error {
	timeline := a.l.Timeline(at(a.stored.position))
	for _, p := range append([]plan{a.plan}, a.maybe...) {
		if follows(timeline, p, a.stored.position) {
			a.plan, a.maybe = p, nil
			return nil
		}
	}
	return fmt.Errorf("at %d the ledger has the timeline %+v, which is none of %+v and %+v", a.stored.position, timeline, a.plan, a.maybe)
}

// follows reports whether the timeline gives each record behind from the rate of the plan.
func follows(timeline []ledger.Entry, p plan, from int) bool {
	for n := from; n < from+60; n++ {
		rate := 1.0
		for i := range timeline {
			if e := &timeline[i]; e.Holds(at(n)) {
				if e.Kind == ledger.KindGap && p.late(n) != e.Totals.Withheld.Zero() {
					return false
				}
				rate = timeline[i].Setting(at(n)).Rate
			}
		}
		if rate != p.rate(n) {
			return false
		}
	}
	last := len(timeline) - 1
	open := last >= 0 && timeline[last].To == journal.Position{}
	return open == p.open()
}

// compare compares the sums with those of the cursor.
func (a *lane) compare() error {
	var sum ledger.Tally
	var up series.Counts
	view := a.l.View()
	for _, e := range view.Entries {
		if e.Kind == ledger.KindGap && at(a.settled.position).Before(e.To) {
			continue // counted by the cursor when it is behind it
		}
		var steps ledger.Tally
		for _, s := range e.Steps {
			steps.Add(s.Tally)
		}
		if steps != e.Totals {
			return fmt.Errorf("the steps of entry %d sum up to %+v, not to %+v", e.ID, steps, e.Totals)
		}
		sum.Add(e.Totals)
		up.Add(e.GivenUp)
		closed := e.State == ledger.StateGivenBack || e.State == ledger.StateGivenUp
		if closed && !e.Outstanding().Zero() {
			return fmt.Errorf("entry %d is closed, and %d samples of it are where?", e.ID, e.Outstanding().Samples)
		}
	}
	got := cursor{a.settled.position, a.settled.restore, sum.Withheld.Samples, sum.GivenBack.Samples, up.Samples}
	if got != a.settled || view.Withheld.Samples != got.withheld {
		return fmt.Errorf("the ledger counts %+v (%d withheld), the cursor %+v", got, view.Withheld.Samples, a.settled)
	}
	return nil
}

// step does one random thing.
func (a *lane) step() error {
	switch a.rng.IntN(10) {
	case 0, 1, 2:
		for range 1 + a.rng.IntN(5) {
			a.read = a.plan.gap(a.read + 1)
		}
	case 3, 4, 5:
		a.decide()
	case 6, 7, 8:
		return a.settle()
	case 9:
		if a.rng.IntN(3) == 0 {
			return a.restart()
		}
	}
	return nil
}

// decide records a decision at the read position, which may have to catch up first with
// what was decided before a restart.
func (a *lane) decide() {
	n := a.read
	if a.plan.frontier() > n || a.plan.gap(n) != n {
		return
	}
	rate := float64(a.rng.IntN(8)) / 8
	switch {
	case !a.plan.open() && a.rng.IntN(3) == 0:
		to := n + 1 + a.rng.IntN(12)
		g := ledger.Gap{From: at(n), To: at(to), Cause: "outage"}
		late := a.rng.IntN(2) == 0
		for i := n; i < to; i++ {
			if late {
				g.Pieces = []ledger.Piece{{At: at(n)}}
				break
			}
			g.Pieces = append(g.Pieces, ledger.Piece{At: at(i), Tally: ledger.Tally{Taken: samples(lacking(i, 0))}})
		}
		a.decided(a.l.Gap(g), a.plan.passedOver(n, to, late))
		a.read = a.plan.gap(n)
	case !a.plan.open():
		a.decided(a.l.Begin(session(n, rate)), a.plan.begun(n, rate))
	case a.rng.IntN(4) > 0:
		a.decided(a.l.Step(setting(n, rate)), a.plan.stepped(n, rate))
	default:
		to := a.settled.position + a.rng.IntN(n-a.settled.position+1)
		if a.decided(a.l.End(at(to)), a.plan.ended(to)) {
			a.read = a.plan.gap(to) // and sends again from there
		}
	}
}

func (a *lane) decided(err error, then plan) bool {
	if err != nil {
		a.maybe = append(a.maybe, then)
		return false
	}
	a.plan, a.maybe = then, nil
	return true
}

// settle settles some of what was read, gives back some of what was withheld, and mostly
// stores the state.
func (a *lane) settle() error {
	to := a.settled
	deltas := map[int]*ledger.Delta{}
	delta := func(n int) *ledger.Tally {
		if deltas[n] == nil {
			deltas[n] = &ledger.Delta{At: at(n)}
		}
		return &deltas[n].Tally
	}
	for limit := a.settled.position + a.rng.IntN(a.read-a.settled.position+1); to.position < limit; {
		n := to.position
		if end := a.plan.gap(n); end != n {
			late := a.plan.late(n)
			for ; n < end; n++ {
				to.withheld += lacking(n, 0)
				if late {
					delta(n).Taken = samples(lacking(n, 0))
					delta(n).Withheld = samples(lacking(n, 0))
				}
			}
			to.position = end
			continue
		}
		if r := a.plan.rate(n); r < 1 || a.sampled(n) {
			delta(n).Taken = samples(lacking(n, 0))
			delta(n).Withheld = samples(lacking(n, r))
			to.withheld += lacking(n, r)
		}
		to.position++
	}
	if a.rng.IntN(2) == 0 {
		for limit := to.restore + a.rng.IntN(to.position-to.restore+1); to.restore < limit; to.restore++ {
			n := to.restore
			if owed := lacking(n, a.plan.rate(n)); owed > 0 {
				found := owed - min(owed, uint64(a.rng.IntN(8)/7))
				delta(n).GivenBack.Samples += found
				to.givenBack += found
			}
		}
	}
	s := ledger.Settlement{Mark: to.mark(), Committed: a.stored.mark()}
	for _, d := range deltas {
		s.Deltas = append(s.Deltas, *d)
	}
	if a.rng.IntN(6) == 0 {
		s.Reason = "asked"
	}
	if to.mark() == a.settled.mark() {
		s.Reason = ""
	}
	settled, err := a.l.Settle(s)
	if err != nil {
		return nil // nothing took effect; the counts come again
	}
	to.givenUp += settled.GivenUp.Samples
	a.settled, a.maybe = to, nil
	if a.rng.IntN(4) > 0 {
		a.stored = to
	}
	return a.compare()
}

func (a *lane) sampled(n int) bool {
	for _, s := range a.plan {
		if s.from <= n && (s.to < 0 || n < s.to) {
			return true
		}
	}
	return false
}

// force makes the ledger write something.
func (a *lane) force() error {
	if a.plan.open() {
		return a.l.Step(setting(a.plan.frontier(), 0.5))
	}
	n := max(a.plan.frontier(), a.settled.position)
	return a.l.Begin(session(n, 0.5))
}

// run does n random things.
func (a *lane) run(n int) error {
	for i := range n {
		if err := a.step(); err != nil {
			return fmt.Errorf("at %d: %w", i, err)
		}
	}
	return nil
}
