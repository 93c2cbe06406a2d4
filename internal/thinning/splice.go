// Package thinning makes of the batches in the journal what a lagging backend is sent while a
// sampler thins them, and later what it was not sent.
package thinning

import (
	"math"
	"time"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/sampler"
)

// SplicerOptions are what a Splicer is made of.
type SplicerOptions struct {
	Sampler   *sampler.Sampler   // fed by the Splicer alone; the caller sets its steps
	Describer *sampler.Describer // of the Sampler's configuration

	// MaxFamilies bounds the metric families whose type is remembered from RW 1.0
	// metadata; 0 means 100,000. Series of others are described by their names.
	MaxFamilies int
	// MaxHistogramBytes bounds the native histograms that are kept of critical series, so
	// that they can be sent later; 0 means 64 MiB. Series beyond it are not thinned.
	MaxHistogramBytes int
	// Shelf is where batches are found opened; nil: nowhere.
	Shelf *remotewrite.Shelf
}

// Splicer makes of the batches from the journal those that a lagging backend is sent. It is
// used by one goroutine, and fed in the order of the journal.
type Splicer struct {
	batchReader
	press    press
	v1, v2   *remotewrite.Builder
	throttle *remotewrite.MetadataThrottle

	res      Result
	verdicts []verdict // by ordinal
	splices  []splice
	points   []remotewrite.Point
	pieces   []piece
	out      []sampler.Sample
	places   places
	draft    draft // of what is sent
	messages int   // that are sent, at least
}

// Result is what became of a batch.
type Result struct {
	// Batch is what to send, the caller's to release: the source itself, retained, when
	// the set was nil and everything goes; nil when nothing does, and from Observe.
	Batch *series.Batch
	// Taken is what the selection holds, Kept what of that is sent now, Withheld the
	// rest. Restored is sent too: samples that earlier batches counted as withheld.
	Taken, Kept, Restored, Withheld series.Counts
	// Origins is Restored, by the steps of Splicer.Enter that withheld it. It holds until the
	// Splicer is used again.
	Origins []Origin
	// MinTime and MaxTime, in Unix ms, span the samples withheld; MaxTime is below
	// MinTime when there are none.
	MinTime, MaxTime int64
	// Found: the batch was found opened on the Shelf.
	Found bool
	// Lost counts histograms that the Sampler asked to restore and whose encoding was not
	// there. They stay withheld.
	Lost uint64
}

// verdict is what becomes of one series message.
type verdict uint8

const (
	verdictNone   verdict = iota // nothing of it is sent, or it was not taken
	verdictWhole                 // copied as it stands
	verdictSplice                // written anew, as the next of Splicer.splices says

	// verdictNewest is set besides where the newest sample of the message is sent.
	verdictNewest verdict = 1 << 7
)

// splice is a message written anew.
type splice struct {
	from, to  int // in Splicer.points
	exemplars bool
}

// piece is one sample of a message to be written: an input of it, or a point of earlier.
type piece struct {
	input int // -1 for earlier ones
	point remotewrite.Point
	step  journal.Position // of a Restorer's earlier ones: in which it was withheld
}

// NewSplicer returns a Splicer that has seen nothing.
func NewSplicer(o SplicerOptions) *Splicer {
	s := &Splicer{
		batchReader: newBatchReader(o.Sampler, o.Describer, o.MaxFamilies, o.MaxHistogramBytes),
	}
	s.shelf = o.Shelf
	s.v1, s.v2 = newBuilder(series.V1), newBuilder(series.V2)
	s.throttle = remotewrite.NewMetadataThrottle(remotewrite.MetadataThrottleOptions{Now: s.received})
	return s
}

// received is the time at which metadata is throttled: that of the batches, so that a
// Splicer has no clock.
func (s *Splicer) received() time.Time { return time.UnixMilli(s.batch.Received) }

// Splice decides on the series of a batch with the ordinals in set (nil: all) and makes
// the batch to send. The source must have its ids, and is not borrowed afterwards, unless
// it is the Result's. A source without series is passed as it is. An error says that the
// source cannot be read; nothing is changed then.
func (s *Splicer) Splice(b *series.Batch, set series.Set) (Result, error) {
	if err := s.decide(b, set); err != nil {
		return Result{}, err
	}
	defer s.close()
	s.build(set)
	s.res.Withheld = s.res.Taken
	s.res.Withheld.Sub(s.res.Kept)
	return s.res, nil
}

