package thinning

import (
	"fmt"
	"slices"

	"github.com/klauspost/compress/s2"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/sampler"
)

const (
	defaultMaxFamilies       = 100_000
	defaultMaxHistogramBytes = 64 << 20

	// scratchLimit is the size above which what a batch was read with is not kept: a
	// rare huge one must not cost its memory for ever.
	scratchLimit = 8 << 20
	// touchBlock is how many series are touched before they are decided on.
	touchBlock = 64
)

// batchReader reads batches for a Sampler: it tells it the series that it does not know, and
// keeps what decisions take besides the Sampler's own state. All of that is a function of
// the batches read, so that reading a part of the journal again decides the same.
type batchReader struct {
	sampler   *sampler.Sampler
	describer *sampler.Describer
	targets   *targets // nil where nobody asks for them
	families  families
	traces    traces
	encodings encodings
	origins   origins

	shelf  *remotewrite.Shelf
	own    *remotewrite.Opened  // where nothing is lent
	lent   *remotewrite.Opened  // of the batch at hand; nil where nothing is
	msg    *remotewrite.Message // of the batch at hand
	batch  *series.Batch
	labels []remotewrite.Label
	md     []remotewrite.Metadata
	floats []remotewrite.Sample
	hists  []remotewrite.HistogramRef
	inputs []input
	arena  []byte // contents of histograms, until the next batch
}

// input is one sample of the message at hand.
type input struct {
	sampler.Sample
	start int64 // timestamp, Unix ms; 0 when there is none
	hist  int   // index in batchReader.hists; -1 for a float
	sent  bool
	// missed is set by a Restorer of what is known not to be sent.
	missed bool
}

func newBatchReader(s *sampler.Sampler, d *sampler.Describer, maxFamilies, maxBytes int) batchReader {
	if maxFamilies == 0 {
		maxFamilies = defaultMaxFamilies
	}
	if maxBytes == 0 {
		maxBytes = defaultMaxHistogramBytes
	}
	return batchReader{
		sampler: s, describer: d,
		families:  families{types: map[string]remotewrite.MetricType{}, most: maxFamilies},
		encodings: encodings{of: map[series.ID]*encoded{}, most: maxBytes},
	}
}

// open decodes a batch and hears what it says about families. The message holds until the
// next call.
func (r *batchReader) open(b *series.Batch) error {
	r.arena = r.arena[:0]
	r.batch = b
	err := r.decode(b)
	if err == nil && len(r.msg.Series) != len(b.IDs) {
		err = fmt.Errorf("%d series, but %d ids", len(r.msg.Series), len(b.IDs))
	}
	if err != nil {
		r.close()
		return fmt.Errorf("thin a batch of %d bytes: %w", len(b.Body), err)
	}
	if b.Version == series.V1 {
		r.md = r.msg.AppendMetadata(r.md[:0])
		if r.families.observe(r.md) {
			r.sampler.Redescribe()
		}
	}
	return nil
}

// decode makes the message, unless who received the batch has left it.
func (r *batchReader) decode(b *series.Batch) error {
	if r.lent = r.shelf.Take(b); r.lent != nil {
		r.msg = &r.lent.Message
		return nil
	}
	if r.own == nil {
		r.own = r.shelf.New()
	}
	r.msg = &r.own.Message
	plain, err := s2.Decode(r.own.Room(b.Decoded), b.Body)
	if err != nil {
		return err
	}
	return r.msg.Scan(b.Version, plain)
}

// close lets a batch go, and room that a huge one took.
func (r *batchReader) close() {
	r.batch, r.msg = nil, nil
	if r.lent != nil {
		r.lent.Free()
		r.lent = nil
	}
	if r.own != nil && r.own.Footprint()+cap(r.arena) > scratchLimit {
		r.own, r.arena = nil, nil
		r.md, r.floats, r.hists, r.inputs = nil, nil, nil, nil
	}
}

// each calls do for the ordinals taken, a block at a time, after it made their series
// known.
func (r *batchReader) each(set series.Set, do func(i int, id series.ID)) {
	var ids [touchBlock]uint32
	all := r.batch.IDs
	for base := 0; base < len(all); base += touchBlock {
		block := all[base:min(base+touchBlock, len(all))]
		n := 0
		for k, id := range block {
			if set.Has(base + k) {
				ids[n] = uint32(id)
				n++
			}
		}
		r.sampler.Touch(ids[:n])
		for k, id := range block {
			if !set.Has(base + k) {
				continue
			}
			if !r.sampler.Described(uint32(id)) && !id.Shared() {
				r.meet(base+k, id)
			}
			do(base+k, id)
		}
	}
}

// meet tells the Sampler what a series is. One whose labels cannot be read stays unknown,
// and is not thinned.
func (r *batchReader) meet(i int, id series.ID) {
	list, err := r.msg.AppendLabels(r.labels[:0], i)
	r.labels = list
	if err != nil {
		return
	}
	list, _, reason := remotewrite.CanonicalLabels(list)
	if reason != "" {
		return
	}
	info := r.describer.Describe(list, r.typeOf(i, list))
	if err := r.sampler.Know(uint32(id), info); err != nil {
		panic("BUG: a Describer that does not fit its Sampler: " + err.Error())
	}
	r.targets.note(info.Target, list)
}

