package remotewrite

import (
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/internal/series"
)

// spliceOf is what a message itself holds of a series.
func spliceOf(m *Message, i int) (sp Splice) {
	for _, x := range m.AppendSamples(nil, i) {
		sp.Points = append(sp.Points, Point{Time: x.Time, Bits: math.Float64bits(x.Value), Start: x.Start})
	}
	for _, h := range m.AppendHistograms(nil, i) {
		sp.Points = append(sp.Points, Point{Time: h.Time, Histogram: m.AppendHistogramContent([]byte{}, i, h)})
	}
	sp.Exemplars = true
	return sp
}

// A series whose own samples are given as points is written as it stands.
func TestBuilder_AddPoints(t *testing.T) {
	for _, v := range []series.Version{series.V1, series.V2} {
		rapid.Check(t, func(t *rapid.T) {
			m := scanBytes(t, v, encode(v, genRequest(t, genOptions{custom: true, starts: v == series.V2, mixed: true})))
			whole := rapid.Bool().Draw(t, "whole")
			begin := (*Builder).Begin
			if !whole {
				begin = (*Builder).BeginPart
			}
			o := BuilderOptions{Version: v, NHCBOnV1: NHCBKeep}
			want, got := NewBuilder(o), NewBuilder(o)
			begin(want, m)
			begin(got, m)
			for i := range m.Series {
				sp := spliceOf(m, i)
				if len(sp.Points) == 0 {
					continue
				}
				// To be written apart, as AddPoints does with samples and histograms.
				m.Series[i].Flags |= FlagMixed
				require.Equal(t, want.Add(m, i), got.AddPoints(m, i, sp))
			}
			require.Equal(t, want.Counts(), got.Counts())
			require.Equal(t, want.Len(), got.Len())
			if v == series.V1 {
				expected, _ := readV1(t, want.Bytes())
				actual, _ := readV1(t, got.Bytes())
				require.Equal(t, expected, actual)
				return
			}
			require.Equal(t, readV2(t, want.Bytes()), readV2(t, got.Bytes()))
		})
	}
}

// Exemplars may stand alone in RW 1.0.
func TestBuilder_AddPointsOfExemplarsAlone(t *testing.T) {
	all := []genSeries{{labels: label(nameLabel, "m"), exemplars: exemplar(1)}}
	m := scanBytes(t, series.V1, encodeV1(all))
	b := NewBuilder(BuilderOptions{Version: series.V1})
	require.Equal(t, Outcome{Written: series.Counts{Exemplars: 1}}, b.AddPoints(m, 0, Splice{Exemplars: true}))
	want, _ := readV1(t, m.Data)
	got, _ := readV1(t, b.Bytes())
	require.Equal(t, want, got)
}

func TestMessage_Only(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.SampledFrom([]series.Version{series.V1, series.V2}).Draw(t, "version")
		m := scanBytes(t, v, encode(v, genRequest(t, genOptions{starts: true, mixed: true, exemplars: true})))
		for i := range m.Series {
			bits, at, start, ok := m.Only(i)
			if !ok {
				continue
			}
			all := m.AppendSamples(nil, i)
			require.Len(t, all, 1)
			require.Zero(t, m.Series[i].Histograms)
			require.Equal(t, [3]any{math.Float64bits(all[0].Value), all[0].Time, all[0].Start}, [3]any{bits, at, start})
		}
	})
	m := scanned(t, series.V1, payloadV1(3))
	_, _, _, ok := m.Only(0)
	require.True(t, ok, "what Prometheus sends is read so")
}

// The hash tells histograms apart, but not the times at which they were taken.
func TestMessage_HashHistogram(t *testing.T) {
	h := func(count uint64) *histogram.Histogram { return &histogram.Histogram{Count: count, ZeroCount: count} }
	all := []genSeries{{
		labels: label(nameLabel, "m"),
		ints:   []*histogram.Histogram{h(5), h(5), h(6), h(5)},
		times:  []int64{1_763_800_000_000, 1, 1_763_800_000_000, 2},
		starts: []int64{7, 7, 7, 8},
	}}
	for _, v := range []series.Version{series.V1, series.V2} {
		m := scanBytes(t, v, encode(v, all))
		var hashes []uint64
		for _, ref := range m.AppendHistograms(nil, 0) {
			hashes = append(hashes, m.HashHistogram(ref))
		}
		require.Equal(t, hashes[0], hashes[1])
		require.NotEqual(t, hashes[0], hashes[2])
		require.Equal(t, v == series.V1, hashes[0] == hashes[3], "the start timestamp counts")
	}
}