// Observe decides like Splice, and makes nothing. It is for building up the state from the
// journal, and for telling what would be withheld.
func (s *Splicer) Observe(b *series.Batch, set series.Set) (Result, error) {
	if err := s.decide(b, set); err != nil {
		return Result{}, err
	}
	defer s.close()
	s.res.Withheld = s.res.Taken
	s.res.Withheld.Sub(s.res.Kept)
	return s.res, nil
}

// Enter tells the step that what is decided from now on is decided by. Where none is told,
// Origins have no steps.
func (s *Splicer) Enter(step journal.Position) { s.origins.enter(step) }

// Forget drops all that is known of series, whose ids may be given to others afterwards.
func (s *Splicer) Forget(ids []series.ID) { s.forget(ids) }

func (s *Splicer) decide(b *series.Batch, set series.Set) error {
	if err := s.open(b); err != nil {
		return err
	}
	s.res = Result{MinTime: math.MaxInt64, MaxTime: math.MinInt64, Origins: s.res.Origins[:0], Found: s.lent != nil}
	s.verdicts = cleared(s.verdicts, len(b.IDs))
	s.splices, s.points = s.splices[:0], s.points[:0]
	s.messages = 0
	s.draft = draft{
		version: b.Version, epoch: b.Epoch, received: b.Received, legacy: b.Legacy,
		minTime: math.MaxInt64, maxTime: math.MinInt64,
	}
	s.places.reset()
	s.each(set, s.judge)
	return nil
}

// cleared returns n zero elements, in s when they fit.
func cleared[E any](s []E, n int) []E {
	if cap(s) < n {
		return make([]E, n)
	}
	s = s[:n]
	clear(s)
	return s
}

// judge decides on one message.
func (s *Splicer) judge(i int, id series.ID) {
	m := &s.msg.Series[i]
	s.res.Taken.Add(m.Counts())
	bits, at, start, ok := s.msg.Only(i)
	if !ok {
		s.judgeMany(i, id)
		return
	}
	in := input{Sample: sampler.Sample{Time: at, Bits: bits}, start: start, hist: -1}
	s.prepare(id, &in)
	newer := s.sampler.Newer(uint32(id), at)
	s.out = s.sampler.Sample(uint32(id), in.Sample, s.out[:0])
	if newer {
		s.origins.note(id, at, len(s.out) > 0)
	}
	switch n := len(s.out); n {
	case 0:
		s.withhold(at)
	case 1:
		s.keepWhole(i)
	default:
		s.pieces, s.inputs = s.pieces[:0], s.inputs[:0]
		s.restore(i, id, s.out[:n-1])
		s.pieces = append(s.pieces, piece{point: remotewrite.Point{Time: at, Bits: bits, Start: start}, input: -1})
		s.res.Kept.Add(m.Counts())
		s.splice(i, true)
	}
	if start != 0 || s.traces.pages != nil {
		s.remember(i, id, &in, len(s.out) > 0)
	}
}

// judgeMany is judge for any message.
func (s *Splicer) judgeMany(i int, id series.ID) {
	m := &s.msg.Series[i]
	inputs := s.read(i)
	if len(inputs) == 0 {
		s.judgeExemplars(i)
		return
	}
	s.pieces = s.pieces[:0]
	latest := 0
	for k := range inputs {
		in := &inputs[k]
		s.inputs = inputs[:k] // those decided on
		s.prepare(id, in)
		newer := s.sampler.Newer(uint32(id), in.Time)
		s.out = s.sampler.Sample(uint32(id), in.Sample, s.out[:0])
		in.sent = len(s.out) > 0
		if newer {
			s.origins.note(id, in.Time, in.sent)
		}
		if in.sent {
			s.restore(i, id, s.out[:len(s.out)-1])
			s.pieces = append(s.pieces, piece{input: k})
		}
		if !s.remember(i, id, in, in.sent) {
			s.forget([]series.ID{id})
		}
		if in.Time > inputs[latest].Time {
			latest = k
		}
	}
	s.inputs = inputs
	kept := 0
	for k := range inputs {
		in := &inputs[k]
		switch {
		case !in.sent:
			s.res.MinTime, s.res.MaxTime = min(s.res.MinTime, in.Time), max(s.res.MaxTime, in.Time)
			continue
		case in.hist >= 0:
			s.res.Kept.Histograms++
		default:
			s.res.Kept.Samples++
		}
		kept++
	}
	exemplars := inputs[latest].sent
	switch {
	case kept == len(inputs) && len(s.pieces) == kept && inOrder(s.pieces):
		s.res.Kept.Exemplars += uint64(m.Exemplars)
		s.verdicts[i] = verdictWhole | verdictNewest
		s.draft.span(m.MinTime, m.MaxTime)
		s.messages++
		s.draft.custom = s.draft.custom || m.Flags&remotewrite.FlagCustomBuckets != 0
	case len(s.pieces) > 0:
		if exemplars {
			s.res.Kept.Exemplars += uint64(m.Exemplars)
		}
		s.splice(i, exemplars)
	}
}

