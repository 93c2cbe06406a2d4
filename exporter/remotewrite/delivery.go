package remotewrite

import (
	"context"
	"fmt"
	"slices"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// delivery is a parcel in the form in which it is sent.
type delivery struct {
	backend *Backend
	choice  choice
	tallies []exporter.Tally // by part
	sent    series.Counts    // over all parts
	content content          // its src is nil when there is nothing to send
	joined  remotewrite.Joined
	buffers []*series.Buffer // the bodies that were encoded anew
}

// Prepare implements exporter.Backend. A part that is taken whole, came in the version
// that goes out and needs no name escaped is sent as the bytes that were received: any
// number of them in remote write 1.0, where bodies can be joined, a single one in 2.0.
// All other parts are encoded anew, in their order among the others. An error means that
// a batch is not what its index says; trying again does not help.
func (b *Backend) Prepare(p *exporter.Parcel) (exporter.Delivery, error) {
	d := &delivery{backend: b, choice: b.negotiation.choose(), tallies: make([]exporter.Tally, len(p.Parts))}
	d.content.kept = p.Kept
	var err error
	if d.choice.version == series.V1 {
		err = d.prepareV1(p)
	} else {
		err = d.prepareV2(p)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	for i := range d.tallies {
		d.sent.Add(d.tallies[i].Sent)
	}
	return d, nil
}

// forwards reports whether the part's body goes out as it is.
func (d *delivery) forwards(p *exporter.Part) bool {
	v := d.choice.version
	return p.Take == nil && p.Batch.Version == v && d.backend.config.forwards(v, p.Batch)
}

func (d *delivery) prepareV1(p *exporter.Parcel) error {
	for i := 0; i < len(p.Parts); {
		part := &p.Parts[i]
		if d.forwards(part) {
			if err := d.joined.Add(part.Batch.Body); err != nil {
				return fmt.Errorf("joining a body of %d bytes out of the journal: %w", len(part.Batch.Body), err)
			}
			d.tallies[i].Sent = part.Batch.Counts
			d.backend.metrics.parts.WithLabelValues(formForwarded).Inc()
			i++
			continue
		}
		n, err := d.encode(p, i)
		if err != nil {
			return err
		}
		i += n
	}
	if d.joined.Decoded() > 0 {
		d.content.src = &d.joined
	}
	return nil
}

func (d *delivery) prepareV2(p *exporter.Parcel) error {
	if len(p.Parts) == 1 && d.forwards(&p.Parts[0]) {
		batch := p.Parts[0].Batch
		d.content.src = &stored{body: batch.Body}
		d.tallies[0].Sent = batch.Counts
		d.backend.metrics.parts.WithLabelValues(formForwarded).Inc()
		return nil
	}
	_, err := d.encode(p, 0)
	return err
}

// encode encodes the parts from number first on, up to the next that is forwarded in a
// 1.0 request, into one body. It returns how many there were.
func (d *delivery) encode(p *exporter.Parcel, first int) (n int, err error) {
	b, v := d.backend, d.choice.version
	enc := b.encoders.lend(v)
	defer b.encoders.giveBack(enc)
	for i := first; i < len(p.Parts); i++ {
		part := &p.Parts[i]
		if v == series.V1 && d.forwards(part) {
			break
		}
		if err := b.add(enc, i, part, &d.tallies[i]); err != nil {
			return n, err
		}
		n++
	}
	buf := enc.finish(d.tallies)
	b.metrics.startsDropped.Add(float64(enc.StartsDropped()))
	b.metrics.parts.WithLabelValues(formEncoded).Add(float64(n))
	if buf == nil {
		return n, nil
	}
	d.buffers = append(d.buffers, buf)
	if v == series.V2 {
		d.content.src = &stored{body: buf.B}
		return n, nil
	}
	return n, d.joined.Add(buf.B)
}

// add adds a part to enc and, in a 1.0 request, the metadata in it that was not told of
// late. A divided parcel has many parts of which nothing is taken.
func (b *Backend) add(enc *encoder, n int, p *exporter.Part, t *exporter.Tally) error {
	if p.Take != nil && !slices.ContainsFunc(p.Take, func(word uint64) bool { return word != 0 }) {
		return nil
	}
	if err := enc.add(n, p, t); err != nil || enc.version == series.V2 {
		return err
	}
	enc.metadata = enc.message.AppendMetadata(enc.metadata[:0])
	if len(enc.metadata) == 0 {
		return nil
	}
	for _, md := range enc.metadata {
		if b.throttle.Allow(md) {
			enc.AddMetadata(md)
		}
	}
	return nil
}

// Tally implements exporter.Delivery.
func (d *delivery) Tally(part int) exporter.Tally { return d.tallies[part] }

// Send implements exporter.Delivery.
func (d *delivery) Send(ctx context.Context, attempt int) (exporter.Receipt, error) {
	if d.content.src == nil {
		return exporter.Receipt{}, nil
	}
	if d.choice.version == series.V1 {
		d.backend.trial(ctx)
	}
	a := d.backend.post(ctx, d.choice.version, &d.content, attempt)
	return d.backend.judge(d.choice, &a, d.sent)
}

// Close implements exporter.Delivery.
func (d *delivery) Close() {
	for _, buf := range d.buffers {
		buf.Free()
	}
	d.buffers, d.content.src = nil, nil
	d.joined.Reset()
}
