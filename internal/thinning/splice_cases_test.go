package thinning_test

import (
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/sampler"
)

func TestSplicer_FullRatePassesTheSourceOn(t *testing.T) {
	for _, v := range []series.Version{series.V1, series.V2} {
		s, _ := newSplicer(t, nil)
		for _, b := range newWorld(2, worldOptions{version: v, repeats: true, exemplars: true}).batches(20) {
			r, err := s.Splice(b, nil)
			require.NoError(t, err)
			require.Same(t, b, r.Batch)
			require.Equal(t, b.Counts, r.Kept)
			require.True(t, r.Withheld.Zero() && r.Restored.Zero())
			require.Greater(t, r.MinTime, r.MaxTime)
			r.Batch.Release()
		}
	}
}

func TestSplicer_ObserveDecidesAlike(t *testing.T) {
	batches := newWorld(3, worldOptions{version: series.V1, exemplars: true}).batches(60)
	a, one := newSplicer(t, nil)
	b, two := newSplicer(t, nil)
	one.Set(sampler.Step{Rate: 0.2, Pressure: 0.4})
	two.Set(sampler.Step{Rate: 0.2, Pressure: 0.4})
	for _, x := range batches {
		spliced, err := a.Splice(x, nil)
		require.NoError(t, err)
		observed, err := b.Observe(x, nil)
		require.NoError(t, err)
		require.Nil(t, observed.Batch)
		spliced.Batch = nil
		require.Equal(t, spliced, observed)
	}
	require.Equal(t, one.Stats(), two.Stats())
}

// v1Batch is a batch of an RW 1.0 request.
func v1Batch(received int64, req *prompb.WriteRequest, ids ...series.ID) *series.Batch {
	body := mustMarshal(req)
	packed := snappy.Encode(nil, body)
	buf := series.NewBuffer(len(packed))
	buf.B = append(buf.B, packed...)
	b := series.NewBatch(buf)
	b.Version, b.Decoded, b.Series, b.IDs, b.Received = series.V1, len(body), len(ids), ids, received
	b.Counts.Samples = uint64(len(ids))
	return b
}

func sampleOf(name string, v float64, t int64) prompb.TimeSeries {
	return prompb.TimeSeries{
		Labels:  []prompb.Label{{Name: "__name__", Value: name}, {Name: "instance", Value: "a"}, {Name: "job", Value: "b"}},
		Samples: []prompb.Sample{{Value: v, Timestamp: t}},
	}
}

// A fall of what metadata says is a counter is an event; a gauge's is none.
func TestSplicer_LearnsTypesFromMetadata(t *testing.T) {
	const id = series.Overflow
	told := func(typ prompb.MetricMetadata_MetricType) *prompb.WriteRequest {
		return &prompb.WriteRequest{Metadata: []prompb.MetricMetadata{{Type: typ, MetricFamilyName: "oddly_named", Help: "What it is."}}}
	}
	for _, c := range []struct {
		typ   prompb.MetricMetadata_MetricType
		event bool
	}{{prompb.MetricMetadata_COUNTER, true}, {prompb.MetricMetadata_GAUGE, false}} {
		s, smp := newSplicer(t, nil)
		at := int64(someTime)
		splice := func(v float64) thinning.Result {
			at += 5000
			r, err := s.Splice(v1Batch(at, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{sampleOf("oddly_named", v, at)}}, id), nil)
			require.NoError(t, err)
			return r
		}
		for i := range 8 {
			splice(float64(100 + i))
		}
		meta := v1Batch(at, told(c.typ))
		r, err := s.Splice(meta, nil)
		require.NoError(t, err)
		require.Same(t, meta, r.Batch, "metadata alone passes")

		smp.Set(sampler.Step{Rate: 0.01, Pressure: 1})
		for n := 200; ; n++ {
			if r := splice(float64(n)); r.Kept.Zero() {
				break // no key frame, so that the next is none either
			}
			require.Less(t, n, 300)
		}
		r = splice(1)
		require.Equal(t, c.event, r.Kept.Samples == 1 && r.Restored.Samples == 1, "%s: %+v", c.typ, r)
	}
}

