package remotewrite

import (
	"bytes"
	"slices"

	"github.com/sluice-metrics/sluice/internal/series"
)

// requestMetadata is a Metadata message with references into the request's table.
type requestMetadata struct {
	typ        MetricType
	help, unit uint32
}

// joinedMetadata is what MetadataSource said about a metric name.
type joinedMetadata struct {
	known bool
	md    requestMetadata
}

// ref is the request's reference for a symbol of m.
func (b *Builder) ref(m *Message, symbol uint32) uint32 {
	if b.source.verbatim {
		return symbol
	}
	r := b.source.refs[symbol]
	if r == 0 {
		r = b.table.intern(m.Symbol(int(symbol))) + 1
		b.source.refs[symbol] = r
	}
	return r - 1
}

// refsOf puts the labels of series i as m spells them, in one run, into b.refs and
// returns the metadata that goes with it. ok is false for V1 labels that are broken.
func (b *Builder) refsOf(m *Message, i int) (md requestMetadata, ok bool) {
	if m.Version == series.V2 {
		b.remap(m, m.Refs(i))
		return b.metadataOf(m, i, nil), true
	}
	metric, ok := b.symbolize(m.LabelBytes(i))
	return b.join(metric, nil), ok
}

// appendRef appends a reference in packed form.
func appendRef(dst []byte, ref uint32) []byte {
	switch {
	case ref < 1<<7:
		return append(dst, byte(ref))
	case ref < 1<<14:
		return append(dst, byte(ref)|0x80, byte(ref>>7))
	}
	return appendUvarint(dst, uint64(ref))
}

// refsOfLabels puts ls into b.refs.
func (b *Builder) refsOfLabels(ls []Label) {
	b.refs = b.refs[:0]
	for _, l := range ls {
		b.refs = appendRef(b.refs, b.table.intern(l.Name))
		b.refs = appendRef(b.refs, b.table.intern(l.Value))
	}
}

// metadataOf is the metadata for series i: its own for V2, what is known about the
// metric name for V1.
func (b *Builder) metadataOf(m *Message, i int, metric []byte) requestMetadata {
	if m.Version == series.V1 {
		if b.o.Metadata == nil || len(metric) == 0 {
			return requestMetadata{}
		}
		return b.join(b.table.intern(metric), metric)
	}
	s := &m.Series[i]
	if s.Flags&FlagMetadata == 0 {
		return requestMetadata{}
	}
	var r metadataRefs
	for rest := m.Rest(i); len(rest) > 0; {
		tag, after, _ := nextField(rest)
		rest, _ = skipField(after, tag)
		if tag == tagV2Metadata {
			p, _, _ := lenDelim(after)
			r.parse(p)
		}
	}
	return requestMetadata{r.typ, b.ref(m, uint32(r.help)), b.ref(m, uint32(r.unit))}
}

// join is what MetadataSource knows about the metric name that symbol ref of the
// request spells. It is asked once per request.
func (b *Builder) join(ref uint32, metric []byte) requestMetadata {
	if b.o.Metadata == nil || ref == 0 {
		return requestMetadata{}
	}
	if n := int(ref) + 1; n > len(b.joined) {
		grown := slices.Grow(b.joined, n-len(b.joined))[:n]
		clear(grown[len(b.joined):])
		b.joined = grown
	}
	j := &b.joined[ref]
	if !j.known {
		if metric == nil {
			metric = b.table.symbol(ref)
		}
		md := LookupFamily(b.o.Metadata, metric)
		*j = joinedMetadata{true, requestMetadata{md.Type, b.table.intern(md.Help), b.table.intern(md.Unit)}}
	}
	return j.md
}

type familySuffix struct {
	text  []byte
	types []MetricType
}

