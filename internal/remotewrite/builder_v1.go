package remotewrite

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/sluice-metrics/sluice/internal/series"
)

// writeV1 writes a valid series into an RW 1.0 request.
func (b *Builder) writeV1(m *Message, i int, sp spelling) Outcome {
	s := &m.Series[i]
	if m.Version == series.V2 && b.explodes(m, i) {
		return Outcome{Dropped: s.Counts(), Reason: ReasonSeriesTooLong}
	}
	if m.Version == series.V2 && s.Flags&FlagMetadata != 0 {
		b.tellMetadata(m, i, sp)
	}
	if s.Flags&FlagCustomBuckets != 0 && b.o.NHCBOnV1 != NHCBKeep {
		return b.writeCustomBuckets(m, i, sp)
	}
	b.putV1(m, i, sp, part{samples: s.Samples > 0, histograms: s.Histograms > 0, exemplars: s.Exemplars > 0})
	return Outcome{Written: s.Counts()}
}

// maxExpanded bounds, in bytes, what one series may become on its way to RW 1.0. A
// reference takes two bytes and the string that it stands for may have megabytes, so
// that a small RW 2.0 series could become one of any size; a request of more than
// this is not sent anyway.
const maxExpanded = 16 << 20

// explodes reports whether V2 series i takes more than maxExpanded when its references
// are replaced by what they stand for.
func (b *Builder) explodes(m *Message, i int) bool {
	s := &m.Series[i]
	if int64(s.To-s.content)*int64(b.source.longest) <= maxExpanded {
		return false // each reference takes a byte at least
	}
	ls, err := m.AppendLabels(nil, i)
	if err != nil {
		return true
	}
	n := sizeLabels(ls)
	for _, e := range m.AppendExemplars(nil, i) {
		n += sizeLabels(e.Labels)
	}
	return n > maxExpanded
}

// sizeLabels is about what ls take as V1 label fields, in bytes.
func sizeLabels(ls []Label) (n int) {
	for _, l := range ls {
		n += len(l.Name) + len(l.Value) + 8
	}
	return n
}

// part is what to write of a series.
type part struct {
	samples, histograms, exemplars bool
	exponential                    bool // of the histograms, only those without custom buckets
}

// putV1 writes part of a series: one message, or two when there are both samples and
// histograms in it, which RW 1.0 receivers do not expect in one.
func (b *Builder) putV1(m *Message, i int, sp spelling, p part) {
	const width = 2 // most series take 128 bytes to 16 KiB, most of it labels
	at := b.openField(tagV1Series, width)
	from := len(b.body)
	expanded := false
	switch {
	case sp.given:
		for _, l := range sp.to {
			b.body = appendLabelField(b.body, l.Name, l.Value)
		}
	case m.Version == series.V1:
		b.body = append(b.body, m.LabelBytes(i)...)
	default:
		b.expandRefs(m, m.Refs(i))
		expanded = true
	}
	to := len(b.body)
	if p.samples {
		b.putSamples(m, i)
	} else if p.histograms {
		b.putHistograms(m, i, p.exponential)
	}
	if p.exemplars {
		b.exemplars = m.AppendExemplars(b.exemplars[:0], i)
		b.body = appendExemplarsV1(b.body, b.exemplars)
	}
	shift := b.closeField(at, width)
	if expanded {
		b.labels.base += shift
	}
	b.series++
	if !p.samples || !p.histograms {
		return
	}
	at = b.openField(tagV1Series, width)
	b.body = append(b.body, b.body[from+shift:to+shift]...)
	b.putHistograms(m, i, p.exponential)
	b.closeField(at, width)
	b.series++
}

// appendLabelField is appendLabel with a shortcut for short labels.
func appendLabelField(dst, name, value []byte) []byte {
	n := 4 + len(name) + len(value)
	if n >= 0x80 || len(name) == 0 || len(value) == 0 {
		return appendLabel(dst, Label{name, value})
	}
	dst = append(dst, tagV1Label, byte(n), tagLabelName, byte(len(name)))
	dst = append(dst, name...)
	dst = append(dst, tagLabelValue, byte(len(value)))
	return append(dst, value...)
}

// putSamples appends the samples of series i, as far as the request's version can
// hold them. What encoders write is copied; everything else is encoded anew.
func (b *Builder) putSamples(m *Message, i int) {
	s := &m.Series[i]
	end := uint(s.To)
	created := m.Created(i)
	both := m.Version == series.V2 && b.o.Version == series.V2
	for p := uint(s.labelsEnd); p < end; {
		if bits, t, start, n := plainSample(m.Data, p); n > 0 && p+n <= end {
			switch {
			case start == 0 && created == 0, start != 0 && both:
				b.body = append(b.body, m.Data[p:p+n]...)
			case start == 0:
				b.putSample(bits, t, created)
			case m.Version == series.V1:
				b.putSample(bits, t, 0) // an unknown field there
			default:
				b.putSample(bits, t, start)
			}
			p += n
			continue
		}
		tag, rest, _ := nextField(m.Data[p:end])
		after, _ := skipField(rest, tag)
		p = end - uint(len(after))
		if tag != tagSample {
			continue
		}
		c, _, _ := lenDelim(rest)
		bits, t, start, _ := parseSample(c, m.Version)
		switch {
		case m.Version == series.V1:
			start = 0
		case start == 0:
			start = created
		}
		b.putSample(bits, t, start)
	}
}