// judgeExemplars decides on a message that holds exemplars only: they are withheld with
// the newest sample of their series, if that is in the same batch before them.
func (s *Splicer) judgeExemplars(i int) {
	newest := func(k int) bool { return s.verdicts[k]&verdictNewest != 0 }
	if !s.places.withheld(i, s.msg, s.batch.IDs, newest) {
		s.keepWhole(i)
	}
}

// restore adds samples of before to the pieces: such of the message at hand, or of other
// messages.
func (s *Splicer) restore(i int, id series.ID, list []sampler.Sample) {
	for _, older := range list {
		if k := unsent(s.inputs, older); k >= 0 {
			s.inputs[k].sent = true
			s.pieces = append(s.pieces, piece{input: k})
			continue
		}
		point, custom, ok := s.earlier(id, older)
		if !ok {
			s.res.Lost++
			continue
		}
		s.draft.custom = s.draft.custom || custom
		s.pieces = append(s.pieces, piece{input: -1, point: point})
		n := countOf(older)
		if older.Time >= s.msg.MinTime && s.inBatch(i, older.Time) {
			s.res.Kept.Add(n)
			continue
		}
		s.res.Restored.Add(n)
		s.res.Origins = addOrigin(s.res.Origins, s.origins.of(id, older.Time), n)
	}
}

// unsent is the place of an older sample among those of the message at hand that were
// withheld and are not accounted for yet, else -1.
func unsent(inputs []input, older sampler.Sample) int {
	for k := range inputs {
		if in := &inputs[k]; in.Time == older.Time && in.Bits == older.Bits && !in.sent && !in.missed {
			return k
		}
	}
	return -1
}

// inBatch reports whether a message of the series before message i holds a sample of the
// time, which then was counted with this batch.
func (s *Splicer) inBatch(i int, t int64) bool {
	s.places.build(s.batch.IDs)
	for k := s.places.before(i); k >= 0; k = s.places.before(k) {
		for _, f := range s.msg.AppendSamples(nil, k) {
			if f.Time == t {
				return true
			}
		}
		for _, h := range s.msg.AppendHistograms(nil, k) {
			if h.Time == t {
				return true
			}
		}
	}
	return false
}

// inOrder reports whether the pieces are the first inputs as they stand.
func inOrder(pieces []piece) bool {
	for k := range pieces {
		if pieces[k].input != k {
			return false
		}
	}
	return true
}

// withhold notes that the only sample of a message is withheld.
func (s *Splicer) withhold(at int64) {
	s.res.MinTime, s.res.MaxTime = min(s.res.MinTime, at), max(s.res.MaxTime, at)
}

// keepWhole notes that a message is sent as it stands.
func (s *Splicer) keepWhole(i int) {
	m := &s.msg.Series[i]
	s.verdicts[i] = verdictWhole | verdictNewest
	s.messages++
	s.res.Kept.Add(m.Counts())
	s.draft.custom = s.draft.custom || m.Flags&remotewrite.FlagCustomBuckets != 0
	s.draft.span(m.MinTime, m.MaxTime)
}

// splice notes that the pieces are sent of a message. newestGoes says that its newest
// sample is among them: then its exemplars go along.
func (s *Splicer) splice(i int, newestGoes bool) {
	from := len(s.points)
	for _, p := range s.pieces {
		if p.input >= 0 {
			in := &s.inputs[p.input]
			p.point = s.present(i, in)
			s.draft.custom = s.draft.custom || in.hist >= 0 && s.hists[in.hist].Custom()
		}
		s.points = append(s.points, p.point)
		s.draft.span(p.point.Time, p.point.Time)
	}
	s.splices = append(s.splices, splice{from: from, to: len(s.points), exemplars: newestGoes})
	s.messages++
	s.verdicts[i] = verdictSplice
	if newestGoes {
		s.verdicts[i] |= verdictNewest
	}
}

