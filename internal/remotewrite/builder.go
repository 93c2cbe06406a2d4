package remotewrite

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Reasons for which a Builder drops what it is given.
const (
	// ReasonNHCBOnRW1: a native histogram with custom buckets for an RW 1.0 backend
	// whose policy is to drop them.
	ReasonNHCBOnRW1 Reason = "nhcb_on_rw1"
	// ReasonHistogramTooWide: a native histogram with custom buckets that would become
	// more classic series than a Builder writes for one histogram.
	ReasonHistogramTooWide Reason = "histogram_too_wide"
	// ReasonUTF8NameRefused: a metric or label name beyond the RW 1.0 charset for a
	// backend that does not take such.
	ReasonUTF8NameRefused Reason = "utf8_name_refused"
	// ReasonEscapingCollision: two label names of a series that are one after escaping.
	ReasonEscapingCollision Reason = "escaping_collision"
)

// NHCBPolicy says what becomes of native histograms with custom buckets on the way to
// an RW 1.0 backend, where they must not be sent.
type NHCBPolicy uint8

const (
	NHCBExpand NHCBPolicy = iota // they become the series of a classic histogram
	NHCBDrop                     // they are dropped, ReasonNHCBOnRW1
)

var nhcbPolicies = [...]string{"expand_to_classic", "drop"}

// String returns the word used in configuration files.
func (p NHCBPolicy) String() string {
	if int(p) < len(nhcbPolicies) {
		return nhcbPolicies[p]
	}
	return "unknown"
}

// MarshalText implements encoding.TextMarshaler.
func (p NHCBPolicy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *NHCBPolicy) UnmarshalText(b []byte) error {
	i := slices.Index(nhcbPolicies[:], string(b))
	if i < 0 {
		return fmt.Errorf("unknown policy %q for custom-bucket histograms: want one of %s", b, strings.Join(nhcbPolicies[:], ", "))
	}
	*p = NHCBPolicy(i)
	return nil
}

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
	labels labelMemo
	joined []joinedMetadata // V2, by reference of the metric name
	finder exemplarFinder

	// Scratch, free between two calls.
	ls        []Label
	refs      []byte
	exemplars []Exemplar
	hists     []HistogramRef
	text      []byte
	classic   classicHistogram
}

// source is the message that series are being taken from and what is known about its
// symbols, by their number.
type source struct {
	id       sourceID
	verbatim bool     // V2 to V2: the request's table starts with this message's table
	refs     []uint32 // V2 to V2: reference in the request + 1, 0 when not known yet
	names    []uint8  // V2, when names are escaped: bits name…
	told     []bool   // V2 to V1: metadata of that metric name was dealt with
}

// sourceID tells messages apart. A Message that is indexed anew over other bytes in
// the same buffer differs in what the walk found; see Begin for when it does not.
type sourceID struct {
	m        *Message
	data     *byte
	length   int
	symbols  int
	series   int
	counts   series.Counts
	min, max int64
}

const (
	nameLabelSeen = 1 << iota // the symbol was judged as a label name
	nameLabelBad              // and needs escaping
	nameMetricSeen
	nameMetricBad
)

// NewBuilder returns an empty Builder. It panics for an unknown version.
func NewBuilder(o BuilderOptions) *Builder {
	if o.Version != series.V1 && o.Version != series.V2 {
		panic(fmt.Sprintf("BUG: remotewrite.NewBuilder for version %d", o.Version))
	}
	b := &Builder{o: o, escape: escaper{how: o.Escaping}}
	b.table.seed = rand.Uint64()
	b.Reset()
	return b
}

// Reset empties the Builder for the next request. What AppendTo and Late returned
// before stays with AppendTo's caller, and is void for Late.
func (b *Builder) Reset() {
	b.body = b.body[:0]
	b.table.reset()
	b.added, b.series, b.counts, b.starts = 0, 0, series.Counts{}, 0
	b.late, b.waiting, b.pending = b.late[:0], b.waiting[:0], b.pending[:0]
	b.source.id = sourceID{}
	b.labels.reset()
	clear(b.joined)
	b.joined = b.joined[:0]
}

