package tsdb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// delivery is a parcel on its way into the store. An attempt that fails in its middle
// is taken up where the last group of samples was committed, so that nothing is
// appended twice.
type delivery struct {
	b     *Backend
	parts []part

	samples   progress
	exemplars progress
}

// progress is how far one pass over the parcel is committed.
type progress struct {
	part, series, sample int
}

// part is what is appended of one batch.
type part struct {
	batch *series.Batch
	take  series.Set
	sent  series.Counts
	body  *body // nil: not decoded at present

	refused refusals // by what is committed
	pending refusals // since the last commit
}

// body is a decoded request, reused from delivery to delivery.
type body struct {
	buf []byte
	msg remotewrite.Message
}

// keepBody is the largest decoded request whose memory is kept for the next one.
const keepBody = 4 << 20

func (d *delivery) prepare(i int, from exporter.Part) error {
	p := &d.parts[i]
	p.batch, p.take = from.Batch, from.Take
	if p.take == nil {
		p.sent = p.batch.Counts
		return nil
	}
	if err := d.open(p); err != nil {
		return err
	}
	for i := range p.body.msg.Series {
		if s := &p.body.msg.Series[i]; p.take.Has(i) {
			p.sent.Add(series.Counts{
				Samples:    uint64(s.Samples),
				Histograms: uint64(s.Histograms),
				Exemplars:  uint64(s.Exemplars),
			})
		}
	}
	return nil
}

// open decodes the part if it is not decoded.
func (d *delivery) open(p *part) error {
	if p.body != nil {
		return nil
	}
	b, ok := d.b.bodies.Get().(*body)
	if !ok {
		b = &body{}
	}
	p.body = b
	data, err := s2.Decode(b.buf[:cap(b.buf)], p.batch.Body)
	if err != nil {
		return fmt.Errorf("decompress a request of %d bytes: %w", len(p.batch.Body), err)
	}
	b.buf = data
	if err := b.msg.Scan(p.batch.Version, data); err != nil {
		return fmt.Errorf("read a request of %d bytes: %w", len(data), err)
	}
	if n := len(b.msg.Series); p.batch.IDs != nil && len(p.batch.IDs) != n {
		return fmt.Errorf("a request has %d series, but ids for %d", n, len(p.batch.IDs))
	}
	return nil
}

// release gives the part's decoded request back.
func (d *delivery) release(p *part) {
	if p.body != nil && cap(p.body.buf) <= keepBody {
		d.b.bodies.Put(p.body)
	}
	p.body = nil
}

// Tally implements exporter.Delivery. The store can express everything.
func (d *delivery) Tally(part int) exporter.Tally {
	return exporter.Tally{Sent: d.parts[part].sent}
}

// Refused implements exporter.Refuser.
func (d *delivery) Refused(part int) []exporter.Drop {
	return d.parts[part].refused.drops()
}

// Close implements exporter.Delivery.
func (d *delivery) Close() {
	for i := range d.parts {
		d.release(&d.parts[i])
	}
}

// Send appends what is not committed yet. It fails only when the store does; attempt
// does not matter.
func (d *delivery) Send(ctx context.Context, _ int) (exporter.Receipt, error) {
	if !d.b.gate.enter() {
		return exporter.Receipt{}, &exporter.Error{Class: exporter.Retry, Err: errClosed}
	}
	defer d.b.gate.leave()
	start := time.Now()

	a, ok := d.b.appenders.Get().(*appender)
	if !ok {
		a = &appender{}
	}
	a.start(d, start)
	err := a.run(ctx)
	a.stop()
	d.b.appenders.Put(a)
	if err != nil {
		return exporter.Receipt{}, failure(err)
	}

	d.b.metrics.sendDuration.Observe(time.Since(start).Seconds())
	// What was not written is told by Refused; told here as well it would be counted
	// twice.
	return exporter.Receipt{}, nil
}

// contentError is an error about the parcel that no attempt can mend.
type contentError struct{ error }

func (e contentError) Unwrap() error { return e.error }

// failure is err as the lane understands it.
func failure(err error) *exporter.Error {
	if e := (contentError{}); errors.As(err, &e) {
		return &exporter.Error{Class: exporter.Rejected, Err: err}
	}
	return &exporter.Error{Class: exporter.Retry, Unknown: true, Err: err}
}
