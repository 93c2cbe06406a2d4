package remotewrite

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Reasons for which a Builder drops what it is given.
const (
	// ReasonNHCBOnRW1: a native histogram with custom buckets for an RW 1.0 backend
	// whose policy is to drop them.
	ReasonNHCBOnRW1 Reason = "nhcb_on_rw1"
	// ReasonHistogramTooWide: a native histogram with custom buckets that would become
	// more classic series, or more bytes, than a Builder writes for one.
	ReasonHistogramTooWide Reason = "histogram_too_wide"
	// ReasonSeriesTooLong: an RW 2.0 series that would take more than 16 MiB in RW 1.0,
	// where strings are not shared.
	ReasonSeriesTooLong Reason = "series_too_long"
	// ReasonUTF8NameRefused: a metric or label name beyond the RW 1.0 charset for a
	// backend that does not take such.
	ReasonUTF8NameRefused Reason = "utf8_name_refused"
	// ReasonEscapingCollision: two label names of a series that are one after escaping.
	ReasonEscapingCollision Reason = "escaping_collision"
)

// BuilderOptions sets up a Builder.
type BuilderOptions struct {
	Version  series.Version // of the requests to write
	Escaping Escaping       // of metric and label names
	NHCBOnV1 NHCBPolicy     // used when Version is V1

	// Metadata is asked for the metadata of series that come from RW 1.0 and go to
	// RW 2.0, once per metric name and request. Nil: they go without.
	Metadata MetadataSource

	// Throttle decides which metadata of series that come from RW 2.0 is told to an RW
	// 1.0 backend. Nil: all of it, once per metric name and source message.
	Throttle *MetadataThrottle
}

// Outcome is what became of one series: Written and Dropped together are what the
// source series holds, in kinds of the source (a histogram that was written as
// classic series counts as one histogram). Reason says why something was dropped.
type Outcome struct {
	Written series.Counts
	Dropped series.Counts
	Reason  Reason
}

// LateDrop corrects the Outcome of an earlier Add: what it names was reported as
// written and was dropped when the request was finished.
type LateDrop struct {
	Ordinal int // of the Add or AddLabels since Reset, from 0
	Dropped series.Counts
	Reason  Reason
}

// Builder writes one remote-write request of one version out of series of any
// messages of either version. It copies what it takes; the messages may be reused
// once Add has returned. It is reused through Reset and by one goroutine at a time.
//
// Series are written with their labels as the message spells them, so the labels must
// be canonical; AddLabels is for those that are not.
//
// The size of a request is bounded by the caller, who watches Size; it must stay
// below 4 GiB.
type Builder struct {
	o      BuilderOptions
	escape escaper
	// rewrite are the flags for which a series cannot be copied as it stands.
	rewrite Flags

	body  []byte      // V1: the request; V2: its timeseries fields
	table symbolTable // V2

	added   int // calls of Add and AddLabels
	series  int // TimeSeries messages in body
	counts  series.Counts
	starts  uint64
	late    []LateDrop
	waiting []waitingExemplars
	pending []byte // exemplar fields of waiting

	source source
	labels labelMemo        // of the series written last
	kept   labelMemo        // of the series judged last by keepsNames
	joined []joinedMetadata // V2, by reference of the metric name
	finder exemplarFinder

	// Scratch, free between two calls.
	ls        []Label
	refs      []byte
	exemplars []Exemplar
	hists     []HistogramRef
	whole     []byte
	classic   classicHistogram
}

// source is the message that series are being taken from and what is known about its
// symbols, by their number.
type source struct {
	m          *Message
	generation uint64 // of m
	symbols    int

	copies   bool     // series can be copied, but those with Builder.rewrite flags
	asIs     bool     // and their names need no look either
	verbatim bool     // V2 to V2: the request's table starts with this message's table
	refs     []uint32 // V2 to V2: reference in the request + 1, 0 when not known yet
	names    []uint8  // V2, when names are escaped: bits name…
	told     []bool   // V2 to V1: metadata of that metric name was dealt with
	longest  uint32   // V2 to V1: length of the longest symbol
}

// is reports whether m, as it is indexed now, is the message that was begun.
func (s *source) is(m *Message) bool { return s.m == m && s.generation == m.generation }

