package thinning

import (
	"cmp"
	"math"
	"slices"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/sampler"
)

const (
	defaultBatchSamples = 5000
	// batchBytes is the size, decompressed, at which a batch is finished whatever it holds.
	batchBytes = 8 << 20
)

// RestorerOptions are what a Restorer is made of.
type RestorerOptions struct {
	Sampler   *sampler.Sampler   // as a Splicer's; the caller sets the recorded steps
	Describer *sampler.Describer // of the Sampler's configuration

	// BatchSamples is about how many samples a batch holds; 0 means 5,000.
	BatchSamples int

	MaxFamilies       int // as in SplicerOptions, with the same value
	MaxHistogramBytes int // likewise
}

// Restorer finds in a part of the journal what a Splicer did not send of it, and makes
// batches of that. It is fed the same batches in the same order, under the same steps:
//
//   - Observe those before the part, from which the state is built;
//   - Add those of the part;
//   - Rest those of the part once more, while Pending is not 0: samples of which it was
//     open to the end whether they would be sent have waited until then. Labels are not
//     kept for them, since they may be as many as there are series; the second reading
//     has the labels.
//
// Parts of which nothing was sent go through AddAll instead. It is used by one goroutine.
type Restorer struct {
	batchReader
	complement *sampler.Complement
	most       int
	press      press
	drafts     [2]pending // of RW 1.0 and 2.0
	out        *Out       // of the call at hand

	sent, missed []sampler.Sample
	points       []remotewrite.Point
	pieces       []piece
	custom       bool   // buckets, among the pieces of earlier
	newest       []bool // by ordinal: the newest sample of the message was sent
	places       places
}

// Out is what a Restorer has made.
type Out struct {
	// Batches are finished, the caller's to release.
	Batches []*series.Batch
	// Origins are, of each of Batches, what it holds by the steps of Restorer.Enter that
	// withheld it.
	Origins [][]Origin
	// Restored is what was found to be missing and stands in Batches, or will when
	// Restorer.Flush has been called.
	Restored series.Counts
	// Lost are samples that were not sent and cannot be given back: exemplars of samples
	// that waited, and histograms whose encoding was not kept.
	Lost series.Counts
}

// pending is a batch in the making.
type pending struct {
	draft
	w       *remotewrite.Builder
	origins []Origin
	used    bool // holds something
	begun   bool // w knows the source at hand
}

// NewRestorer returns a Restorer that has seen nothing.
func NewRestorer(o RestorerOptions) *Restorer {
	r := &Restorer{
		batchReader: newBatchReader(o.Sampler, o.Describer, o.MaxFamilies, o.MaxHistogramBytes),
		complement:  sampler.NewComplement(o.Sampler),
		most:        o.BatchSamples,
	}
	if r.most == 0 {
		r.most = defaultBatchSamples
	}
	r.drafts[0].w, r.drafts[1].w = newBuilder(series.V1), newBuilder(series.V2)
	return r
}

// Enter tells the step that what is fed from now on was decided by. Where none is told, Origins
// have no steps.
func (r *Restorer) Enter(step journal.Position) { r.origins.enter(step) }

// Observe feeds a batch from before the part. The arguments are those of Splicer.Splice.
func (r *Restorer) Observe(b *series.Batch, set series.Set) error {
	if err := r.open(b); err != nil {
		return err
	}
	defer r.done()
	r.each(set, r.observe)
	return nil
}

// Add feeds a batch of the part and adds to out what a Splicer left out. Sources are not
// borrowed afterwards. An error says that the source cannot be read; nothing is changed
// then.
func (r *Restorer) Add(b *series.Batch, set series.Set, out *Out) error {
	if err := r.open(b); err != nil {
		return err
	}
	defer r.done()
	r.out = out
	r.newest = cleared(r.newest, len(b.IDs))
	r.places.reset()
	r.each(set, r.restore)
	return nil
}

// AddAll adds all that is taken of a batch: the batch itself, retained, where that is
// everything and no more than a batch is to hold. The Sampler is not fed.
func (r *Restorer) AddAll(b *series.Batch, set series.Set, out *Out) error {
	r.out = out
	if set == nil && b.Counts.Samples+b.Counts.Histograms <= uint64(r.most) || b.Series == 0 {
		r.Flush(out)
		b.Retain()
		out.Batches = append(out.Batches, b)
		out.Origins = append(out.Origins, []Origin{{r.origins.step(), b.Counts}})
		out.Restored.Add(b.Counts)
		return nil
	}
	if err := r.open(b); err != nil {
		return err
	}
	defer r.done()
	for i := range b.IDs {
		if set.Has(i) {
			r.writeWhole(i)
		}
	}
	return nil
}

