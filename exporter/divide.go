package exporter

import (
	"errors"

	"github.com/sluice-metrics/sluice/internal/series"
)

const (
	// maxDivision is how many requests the search for what a backend refuses may cost for
	// one parcel.
	maxDivision = 64
	// maxSpotChecks is how many series are tried alone to find out whether a backend
	// refuses what it has already.
	maxSpotChecks = 5
)

// division is the search for the series that a backend refuses in one parcel. It divides
// by series, so that no part can overtake another, and goes breadth first, so that when
// its requests are used up little has been tried too coarsely.
//
// A backend that answers 400 may have written everything that it does not refuse. Then it
// may refuse what comes again as out of order, but for the newest sample of each series.
// So where a parcel holds several samples of a series, being refused alone does not
// convict the older ones; see settle.
type division struct {
	l    *Lane
	f    *flight
	out  []outcome
	all  int // messages in the parcel
	left int // requests
	took int // requests that the backend accepted
}

// piece is a list of messages that is sent, or was refused, as one request.
type piece struct {
	list    []message
	refused *Error // of the piece, or of the one that it comes from
	known   bool   // it was refused, or must hold what was
	alone   bool   // it was refused exactly as it is
	maybe   bool   // the backend may have had some of it before
	// half tells the two halves of one piece; 0 for others.
	half int
}

// divide sends a refused parcel in ever smaller parts until the series that the backend
// refuses are found. Only they are dropped. It returns the cause of the end of f.ctx.
func (l *Lane) divide(f *flight, whole *load, refused *Error, out []outcome) error {
	l.o.Metrics.divisions.WithLabelValues(l.o.Name).Inc()
	list, failed := f.parcel.messages()
	d := &division{l: l, f: f, out: out, all: len(list), left: maxDivision}
	for k, err := range failed {
		if err != nil {
			d.unreadable(k, err)
		}
	}
	if len(list) == 0 {
		if failed == nil {
			// Metadata alone: there is nothing to keep the books of.
			l.o.Logger.Warn("The backend refused a request without series", "err", refused)
		}
		return nil
	}
	first := piece{list: list, refused: refused, maybe: whole.maybe, known: failed == nil, alone: failed == nil}
	return d.fit(first)
}

// unreadable settles a part that cannot be decoded.
func (d *division) unreadable(k int, err error) {
	rest := d.f.counts[k].Without(d.out[k].settled())
	d.l.o.Logger.Error("A batch cannot be read and is lost for this backend", "position", d.f.recs[k].start,
		"samples", rest.Samples, "histograms", rest.Histograms, "exemplars", rest.Exemplars, "err", err)
	d.out[k].reject(ReasonUnreadable, rest)
}

// fit cuts a piece until the backend finds none of it too large, and settles what it
// refuses for other reasons.
func (d *division) fit(p piece) error {
	for queue := []piece{p}; len(queue) > 0; {
		p := queue[0]
		queue = queue[1:]
		if !p.known {
			if err := d.try(&p); err != nil {
				return err
			}
			if !p.known {
				continue
			}
		}
		if p.alone && !p.refused.TooLarge {
			if err := d.settle(p); err != nil {
				return err
			}
			continue
		}
		mid := middle(p.list)
		switch {
		case d.left <= 0:
			d.drop(p, d.reason(&p))
		case mid == 0:
			if err := d.oneByOne(p); err != nil {
				return err
			}
		default:
			queue = append(queue, p.part(p.list[:mid]), p.part(p.list[mid:]))
		}
	}
	return nil
}

// part returns a piece of p that was not tried yet.
func (p *piece) part(list []message) piece {
	return piece{list: list, refused: p.refused, maybe: p.maybe}
}

