package remotewrite

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
)

// NHCBPolicy says what becomes of native histograms with custom buckets on the way to
// an RW 1.0 backend, where they must not be sent.
type NHCBPolicy uint8

const (
	NHCBExpand NHCBPolicy = iota // they become the series of a classic histogram
	NHCBDrop                     // they are dropped, ReasonNHCBOnRW1
	// NHCBKeep leaves them as they are, in a request that goes to no backend but into
	// the journal. It cannot be configured.
	NHCBKeep
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

// customBuckets is the schema of native histograms with custom buckets.
const customBuckets = histogram.CustomBucketsSchema

// maxClassicBuckets is the number of bounds beyond which a native histogram with
// custom buckets is not expanded: the labels are repeated for each bucket, and
// without a limit a small histogram would become a huge request.
const maxClassicBuckets = 1000

// classicHistogram is a native histogram with custom buckets on its way to classic
// series. It is reused.
type classicHistogram struct {
	bounds []float64
	counts []float64 // cumulative; one more than bounds, for +Inf
	count  float64
	sum    float64

	bucketLabels, countLabels, sumLabels []Label
	le                                   int    // which of bucketLabels is the bound
	names                                []byte // holds the names of the three
	bound                                []byte // holds the value of le
}

// writeCustomBuckets writes a valid series that holds histograms with custom buckets,
// perhaps among other things, into an RW 1.0 request, where such are not known.
func (b *Builder) writeCustomBuckets(m *Message, i int, sp spelling) Outcome {
	s := &m.Series[i]
	custom := m.AppendHistograms(nil, i)
	custom = slices.DeleteFunc(custom, func(h HistogramRef) bool { return h.Schema != customBuckets })
	rest := part{samples: s.Samples > 0, histograms: int(s.Histograms) > len(custom), exponential: true}
	if rest.samples || rest.histograms {
		rest.exemplars = s.Exemplars > 0
		b.putV1(m, i, sp, rest)
	}
	b.exemplars = b.exemplars[:0]
	if !rest.exemplars {
		b.exemplars = m.AppendExemplars(b.exemplars, i)
	}
	o := Outcome{Written: s.Counts()}
	dropped, exemplarsDropped, reason := b.expandHistograms(m, i, sp, custom)
	if dropped > 0 {
		o.Dropped.Histograms = uint64(dropped)
		o.Reason = reason
	}
	if exemplarsDropped {
		o.Dropped.Exemplars = uint64(len(b.exemplars))
	}
	o.Written.Sub(o.Dropped)
	return o
}

// expandHistograms writes histograms of series i as classic series, and with the last
// of them the exemplars in b.exemplars. It returns how many histograms were dropped,
// why, and whether the last one was among them, so that the exemplars went with it.
func (b *Builder) expandHistograms(m *Message, i int, sp spelling, hists []HistogramRef) (dropped int, last bool, reason Reason) {
	if b.o.NHCBOnV1 == NHCBDrop {
		return len(hists), true, ReasonNHCBOnRW1
	}
	if reason := b.classicLabels(m, i, sp); reason != "" {
		return len(hists), true, reason
	}
	limit := len(b.body) + maxExpanded
	for k, h := range hists {
		last = k == len(hists)-1
		var exemplars []Exemplar
		if last {
			exemplars = b.exemplars
		}
		why := b.expandHistogram(m, h, exemplars, limit-len(b.body))
		if why == "" {
			last = false
			continue
		}
		dropped++
		reason = why
	}
	return dropped, last, reason
}

// classicLabels fills in the labels of the classic series that series i becomes. The
// suffix belongs to the name and is escaped with it.
func (b *Builder) classicLabels(m *Message, i int, sp spelling) (reason Reason) {
	ls := sp.from
	if !sp.given {
		var err error
		if b.ls, err = m.AppendLabels(b.ls[:0], i); err != nil {
			return ReasonMalformedLabels
		}
		ls = b.ls
	}
	metric := metricName(ls)
	if len(metric) == 0 {
		return ReasonMissingName
	}
	c := &b.classic
	c.names = slices.Grow(c.names[:0], 3*(len(metric)+len("_bucket")))
	named := func(dst []Label, suffix string) []Label {
		from := len(c.names)
		c.names = append(append(c.names, metric...), suffix...)
		dst = append(dst[:0], ls...)
		for k := range dst {
			if string(dst[k].Name) == nameLabel {
				dst[k].Value = c.names[from:]
			}
		}
		return dst
	}
	le := func(l Label) bool { return string(l.Name) == model.BucketLabel }
	c.bucketLabels = slices.DeleteFunc(named(c.bucketLabels, "_bucket"), le)
	c.bucketLabels = append(c.bucketLabels, Label{Name: []byte(model.BucketLabel)})
	slices.SortFunc(c.bucketLabels, compareNames)
	c.countLabels = named(c.countLabels, "_count")
	c.sumLabels = named(c.sumLabels, "_sum")
	for _, set := range []*[]Label{&c.bucketLabels, &c.countLabels, &c.sumLabels} {
		if b.escape.keeps(*set) {
			continue
		}
		to, reason := b.escape.labelsOf(*set)
		if reason != "" {
			return reason
		}
		*set = append((*set)[:0], to...)
	}
	c.le = slices.IndexFunc(c.bucketLabels, le)
	return ""
}

// expandHistogram writes one histogram as classic series: the buckets in order, the
// count and the sum. The exemplars go with the buckets they fall into. It writes
// nothing when that would take more than about limit bytes.
func (b *Builder) expandHistogram(m *Message, ref HistogramRef, exemplars []Exemplar, limit int) Reason {
	h, fh, err := m.DecodeHistogram(ref)
	if err != nil {
		return ReasonInvalidHistogram
	}
	c := &b.classic
	var ok bool
	if h != nil {
		ok = c.setInteger(h)
	} else {
		ok = c.setFloat(fh)
	}
	switch {
	case !ok:
		return ReasonInvalidHistogram
	case len(c.bounds) > maxClassicBuckets, len(c.counts)*(sizeLabels(c.bucketLabels)+64) > limit:
		return ReasonHistogramTooWide
	}
	if ref.Stale {
		c.setStale()
	}
	if ref.Start != 0 {
		b.starts++
	}
	for k, v := range c.counts {
		c.bound = appendBound(c.bound[:0], c.upper(k))
		c.bucketLabels[c.le].Value = c.bound
		b.putClassic(c.bucketLabels, v, ref.Time, func() {
			for _, e := range exemplars {
				if c.bucketOf(e.Value) == k {
					b.body = appendExemplarsV1(b.body, []Exemplar{e})
				}
			}
		})
	}
	b.putClassic(c.countLabels, c.count, ref.Time, nil)
	b.putClassic(c.sumLabels, c.sum, ref.Time, nil)
	return ""
}

// putClassic writes a series with one sample, and what more appends to it.
func (b *Builder) putClassic(ls []Label, v float64, t int64, more func()) {
	const width = 2
	at := b.openField(tagV1Series, width)
	for _, l := range ls {
		b.body = appendLabelField(b.body, l.Name, l.Value)
	}
	b.putSample(math.Float64bits(v), t, 0)
	if more != nil {
		more()
	}
	b.closeField(at, width)
	b.series++
}

// reset makes room for the buckets of the given bounds, which are borrowed.
func (c *classicHistogram) reset(bounds []float64) {
	c.bounds = bounds
	c.counts = cleared(c.counts, len(bounds)+1)
}

// setInteger reports false when h has more buckets than bounds for them.
func (c *classicHistogram) setInteger(h *histogram.Histogram) bool {
	c.reset(h.CustomValues)
	c.count, c.sum = float64(h.Count), h.Sum
	places, ok := bucketPlaces(h.PositiveSpans, len(h.PositiveBuckets), len(c.counts))
	if !ok {
		return false
	}
	var inBucket int64
	for k, at := range places {
		inBucket += h.PositiveBuckets[k]
		c.counts[at] = float64(inBucket)
	}
	c.accumulate()
	return true
}

// setFloat reports false when h has more buckets than bounds for them.
func (c *classicHistogram) setFloat(h *histogram.FloatHistogram) bool {
	c.reset(h.CustomValues)
	c.count, c.sum = h.Count, h.Sum
	places, ok := bucketPlaces(h.PositiveSpans, len(h.PositiveBuckets), len(c.counts))
	if !ok {
		return false
	}
	for k, at := range places {
		c.counts[at] = h.PositiveBuckets[k]
	}
	c.accumulate()
	return true
}

// bucketPlaces is the index of each of n buckets that spans place among limit.
func bucketPlaces(spans []histogram.Span, n, limit int) (places []int, ok bool) {
	places = make([]int, 0, min(n, limit))
	at := 0
	for _, s := range spans {
		at += int(s.Offset)
		for range s.Length {
			if at < 0 || at >= limit {
				return nil, false
			}
			places = append(places, at)
			at++
		}
	}
	return places, len(places) == n
}

func (c *classicHistogram) accumulate() {
	for k := 1; k < len(c.counts); k++ {
		c.counts[k] += c.counts[k-1]
	}
}

// setStale makes all series end: those of the bounds that the marker carries, and
// those that every classic histogram has.
func (c *classicHistogram) setStale() {
	stale := math.Float64frombits(staleBits)
	for k := range c.counts {
		c.counts[k] = stale
	}
	c.count, c.sum = stale, stale
}

// upper is the upper bound of bucket k.
func (c *classicHistogram) upper(k int) float64 {
	if k < len(c.bounds) {
		return c.bounds[k]
	}
	return math.Inf(1)
}

// bucketOf is the bucket that an observation of v falls into.
func (c *classicHistogram) bucketOf(v float64) int {
	for k, bound := range c.bounds {
		if v <= bound {
			return k
		}
	}
	return len(c.bounds)
}

// appendBound appends a bucket's bound as Prometheus spells it in the label le: always
// with a point or an exponent.
func appendBound(dst []byte, v float64) []byte {
	switch {
	case v == 0:
		return append(dst, "0.0"...) // -0.0 too
	case math.IsInf(v, 1):
		return append(dst, "+Inf"...)
	}
	from := len(dst)
	dst = strconv.AppendFloat(dst, v, 'g', -1, 64)
	if bytes.ContainsAny(dst[from:], "e.") {
		return dst
	}
	return append(dst, ".0"...)
}