// Pending is the number of series with samples that wait for the end of the part.
func (r *Restorer) Pending() (n int) {
	for range r.complement.All() {
		n++
	}
	return n
}

// Rest adds to out the samples that waited of the series in a batch of the part, which Add
// has seen. Nothing of the part is added afterwards.
func (r *Restorer) Rest(b *series.Batch, set series.Set, out *Out) error {
	if err := r.open(b); err != nil {
		return err
	}
	defer r.done()
	r.out = out
	r.inputs = r.inputs[:0]
	for i, id := range b.IDs {
		if !set.Has(i) {
			continue
		}
		r.missed = r.complement.Rest(uint32(id), r.missed[:0])
		if len(r.missed) > 0 {
			r.pieces, r.custom = r.pieces[:0], false
			r.take(id)
			r.writePieces(i, false)
		}
	}
	return nil
}

// Flush finishes the batches in the making.
func (r *Restorer) Flush(out *Out) {
	r.out = out
	for k := range r.drafts {
		r.finish(&r.drafts[k])
	}
	r.out = nil
}

// Forget drops all that is known of series, whose ids may be given to others afterwards.
// What waits of them is lost.
func (r *Restorer) Forget(ids []series.ID, out *Out) {
	for _, id := range ids {
		r.missed = r.complement.Rest(uint32(id), r.missed[:0])
		for _, s := range r.missed {
			out.Lost.Add(countOf(s))
		}
	}
	r.forget(ids)
}

func countOf(s sampler.Sample) series.Counts {
	if s.Histogram {
		return series.Counts{Histograms: 1}
	}
	return series.Counts{Samples: 1}
}

// done lets the batch at hand go.
func (r *Restorer) done() {
	r.out = nil
	for k := range r.drafts {
		r.drafts[k].begun = false
	}
	r.close()
}

// observe feeds a message to the Sampler.
func (r *Restorer) observe(i int, id series.ID) {
	inputs := r.read(i)
	for k := range inputs {
		in := &inputs[k]
		r.prepare(id, in)
		newer := r.sampler.Newer(uint32(id), in.Time)
		r.sent = r.sampler.Sample(uint32(id), in.Sample, r.sent[:0])
		if newer {
			r.origins.note(id, in.Time, len(r.sent) > 0)
		}
		if !r.remember(i, id, in, len(r.sent) > 0) {
			r.forget([]series.ID{id})
		}
	}
}

// restore feeds a message and writes what is missed.
func (r *Restorer) restore(i int, id series.ID) {
	inputs := r.read(i)
	if len(inputs) == 0 {
		r.restoreExemplars(i)
		return
	}
	r.pieces, r.custom = r.pieces[:0], false
	latest := 0
	for k := range inputs {
		in := &inputs[k]
		r.inputs = inputs[:k+1]
		r.prepare(id, in)
		newer := r.sampler.Newer(uint32(id), in.Time)
		r.sent, r.missed = r.complement.Sample(uint32(id), in.Sample, r.sent[:0], r.missed[:0])
		in.sent = len(r.sent) > 0
		if newer {
			r.origins.note(id, in.Time, in.sent)
		}
		for _, older := range r.sent[:max(0, len(r.sent)-1)] {
			if at := unsent(r.inputs, older); at >= 0 {
				inputs[at].sent = true
			}
		}
		r.take(id)
		if !r.remember(i, id, in, in.sent) {
			r.missed = r.complement.Rest(uint32(id), r.missed[:0])
			r.take(id)
			r.forget([]series.ID{id})
		}
		if in.Time > inputs[latest].Time {
			latest = k
		}
	}
	r.newest[i] = inputs[latest].sent
	r.writePieces(i, !r.newest[i])
}

// restoreExemplars writes a message that holds exemplars only, if it was withheld.
func (r *Restorer) restoreExemplars(i int) {
	if !r.places.withheld(i, r.msg, r.batch.IDs, func(k int) bool { return r.newest[k] }) {
		return
	}
	if r.msg.Version == series.V2 {
		r.out.Lost.Add(r.msg.Series[i].Counts())
		return
	}
	r.writeWhole(i)
}

// take adds the missed samples to the pieces.
func (r *Restorer) take(id series.ID) {
	for _, s := range r.missed {
		if k := unsent(r.inputs, s); k >= 0 {
			r.inputs[k].missed = true
			r.pieces = append(r.pieces, piece{input: k})
			continue
		}
		point, custom, ok := r.earlier(id, s)
		if !ok {
			r.out.Lost.Add(countOf(s))
			continue
		}
		r.custom = r.custom || custom
		r.pieces = append(r.pieces, piece{input: -1, point: point, step: r.origins.of(id, s.Time)})
	}
}

