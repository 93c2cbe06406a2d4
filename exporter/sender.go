package exporter

import (
	"context"
	"errors"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
)

// flight is a parcel on its way.
type flight struct {
	parcel  Parcel
	recs    []*openRecord   // one per part
	counts  []series.Counts // one per part, by the journal's headers
	slot    int
	samples int
	bytes   int  // decoded
	maybe   bool // some of it may have been sent before the start, or in an attempt of unknown outcome
	ctx     context.Context
	cancel  context.CancelCauseFunc
}

func (f *flight) add(p *pending) {
	f.parcel.Parts = append(f.parcel.Parts, p.part)
	f.recs = append(f.recs, p.rec)
	f.counts = append(f.counts, p.counts)
	f.samples += p.samples()
	f.bytes += p.part.Batch.Decoded
}

// errAbandoned is the cause when a parcel is given up in flight.
var errAbandoned = errors.New("given up: a bound of the backlog is exceeded")

// maxDenied is the longest pause between probes of a backend that denies everything.
const maxDenied = 30 * time.Second

// deliver brings a parcel to an end: delivered, refused, given up, or left to the next
// run.
func (l *Lane) deliver(f *flight) {
	defer f.cancel(nil)
	defer func() {
		for _, p := range f.parcel.Parts {
			p.Batch.Release()
		}
	}()
	out := make([]outcome, len(f.recs))
	err := l.send(f, &f.parcel, out)
	var rejected *Error
	if errors.As(err, &rejected) {
		err = l.divide(f, rejected, out)
	}
	switch {
	case errors.Is(err, errAbandoned):
		l.abandon(f, out)
	case err != nil:
		return // stopping: the parcel stays in the journal
	}
	l.settle(f, out)
}

// send makes attempts until the backend has the parcel, and puts what became of it into
// out, by part. It returns a *Error of class Rejected when the backend refuses the
// content, and otherwise the cause of the end of f.ctx.
func (l *Lane) send(f *flight, p *Parcel, out []outcome) error {
	d, err := l.o.Backend.Prepare(p)
	if err != nil {
		return &Error{Class: Rejected, Err: err}
	}
	defer func() { d.Close() }()
	var endProbing func()
	defer func() {
		if endProbing != nil {
			endProbing()
		}
	}()
	for attempt := 0; ; attempt++ {
		if endProbing == nil {
			if err := l.pace.ready(f.ctx); err != nil {
				return err
			}
		}
		receipt, err := d.Send(f.ctx, attempt)
		if err == nil {
			l.attempt("ok")
			l.pace.ok()
			l.tally(f, p, d, receipt, out)
			return nil
		}
		if cause := context.Cause(f.ctx); cause != nil {
			return cause
		}
		e := asError(err)
		l.attempt(e.Class.String())
		f.maybe = f.maybe || e.Unknown
		switch e.Class {
		case Rejected:
			if e.TooLarge {
				l.pace.tooLarge(int64(f.bytes))
			}
			return e
		case Renegotiate:
			d.Close()
			if d, err = l.o.Backend.Prepare(p); err != nil {
				d = closed{}
				return &Error{Class: Rejected, Err: err}
			}
			continue
		case Denied:
			l.pace.failed(e)
			if endProbing == nil {
				endProbing, _ = l.pace.becomeProber()
			}
			if endProbing == nil {
				continue // ready waits until the prober is through
			}
			if err := l.probe(f, attempt); err != nil {
				return err
			}
			continue
		}
		l.pace.failed(e)
		if err := l.pace.pause(f.ctx, attempt, time.Duration(l.o.Config.MaxBackoff)); err != nil {
			return err
		}
	}
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
func (l *Lane) probe(f *flight, attempt int) error {
	for n := attempt; ; n++ {
		if err := l.pace.pause(f.ctx, n, maxDenied); err != nil {
			return err
		}
		if err := l.o.Backend.Probe(f.ctx); err == nil {
			return context.Cause(f.ctx)
		}
	}
}

// tally puts a delivered parcel into the outcomes of its parts.
func (l *Lane) tally(f *flight, p *Parcel, d Delivery, receipt Receipt, out []outcome) {
	var sent series.Counts
	refuser, _ := d.(Refuser)
	newest := int64(0)
	for k := range p.Parts {
		t := d.Tally(k)
		o := &out[k]
		got := t.Sent
		if refuser != nil {
			for _, drop := range refuser.Refused(k) {
				got.Sub(drop.Counts)
				o.reject(drop.Reason, drop.Counts)
			}
		}
		for _, drop := range t.Dropped {
			o.reject(drop.Reason, drop.Counts)
		}
		o.delivered.Add(got)
		if f.maybe {
			o.redelivered.Add(got)
		}
		sent.Add(t.Sent)
		if !t.Sent.Zero() {
			newest = max(newest, p.Parts[k].Batch.MaxTime)
		}
	}
	if receipt.Told && !f.maybe {
		l.shortfall(sent, receipt.Written, out)
	}
	l.mu.Lock()
	if newest > l.newest {
		l.newest = newest
	}
	l.newestAt = l.o.Now()
	l.mu.Unlock()
}

// shortfall moves what the backend accepted but says that it did not write from
// delivered to rejected. Which series these are nobody knows; the counts are taken from
// the first parts that have so many.
func (l *Lane) shortfall(sent, written series.Counts, out []outcome) {
	missing := series.Counts{
		Samples:    sent.Samples - min(sent.Samples, written.Samples),
		Histograms: sent.Histograms - min(sent.Histograms, written.Histograms),
		Exemplars:  sent.Exemplars - min(sent.Exemplars, written.Exemplars),
	}
	if missing.Zero() {
		return
	}
	l.o.Logger.Warn("The backend answered 2xx but says that it did not write everything", "samples", missing.Samples, "histograms", missing.Histograms, "exemplars", missing.Exemplars)
	for k := range out {
		d := &out[k].delivered
		part := series.Counts{
			Samples:    min(missing.Samples, d.Samples),
			Histograms: min(missing.Histograms, d.Histograms),
			Exemplars:  min(missing.Exemplars, d.Exemplars),
		}
		d.Sub(part)
		out[k].reject(ReasonNotWritten, part)
		missing.Sub(part)
	}
}

// abandon gives up what the parcel has not delivered.
func (l *Lane) abandon(f *flight, out []outcome) {
	l.mu.Lock()
	reason := l.giveUp.reason
	l.mu.Unlock()
	var lost series.Counts
	for k := range out {
		rest := f.counts[k]
		rest.Sub(out[k].settled())
		out[k].giveUp(reason, rest)
		lost.Add(rest)
	}
	l.o.Logger.Warn("Gave up a parcel in flight", "reason", reason, "samples", lost.Samples, "histograms", lost.Histograms)
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
