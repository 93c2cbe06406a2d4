package otlp

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage"
)

// maxWork is how many bytes of labels a translation may handle for each byte of its
// limit. Labels of a resource and of a histogram are repeated in each of their series, so
// that a small request can mean a lot of them.
const maxWork = 64

// request is a remote-write 2.0 request in the making. It is a storage.AppenderV2 that
// the converter appends to.
type request struct {
	table  writev2.SymbolsTable
	series []*writev2.TimeSeries // in the order of their first samples
	index  map[string]*writev2.TimeSeries
	key    []byte // of index, reused

	limit int // of the message, in bytes
	size  int // a lower bound of that of the message
	work  int // bytes of labels handled
	full  error
}

func newRequest(limit int) *request {
	return &request{table: writev2.NewSymbolTable(), index: map[string]*writev2.TimeSeries{}, limit: limit}
}

// Append implements storage.AppenderV2.
func (r *request) Append(_ storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o storage.AOptions) (storage.SeriesRef, error) {
	if r.full != nil {
		return 0, r.full
	}
	native := h != nil || fh != nil
	ts := r.of(ls, native, o)
	switch {
	case h != nil:
		ts.Histograms = append(ts.Histograms, writev2.FromIntHistogram(st, t, h))
		r.size += len(h.PositiveBuckets) + len(h.NegativeBuckets) + 8*len(h.CustomValues)
	case fh != nil:
		ts.Histograms = append(ts.Histograms, writev2.FromFloatHistogram(st, t, fh))
		r.size += 8 * (len(fh.PositiveBuckets) + len(fh.NegativeBuckets) + len(fh.CustomValues))
	default:
		ts.Samples = append(ts.Samples, writev2.Sample{Value: v, Timestamp: t, StartTimestamp: st})
	}
	r.size += 4
	for _, e := range o.Exemplars {
		r.exemplar(ts, e)
	}
	if r.size > r.limit || r.work > maxWork*r.limit {
		r.full = tooLarge(r.limit)
	}
	return 0, r.full
}

func tooLarge(limit int) error {
	return fmt.Errorf("they make more remote write than the limit (receiver.max_decoded_size, %d bytes) allows; send fewer data points at a time", limit)
}

// of finds the message for samples of one kind of a series.
func (r *request) of(ls labels.Labels, native bool, o storage.AOptions) *writev2.TimeSeries {
	kind := byte('f')
	if native {
		kind = 'h'
	}
	r.key = append(r.key[:0], kind)
	ls.Range(func(l labels.Label) {
		r.key = fmt.Appendf(r.key, "%d:%s%d:%s", len(l.Name), l.Name, len(l.Value), l.Value)
	})
	r.work += len(r.key)
	ts := r.index[string(r.key)]
	if ts != nil {
		return ts
	}
	ts = &writev2.TimeSeries{
		LabelsRefs: r.refs(ls),
		Metadata: writev2.Metadata{
			Type:    writev2.FromMetadataType(o.Metadata.Type),
			UnitRef: r.symbol(o.Metadata.Unit),
			HelpRef: r.symbol(o.Metadata.Help),
		},
	}
	r.index[string(r.key)] = ts
	r.series = append(r.series, ts)
	r.size += 4
	return ts
}

func (r *request) exemplar(ts *writev2.TimeSeries, e exemplar.Exemplar) {
	ts.Exemplars = append(ts.Exemplars, writev2.Exemplar{LabelsRefs: r.refs(e.Labels), Value: e.Value, Timestamp: e.Ts})
	r.size += 4
}

func (r *request) refs(ls labels.Labels) []uint32 {
	refs := make([]uint32, 0, 2*ls.Len())
	ls.Range(func(l labels.Label) {
		refs = append(refs, r.symbol(l.Name), r.symbol(l.Value))
	})
	r.size += len(refs)
	return refs
}

func (r *request) symbol(s string) uint32 {
	n := len(r.table.Symbols())
	ref := r.table.Symbolize(s)
	if len(r.table.Symbols()) > n {
		r.size += len(s) + 2
	}
	return ref
}

// Commit implements storage.AppenderV2. The converter does not call it.
func (r *request) Commit() error { return nil }

// Rollback implements storage.AppenderV2. The converter does not call it.
func (r *request) Rollback() error { return nil }

// marshal returns the message, or nil when nothing was appended. The samples of a series
// are in the order of their timestamps.
func (r *request) marshal() ([]byte, error) {
	if len(r.series) == 0 {
		return nil, nil
	}
	m := writev2.Request{Symbols: r.table.Symbols(), Timeseries: make([]writev2.TimeSeries, 0, len(r.series))}
	for _, ts := range r.series {
		slices.SortStableFunc(ts.Samples, func(a, b writev2.Sample) int { return cmp.Compare(a.Timestamp, b.Timestamp) })
		// A data point that was sent twice, which backends might refuse.
		ts.Samples = slices.CompactFunc(ts.Samples, func(a, b writev2.Sample) bool {
			return a.Timestamp == b.Timestamp && math.Float64bits(a.Value) == math.Float64bits(b.Value)
		})
		slices.SortStableFunc(ts.Histograms, func(a, b writev2.Histogram) int { return cmp.Compare(a.Timestamp, b.Timestamp) })
		slices.SortStableFunc(ts.Exemplars, func(a, b writev2.Exemplar) int { return cmp.Compare(a.Timestamp, b.Timestamp) })
		m.Timeseries = append(m.Timeseries, *ts)
	}
	if m.Size() > r.limit {
		return nil, tooLarge(r.limit)
	}
	b, err := m.Marshal()
	if err != nil {
		return nil, fmt.Errorf("BUG: a translated request cannot be written: %w", err)
	}
	return b, nil
}