// typeOf is the type of the family of a series as far as it was told: by the series itself
// in RW 2.0, by messages of their own in RW 1.0.
func (r *batchReader) typeOf(i int, list []remotewrite.Label) remotewrite.MetricType {
	if r.msg.Version == series.V2 {
		md, _ := r.msg.SeriesMetadata(i)
		return md.Type
	}
	for _, l := range list {
		if string(l.Name) == "__name__" {
			return remotewrite.LookupFamily(&r.families, l.Value).Type
		}
	}
	return remotewrite.MetricUnspecified
}

// read lists the samples of a series in the order of the message, floats first, as the
// Sampler is to see them.
func (r *batchReader) read(i int) []input {
	r.floats = r.msg.AppendSamples(r.floats[:0], i)
	r.hists = r.msg.AppendHistograms(r.hists[:0], i)
	r.inputs = r.inputs[:0]
	for _, f := range r.floats {
		r.inputs = append(r.inputs, input{Sample: sampler.Float(f.Time, f.Value), start: f.Start, hist: -1})
	}
	for k, h := range r.hists {
		r.inputs = append(r.inputs, input{hist: k, start: h.Start, Sample: sampler.Sample{
			Time: h.Time, Bits: r.msg.HashHistogram(h), Histogram: true, Stale: h.Stale,
		}})
	}
	return r.inputs
}

// prepare completes an input by what was seen of its series before: a counter began anew
// where its start timestamp is later than the sample before, even if its value tells
// nothing, and a native histogram also where its count fell.
func (r *batchReader) prepare(id series.ID, in *input) {
	if in.hist < 0 && in.start == 0 || id.Shared() {
		return
	}
	last := r.traces.get(id)
	in.Reset = last.at != 0 && in.start > last.at
	if in.hist >= 0 {
		const reset, gauge = 1, 3
		h := &r.hists[in.hist]
		in.Reset = in.Reset || h.Hint == reset || h.Hint != gauge && h.Count < last.count
	}
}

// remember notes an input after the Sampler decided on it; kept says that it is sent. It
// returns false when there is no room for the histograms of the series, which then must
// be forgotten by the Sampler.
func (r *batchReader) remember(i int, id series.ID, in *input, kept bool) bool {
	if id.Shared() {
		return true
	}
	late := !r.traces.note(id, in, r.countOf(in))
	if in.hist < 0 || late || !r.sampler.Keeps(uint32(id)) {
		return true
	}
	if in.Stale {
		r.encodings.forget(id)
		return true
	}
	return r.encodings.note(r.msg, i, r.hists[in.hist], noted{id: id, bits: in.Bits, kept: kept})
}

// countOf is the count of an input that is a histogram.
func (r *batchReader) countOf(in *input) float64 {
	if in.hist < 0 || in.Stale {
		return 0
	}
	return r.hists[in.hist].Count
}

// earlier is a sample of a message before as it is to be written. ok is false for a
// histogram whose encoding is not there.
func (r *batchReader) earlier(id series.ID, s sampler.Sample) (p remotewrite.Point, custom, ok bool) {
	if !s.Histogram {
		return remotewrite.Point{Time: s.Time, Bits: s.Bits, Start: r.traces.get(id).start}, false, true
	}
	content, custom, ok := r.encodings.find(id, s.Bits)
	if !ok {
		return p, false, false
	}
	return remotewrite.Point{Time: s.Time, Histogram: r.lend(content)}, custom, true
}

// present is a sample of message i as it is to be written.
func (r *batchReader) present(i int, in *input) remotewrite.Point {
	if in.hist < 0 {
		return remotewrite.Point{Time: in.Time, Bits: in.Bits, Start: in.start}
	}
	from := len(r.arena)
	r.arena = r.msg.AppendHistogramContent(r.arena, i, r.hists[in.hist])
	return remotewrite.Point{Time: in.Time, Histogram: r.arena[from:len(r.arena):len(r.arena)]}
}

// lend copies content so that it holds until the next batch.
func (r *batchReader) lend(content []byte) []byte {
	from := len(r.arena)
	r.arena = append(r.arena, content...)
	return r.arena[from:len(r.arena):len(r.arena)]
}

// forget drops what is known of series.
func (r *batchReader) forget(ids []series.ID) {
	var block [touchBlock]uint32
	for chunk := range slices.Chunk(ids, len(block)) {
		for k, id := range chunk {
			block[k] = uint32(id)
			r.traces.forget(id)
			r.encodings.forget(id)
			r.origins.forget(id)
		}
		r.sampler.Forget(block[:len(chunk)])
	}
}

// families are the types of metric families.
type families struct {
	types map[string]remotewrite.MetricType
	most  int
}

// observe reports whether some type is another one now. Beyond the bound families are not
// learned.
func (f *families) observe(all []remotewrite.Metadata) (changed bool) {
	for _, md := range all {
		if md.Type == remotewrite.MetricUnspecified {
			continue
		}
		typ, ok := f.types[string(md.Family)]
		if ok && typ == md.Type || !ok && len(f.types) >= f.most {
			continue
		}
		f.types[string(md.Family)] = md.Type
		changed = true
	}
	return changed
}

// Get implements remotewrite.MetadataSource.
func (f *families) Get(family []byte) (remotewrite.Metadata, bool) {
	typ, ok := f.types[string(family)]
	return remotewrite.Metadata{Type: typ}, ok
}
