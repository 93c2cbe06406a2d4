package tsdb

import (
	"context"
	"math"
	"path/filepath"
	"testing"

	"github.com/gogo/protobuf/proto"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// point is a float, or the histogram that is not nil.
type point struct {
	t, start int64
	v        float64
	h        *histogram.Histogram
	fh       *histogram.FloatHistogram
}

// row is one series of a request.
type row struct {
	labels    labels.Labels
	points    []point
	exemplars []exemplar.Exemplar
}

func named(name string, more ...string) labels.Labels {
	return labels.FromStrings(append([]string{"__name__", name}, more...)...)
}

func floats(ls labels.Labels, pairs ...float64) row {
	r := row{labels: ls}
	for i := 0; i < len(pairs); i += 2 {
		r.points = append(r.points, point{t: int64(pairs[i]), v: pairs[i+1]})
	}
	return r
}

// table gives ids to series as the gateway does.
type table struct {
	ids  map[string]series.ID
	none bool // all ids are shared ones
}

func (b *table) id(ls labels.Labels) series.ID {
	if b.none {
		return series.ID(ls.Hash() % uint64(series.Overflow))
	}
	if b.ids == nil {
		b.ids = make(map[string]series.ID)
	}
	id, ok := b.ids[ls.String()]
	if !ok {
		id = series.Overflow + series.ID(len(b.ids))
		b.ids[ls.String()] = id
	}
	return id
}

// request makes a batch of the rows. It is released when the test ends.
func (b *table) request(t testing.TB, v series.Version, rows ...row) *series.Batch {
	t.Helper()
	batch := b.batch(t, v, rows...)
	t.Cleanup(batch.Release)
	return batch
}

// batch makes a batch of the rows, which the caller releases.
func (b *table) batch(t testing.TB, v series.Version, rows ...row) *series.Batch {
	t.Helper()
	var data []byte
	if v == series.V1 {
		data = encodeV1(t, rows)
	} else {
		data = encodeV2(t, rows)
	}
	var m remotewrite.Message
	require.NoError(t, m.Scan(v, data))
	buf := series.NewBuffer(s2.MaxEncodedLen(len(data)))
	buf.B = append(buf.B, s2.EncodeSnappy(nil, data)...)
	batch := series.NewBatch(buf)
	batch.Version, batch.Decoded, batch.Series, batch.Counts = v, len(data), len(m.Series), m.Counts
	for _, r := range rows {
		batch.IDs = append(batch.IDs, b.id(r.labels))
	}
	return batch
}

func encodeV1(t testing.TB, rows []row) []byte {
	var req prompb.WriteRequest
	for _, r := range rows {
		ts := prompb.TimeSeries{Labels: prompb.FromLabels(r.labels, nil)}
		for _, p := range r.points {
			switch {
			case p.h != nil:
				ts.Histograms = append(ts.Histograms, prompb.FromIntHistogram(p.t, p.h))
			case p.fh != nil:
				ts.Histograms = append(ts.Histograms, prompb.FromFloatHistogram(p.t, p.fh))
			default:
				ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: p.t, Value: p.v})
			}
		}
		for _, e := range r.exemplars {
			ts.Exemplars = append(ts.Exemplars, prompb.Exemplar{Labels: prompb.FromLabels(e.Labels, nil), Timestamp: e.Ts, Value: e.Value})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	data, err := proto.Marshal(&req)
	require.NoError(t, err)
	return data
}

func encodeV2(t testing.TB, rows []row) []byte {
	symbols := writev2.NewSymbolTable()
	var req writev2.Request
	for _, r := range rows {
		ts := writev2.TimeSeries{LabelsRefs: symbols.SymbolizeLabels(r.labels, nil)}
		for _, p := range r.points {
			switch {
			case p.h != nil:
				ts.Histograms = append(ts.Histograms, writev2.FromIntHistogram(p.start, p.t, p.h))
			case p.fh != nil:
				ts.Histograms = append(ts.Histograms, writev2.FromFloatHistogram(p.start, p.t, p.fh))
			default:
				ts.Samples = append(ts.Samples, writev2.Sample{StartTimestamp: p.start, Timestamp: p.t, Value: p.v})
			}
		}
		for _, e := range r.exemplars {
			ts.Exemplars = append(ts.Exemplars, writev2.Exemplar{LabelsRefs: symbols.SymbolizeLabels(e.Labels, nil), Timestamp: e.Ts, Value: e.Value})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Symbols = symbols.Symbols()
	data, err := proto.Marshal(&req)
	require.NoError(t, err)
	return data
}

// store opens a store in dir and closes it when the test ends.
func store(t testing.TB, dir string, change func(*Options)) *Backend {
	t.Helper()
	o := Options{Name: "local", Config: DefaultConfig(), Dir: filepath.Join(dir, "local")}
	if change != nil {
		change(&o)
	}
	b, err := Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

func whole(batches ...*series.Batch) *exporter.Parcel {
	p := &exporter.Parcel{}
	for _, b := range batches {
		p.Parts = append(p.Parts, exporter.Part{Batch: b})
	}
	return p
}

// refusedBy adds up what was refused of a delivery, by reason.
func refusedBy(d exporter.Delivery, parts int) map[string]series.Counts {
	all := map[string]series.Counts{}
	for i := range parts {
		for _, r := range d.(exporter.Refuser).Refused(i) {
			c := all[r.Reason]
			c.Add(r.Counts)
			all[r.Reason] = c
		}
	}
	return all
}

// deliver sends the parcel, which has to work, and returns what was refused by reason.
func deliver(t testing.TB, b *Backend, p *exporter.Parcel) map[string]series.Counts {
	t.Helper()
	d, err := b.Prepare(p)
	require.NoError(t, err)
	defer d.Close()
	receipt, err := d.Send(context.Background(), 0)
	require.NoError(t, err)

	require.False(t, receipt.Told)
	for i := range p.Parts {
		require.Empty(t, d.Tally(i).Dropped)
	}
	return refusedBy(d, len(p.Parts))
}

// stored returns all points that the store has, by the text of their labels.
func stored(t testing.TB, b *Backend) map[string][]point {
	t.Helper()
	q, err := b.db.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	all := map[string][]point{}
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*"))
	for set.Next() {
		s := set.At()
		var ps []point
		it := s.Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			p := point{start: it.AtST()}
			switch kind {
			case chunkenc.ValFloat:
				p.t, p.v = it.At()
			case chunkenc.ValHistogram:
				p.t, p.h = it.AtHistogram(nil)
			case chunkenc.ValFloatHistogram:
				p.t, p.fh = it.AtFloatHistogram(nil)
			}
			ps = append(ps, p)
		}
		require.NoError(t, it.Err())
		all[s.Labels().String()] = ps
	}
	require.NoError(t, set.Err())
	return all
}

// requirePoints compares bit by bit; of reset hints it only compares the flavour that
// a store keeps, gauge or counter.
func requirePoints(t testing.TB, want, got []point) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		w, g := want[i], got[i]
		require.Equal(t, w.t, g.t, "timestamp %d", i)
		require.Equal(t, w.start, g.start, "start timestamp %d", i)
		require.Equal(t, math.Float64bits(w.v), math.Float64bits(g.v), "value %d", i)
		require.Equal(t, w.h == nil, g.h == nil, "flavour %d", i)
		require.Equal(t, w.fh == nil, g.fh == nil, "flavour %d", i)
		if w.h != nil {
			require.True(t, w.h.Equals(g.h), "histogram %d: want %s, got %s", i, w.h, g.h)
			require.Equal(t, w.h.CounterResetHint == histogram.GaugeType, g.h.CounterResetHint == histogram.GaugeType)
		}
		if w.fh != nil {
			require.True(t, w.fh.Equals(g.fh), "histogram %d: want %s, got %s", i, w.fh, g.fh)
			require.Equal(t, w.fh.CounterResetHint == histogram.GaugeType, g.fh.CounterResetHint == histogram.GaugeType)
		}
	}
}

func stale() float64 { return math.Float64frombits(value.StaleNaN) }
