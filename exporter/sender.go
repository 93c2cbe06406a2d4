package exporter

import (
	"context"
	"errors"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
)

// flight is a parcel on its way. What bound looks at is changed under the lane's mutex.
type flight struct {
	parcel  Parcel
	recs    []*openRecord   // one per part
	counts  []series.Counts // one per part, by the journal's headers
	slot    int
	samples int
	bytes   int  // decoded
	maybe   bool // some of it may have been sent before the start
	beside  bool // it is not of the order of the journal
	parent  context.Context
	ctx     context.Context // ends when the parcel is to be given up, and with parent
	cancel  context.CancelCauseFunc
}

func (f *flight) add(p *pending) {
	f.parcel.Parts = append(f.parcel.Parts, p.part)
	f.recs = append(f.recs, p.rec)
	f.counts = append(f.counts, p.counts)
	f.samples += p.samples()
	f.bytes += p.part.Batch.Decoded
}

func (f *flight) renew() { f.ctx, f.cancel = context.WithCancelCause(f.parent) }

// errAbandoned is the cause when a parcel is given up in flight.
var errAbandoned = errors.New("given up: a bound of the backlog is exceeded")

// maxDenied is the longest pause between probes of a backend that denies everything.
const maxDenied = 30 * time.Second

// load is what one request takes of a flight's parcel.
type load struct {
	parcel Parcel
	places []int // of its parts in the flight's parcel; nil: it is the whole parcel
	bytes  int   // decoded, about
	maybe  bool  // the backend may have had some of it before
}

// place is the index in the flight's parcel of part k.
func (o *load) place(k int) int {
	if o.places == nil {
		return k
	}
	return o.places[k]
}

// deliver brings a parcel to an end: delivered, refused, given up, or left to the next
// run.
func (l *Lane) deliver(f *flight) {
	defer f.end()
	o := load{maybe: f.maybe}
	for len(f.recs) > 0 {
		out := make([]outcome, len(f.recs))
		o.parcel, o.bytes = f.parcel, f.bytes
		divided, err := l.bring(f, &o, out)
		switch {
		case err == nil:
			l.settle(f, out)
			return
		case !errors.Is(err, errAbandoned):
			return // stopping: the parcel stays in the journal
		}
		o.maybe = o.maybe || divided
		l.abandon(f, out)
	}
}

// bring sends a load and, where the backend refuses it, divides it. The error is the cause
// of the end of f.ctx.
func (l *Lane) bring(f *flight, o *load, out []outcome) (divided bool, err error) {
	err = l.send(f, o, out)
	var rejected *Error
	if errors.As(err, &rejected) {
		return true, l.divide(f, o, rejected, out)
	}
	return false, err
}

// end gives back what the flight holds.
func (f *flight) end() {
	f.cancel(nil)
	for _, p := range f.parcel.Parts {
		p.Batch.Release()
	}
}

// maxRenegotiations is how often in a row a parcel is prepared anew without a pause.
const maxRenegotiations = 3

// send makes attempts until the backend has the load, and puts what became of it into
// out, by place. It returns a *Error of class Rejected when the backend refuses the
// content, and otherwise the cause of the end of f.ctx.
func (l *Lane) send(f *flight, o *load, out []outcome) error {
	d, err := l.o.Backend.Prepare(&o.parcel)
	if err != nil {
		return &Error{Class: Rejected, Err: err}
	}
	defer func() { d.Close() }()
	probing := false
	defer func() {
		if probing {
			l.pace.endProbing()
		}
	}()
	renegotiations := 0
	for n := 0; ; n++ {
		if !probing {
			if probing, err = l.pace.ready(f.ctx); err != nil {
				return err
			}
			if probing {
				if err := l.probe(f); err != nil {
					return err
				}
			}
		}
		roused := l.pace.roused()
		began := l.o.Now()
		l.pace.watch.begin(began, !f.beside)
		receipt, err := d.Send(f.ctx, n)
		if err == nil {
			l.pace.watch.end(attempt{began: began, timed: !f.beside}, l.o.Now())
			l.attempt("ok")
			l.pace.ok()
			l.tally(o, d, receipt, out)
			if l.o.Tap != nil {
				l.o.Tap.Sent(&o.parcel)
			}
			return nil
		}
		e := asError(err)
		l.pace.watch.end(attempt{began: began, timed: !f.beside, err: e}, l.o.Now())
		o.maybe = o.maybe || e.Unknown
		if cause := context.Cause(f.ctx); cause != nil {
			return cause
		}
		l.attempt(e.Class.String())
		switch e.Class {
		case Rejected:
			if e.Status != 0 {
				l.pace.ok() // it is there and takes what we send, if not this
			}
			if e.TooLarge {
				l.pace.tooLarge(int64(o.bytes))
			}
			return e
		case Renegotiate:
			d.Close()
			if d, err = l.o.Backend.Prepare(&o.parcel); err != nil {
				d = closed{}
				return &Error{Class: Rejected, Err: err}
			}
			if renegotiations++; renegotiations <= maxRenegotiations {
				continue
			}
		case Denied:
			l.pace.failed(e, probing)
			if probing {
				if err := l.probe(f); err != nil {
					return err
				}
			}
			continue // ready makes one sender the prober, and the others wait
		}
		l.pace.failed(e, probing)
		if probing {
			l.pace.endProbing() // it fails like any other now
			probing = false
		}
		if err := l.pace.pause(f.ctx, roused, l.backoff(n)); err != nil {
			return err
		}
	}
}

