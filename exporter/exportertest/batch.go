// Package exportertest is for tests of lanes and of the kinds of backends: it makes
// batches, plays a storage that does as it is told, and has the suite that every kind of
// backend has to pass.
package exportertest

import (
	"math"
	"testing"

	"github.com/gogo/protobuf/proto"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// Series is one series message of a request.
type Series struct {
	Labels     labels.Labels
	Samples    []Sample
	Histograms []Histogram
	Exemplars  []Sample // with a trace_id of their own
}

// Sample is a float at a time in Unix ms.
type Sample struct {
	Time  int64
	Value float64
}

// Histogram is a native histogram at a time in Unix ms.
type Histogram struct {
	Time  int64
	Value *histogram.Histogram
}

// EveryKind returns series of each kind, with samples at the time and in some after it.
func EveryKind(at int64) []Series {
	return []Series{
		{Labels: Named("plain", "job", "a"), Samples: []Sample{{at, 1.5}}},
		{Labels: Named("long", "job", "a"), Samples: []Sample{{at, 1}, {at + 1, 2}, {at + 2, math.Inf(1)}}},
		{Labels: Named("odd"), Samples: []Sample{{at, math.NaN()}}},
		{Labels: Named("native"), Histograms: []Histogram{{at, tsdbutil.GenerateTestHistogram(3)}}},
		{Labels: Named("traced_total"), Samples: []Sample{{at, 4}}, Exemplars: []Sample{{at, 5}}},
		{Labels: Named("last", "z", "1"), Samples: []Sample{{at, 6}}},
	}
}

// Named returns the labels of a series, whose name comes before name-value pairs.
func Named(name string, pairs ...string) labels.Labels {
	return labels.FromStrings(append([]string{"__name__", name}, pairs...)...)
}

// Message encodes a request of the given version.
func Message(t testing.TB, v series.Version, list ...Series) []byte {
	t.Helper()
	var m proto.Message
	if v == series.V1 {
		m = messageV1(list)
	} else {
		m = messageV2(list)
	}
	b, err := proto.Marshal(m)
	require.NoError(t, err)
	return b
}

func messageV1(list []Series) *prompb.WriteRequest {
	m := &prompb.WriteRequest{}
	for _, s := range list {
		out := prompb.TimeSeries{Labels: prompb.FromLabels(s.Labels, nil)}
		for _, x := range s.Samples {
			out.Samples = append(out.Samples, prompb.Sample{Timestamp: x.Time, Value: x.Value})
		}
		for _, x := range s.Histograms {
			out.Histograms = append(out.Histograms, prompb.FromIntHistogram(x.Time, x.Value))
		}
		for _, x := range s.Exemplars {
			out.Exemplars = append(out.Exemplars, prompb.Exemplar{
				Labels: prompb.FromLabels(labels.FromStrings("trace_id", "t"), nil), Timestamp: x.Time, Value: x.Value,
			})
		}
		m.Timeseries = append(m.Timeseries, out)
	}
	return m
}

func messageV2(list []Series) *writev2.Request {
	table := writev2.NewSymbolTable()
	m := &writev2.Request{}
	for _, s := range list {
		out := writev2.TimeSeries{LabelsRefs: table.SymbolizeLabels(s.Labels, nil)}
		for _, x := range s.Samples {
			out.Samples = append(out.Samples, writev2.Sample{Timestamp: x.Time, Value: x.Value})
		}
		for _, x := range s.Histograms {
			out.Histograms = append(out.Histograms, writev2.FromIntHistogram(0, x.Time, x.Value))
		}
		for _, x := range s.Exemplars {
			out.Exemplars = append(out.Exemplars, writev2.Exemplar{
				LabelsRefs: table.SymbolizeLabels(labels.FromStrings("trace_id", "t"), nil), Timestamp: x.Time, Value: x.Value,
			})
		}
		m.Timeseries = append(m.Timeseries, out)
	}
	m.Symbols = table.Symbols()
	return m
}

// Metadata encodes a 1.0 request with the metadata of the named families and no series.
func Metadata(t testing.TB, families ...string) []byte {
	t.Helper()
	m := &prompb.WriteRequest{}
	for _, f := range families {
		m.Metadata = append(m.Metadata, prompb.MetricMetadata{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: f, Help: "What " + f + " counts."})
	}
	b, err := proto.Marshal(m)
	require.NoError(t, err)
	return b
}

// Batch puts a message into a batch as the receiver does. Every series gets the id that
// ids gives it; with nil the batch has none. The caller releases it.
func Batch(t testing.TB, v series.Version, message []byte, ids func(m *remotewrite.Message, i int) series.ID) *series.Batch {
	t.Helper()
	var m remotewrite.Message
	require.NoError(t, m.Scan(v, message))
	packed := s2.EncodeSnappy(nil, message)
	buf := series.NewBuffer(len(packed))
	buf.B = append(buf.B, packed...)
	b := series.NewBatch(buf)
	b.Version, b.Decoded, b.Series, b.Counts = v, len(message), len(m.Series), m.Counts
	b.MinTime, b.MaxTime, b.Legacy = m.MinTime, m.MaxTime, true
	if ids != nil {
		b.IDs = make([]series.ID, len(m.Series))
	}
	var ls []remotewrite.Label
	for i := range m.Series {
		var err error
		ls, err = m.AppendLabels(ls[:0], i)
		require.NoError(t, err)
		b.Legacy = b.Legacy && remotewrite.LegacyNames(ls)
		if ids != nil {
			b.IDs[i] = ids(&m, i)
		}
	}
	return b
}

// Ids gives ids of their own to series, by their labels. It is used by one goroutine.
type Ids struct{ known map[string]series.ID }

// Of is for Batch.
func (x *Ids) Of(m *remotewrite.Message, i int) series.ID {
	ls, err := m.AppendLabels(nil, i)
	if err != nil {
		return 0
	}
	key := labelsOf(ls).String()
	id, ok := x.known[key]
	if !ok {
		if x.known == nil {
			x.known = map[string]series.ID{}
		}
		id = series.Overflow + series.ID(len(x.known))
		x.known[key] = id
	}
	return id
}

// Whole returns a parcel that takes all of the batches.
func Whole(batches ...*series.Batch) *exporter.Parcel {
	p := &exporter.Parcel{}
	for _, b := range batches {
		p.Parts = append(p.Parts, exporter.Part{Batch: b})
	}
	return p
}

// Take returns the set of the given ordinals of a batch.
func Take(b *series.Batch, ordinals ...int) series.Set {
	s := series.NewSet(b.Series)
	for _, i := range ordinals {
		s.Add(i)
	}
	return s
}

func labelsOf(ls []remotewrite.Label) labels.Labels {
	var b labels.ScratchBuilder
	for _, l := range ls {
		b.Add(string(l.Name), string(l.Value))
	}
	b.Sort()
	return b.Labels()
}
