package exporter

import (
	"errors"

	"github.com/sluice-metrics/sluice/internal/series"
)

// maxDivision is how many requests the search for what a backend refuses may cost for one
// parcel.
const maxDivision = 64

// division is the search for the series that a backend refuses in one parcel. It divides
// by series, so that all samples of a series stay together and no part can overtake
// another, and goes breadth first, so that when its requests are used up little has been
// tried too coarsely.
type division struct {
	l    *Lane
	f    *flight
	out  []outcome
	ids  []series.ID // distinct, ascending
	left int         // requests
}

// piece is the series from ids[lo] to ids[hi-1].
type piece struct {
	lo, hi int
	// refused is why the backend refused the piece, or the piece it comes from; known
	// says that it was this one and need not be tried as it is.
	refused *Error
	known   bool
}

// divide sends a refused parcel in ever smaller parts until the series that the backend
// refuses are found. Only they are dropped. It returns the cause of the end of f.ctx.
func (l *Lane) divide(f *flight, refused *Error, out []outcome) error {
	l.o.Metrics.divisions.WithLabelValues(l.o.Name).Inc()
	d := &division{l: l, f: f, out: out, ids: f.parcel.ids(), left: maxDivision}
	if len(d.ids) == 0 {
		l.o.Logger.Warn("The backend refused a request without series", "err", refused)
		return nil // metadata alone: there is nothing to keep the books of
	}
	queue := []piece{{0, len(d.ids), refused, true}}
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		if !p.known {
			err := d.try(f.parcel.between(d.ids[p.lo], d.ids[p.hi-1]), &p)
			if err != nil {
				return err
			}
			if !p.known {
				// The parcel's other half, where it waits next to this one, holds
				// what was refused, unless only the size was wrong.
				if len(queue) > 0 && queue[0].lo == p.hi && queue[0].refused == p.refused && !p.refused.TooLarge && queue[0].hi-queue[0].lo > 1 {
					queue[0].known = true
				}
				continue
			}
		}
		if d.left <= 0 {
			d.drop(f.parcel.between(d.ids[p.lo], d.ids[p.hi-1]), p.refused, ReasonDivisionLimit)
			continue
		}
		if p.hi-p.lo == 1 {
			if err := d.single(f.parcel.between(d.ids[p.lo], d.ids[p.lo]), p.refused); err != nil {
				return err
			}
			continue
		}
		mid := (p.lo + p.hi) / 2
		queue = append(queue, piece{p.lo, mid, p.refused, false}, piece{mid, p.hi, p.refused, false})
	}
	return nil
}

// try sends one part. p.known tells afterwards whether the backend refused it.
func (d *division) try(part Parcel, p *piece) error {
	if d.left <= 0 {
		p.known = true // not tried: it shares the fate of what it comes from
		return nil
	}
	d.left--
	err := d.l.send(d.f, &part, d.out)
	var e *Error
	if errors.As(err, &e) {
		p.refused, p.known = e, true
		return nil
	}
	return err
}

// single settles one series that the backend refuses. Where it has several samples in
// the parcel, earlier attempts may have written some of them, and a backend that wants
// strict order refuses these when they come again: each is tried alone, oldest first. If
// the newest is accepted, those refused before it count as redelivered.
func (d *division) single(series Parcel, refused *Error) error {
	places := series.places()
	if len(places) == 1 {
		d.drop(series, refused, d.reason())
		return nil
	}
	var failed []Parcel
	newest := false
	for _, at := range places {
		one := series.only(at)
		p := piece{refused: refused}
		if err := d.try(one, &p); err != nil {
			return err
		}
		if newest = !p.known; p.known {
			failed = append(failed, one)
			refused = p.refused
		}
	}
	reason := d.reason()
	if newest {
		reason = ReasonRedeliveredRefused
	}
	for _, one := range failed {
		d.drop(one, refused, reason)
	}
	return nil
}

func (d *division) reason() string {
	if d.f.maybe {
		return ReasonRedeliveredRefused
	}
	return ReasonRefused
}

// drop gives a part up as refused: counted, and kept as a dead letter unless it may have
// been delivered before.
func (d *division) drop(part Parcel, refused *Error, reason string) {
	if reason == ReasonDivisionLimit && d.f.maybe {
		reason = ReasonRedeliveredRefused
	}
	counts, err := d.l.o.DeadLetters.Drop(&part, Letter{Backend: d.l.o.Name, Reason: reason, Status: refused.Status, Message: refused.text()}, reason != ReasonRedeliveredRefused)
	outcome := "written"
	if err != nil {
		outcome = "lost"
		d.l.o.Logger.Error("Refused series could not be kept as dead letters", "err", err)
	}
	for k, c := range counts {
		d.out[k].reject(reason, c)
	}
	if reason != ReasonRedeliveredRefused {
		d.l.o.Metrics.deadLetters.WithLabelValues(d.l.o.Name, outcome).Inc()
	}
}

func (e *Error) text() string {
	if e.Message != "" || e.Err == nil {
		return e.Message
	}
	return e.Err.Error()
}