// NewBuilder returns an empty Builder. It panics for an unknown version.
func NewBuilder(o BuilderOptions) *Builder {
	if o.Version != series.V1 && o.Version != series.V2 {
		panic(fmt.Sprintf("BUG: remotewrite.NewBuilder for version %d", o.Version))
	}
	b := &Builder{o: o, escape: escaper{how: o.Escaping}}
	b.rewrite = invalid | unfit
	if o.Version == series.V1 && o.NHCBOnV1 != NHCBKeep {
		b.rewrite |= FlagCustomBuckets
	}
	b.table.seed = rand.Uint64()
	b.Reset()
	return b
}

// Reset empties the Builder for the next request. What Bytes and Late returned before
// is void then.
func (b *Builder) Reset() {
	b.body = b.body[:0]
	b.table.reset()
	b.added, b.series, b.counts, b.starts = 0, 0, series.Counts{}, 0
	b.late, b.waiting, b.pending = b.late[:0], b.waiting[:0], b.pending[:0]
	b.source.m = nil
	b.labels.reset()
	b.kept.reset()
	clear(b.joined)
	b.joined = b.joined[:0]
}

// Begin says that the series added from now on come from m as it is indexed now. Add
// calls it by itself when it is given another message.
func (b *Builder) Begin(m *Message) { b.begin(m, true) }

// BeginPart is Begin for a caller that is going to add few of m's series, say less
// than a third. The first RW 2.0 message of an RW 2.0 request normally brings its whole
// symbol table along, which makes adding cheap; here only the symbols in use are
// entered, which makes the request small.
func (b *Builder) BeginPart(m *Message) { b.begin(m, false) }

func (b *Builder) begin(m *Message, whole bool) {
	s := &b.source
	s.m, s.generation, s.symbols = m, m.generation, m.Symbols()
	s.verbatim = false
	b.labels.reset()
	b.kept.reset()
	if m.Version == series.V2 {
		b.beginSymbols(m, whole)
	}
	s.copies = m.Version == b.o.Version && (m.Version == series.V1 || s.verbatim)
	s.asIs = s.copies && b.o.Escaping == EscapeAllow
}

