package remotewrite

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/sluice-metrics/sluice/internal/series"
)

// HistogramRef is where one native histogram stands. V1 and V2 agree on fields 1 to 16
// of the message, so its content may be copied between them; V1 does not know field 17,
// the start timestamp.
type HistogramRef struct {
	From, To uint32  // content of the Histogram message in Data
	Time     int64   // Unix ms
	Start    int64   // V2: start timestamp, Unix ms; 0 when there is none
	Count    float64 // of observations
	Schema   int32
	Float    bool // counts are floats
	Stale    bool // is a stale marker
	// Hint is the counter reset hint: 0 unknown, 1 reset, 2 no reset, 3 a gauge. Other
	// numbers mean nothing.
	Hint uint64

	timeFrom, timeTo uint32 // the timestamp's field in Data; equal where there is none
}

// Custom reports whether the histogram has custom buckets.
func (h HistogramRef) Custom() bool { return h.Schema == customBuckets }

// AppendHistograms appends the native histograms of series i in body order. Start is
// the series' created timestamp (rc.3) where the histogram has none of its own.
func (m *Message) AppendHistograms(dst []HistogramRef, i int) []HistogramRef {
	s := &m.Series[i]
	if s.Histograms == 0 {
		return dst
	}
	field := uint64(tagV1Histogram)
	if m.Version == series.V2 {
		field = tagV2Histogram
	}
	created := m.Created(i)
	b := m.Data[:s.To]
	for at := uint(s.labelsEnd); at < uint(len(b)); {
		tag, from, to, _ := fieldAt(b, at)
		at = to
		if tag != field {
			continue
		}
		var f histogramFacts
		f.parse(b[from:to], m.Version)
		if f.start == 0 {
			f.start = created
		}
		dst = append(dst, HistogramRef{
			From: uint32(from), To: uint32(to),
			Time: f.time, Start: f.start, Schema: f.schema, Float: f.float, Stale: f.stale(),
			Count: f.observations(), Hint: f.resetHint,
			timeFrom: uint32(from) + f.timeFrom, timeTo: uint32(from) + f.timeTo,
		})
	}
	return dst
}

// addHistogram notes the Histogram message p.
func (s *Series) addHistogram(p []byte, v series.Version) bool {
	var f histogramFacts
	if !f.parse(p, v) {
		return false
	}
	s.Histograms++
	s.see(f.time)
	if !f.valid() {
		s.Flags |= FlagBadHistogram
	}
	if f.stale() {
		s.Flags |= FlagStale
	}
	if f.start != 0 {
		s.Flags |= FlagStart
	}
	if f.schema == histogram.CustomBucketsSchema {
		s.Flags |= FlagCustomBuckets
	}
	return true
}

// Fields of the Histogram message, the same in both versions but for the last.
const (
	fieldCountInt       = 1
	fieldCountFloat     = 2
	fieldSum            = 3
	fieldSchema         = 4
	fieldZeroThreshold  = 5
	fieldZeroInt        = 6
	fieldZeroFloat      = 7
	fieldNegativeSpans  = 8
	fieldNegativeDeltas = 9
	fieldNegativeCounts = 10
	fieldPositiveSpans  = 11
	fieldPositiveDeltas = 12
	fieldPositiveCounts = 13
	fieldResetHint      = 14
	fieldTime           = 15
	fieldCustomValues   = 16
	fieldStart          = 17 // V2
)

// histogramFacts is what the rules for native histograms ask about one, gathered in
// one pass over its bytes.
type histogramFacts struct {
	time, start    int64
	timeFrom       uint32 // place of the timestamp's field, in bytes
	timeTo         uint32
	schema         int32
	float          bool
	zeroFloat      bool
	resetHint      uint64
	count          uint64 // the number, or the bits of a float
	zero           uint64 // the same
	sum, threshold uint64 // bits of floats
	negative       sideFacts
	positive       sideFacts
	bounds         boundFacts
}

