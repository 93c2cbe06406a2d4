package remotewrite

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
)

// DecodeHistogram builds the histogram h of the Message: the first result for an
// integer, the second for a float histogram, the other one nil. What it returns is
// its own memory. An error, which wraps ErrMalformed, means that h is not of this
// Message.
func (m *Message) DecodeHistogram(h HistogramRef) (*histogram.Histogram, *histogram.FloatHistogram, error) {
	if h.From > h.To || int64(h.To) > int64(len(m.Data)) {
		return nil, nil, malformed(uint(h.From), "histogram outside of the message")
	}
	p := m.Data[h.From:h.To]
	var f histogramFacts
	if !f.parse(p, m.Version) {
		return nil, nil, malformed(uint(h.From), "broken histogram")
	}
	if !f.float {
		return decodeInt(&f, p), nil, nil
	}
	return nil, decodeFloat(&f, p), nil
}

func decodeInt(f *histogramFacts, p []byte) *histogram.Histogram {
	h := &histogram.Histogram{
		CounterResetHint: f.counterResetHint(),
		Schema:           f.schema,
		ZeroThreshold:    math.Float64frombits(f.threshold),
		ZeroCount:        f.zeroCount(),
		Count:            f.count,
		Sum:              math.Float64frombits(f.sum),
		CustomValues:     f.customValues(p),
	}
	h.PositiveSpans, h.NegativeSpans = f.bucketSpans(p)
	h.PositiveBuckets = deltas(p, fieldPositiveDeltas, f.positive.deltas)
	h.NegativeBuckets = deltas(p, fieldNegativeDeltas, f.negative.deltas)
	return h
}

func decodeFloat(f *histogramFacts, p []byte) *histogram.FloatHistogram {
	h := &histogram.FloatHistogram{
		CounterResetHint: f.counterResetHint(),
		Schema:           f.schema,
		ZeroThreshold:    math.Float64frombits(f.threshold),
		ZeroCount:        f.zeroCountFloat(),
		Count:            math.Float64frombits(f.count),
		Sum:              math.Float64frombits(f.sum),
		CustomValues:     f.customValues(p),
	}
	h.PositiveSpans, h.NegativeSpans = f.bucketSpans(p)
	h.PositiveBuckets = doubles(p, fieldPositiveCounts, f.positive.counts)
	h.NegativeBuckets = doubles(p, fieldNegativeCounts, f.negative.counts)
	return h
}

// counterResetHint is the hint, unknown for a number that is none.
func (f *histogramFacts) counterResetHint() histogram.CounterResetHint {
	if f.resetHint > uint64(histogram.GaugeType) {
		return histogram.UnknownCounterReset
	}
	return histogram.CounterResetHint(f.resetHint)
}

func (f *histogramFacts) customValues(p []byte) []float64 {
	return doubles(p, fieldCustomValues, f.bounds.n)
}

func (f *histogramFacts) bucketSpans(p []byte) (positive, negative []histogram.Span) {
	positive = spans(p, fieldPositiveSpans, f.positive.spans)
	negative = spans(p, fieldNegativeSpans, f.negative.spans)
	return positive, negative
}

// spans reads the n spans of a field of the walked Histogram message p.
func spans(p []byte, field uint64, n int) []histogram.Span {
	if n == 0 {
		return nil
	}
	out := make([]histogram.Span, 0, n)
	for len(p) > 0 {
		tag, rest, _ := nextField(p)
		p, _ = skipField(rest, tag)
		if tag == tagOf(field, wireBytes) {
			q, _, _ := lenDelim(rest)
			offset, length, _ := parseSpan(q)
			out = append(out, histogram.Span{Offset: offset, Length: length})
		}
	}
	return out
}

// deltas reads the n integer buckets of a field of the walked Histogram message p.
func deltas(p []byte, field uint64, n int64) []int64 {
	if n == 0 {
		return nil
	}
	out := make([]int64, 0, n)
	for len(p) > 0 {
		tag, rest, _ := nextField(p)
		p, _ = skipField(rest, tag)
		switch tag {
		case tagOf(field, wireVarint):
			v, _ := uvarint(rest)
			out = append(out, zigzag(v))
		case tagOf(field, wireBytes):
			q, _, _ := lenDelim(rest)
			for len(q) > 0 {
				v, w := uvarint(q)
				out = append(out, zigzag(v))
				q = q[w:]
			}
		}
	}
	return out
}

// doubles reads the n doubles of a repeated field of the walked Histogram message p.
func doubles(p []byte, field uint64, n int64) []float64 {
	if n == 0 {
		return nil
	}
	out := make([]float64, 0, n)
	for len(p) > 0 {
		tag, rest, _ := nextField(p)
		p, _ = skipField(rest, tag)
		switch tag {
		case tagOf(field, wireFixed64):
			out = append(out, math.Float64frombits(binary.LittleEndian.Uint64(rest)))
		case tagOf(field, wireBytes):
			q, _, _ := lenDelim(rest)
			for ; len(q) > 0; q = q[8:] {
				out = append(out, math.Float64frombits(binary.LittleEndian.Uint64(q)))
			}
		}
	}
	return out
}