// Begin says that the series added from now on come from m as it is indexed now. Add
// notices by itself when it is given another message. It cannot do so when one
// Message was indexed twice since Reset, over the same buffer, and the two requests
// agree in length, time range and numbers of series, samples and symbols; a caller
// that reuses Messages within one request therefore calls Begin after each Index.
func (b *Builder) Begin(m *Message) {
	b.source.id = idOf(m)
	b.source.verbatim = false
	b.labels.reset()
	if m.Version != series.V2 {
		return
	}
	n := m.Symbols()
	if b.o.Escaping != EscapeAllow {
		b.source.names = cleared(b.source.names, n)
	}
	if b.o.Version == series.V1 {
		b.source.told = cleared(b.source.told, n)
		return
	}
	if n > 0 && b.table.fresh() {
		b.table.take(m)
		b.source.verbatim = true
		return
	}
	b.source.refs = cleared(b.source.refs, n)
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

func idOf(m *Message) sourceID {
	id := sourceID{
		m: m, length: len(m.Data), symbols: m.Symbols(), series: len(m.Series),
		counts: m.Counts, min: m.MinTime, max: m.MaxTime,
	}
	if len(m.Data) > 0 {
		id.data = &m.Data[0]
	}
	return id
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

// Flags for which a series cannot be copied as it stands.
const rewriteFlags = FlagNoContent | FlagBadRefs | FlagBadHistogram | FlagExemplarNoTime | FlagCreated | FlagMixed | FlagSplitLabels

// Add writes series i of m, with its labels as m spells them, and mends what
// Series.NeedsRewrite tells of. A series that is invalid is dropped; one whose only
// fault is that its exemplars have no sample is not invalid to a Builder: RW 1.0 takes
// it, and for RW 2.0 its exemplars wait for a series with the same labels.
func (b *Builder) Add(m *Message, i int) Outcome {
	s := &m.Series[i]
	all := s.counts()
	if b.source.id != idOf(m) {
		b.Begin(m)
	}
	if b.o.Escaping == EscapeAllow && s.Flags&rewriteFlags == 0 && m.Version == b.o.Version && b.copies(s) {
		b.body = append(b.body, m.Data[s.From:s.To]...)
		b.added++
		b.series++
		b.counts.Add(all)
		return Outcome{Written: all}
	}
	o := b.add(m, i)
	b.added++
	b.counts.Add(o.Written)
	return o
}

// AddLabels is Add with the labels ls, which must be canonical (sorted, none twice,
// none empty) and are copied, in the place of those that m spells.
func (b *Builder) AddLabels(m *Message, i int, ls []Label) Outcome {
	if b.source.id != idOf(m) {
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

func (s *Series) counts() series.Counts {
	return series.Counts{Samples: uint64(s.Samples), Histograms: uint64(s.Histograms), Exemplars: uint64(s.Exemplars)}
}

// copies reports whether a series whose flags are fine, of a message of the request's
// version, may be copied.
func (b *Builder) copies(s *Series) bool {
	if b.o.Version == series.V1 {
		return s.Flags&FlagCustomBuckets == 0
	}
	return b.source.verbatim
}

// judge returns the outcome of a series that must not be written, and one without a
// reason for all others.
func (b *Builder) judge(s *Series) Outcome {
	switch reason := s.Invalid(); reason {
	case "", ReasonExemplarWithoutSample:
		return Outcome{}
	default:
		return Outcome{Dropped: s.counts(), Reason: reason}
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
		return Outcome{Dropped: s.counts(), Reason: ReasonMalformedLabels}
	}
	if keeps && s.Flags&FlagSplitLabels == 0 {
		return b.respell(m, i)
	}
	ls, err := m.AppendLabels(b.ls[:0], i)
	b.ls = ls
	if err != nil {
		return Outcome{Dropped: s.counts(), Reason: ReasonMalformedLabels}
	}
	return b.addLabels(m, i, ls)
}

// respell writes a valid series with the labels that m spells, which stand in one run.
func (b *Builder) respell(m *Message, i int) Outcome {
	s := &m.Series[i]
	if m.Version == b.o.Version && s.Flags&rewriteFlags == 0 && b.copies(s) {
		b.body = append(b.body, m.Data[s.From:s.To]...)
		b.series++
		return Outcome{Written: s.counts()}
	}
	if b.o.Version == series.V1 {
		return b.writeV1(m, i, spelling{})
	}
	md, ok := b.refsOf(m, i)
	if !ok {
		return Outcome{Dropped: s.counts(), Reason: ReasonMalformedLabels}
	}
	return b.putV2(m, i, md)
}

// keepsNames reports whether the names of series i need no escaping; ok is false when
// its labels cannot be read.
func (b *Builder) keepsNames(m *Message, i int) (keeps, ok bool) {
	if b.o.Escaping == EscapeAllow || m.Series[i].Flags&FlagSplitLabels != 0 {
		return true, true
	}
	if m.Version == series.V2 {
		return b.keepsSymbols(m, i), true
	}
	for run := m.LabelBytes(i); len(run) > 0; {
		l, rest, ok := splitLabel(run)
		if !ok {
			return false, false
		}
		if !b.escape.keepsLabel(l) {
			return false, true
		}
		run = rest
	}
	return true, true
}

// keepsSymbols is keepsNames for V2; each symbol is judged once per message.
func (b *Builder) keepsSymbols(m *Message, i int) bool {
	known := b.source.names
	for refs := m.Refs(i); len(refs) > 0; {
		name, value, rest := nextPair(refs)
		refs = rest
		if known[name]&nameLabelSeen == 0 {
			known[name] |= nameLabelSeen
			if !b.o.Escaping.keepsName(m.Symbol(int(name)), false) {
				known[name] |= nameLabelBad
			}
		}
		if known[name]&nameLabelBad != 0 {
			return false
		}
		if string(m.Symbol(int(name))) != nameLabel {
			continue
		}
		if known[value]&nameMetricSeen == 0 {
			known[value] |= nameMetricSeen
			if !b.o.Escaping.keepsName(m.Symbol(int(value)), true) {
				known[value] |= nameMetricBad
			}
		}
		if known[value]&nameMetricBad != 0 {
			return false
		}
	}
	return true
}

// addLabels writes a valid series under the labels ls, which are escaped first.
func (b *Builder) addLabels(m *Message, i int, ls []Label) Outcome {
	s := &m.Series[i]
	metric := metricName(ls)
	to := ls
	if !b.escape.keeps(ls) {
		var reason Reason
		if to, reason = b.escape.labelsOf(ls); reason != "" {
			return Outcome{Dropped: s.counts(), Reason: reason}
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
