package testutil

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// Protocol is a version of remote write.
type Protocol string

// The versions of remote write.
const (
	RW1 Protocol = "rw1"
	RW2 Protocol = "rw2"
)

// Content types of the two versions, as their senders write them.
const (
	ContentTypeRW1 = "application/x-protobuf;proto=prometheus.WriteRequest"
	ContentTypeRW2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
)

// maxDecoded is what Prometheus allows a request to be after decompression.
const maxDecoded = 32 << 20

// Point is one sample, histogram or exemplar of a series, reduced to what is
// needed to tell whether it is the same.
type Point struct {
	Kind  string // samples, histograms, exemplars
	Time  int64  // milliseconds
	Sum   uint64 // hash of all bits of the value; for exemplars also of their labels
	Start int64  // start timestamp; 0 where the version or the sender has none
}

// Row is one series of a request.
type Row struct {
	Key    string // canonical text of the labels, see SeriesKey
	Points []Point
	Type   string // metric type of RW 2.0, or empty
	Help   string
	Unit   string
}

// Metadata is one metadata entry of an RW 1.0 request.
type Metadata struct{ Family, Type, Help, Unit string }

// Request is a decoded write request.
type Request struct {
	Protocol Protocol
	Rows     []Row
	Metadata []Metadata
}

// SeriesKey is the canonical text of a label set: names sorted, quoted values.
func SeriesKey(l labels.Labels) string { return l.String() }

// DecodeRequest decompresses and decodes a body with Prometheus' own code.
func DecodeRequest(p Protocol, body []byte) (*Request, error) {
	n, err := snappy.DecodedLen(body)
	if err != nil {
		return nil, fmt.Errorf("snappy: %w", err)
	}
	if n > maxDecoded {
		return nil, fmt.Errorf("decoded length %d is above %d", n, maxDecoded)
	}
	raw, err := snappy.Decode(nil, body)
	if err != nil {
		return nil, fmt.Errorf("snappy: %w", err)
	}
	if p == RW2 {
		return decodeV2(raw)
	}
	return decodeV1(raw)
}

func decodeV1(raw []byte) (*Request, error) {
	var m prompb.WriteRequest
	if err := m.Unmarshal(raw); err != nil {
		return nil, fmt.Errorf("decode prometheus.WriteRequest: %w", err)
	}
	req := &Request{Protocol: RW1, Rows: make([]Row, 0, len(m.Timeseries))}
	b := labels.NewScratchBuilder(16)
	for i := range m.Timeseries {
		ts := &m.Timeseries[i]
		if !sort.SliceIsSorted(ts.Labels, func(i, j int) bool { return ts.Labels[i].Name < ts.Labels[j].Name }) {
			return nil, fmt.Errorf("series %d: labels are not sorted: %v", i, ts.Labels)
		}
		row := Row{Key: SeriesKey(ts.ToLabels(&b, nil))}
		for _, s := range ts.Samples {
			row.Points = append(row.Points, Point{Kind: "samples", Time: s.Timestamp, Sum: sumFloat(s.Value)})
		}
		for j := range ts.Histograms {
			h := &ts.Histograms[j]
			row.Points = append(row.Points, Point{Kind: "histograms", Time: h.Timestamp, Sum: sumHistogram(h.ToIntHistogram(), h.ToFloatHistogram())})
		}
		for _, e := range ts.Exemplars {
			row.Points = append(row.Points, exemplarPoint(e.ToExemplar(&b, nil).Labels, e.Value, e.Timestamp))
		}
		req.Rows = append(req.Rows, row)
	}
	for _, md := range m.Metadata {
		req.Metadata = append(req.Metadata, Metadata{
			Family: md.MetricFamilyName, Type: strings.ToLower(md.Type.String()), Help: md.Help, Unit: md.Unit,
		})
	}
	return req, nil
}

func decodeV2(raw []byte) (*Request, error) {
	var m writev2.Request
	if err := m.Unmarshal(raw); err != nil {
		return nil, fmt.Errorf("decode io.prometheus.write.v2.Request: %w", err)
	}
	if len(m.Symbols) == 0 || m.Symbols[0] != "" {
		return nil, errors.New("symbols do not start with the empty string")
	}
	req := &Request{Protocol: RW2, Rows: make([]Row, 0, len(m.Timeseries))}
	b := labels.NewScratchBuilder(16)
	for i := range m.Timeseries {
		row, err := decodeV2Row(&m.Timeseries[i], m.Symbols, &b)
		if err != nil {
			return nil, fmt.Errorf("series %d: %w", i, err)
		}
		req.Rows = append(req.Rows, row)
	}
	return req, nil
}