// oneByOne sends the messages of one series, oldest first, and drops those that are
// refused.
func (d *division) oneByOne(p piece) error {
	if len(p.list) == 1 {
		d.drop(p, d.reason(&p))
		return nil
	}
	for i := range p.list {
		if d.left <= 0 {
			d.drop(p.part(p.list[i:]), ReasonDivisionLimit)
			return nil
		}
		q := p.part(p.list[i : i+1])
		if err := d.try(&q); err != nil {
			return err
		}
		if q.known {
			d.drop(q, d.reason(&q))
		}
	}
	return nil
}

// try sends a piece. p.known tells afterwards whether the backend refused it, or the
// requests are used up.
func (d *division) try(p *piece) error {
	if d.left <= 0 {
		p.known = true // it shares the fate of what it comes from
		return nil
	}
	d.left--
	o := d.load(p)
	err := d.l.send(d.f, o, d.out)
	if err == nil {
		d.took++
	}
	p.maybe = o.maybe
	var e *Error
	if errors.As(err, &e) {
		p.refused, p.known, p.alone = e, true, true
		return nil
	}
	return err
}

func (d *division) load(p *piece) *load {
	o := d.f.parcel.pick(p.list)
	o.maybe = p.maybe
	o.bytes = int(int64(d.f.bytes) * int64(len(p.list)) / int64(d.all))
	return o
}

// settle finds the series that the backend refuses in a piece that it refused. What is
// not the newest sample of its series goes first, to keep the order; if the backend takes
// any of it, its refusals can be believed. Else they mean nothing, and the newest samples
// decide: a series of which the newest is accepted had its older ones delivered before.
func (d *division) settle(p piece) error {
	others, newest := rounds(p.list)
	switch {
	case len(others) == 0:
		return d.convict(p)
	case len(newest) == 0 && len(p.list) == d.all && middle(p.list) == 0:
		return d.oneByOne(p) // nothing else can have been the reason
	}
	first := p.part(others)
	first.known, first.alone = len(newest) == 0, len(newest) == 0
	refused, credible, err := d.spotCheck(first)
	if err != nil {
		return err
	}
	next := p.part(newest)
	if !credible {
		before := d.took
		guilty, err := d.search(next)
		if err != nil {
			return err
		}
		d.judge(refused, guilty, len(newest) > 0 && d.took == before)
		return nil
	}
	queue := []piece{next}
	for _, q := range refused {
		if err := d.blame(q); err != nil {
			return err
		}
		rest, suspect := without(queue[0].list, q.list)
		queue[0].list = rest
		queue = append(queue, p.part(suspect))
	}
	return d.convict(queue...)
}

// convict drops what search finds.
func (d *division) convict(queue ...piece) error {
	guilty, err := d.search(queue...)
	if err != nil {
		return err
	}
	for _, g := range guilty {
		if err := d.blame(g); err != nil {
			return err
		}
	}
	return nil
}

// blame drops what a credible refusal is about: of a series, only the messages that are
// refused by themselves.
func (d *division) blame(p piece) error {
	if p.alone && middle(p.list) == 0 {
		return d.oneByOne(p)
	}
	d.drop(p, d.reason(&p))
	return nil
}

// spotCheck is search, with a few series tried alone first. credible tells whether the
// backend took any of the piece; where it did not, the rest of it is not tried.
func (d *division) spotCheck(p piece) (refused []piece, credible bool, err error) {
	if !p.known {
		if err := d.try(&p); err != nil || !p.known {
			return nil, true, err
		}
	}
	for n := range maxSpotChecks {
		if middle(p.list) == 0 || d.left <= 0 {
			break
		}
		// Spread over the piece; with each check there is one series less.
		from := n * len(p.list) / maxSpotChecks
		for from > 0 && p.list[from].compare(&p.list[from-1]) == 0 {
			from--
		}
		to := from + 1
		for to < len(p.list) && p.list[to].compare(&p.list[from]) == 0 {
			to++
		}
		q := p.part(p.list[from:to:to])
		if err := d.try(&q); err != nil {
			return refused, credible, err
		}
		if q.known {
			refused = append(refused, q)
		} else {
			credible = true
		}
		p = p.part(append(append([]message(nil), p.list[:from]...), p.list[to:]...))
	}
	if !credible {
		return append(refused, p), false, nil
	}
	more, err := d.search(p)
	return append(refused, more...), true, err
}