// parse reads the content of a Histogram message.
func (f *histogramFacts) parse(p []byte, v series.Version) bool {
	size := len(p)
	for len(p) > 0 {
		at := size - len(p)
		tag, rest, ok := nextField(p)
		if !ok {
			return false
		}
		if p, ok = skipField(rest, tag); !ok {
			return false
		}
		switch tag & 7 {
		case wireVarint:
			v, _ := uvarint(rest)
			ok = f.setVarint(tag>>3, v)
			if tag>>3 == fieldTime {
				f.timeFrom, f.timeTo = uint32(at), uint32(size-len(p))
			}
		case wireFixed64:
			ok = f.setFixed64(tag>>3, binary.LittleEndian.Uint64(rest))
		case wireBytes:
			q, _, _ := lenDelim(rest)
			ok = f.addBytes(tag>>3, q)
		default:
			ok = tag>>3 > fieldStart
		}
		if !ok && (tag>>3 < fieldStart || v == series.V2) {
			return false
		}
	}
	if v != series.V2 {
		f.start = 0
	}
	return true
}

// setVarint takes a varint field; false when the field is known as something else.
func (f *histogramFacts) setVarint(field, v uint64) bool {
	switch field {
	case fieldCountInt:
		f.float, f.count = false, v
	case fieldSchema:
		f.schema = int32(zigzag(v & math.MaxUint32))
	case fieldZeroInt:
		f.zeroFloat, f.zero = false, v
	case fieldNegativeDeltas:
		f.negative.addDelta(zigzag(v))
	case fieldPositiveDeltas:
		f.positive.addDelta(zigzag(v))
	case fieldResetHint:
		f.resetHint = v
	case fieldTime:
		f.time = int64(v)
	case fieldStart:
		f.start = int64(v)
	default:
		return field > fieldStart
	}
	return true
}

// setFixed64 takes a double field; false when the field is known as something else.
func (f *histogramFacts) setFixed64(field, v uint64) bool {
	switch field {
	case fieldCountFloat:
		f.float, f.count = true, v
	case fieldSum:
		f.sum = v
	case fieldZeroThreshold:
		f.threshold = v
	case fieldZeroFloat:
		f.zeroFloat, f.zero = true, v
	case fieldNegativeCounts:
		f.negative.addCount(v)
	case fieldPositiveCounts:
		f.positive.addCount(v)
	case fieldCustomValues:
		f.bounds.add(v)
	default:
		return field > fieldStart
	}
	return true
}

// addBytes takes a span or a packed field; false when the field is known as something
// else or broken inside.
func (f *histogramFacts) addBytes(field uint64, p []byte) bool {
	switch field {
	case fieldNegativeSpans:
		return f.negative.addSpan(p)
	case fieldPositiveSpans:
		return f.positive.addSpan(p)
	case fieldNegativeDeltas:
		return f.negative.addDeltas(p)
	case fieldPositiveDeltas:
		return f.positive.addDeltas(p)
	case fieldNegativeCounts:
		return eachFixed64(p, f.negative.addCount)
	case fieldPositiveCounts:
		return eachFixed64(p, f.positive.addCount)
	case fieldCustomValues:
		return eachFixed64(p, f.bounds.add)
	}
	return field > fieldStart
}

func eachFixed64(p []byte, add func(uint64)) bool {
	if len(p)%8 != 0 {
		return false
	}
	for ; len(p) > 0; p = p[8:] {
		add(binary.LittleEndian.Uint64(p))
	}
	return true
}

// sideFacts is about the positive or the negative buckets.
type sideFacts struct {
	spans      int
	length     int64 // sum of the spans' lengths
	reach      int64 // sum of the spans' lengths and offsets
	offsetLess bool  // a span's offset is negative
	gapLess    bool  // the same, after the first span

	deltas   int64 // number of integer buckets
	last     int64 // count of the last one
	sum      uint64
	deltaBad bool // a bucket below 0, or more than fits

	counts   int64 // number of float buckets
	countBad bool  // a bucket below 0
}

func (s *sideFacts) addSpan(p []byte) bool {
	offset, length, ok := parseSpan(p)
	if !ok {
		return false
	}
	if offset < 0 {
		s.offsetLess = true
		s.gapLess = s.gapLess || s.spans > 0
	}
	s.spans++
	s.length += int64(length)
	s.reach += int64(length) + int64(offset)
	return true
}

func (s *sideFacts) addDeltas(p []byte) bool {
	for len(p) > 0 {
		v, n := uvarint(p)
		if n <= 0 {
			return false
		}
		s.addDelta(zigzag(v))
		p = p[n:]
	}
	return true
}

func (s *sideFacts) addDelta(d int64) {
	s.deltas++
	s.last += d // wraps below 0 when it is too big, as last is not below 0
	if s.last < 0 {
		s.deltaBad = true
		s.last = 0
		return
	}
	var carry uint64
	s.sum, carry = bits.Add64(s.sum, uint64(s.last), 0)
	s.deltaBad = s.deltaBad || carry != 0
}