func TestSplicer_TellsMetadataNowAndThen(t *testing.T) {
	const id = series.Overflow
	s, smp := newSplicer(t, nil)
	smp.Set(sampler.Step{Rate: 0.5, Pressure: 0.2})
	told := 0
	for i := range 61 {
		at := int64(someTime + i*30_000)
		req := &prompb.WriteRequest{
			Timeseries: []prompb.TimeSeries{sampleOf("m", 1, at), sampleOf("n", float64(i), at)},
			Metadata:   []prompb.MetricMetadata{{Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: "m"}},
		}
		set := series.NewSet(2)
		set.Add(1)
		r, err := s.Splice(v1Batch(at, req, id, id+1), set)
		require.NoError(t, err)
		if r.Batch == nil {
			continue
		}
		body, err := snappy.Decode(nil, r.Batch.Body)
		require.NoError(t, err)
		var got prompb.WriteRequest
		require.NoError(t, got.Unmarshal(body))
		told += len(got.Metadata)
	}
	require.Equal(t, 4, told, "in half an hour")
}

// A batch that cannot be read changes nothing.
func TestSplicer_RefusesWhatItCannotRead(t *testing.T) {
	w := newWorld(4, worldOptions{version: series.V1})
	batches := w.batches(2)
	s, smp := newSplicer(t, nil)
	before := smp.Stats()
	batches[0].Body = batches[0].Body[:len(batches[0].Body)/2]
	_, err := s.Splice(batches[0], nil)
	require.ErrorContains(t, err, "thin a batch of")
	batches[1].IDs = nil
	_, err = s.Observe(batches[1], nil)
	require.ErrorContains(t, err, "but 0 ids")
	require.Equal(t, before, smp.Stats())
}

// Critical native histograms beyond the bound are sent, not thinned and lost.
func TestSplicer_BoundsWhatItKeeps(t *testing.T) {
	for _, most := range []int{1, 2000} {
		smp, d := newSampler(t, nil)
		s := thinning.NewSplicer(thinning.SplicerOptions{Sampler: smp, Describer: d, MaxHistogramBytes: most})
		replay, d := newSampler(t, nil)
		r := thinning.NewRestorer(thinning.RestorerOptions{Sampler: replay, Describer: d, MaxHistogramBytes: most})
		smp.Set(sampler.Step{Rate: 0.05, Pressure: 1})
		replay.Set(sampler.Step{Rate: 0.05, Pressure: 1})
		batches := newWorld(9, worldOptions{version: series.V1}).batches(80)
		want, got := store{}, store{}
		var out thinning.Out
		for _, b := range batches {
			res, err := s.Splice(b, nil)
			require.NoError(t, err)
			require.Zero(t, res.Lost)
			want.add(decode(t, b))
			got.takeBatch(t, res.Batch)
			require.NoError(t, r.Add(b, nil, &out))
		}
		for _, b := range batches {
			require.NoError(t, r.Rest(b, nil, &out))
		}
		r.Flush(&out)
		for _, b := range out.Batches {
			got.takeBatch(t, b)
		}
		lost := 0
		for what, n := range want {
			lost += n - got[what]
		}
		require.Equal(t, int(out.Lost.Histograms), lost)
	}
}

// Few series of an RW 2.0 body bring the symbols along that they use.
func TestSplicer_LeavesSymbolsOut(t *testing.T) {
	batches := cadvisor(series.V2, 60)
	s := warm(t, batches[:40], sampler.Step{Rate: 0.05, Pressure: 1})
	for _, b := range batches[40:] {
		r, err := s.Splice(b, nil)
		require.NoError(t, err)
		if r.Batch == nil || r.Batch.Series > benchSeries/4 {
			continue
		}
		body, err := snappy.Decode(nil, r.Batch.Body)
		require.NoError(t, err)
		var req writev2.Request
		require.NoError(t, req.Unmarshal(body))
		used := map[uint32]bool{0: true}
		for _, ts := range req.Timeseries {
			for _, ref := range append(ts.LabelsRefs, ts.Metadata.HelpRef, ts.Metadata.UnitRef) {
				used[ref] = true
			}
		}
		require.Len(t, req.Symbols, len(used))
	}
}

func TestSplicer_ForgottenIdsAreNew(t *testing.T) {
	s, smp := newSplicer(t, nil)
	b := newWorld(10, worldOptions{version: series.V1}).batches(1)[0]
	_, err := s.Observe(b, nil)
	require.NoError(t, err)
	require.Positive(t, smp.Stats().Series)
	s.Forget(b.IDs)
	require.Zero(t, smp.Stats().Series)
}
