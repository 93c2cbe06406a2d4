package remotewrite

import (
	"github.com/zeebo/xxh3"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Point is one float sample or native histogram to be written under the labels of a
// series, be it of the series' own message or of one before.
type Point struct {
	Time  int64  // Unix ms
	Bits  uint64 // of a float
	Start int64  // of a float for RW 2.0: start timestamp, Unix ms; 0 when there is none
	// Histogram is the encoding of a native histogram as AppendHistogramContent gives
	// it; nil for a float.
	Histogram []byte
}

// HashHistogram is a hash of all that a native histogram of the Message says but its
// timestamp. It differs between spellings of one histogram; a timestamp that is left out,
// being 0, makes one.
func (m *Message) HashHistogram(h HistogramRef) uint64 {
	return xxh3.HashSeed(m.Data[h.timeTo:h.To], xxh3.Hash(m.Data[h.From:h.timeFrom]))
}

// AppendHistogramContent appends the encoding of a native histogram of series i, without
// its timestamp.
func (m *Message) AppendHistogramContent(dst []byte, i int, h HistogramRef) []byte {
	dst = append(dst, m.Data[h.From:h.timeFrom]...)
	dst = append(dst, m.Data[h.timeTo:h.To]...)
	if created := m.Created(i); created != 0 && h.Start == created {
		dst = appendVarintField(dst, histogramStartField, uint64(created))
	}
	return dst
}

// Splice is what AddPoints writes of a series.
type Splice struct {
	Points    []Point // in order of time; borrowed for the call
	Exemplars bool    // those of the message go along
}

// AddPoints is Add with the given points in the place of the series' own samples and
// histograms, for a Builder of m's version that escapes no names. It writes one message,
// or two where there are points of both kinds. A Splice for RW 2.0 must have points.
func (b *Builder) AddPoints(m *Message, i int, sp Splice) Outcome {
	if m.Version != b.o.Version || b.o.Escaping != EscapeAllow {
		panic("BUG: Builder.AddPoints of another version or with names to escape")
	}
	if !b.source.is(m) {
		b.Begin(m)
	}
	o := b.judge(&m.Series[i])
	if o.Reason == "" {
		o = b.putPoints(m, i, sp)
	}
	b.added++
	b.counts.Add(o.Written)
	return o
}

func (b *Builder) putPoints(m *Message, i int, sp Splice) (o Outcome) {
	labels, md, ok := b.labelFields(m, i)
	if !ok {
		return Outcome{Dropped: m.Series[i].Counts(), Reason: ReasonMalformedLabels}
	}
	for _, p := range sp.Points {
		if p.Histogram != nil {
			o.Written.Histograms++
		} else {
			o.Written.Samples++
		}
	}
	exemplars := b.exemplars[:0]
	if sp.Exemplars {
		exemplars = m.AppendExemplars(exemplars, i)
		b.exemplars = exemplars
		o.Written.Exemplars = uint64(len(exemplars))
	}
	for _, histograms := range [...]bool{false, true} {
		if histograms && o.Written.Histograms == 0 || !histograms && len(sp.Points) > 0 && o.Written.Samples == 0 {
			continue
		}
		at := b.openPoints(labels)
		for _, p := range sp.Points {
			if (p.Histogram != nil) == histograms {
				b.putPoint(p)
			}
		}
		b.closePoints(at, md, exemplars)
		exemplars = nil
	}
	return o
}

// labelFields are the label fields of series i as they stand in V1, and nil for V2, where
// b.refs has them.
func (b *Builder) labelFields(m *Message, i int) (fields []byte, md requestMetadata, ok bool) {
	if m.Version == series.V2 {
		md, ok = b.refsOf(m, i)
		return nil, md, ok
	}
	if m.Series[i].Flags&FlagSplitLabels == 0 {
		return m.LabelBytes(i), md, true
	}
	ls, err := m.AppendLabels(b.ls[:0], i)
	b.ls = ls
	for _, l := range ls {
		fields = appendLabelField(fields, l.Name, l.Value)
	}
	return fields, md, err == nil
}

const pointsWidth = 2 // of the length of a V1 message; see putV1

func (b *Builder) openPoints(labels []byte) (at int) {
	if b.o.Version == series.V2 {
		return b.openV2()
	}
	at = b.openField(tagV1Series, pointsWidth)
	b.body = append(b.body, labels...)
	return at
}

func (b *Builder) closePoints(at int, md requestMetadata, exemplars []Exemplar) {
	if b.o.Version == series.V2 {
		b.body = b.appendExemplarsV2(b.body, exemplars)
		b.closeV2(at, md)
		return
	}
	b.body = appendExemplarsV1(b.body, exemplars)
	b.closeField(at, pointsWidth)
	b.series++
}

func (b *Builder) putPoint(p Point) {
	if p.Histogram == nil {
		b.putSample(p.Bits, p.Time, p.Start)
		return
	}
	tag := byte(tagV2Histogram)
	if b.o.Version == series.V1 {
		tag = tagV1Histogram
	}
	at := b.openField(tag, 2)
	if b.o.Version == series.V1 {
		b.body = appendFieldsUpTo(b.body, p.Histogram, lastV1HistogramField)
	} else {
		b.body = append(b.body, p.Histogram...)
	}
	if p.Time != 0 {
		b.body = appendVarintField(b.body, fieldTime, uint64(p.Time))
	}
	b.closeField(at, 2)
}