func (b *Builder) beginSymbols(m *Message, whole bool) {
	s := &b.source
	if b.o.Escaping != EscapeAllow {
		s.names = cleared(s.names, s.symbols)
	}
	switch {
	case b.o.Version == series.V1:
		s.told = cleared(s.told, s.symbols)
		s.longest = 0
		for _, at := range m.symbols {
			s.longest = max(s.longest, at.to-at.from)
		}
	case whole && s.symbols > 0 && b.table.fresh():
		b.table.take(m)
		s.verbatim = true
	default:
		s.refs = cleared(s.refs, s.symbols)
	}
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

// Len is the number of TimeSeries messages so far. It differs from the number of
// Adds: exemplars wait for their series, and some series become several.
func (b *Builder) Len() int { return b.series }

// Size is the number of bytes that AppendTo would append: exactly, unless RW 2.0
// exemplars are waiting for a series; then it may be a little less or more.
func (b *Builder) Size() int {
	if b.o.Version == series.V1 {
		return len(b.body)
	}
	return len(b.table.raw) + len(b.body) + len(b.pending)
}

// Counts is what was written so far, in kinds of the sources, less the late drops.
func (b *Builder) Counts() series.Counts { return b.counts }

// StartsDropped counts the start timestamps that RW 1.0 has no place for, since Reset.
func (b *Builder) StartsDropped() uint64 { return b.starts }

// Late lists what was dropped when AppendTo finished the request: exemplars that came
// in series of their own and found no series with a sample in it, as RW 2.0 wants. The
// Outcome of those series said that they were written. The list holds until Reset.
func (b *Builder) Late() []LateDrop { return b.late }

// AppendTo appends the request, a plain protobuf message, to dst. It may be called
// again; series added in between are taken in, but exemplars that found no series at
// the first call stay dropped.
func (b *Builder) AppendTo(dst []byte) []byte {
	if b.o.Version == series.V1 {
		return append(dst, b.body...)
	}
	b.attachExemplars()
	dst = slices.Grow(dst, len(b.table.raw)+len(b.body))
	dst = append(dst, b.table.raw...)
	return append(dst, b.body...)
}

// Bytes is AppendTo into memory of the Builder, which for RW 1.0 saves the copy. The
// result holds until the next call that adds something, Reset or Bytes.
func (b *Builder) Bytes() []byte {
	if b.o.Version == series.V1 {
		return b.body
	}
	b.whole = b.AppendTo(b.whole[:0])
	return b.whole
}

// Footprint is about the number of bytes that the Builder keeps for its next use. Who
// pools Builders gives up those that one big request has blown up.
func (b *Builder) Footprint() int {
	t := &b.table
	return cap(b.body) + cap(b.whole) + cap(b.pending) + cap(b.finder.body) +
		cap(t.raw) + 8*(cap(t.at)+cap(t.hash)+cap(t.slots)) +
		4*cap(b.source.refs) + cap(b.source.names) + cap(b.source.told)
}

// AddMetadata writes a metadata entry. It has no effect on RW 2.0 requests, where
// metadata goes with the series, nor for a family whose name is refused.
func (b *Builder) AddMetadata(md Metadata) {
	if b.o.Version != series.V1 {
		return
	}
	if !b.o.Escaping.keepsName(md.Family, true) {
		if b.o.Escaping == EscapeRefuse {
			return
		}
		md.Family = b.escape.name(md.Family, true)
	}
	b.putMetadata(md)
}

// Add writes series i of m, with its labels as m spells them, and mends what
// Series.NeedsRewrite tells of. A series that is invalid is dropped; one whose only
// fault is that its exemplars have no sample is not invalid to a Builder: RW 1.0 takes
// it, and for RW 2.0 its exemplars wait for a series with the same labels.
func (b *Builder) Add(m *Message, i int) Outcome {
	s := &m.Series[i]
	if !b.source.is(m) {
		b.Begin(m)
	}
	var o Outcome
	if b.source.asIs && s.Flags&b.rewrite == 0 {
		o = b.copy(m, s)
	} else {
		o = b.add(m, i)
	}
	b.added++
	b.counts.Add(o.Written)
	return o
}

// AddRun is Add of series from of m and of those behind it, up to to-1, that can be copied
// together, because all of them stand one behind the other and go as they are. It returns how
// many those are; 0 says that the first cannot be copied, and is one for Add.
func (b *Builder) AddRun(m *Message, from, to int) (n int) {
	if !b.source.is(m) {
		b.Begin(m)
	}
	if !b.source.asIs {
		return 0
	}
	start := m.Series[from].From
	end := start
	for i := from; i < to; i++ {
		s := &m.Series[i]
		if s.From != end || s.Flags&b.rewrite != 0 {
			break
		}
		b.counts.Add(s.Counts())
		end = s.To
		n++
	}
	b.body = append(b.body, m.Data[start:end]...)
	b.series += n
	b.added += n
	return n
}

// copy writes a series as it stands.
func (b *Builder) copy(m *Message, s *Series) Outcome {
	b.body = append(b.body, m.Data[s.From:s.To]...)
	b.series++
	return Outcome{Written: s.Counts()}
}

// AddLabels is Add with the labels ls, which must be canonical (sorted, none twice,
// none empty) and are copied, in the place of those that m spells.
func (b *Builder) AddLabels(m *Message, i int, ls []Label) Outcome {
	if !b.source.is(m) {
		b.Begin(m)
	}
	o := b.judge(&m.Series[i])
	if o.Reason == "" {
		o = b.addLabels(m, i, ls)
	}
	b.added++
	b.counts.Add(o.Written)
	return o
}

// Counts is what the series holds.
func (s *Series) Counts() series.Counts {
	return series.Counts{Samples: uint64(s.Samples), Histograms: uint64(s.Histograms), Exemplars: uint64(s.Exemplars)}
}

// judge returns the outcome of a series that must not be written, and one without a
// reason for all others.
func (b *Builder) judge(s *Series) Outcome {
	switch reason := s.Invalid(); reason {
	case "", ReasonExemplarWithoutSample:
		return Outcome{}
	default:
		return Outcome{Dropped: s.Counts(), Reason: reason}
	}
}

// add is Add for a series that has to be looked into.
func (b *Builder) add(m *Message, i int) Outcome {
	s := &m.Series[i]
	if o := b.judge(s); o.Reason != "" {
		return o
	}
	keeps, ok := b.keepsNames(m, i)
	if !ok {
		return Outcome{Dropped: s.Counts(), Reason: ReasonMalformedLabels}
	}
	if keeps && s.Flags&FlagSplitLabels == 0 {
		return b.respell(m, i)
	}
	ls, err := m.AppendLabels(b.ls[:0], i)
	b.ls = ls
	if err != nil {
		return Outcome{Dropped: s.Counts(), Reason: ReasonMalformedLabels}
	}
	return b.addLabels(m, i, ls)
}

// respell writes a valid series with the labels that m spells, which stand in one run.
func (b *Builder) respell(m *Message, i int) Outcome {
	s := &m.Series[i]
	if b.source.copies && s.Flags&b.rewrite == 0 {
		return b.copy(m, s)
	}
	if b.o.Version == series.V1 {
		return b.writeV1(m, i, spelling{})
	}
	md, ok := b.refsOf(m, i)
	if !ok {
		return Outcome{Dropped: s.Counts(), Reason: ReasonMalformedLabels}
	}
	return b.putV2(m, i, md)
}

// addLabels writes a valid series under the labels ls, which are escaped first.
func (b *Builder) addLabels(m *Message, i int, ls []Label) Outcome {
	s := &m.Series[i]
	metric := metricName(ls)
	to := ls
	if !b.escape.keeps(ls) {
		var reason Reason
		if to, reason = b.escape.labelsOf(ls); reason != "" {
			return Outcome{Dropped: s.Counts(), Reason: reason}
		}
	}
	if b.o.Version == series.V1 {
		return b.writeV1(m, i, spelling{to: to, from: ls, given: true})
	}
	b.refsOfLabels(to)
	return b.putV2(m, i, b.metadataOf(m, i, metric))
}

// spelling is a label set as it is to be written, and as it was before escaping. When
// it is not given, the source message's own is meant.
type spelling struct {
	to, from []Label
	given    bool
}

func metricName(ls []Label) []byte {
	for _, l := range ls {
		if string(l.Name) == nameLabel {
			return l.Value
		}
	}
	return nil
}

// nextPair splits a name and a value reference off packed references that the walk
// has found whole and in range.
func nextPair(refs []byte) (name, value uint32, rest []byte) {
	n, k := uvarint(refs)
	v, l := uvarint(refs[k:])
	return uint32(n), uint32(v), refs[k+l:]
}

// splitLabel splits the first field off a run of V1 label fields.
func splitLabel(run []byte) (l Label, rest []byte, ok bool) {
	tag, rest, ok := nextField(run)
	if !ok || tag != tagV1Label {
		return l, nil, false
	}
	p, rest, ok := lenDelim(rest)
	if !ok {
		return l, nil, false
	}
	if l, ok = plainLabel(p); !ok {
		l, ok = parseLabel(p)
	}
	return l, rest, ok
}

// plainLabel reads the content of a label that is a short name and a short value in
// this order, as all senders write it.
func plainLabel(p []byte) (l Label, ok bool) {
	if len(p) < 4 || p[0] != tagLabelName || p[1] >= 0x80 {
		return l, false
	}
	v := 2 + int(p[1])
	if v+2 > len(p) || p[v] != tagLabelValue || p[v+1] >= 0x80 || v+2+int(p[v+1]) != len(p) {
		return l, false
	}
	return Label{Name: p[2:v:v], Value: p[v+2:]}, true
}

// openField starts a length-delimited field whose length is not known yet and is
// guessed to take width bytes. closeField with the returned place ends it.
func (b *Builder) openField(tag byte, width int) (at int) {
	b.body = append(b.body, tag, 0, 0, 0)
	at = len(b.body) - 3
	b.body = b.body[:at+width]
	return at
}

// closeField returns by how many bytes it had to shift the content.
func (b *Builder) closeField(at, width int) (shift int) {
	n := len(b.body)
	b.body = closeField(b.body, at, width)
	return len(b.body) - n
}

func closeField(body []byte, at, width int) []byte {
	n := len(body) - at - width
	w := sizeUvarint(uint64(n))
	if w > width {
		body = append(body, make([]byte, w-width)...)
	}
	if w != width {
		copy(body[at+w:at+w+n], body[at+width:at+width+n])
		body = body[:at+w+n]
	}
	for ; w > 1; w-- {
		body[at] = byte(n) | 0x80
		n >>= 7
		at++
	}
	body[at] = byte(n)
	return body
}