// familySuffixes are what the series of a family may have behind the family's name.
var familySuffixes = [...]familySuffix{
	{[]byte("_bucket"), []MetricType{MetricHistogram, MetricGaugeHistogram}},
	{[]byte("_count"), []MetricType{MetricHistogram, MetricGaugeHistogram, MetricSummary}},
	{[]byte("_sum"), []MetricType{MetricHistogram, MetricGaugeHistogram, MetricSummary}},
	{[]byte("_total"), []MetricType{MetricCounter}},
	{[]byte("_created"), []MetricType{MetricCounter, MetricHistogram, MetricSummary}},
}

func (s familySuffix) fits(t MetricType) bool { return slices.Contains(s.types, t) }

// LookupFamily asks for the family of a metric: under the metric's own name, then
// without a suffix if the type found that way is one whose series have it.
func LookupFamily(from MetadataSource, metric []byte) Metadata {
	if md, ok := from.Get(metric); ok {
		return md
	}
	for _, suffix := range familySuffixes {
		base, ok := bytes.CutSuffix(metric, suffix.text)
		if !ok || len(base) == 0 {
			continue
		}
		if md, ok := from.Get(base); ok && suffix.fits(md.Type) {
			return md
		}
	}
	return Metadata{}
}

// putV2 writes a valid series whose references are in b.refs into an RW 2.0 request:
// one message, two when there are both samples and histograms (M3), and none when it
// has exemplars only, which then wait for a series to go with.
func (b *Builder) putV2(m *Message, i int, md requestMetadata) Outcome {
	s := &m.Series[i]
	all := s.Counts()
	if s.Exemplars > 0 {
		b.exemplars = m.AppendExemplars(b.exemplars[:0], i)
	}
	switch {
	case s.Samples > 0 || s.Histograms > 0:
	case s.Exemplars > 0:
		b.wait(all)
		return Outcome{Written: all}
	default:
		return Outcome{Reason: ReasonNoSamples}
	}
	if s.Samples > 0 {
		at := b.openV2()
		b.putSamples(m, i)
		if s.Exemplars > 0 {
			b.body = b.appendExemplarsV2(b.body, b.exemplars)
		}
		b.closeV2(at, md)
	}
	if s.Histograms > 0 {
		at := b.openV2()
		b.putHistograms(m, i, false)
		if s.Exemplars > 0 && s.Samples == 0 {
			b.body = b.appendExemplarsV2(b.body, b.exemplars)
		}
		b.closeV2(at, md)
	}
	return Outcome{Written: all}
}

func (b *Builder) openV2() (at int) {
	at = b.openField(tagV2Series, 1)
	b.body = append(b.body, tagV2Refs)
	b.body = appendUvarint(b.body, uint64(len(b.refs)))
	b.body = append(b.body, b.refs...)
	return at
}

func (b *Builder) closeV2(at int, md requestMetadata) {
	if md != (requestMetadata{}) {
		in := b.openField(tagV2Metadata, 1)
		if md.typ != MetricUnspecified {
			b.body = append(b.body, tagFamilyType, byte(md.typ))
		}
		if md.help != 0 {
			b.body = appendRef(append(b.body, tagV2HelpRef), md.help)
		}
		if md.unit != 0 {
			b.body = appendRef(append(b.body, tagV2UnitRef), md.unit)
		}
		b.closeField(in, 1)
	}
	b.closeField(at, 1)
	b.series++
}

// appendExemplarsV2 appends exemplars as fields of a V2 TimeSeries.
func (b *Builder) appendExemplarsV2(dst []byte, exemplars []Exemplar) []byte {
	for _, e := range exemplars {
		dst = append(dst, tagV2Exemplar, 0)
		at := len(dst) - 1
		if len(e.Labels) > 0 {
			dst = append(dst, tagExemplarLabel, 0)
			in := len(dst) - 1
			for _, l := range e.Labels {
				dst = appendRef(dst, b.table.intern(l.Name))
				dst = appendRef(dst, b.table.intern(l.Value))
			}
			dst = closeField(dst, in, 1)
		}
		dst = appendExemplarValue(dst, e)
		dst = closeField(dst, at, 1)
	}
	return dst
}