// build makes the batch to send.
func (s *Splicer) build(set series.Set) {
	b := s.batch
	if (set == nil || b.Series == 0) && s.messages == len(b.IDs) && len(s.splices) == 0 {
		b.Retain()
		s.res.Batch = b
		return
	}
	w := s.v1
	if b.Version == series.V2 {
		w = s.v2
	}
	w.Reset()
	if 3*s.messages < len(b.IDs) {
		w.BeginPart(s.msg)
	} else {
		w.Begin(s.msg)
	}
	s.draft.ids = s.write(w)
	metadata := s.tell(w)
	if w.Len() == 0 && !metadata {
		return
	}
	s.res.Batch = s.press.batch(w, s.draft)
	for _, late := range w.Late() {
		s.res.Kept.Sub(late.Dropped)
	}
	if w.Footprint() > scratchLimit {
		s.v1, s.v2 = newBuilder(series.V1), newBuilder(series.V2)
	}
}

// write gives to w what is sent, and returns the ids of the messages that makes.
func (s *Splicer) write(w *remotewrite.Builder) []series.ID {
	ids := make([]series.ID, 0, s.messages)
	next, run := 0, 0 // of the splices; the end of the messages at hand that go as they stand
	for i := 0; i < len(s.verdicts); {
		switch s.verdicts[i] &^ verdictNewest {
		case verdictNone:
			i++
			continue
		case verdictWhole:
			if i >= run {
				run = s.wholeUntil(i)
			}
			if n := w.AddRun(s.msg, i, run); n > 0 {
				ids = append(ids, s.batch.IDs[i:i+n]...)
				i += n
				continue
			}
			s.takeBack(w.Add(s.msg, i))
		case verdictSplice:
			x := s.splices[next]
			next++
			s.takeBack(w.AddPoints(s.msg, i, remotewrite.Splice{Points: s.points[x.from:x.to], Exemplars: x.exemplars}))
		}
		for len(ids) < w.Len() {
			ids = append(ids, s.batch.IDs[i]) // one message may have become several
		}
		i++
	}
	return ids
}

// takeBack takes out of Kept what a Builder could not write after all.
func (s *Splicer) takeBack(o remotewrite.Outcome) {
	if o.Reason != "" {
		s.res.Kept.Sub(o.Dropped)
	}
}

// wholeUntil is the ordinal behind the run of messages that are sent as they stand which
// message i begins.
func (s *Splicer) wholeUntil(i int) int {
	for i++; i < len(s.verdicts) && s.verdicts[i]&^verdictNewest == verdictWhole; i++ {
	}
	return i
}

// tell gives to w the metadata of an RW 1.0 source, unless it was told lately, and reports
// whether there was any.
func (s *Splicer) tell(w *remotewrite.Builder) (told bool) {
	if s.batch.Version != series.V1 {
		return false
	}
	for _, md := range s.md {
		if s.throttle.Allow(md) {
			w.AddMetadata(md)
			told = true
		}
	}
	return told
}

// places finds the messages of one series in a batch. It is filled when it is asked.
type places struct {
	built bool
	last  map[series.ID]int32
	prev  []int32 // by ordinal: the message of the same series before, or -1
}

func (p *places) reset() { p.built = false }

func (p *places) build(ids []series.ID) {
	if p.built {
		return
	}
	p.built = true
	if p.last == nil {
		p.last = make(map[series.ID]int32, len(ids))
	}
	clear(p.last)
	p.prev = cleared(p.prev, len(ids))
	for i, id := range ids {
		prev, ok := p.last[id]
		if !ok {
			prev = -1
		}
		p.prev[i] = prev
		p.last[id] = int32(i)
	}
}

// before is the last message of the series of message i that stands before it, else -1.
func (p *places) before(i int) int { return int(p.prev[i]) }

// withheld reports whether the newest sample of the last message before message i that
// holds samples of the same series was not sent; newest says so of a message.
func (p *places) withheld(i int, m *remotewrite.Message, ids []series.ID, newest func(int) bool) bool {
	p.build(ids)
	for k := p.before(i); k >= 0; k = p.before(k) {
		if x := &m.Series[k]; x.Samples+x.Histograms > 0 {
			return !newest(k)
		}
	}
	return false
}