// backoff is the longest pause after the n-th failed attempt, from 0.
func (l *Lane) backoff(n int) time.Duration {
	most := time.Duration(l.o.Config.MaxBackoff)
	if l.o.Sampling != nil && l.o.Sampling.FreshFirst() > 0 {
		most = min(most, freshBackoff)
	}
	return backoff(time.Duration(l.o.Config.MinBackoff), most, n)
}

// closed stands in for a Delivery that could not be made.
type closed struct{ Delivery }

func (closed) Close() {}

func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Class: Retry, Unknown: true, Err: err}
}

func (l *Lane) attempt(outcome string) {
	l.o.Metrics.attempts.WithLabelValues(l.o.Name, outcome).Inc()
}

// probe waits until a backend that denied everything may accept again.
func (l *Lane) probe(f *flight) error {
	for {
		d := backoff(time.Duration(l.o.Config.MinBackoff), maxDenied, l.pace.nextProbe())
		if err := l.pace.pause(f.ctx, l.pace.roused(), d); err != nil {
			return err
		}
		if err := l.o.Backend.Probe(f.ctx); err == nil || f.ctx.Err() != nil {
			return context.Cause(f.ctx)
		}
	}
}

// tally puts a delivered load into the outcomes of its parts.
func (l *Lane) tally(o *load, d Delivery, receipt Receipt, out []outcome) {
	var sent series.Counts
	refuser, _ := d.(Refuser)
	newest := int64(0)
	for k := range o.parcel.Parts {
		t := d.Tally(k)
		r := &out[o.place(k)]
		got := t.Sent
		if refuser != nil {
			for _, drop := range refuser.Refused(k) {
				got.Sub(drop.Counts)
				if o.maybe {
					drop.Reason = ReasonRedeliveredRefused // it may well be there
				}
				r.reject(drop.Reason, drop.Counts)
			}
		}
		for _, drop := range t.Dropped {
			r.reject(drop.Reason, drop.Counts)
		}
		r.delivered.Add(got)
		if o.maybe {
			r.redelivered.Add(got)
		}
		sent.Add(t.Sent)
		if !got.Zero() {
			newest = max(newest, o.parcel.Parts[k].Batch.MaxTime)
		}
	}
	if receipt.Told && refuser == nil && !o.maybe {
		l.shortfall(o, sent.Without(receipt.Written), out)
	}
	if newest == 0 {
		return
	}
	l.mu.Lock()
	l.newest = max(l.newest, newest)
	l.newestAt = l.o.Now()
	l.mu.Unlock()
}

// shortfall moves what the backend accepted but says that it did not write from
// delivered to rejected. Which series these are nobody knows; the counts are taken from
// the first parts that have so many.
func (l *Lane) shortfall(o *load, missing series.Counts, out []outcome) {
	if missing.Zero() {
		return
	}
	if c, times, ok := l.unwritten.add(l.o.Now(), missing); ok {
		l.o.Logger.Warn("The backend answered 2xx but says that it did not write everything", "times", times,
			"samples", c.Samples, "histograms", c.Histograms, "exemplars", c.Exemplars)
	}
	for k := range o.parcel.Parts {
		r := &out[o.place(k)]
		part := missing.Within(r.delivered)
		r.delivered.Sub(part)
		r.reject(ReasonNotWritten, part)
		missing.Sub(part)
	}
}

// abandon gives up what of the parcel is older than is to be kept, and settles it at once.
// The rest stays in the flight, unless part of it is settled already.
func (l *Lane) abandon(f *flight, out []outcome) {
	var lost series.Counts
	l.mu.Lock()
	g := l.giveUp
	n := 0
	for k, r := range f.recs {
		if r.start.Before(g.to) || !out[k].settled().Zero() {
			n = k + 1
		}
	}
	for k, r := range f.recs[:n] {
		rest := f.counts[k].Without(out[k].settled())
		out[k].giveUp(g.reason, rest)
		lost.Add(rest)
		r.out = out[k]
		l.progress.settle(r)
	}
	given := f.parcel.Parts[:n]
	f.parcel.Parts, f.recs, f.counts = f.parcel.Parts[n:], f.recs[n:], f.counts[n:]
	f.cancel(nil)
	f.renew()
	l.mu.Unlock()
	for _, p := range given {
		f.bytes -= p.Batch.Decoded
		p.Batch.Release()
	}
	if c, times, ok := l.abandoned.add(l.o.Now(), lost); ok {
		l.o.Logger.Warn("Gave up what was on its way to the backend", "reason", g.reason, "parcels", times,
			"samples", c.Samples, "histograms", c.Histograms, "exemplars", c.Exemplars)
	}
}

func (o *outcome) settled() series.Counts {
	c := o.delivered
	for _, r := range o.rejected {
		c.Add(r)
	}
	return c
}

// settle enters a parcel's outcomes into the books.
func (l *Lane) settle(f *flight, out []outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, r := range f.recs {
		r.out = out[k]
		l.progress.settle(r)
	}
}