func (s *sideFacts) addCount(v uint64) {
	s.counts++
	s.countBad = s.countBad || math.Float64frombits(v) < 0
}

// buckets is the number of buckets of the flavour that counts.
func (s *sideFacts) buckets(float bool) int64 {
	if float {
		return s.counts
	}
	return s.deltas
}

// bad reports a bucket that no histogram of the flavour can have.
func (s *sideFacts) bad(float bool) bool {
	if float {
		return s.countBad
	}
	return s.deltaBad
}

// boundFacts is about the bounds of custom buckets.
type boundFacts struct {
	n    int64
	last float64
	bad  bool // not finite, or not strictly increasing
}

func (b *boundFacts) add(v uint64) {
	f := math.Float64frombits(v)
	if math.IsNaN(f) || math.IsInf(f, 0) || b.n > 0 && f <= b.last {
		b.bad = true
	}
	b.n++
	b.last = f
}

// parseSpan reads the content of a BucketSpan message.
func parseSpan(p []byte) (offset int32, length uint32, ok bool) {
	for len(p) > 0 {
		tag, rest, ok := nextField(p)
		if !ok {
			return 0, 0, false
		}
		if p, ok = skipField(rest, tag); !ok {
			return 0, 0, false
		}
		switch tag {
		case 1<<3 | wireVarint:
			v, _ := uvarint(rest)
			offset = int32(zigzag(v & math.MaxUint32))
		case 2<<3 | wireVarint:
			v, _ := uvarint(rest)
			length = uint32(v)
		default:
			if tag>>3 <= 2 {
				return 0, 0, false
			}
		}
	}
	return offset, length, true
}

// observations is the count of either flavour.
func (f *histogramFacts) observations() float64 {
	if f.float {
		return math.Float64frombits(f.count)
	}
	return float64(f.count)
}

// stale reports the stale marker of histograms: its bits in the sum.
func (f *histogramFacts) stale() bool { return f.sum == staleBits }

// valid reports whether the histogram keeps all rules.
func (f *histogramFacts) valid() bool {
	switch {
	case f.schema == histogram.CustomBucketsSchema:
		if !f.validCustom() {
			return false
		}
	case f.schema >= histogram.ExponentialSchemaMin && f.schema <= histogram.ExponentialSchemaMaxReserved:
		if !f.validExponential() {
			return false
		}
	default:
		return false
	}
	if f.positive.bad(f.float) || f.positive.length != f.positive.buckets(f.float) {
		return false
	}
	if f.float {
		return !(math.Float64frombits(f.count) < 0)
	}
	return f.countFits()
}

// validCustom keeps the rules that only custom buckets have.
func (f *histogramFacts) validCustom() bool {
	zero := f.zeroCount() == 0
	if f.float {
		zero = f.zeroCountFloat() == 0
	}
	return zero && math.Float64frombits(f.threshold) == 0 &&
		f.negative.spans == 0 && f.negative.buckets(f.float) == 0 &&
		!f.bounds.bad && !f.positive.offsetLess && f.positive.reach <= f.bounds.n+1
}

// validExponential keeps the rules that only exponential buckets have.
func (f *histogramFacts) validExponential() bool {
	if f.float && f.zeroCountFloat() < 0 {
		return false
	}
	return f.bounds.n == 0 && !f.positive.gapLess && !f.negative.gapLess &&
		!f.negative.bad(f.float) && f.negative.length == f.negative.buckets(f.float)
}

// countFits compares the count of an integer histogram with its buckets: they are
// equal, but where the sum is NaN observations of NaN may be in no bucket.
func (f *histogramFacts) countFits() bool {
	sum, c1 := bits.Add64(f.negative.sum, f.positive.sum, 0)
	sum, c2 := bits.Add64(sum, f.zeroCount(), 0)
	if c1|c2 != 0 {
		return false
	}
	if math.IsNaN(math.Float64frombits(f.sum)) {
		return sum <= f.count
	}
	return sum == f.count
}

// zeroCount is the zero bucket of an integer histogram; one of the other flavour
// counts as not set.
func (f *histogramFacts) zeroCount() uint64 {
	if f.zeroFloat {
		return 0
	}
	return f.zero
}

// zeroCountFloat is the same for a float histogram.
func (f *histogramFacts) zeroCountFloat() float64 {
	if !f.zeroFloat {
		return 0
	}
	return math.Float64frombits(f.zero)
}