// judge settles refused messages whose refusal means nothing by what became of the newest
// sample of their series. all says that no such sample was accepted: then there is no
// sign that the backend ever wrote anything of them.
func (d *division) judge(refused, guilty []piece, all bool) {
	for _, g := range guilty {
		reason := d.reason(&g)
		d.drop(g, reason)
		for i := range refused {
			rest, same := without(refused[i].list, g.list)
			refused[i].list = rest
			d.drop(piece{list: same, refused: g.refused}, reason)
		}
	}
	for _, q := range refused {
		if all {
			d.drop(q, d.reason(&q))
		} else {
			d.drop(q, ReasonRedeliveredRefused)
		}
	}
}

// search tries pieces and halves those that are refused, down to single series or until
// the requests are used up. It returns the pieces that remain refused.
func (d *division) search(queue ...piece) (refused []piece, err error) {
	halves := 0
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		if len(p.list) == 0 {
			continue
		}
		if !p.known {
			if err := d.try(&p); err != nil {
				return refused, err
			}
			if !p.known {
				// The other half, where it is next, holds what was refused, unless only the
				// size was wrong. A single series is not dropped without a trial.
				if len(queue) > 0 && p.half != 0 && queue[0].half == p.half && !p.refused.TooLarge && middle(queue[0].list) > 0 {
					queue[0].known = true
				}
				continue
			}
		}
		mid := middle(p.list)
		if mid == 0 || d.left <= 0 {
			refused = append(refused, p)
			continue
		}
		halves++
		a, b := p.part(p.list[:mid]), p.part(p.list[mid:])
		a.half, b.half = halves, halves
		queue = append(queue, a, b)
	}
	return refused, nil
}

// reason is why a refused piece is dropped.
func (d *division) reason(p *piece) string {
	switch {
	case p.maybe:
		return ReasonRedeliveredRefused
	case p.alone && middle(p.list) == 0:
		return ReasonRefused
	}
	return ReasonDivisionLimit
}

// drop gives a piece up: counted, and kept as dead letters unless it was or may have been
// delivered before.
func (d *division) drop(p piece, reason string) {
	if len(p.list) == 0 {
		return
	}
	o := d.load(&p)
	l := d.l
	dropped, err := l.o.DeadLetters.Drop(&o.parcel, Letter{
		Backend: l.o.Name,
		Reason:  reason,
		Status:  p.refused.Status,
		Message: p.refused.text(),
	}, reason != ReasonRedeliveredRefused)
	for k, c := range dropped.Counts {
		d.out[o.place(k)].reject(reason, c)
	}
	l.o.Metrics.deadLetters.WithLabelValues(l.o.Name, "written").Add(float64(dropped.Written))
	l.o.Metrics.deadLetters.WithLabelValues(l.o.Name, "lost").Add(float64(dropped.Lost))
	var lost series.Counts
	for _, c := range dropped.Counts {
		lost.Add(c)
	}
	if c, times, ok := l.refused.add(l.o.Now(), lost); ok {
		l.o.Logger.Warn("The backend refuses data for good; it is lost for this backend", "reason", reason, "status", p.refused.Status,
			"answer", p.refused.text(), "requests", times, "samples", c.Samples, "histograms", c.Histograms, "exemplars", c.Exemplars,
			"dead_letters", l.o.DeadLetters.Path(l.o.Name))
	}
	if err == nil {
		return
	}
	if c, times, ok := l.lettersLost.add(l.o.Now(), lost); ok {
		l.o.Logger.Error("Refused series could not be kept as dead letters", "file", l.o.DeadLetters.Path(l.o.Name), "times", times,
			"samples", c.Samples, "histograms", c.Histograms, "err", err)
	}
}

func (e *Error) text() string {
	if e.Message != "" || e.Err == nil {
		return e.Message
	}
	return e.Err.Error()
}