func decodeV2Row(ts *writev2.TimeSeries, symbols []string, b *labels.ScratchBuilder) (Row, error) {
	if len(ts.Samples)+len(ts.Histograms) == 0 {
		return Row{}, errors.New("neither samples nor histograms")
	}
	if len(ts.Samples) > 0 && len(ts.Histograms) > 0 {
		return Row{}, errors.New("samples and histograms in one series")
	}
	ls, err := ts.ToLabels(b, symbols)
	if err != nil {
		return Row{}, err
	}
	md, err := ts.ToMetadata(symbols)
	if err != nil {
		return Row{}, err
	}
	row := Row{Key: SeriesKey(ls), Type: string(md.Type), Help: md.Help, Unit: md.Unit}
	for _, s := range ts.Samples {
		row.Points = append(row.Points, Point{Kind: "samples", Time: s.Timestamp, Sum: sumFloat(s.Value), Start: s.StartTimestamp})
	}
	for j := range ts.Histograms {
		h := &ts.Histograms[j]
		row.Points = append(row.Points, Point{
			Kind: "histograms", Time: h.Timestamp,
			Sum: sumHistogram(h.ToIntHistogram(), h.ToFloatHistogram()), Start: h.StartTimestamp,
		})
	}
	for _, e := range ts.Exemplars {
		ex, err := e.ToExemplar(b, symbols)
		if err != nil {
			return Row{}, fmt.Errorf("exemplar: %w", err)
		}
		row.Points = append(row.Points, exemplarPoint(ex.Labels, e.Value, e.Timestamp))
	}
	return row, nil
}

func exemplarPoint(ls labels.Labels, v float64, t int64) Point {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(ls.String())
	putFloat(&d, v)
	return Point{Kind: "exemplars", Time: t, Sum: d.Sum64()}
}

func sumFloat(v float64) uint64 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], math.Float64bits(v))
	return xxhash.Sum64(b[:])
}

// StaleSum is the Point.Sum of a staleness marker among samples.
func StaleSum() uint64 { return sumFloat(math.Float64frombits(value.StaleNaN)) }

// sumHistogram hashes the integer histogram, or the float one when that is nil, so
// that the two flavours never give the same sum.
func sumHistogram(h *histogram.Histogram, fh *histogram.FloatHistogram) uint64 {
	var d xxhash.Digest
	d.Reset()
	if h != nil {
		_, _ = d.WriteString("int")
		put(&d, uint64(h.CounterResetHint), uint64(int64(h.Schema)), h.ZeroCount, h.Count)
		putFloat(&d, h.ZeroThreshold, h.Sum)
		putSpans(&d, h.PositiveSpans)
		putSpans(&d, h.NegativeSpans)
		for _, deltas := range [][]int64{h.PositiveBuckets, h.NegativeBuckets} {
			put(&d, uint64(len(deltas)))
			for _, v := range deltas {
				put(&d, uint64(v))
			}
		}
		putFloat(&d, h.CustomValues...)
		return d.Sum64()
	}
	_, _ = d.WriteString("float")
	put(&d, uint64(fh.CounterResetHint), uint64(int64(fh.Schema)))
	putFloat(&d, fh.ZeroThreshold, fh.ZeroCount, fh.Count, fh.Sum)
	putSpans(&d, fh.PositiveSpans)
	putSpans(&d, fh.NegativeSpans)
	for _, counts := range [][]float64{fh.PositiveBuckets, fh.NegativeBuckets, fh.CustomValues} {
		put(&d, uint64(len(counts)))
		putFloat(&d, counts...)
	}
	return d.Sum64()
}

func put(d *xxhash.Digest, vs ...uint64) {
	var b [8]byte
	for _, v := range vs {
		binary.LittleEndian.PutUint64(b[:], v)
		_, _ = d.Write(b[:])
	}
}

func putFloat(d *xxhash.Digest, vs ...float64) {
	for _, v := range vs {
		put(d, math.Float64bits(v))
	}
}

func putSpans(d *xxhash.Digest, spans []histogram.Span) {
	put(d, uint64(len(spans)))
	for _, s := range spans {
		put(d, uint64(uint32(s.Offset)), uint64(s.Length))
	}
}