// putSample appends a sample field. RW 1.0 has no start timestamp.
func (b *Builder) putSample(bits uint64, t, start int64) {
	if b.o.Version == series.V1 && start != 0 {
		b.starts++
		start = 0
	}
	at := b.openField(tagSample, 1)
	if bits != 0 {
		b.body = append(b.body, tagSampleValue)
		b.body = binary.LittleEndian.AppendUint64(b.body, bits)
	}
	if t != 0 {
		b.body = append(b.body, tagSampleTime)
		b.body = appendUvarint(b.body, uint64(t))
	}
	if start != 0 {
		b.body = append(b.body, tagSampleStart)
		b.body = appendUvarint(b.body, uint64(start))
	}
	b.closeField(at, 1)
}

// Fields of the Histogram message that differ between the versions.
const (
	lastV1HistogramField = 16
	histogramStartField  = 17
)

// putHistograms appends the histograms of series i. Both versions write the same
// message, but for the start timestamp that only RW 2.0 has.
func (b *Builder) putHistograms(m *Message, i int, exponential bool) {
	tag := byte(tagV2Histogram)
	if b.o.Version == series.V1 {
		tag = tagV1Histogram
	}
	created := m.Created(i)
	b.hists = m.AppendHistograms(b.hists[:0], i)
	for _, h := range b.hists {
		if exponential && h.Schema == customBuckets {
			continue
		}
		content := m.Data[h.From:h.To]
		at := b.openField(tag, 2)
		switch {
		case m.Version != b.o.Version:
			if h.Start != 0 && b.o.Version == series.V1 {
				b.starts++
			}
			b.body = appendFieldsUpTo(b.body, content, lastV1HistogramField)
		default:
			b.body = append(b.body, content...)
			if created != 0 && h.Start == created {
				b.body = appendVarintField(b.body, histogramStartField, uint64(created))
			}
		}
		b.closeField(at, 2)
	}
}

// appendFieldsUpTo appends those fields of a walked message whose number is at most
// last.
func appendFieldsUpTo(dst, msg []byte, last uint64) []byte {
	for len(msg) > 0 {
		tag, rest, _ := nextField(msg)
		rest, _ = skipField(rest, tag)
		if tag>>3 <= last {
			dst = append(dst, msg[:len(msg)-len(rest)]...)
		}
		msg = rest
	}
	return dst
}

func appendExemplarsV1(dst []byte, exemplars []Exemplar) []byte {
	for _, e := range exemplars {
		dst = append(dst, tagV1Exemplar, 0)
		at := len(dst) - 1
		for _, l := range e.Labels {
			dst = appendLabelField(dst, l.Name, l.Value)
		}
		dst = appendExemplarValue(dst, e)
		dst = closeField(dst, at, 1)
	}
	return dst
}

// appendExemplarValue appends the fields that an Exemplar message has in both versions.
func appendExemplarValue(dst []byte, e Exemplar) []byte {
	if bits := math.Float64bits(e.Value); bits != 0 {
		dst = append(dst, tagExemplarValue)
		dst = binary.LittleEndian.AppendUint64(dst, bits)
	}
	if e.Time != 0 {
		dst = append(dst, tagExemplarTime)
		dst = appendUvarint(dst, uint64(e.Time))
	}
	return dst
}

// tellMetadata writes the metadata that V2 series i carries as an entry of its family,
// when the family has not been told about lately.
func (b *Builder) tellMetadata(m *Message, i int, sp spelling) {
	var metric []byte
	if sp.given {
		metric = metricName(sp.from)
	} else if ref, ok := metricRef(m, i); ok {
		if b.source.told[ref] {
			return
		}
		b.source.told[ref] = true
		metric = m.Symbol(int(ref))
	}
	md, ok := m.SeriesMetadata(i)
	if !ok || len(metric) == 0 {
		return
	}
	md.Family = metric
	if m.Series[i].Samples > 0 {
		md.Family = familyOf(metric, md.Type)
	}
	if b.o.Throttle == nil || b.o.Throttle.Allow(md) {
		b.AddMetadata(md)
	}
}

// metricRef is the reference of the metric name of a V2 series with one run of refs.
func metricRef(m *Message, i int) (ref uint32, ok bool) {
	for refs := m.Refs(i); len(refs) > 0; {
		name, value, rest := nextPair(refs)
		if string(m.Symbol(int(name))) == nameLabel {
			return value, true
		}
		refs = rest
	}
	return 0, false
}

// familyOf is the metric family that a series of floats belongs to: the parts of
// classic histograms and summaries have suffixes that are not part of it.
func familyOf(metric []byte, t MetricType) []byte {
	for _, suffix := range familySuffixes {
		if base, ok := bytes.CutSuffix(metric, suffix.text); ok && len(base) > 0 && t != MetricCounter && suffix.fits(t) {
			return base
		}
	}
	return metric
}

func (b *Builder) putMetadata(md Metadata) {
	at := b.openField(tagV1Metadata, 1)
	if md.Type != MetricUnspecified {
		b.body = appendVarintField(b.body, 1, uint64(md.Type))
	}
	for _, f := range [...]struct {
		tag  byte
		text []byte
	}{{tagV1FamilyName, md.Family}, {tagV1Help, md.Help}, {tagV1Unit, md.Unit}} {
		if len(f.text) > 0 {
			b.body = append(b.body, f.tag)
			b.body = appendUvarint(b.body, uint64(len(f.text)))
			b.body = append(b.body, f.text...)
		}
	}
	b.closeField(at, 1)
}