// writePieces writes what the pieces say of message i. exemplars says that its exemplars
// were not sent.
func (r *Restorer) writePieces(i int, exemplars bool) {
	m := &r.msg.Series[i]
	exemplars = exemplars && m.Exemplars > 0
	if len(r.pieces) == 0 && !exemplars {
		return
	}
	if len(r.pieces) > 0 && len(r.pieces) == len(r.inputs) && inOrder(r.pieces) {
		r.writeWhole(i)
		return
	}
	if len(r.pieces) == 0 && r.msg.Version == series.V2 {
		r.out.Lost.Exemplars += uint64(m.Exemplars)
		return
	}
	r.points = r.points[:0]
	for _, p := range r.pieces {
		if p.input >= 0 {
			p.point = r.present(i, &r.inputs[p.input])
		}
		r.points = append(r.points, p.point)
	}
	slices.SortStableFunc(r.points, func(a, b remotewrite.Point) int { return cmp.Compare(a.Time, b.Time) })
	p := r.draft()
	for _, x := range r.points {
		p.span(x.Time, x.Time)
	}
	p.custom = p.custom || r.custom || m.Flags&remotewrite.FlagCustomBuckets != 0
	r.wrote(p, i, p.w.AddPoints(r.msg, i, remotewrite.Splice{Points: r.points, Exemplars: exemplars}))
}

// writeWhole writes a message as it stands.
func (r *Restorer) writeWhole(i int) {
	r.pieces = r.pieces[:0] // all is of this message
	m := &r.msg.Series[i]
	p := r.draft()
	p.span(m.MinTime, m.MaxTime)
	p.custom = p.custom || m.Flags&remotewrite.FlagCustomBuckets != 0
	r.wrote(p, i, p.w.Add(r.msg, i))
}

// draft is the batch in the making that takes messages of the source at hand.
func (r *Restorer) draft() *pending {
	b := r.batch
	p := &r.drafts[b.Version-series.V1]
	if p.used && p.epoch != b.Epoch {
		r.finish(p)
	}
	if !p.used {
		p.used = true
		p.draft = draft{
			version: b.Version, received: b.Received, epoch: b.Epoch, legacy: true,
			minTime: math.MaxInt64, maxTime: math.MinInt64,
		}
	}
	if !p.begun {
		p.begun = true
		p.w.BeginPart(r.msg)
	}
	p.legacy = p.legacy && b.Legacy
	return p
}

// wrote notes that a message went into a batch in the making.
func (r *Restorer) wrote(p *pending, i int, o remotewrite.Outcome) {
	r.out.Restored.Add(o.Written)
	r.out.Lost.Add(o.Dropped)
	for len(p.ids) < p.w.Len() {
		p.ids = append(p.ids, r.batch.IDs[i])
	}
	p.note(o.Written, r.pieces, r.origins.step())
	n := p.w.Counts()
	if n.Samples+n.Histograms >= uint64(r.most) || p.w.Size() >= batchBytes {
		r.finish(p)
	}
}

// note notes where what was written of the message at hand was withheld: samples of messages
// before in their steps, the rest in the present one.
func (p *pending) note(written series.Counts, pieces []piece, now journal.Position) {
	for i := range pieces {
		x := &pieces[i]
		if x.input >= 0 {
			continue
		}
		n := series.Counts{Samples: 1}
		if x.point.Histogram != nil {
			n = series.Counts{Histograms: 1}
		}
		n = n.Within(written)
		written.Sub(n)
		p.origins = addOrigin(p.origins, x.step, n)
	}
	if !written.Zero() {
		p.origins = addOrigin(p.origins, now, written)
	}
}

// finish makes a batch of what was written.
func (r *Restorer) finish(p *pending) {
	if !p.used {
		return
	}
	b := r.press.batch(p.w, p.draft)
	for _, late := range p.w.Late() {
		r.out.Restored.Sub(late.Dropped)
		r.out.Lost.Add(late.Dropped)
	}
	if b.Series > 0 {
		r.out.Batches = append(r.out.Batches, b)
		r.out.Origins = append(r.out.Origins, p.origins)
	} else {
		b.Release()
	}
	w := p.w
	w.Reset()
	if w.Footprint() > scratchLimit {
		w = newBuilder(p.version)
	}
	*p = pending{w: w}
}
