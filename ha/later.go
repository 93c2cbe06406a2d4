package ha

import (
	"fmt"
	"math"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// later appends to dst the request in m without the samples and histograms of each series
// that are not newer than after says, in Unix ms. It returns what it left out, the series
// that are not acceptable included; nothing, and dst as it was, when there was none.
func later(dst []byte, m *remotewrite.Message, after func(series int) int64) ([]byte, series.Counts) {
	b := remotewrite.NewBuilder(remotewrite.BuilderOptions{Version: m.Version, Escaping: remotewrite.EscapeAllow, NHCBOnV1: remotewrite.NHCBKeep})
	var f pointFilter
	var dropped series.Counts
	for i := range m.Series {
		s, begin := &m.Series[i], after(i)
		if s.MinTime > begin || s.Samples+s.Histograms == 0 {
			dropped.Add(b.Add(m, i).Dropped)
			continue
		}
		dropped.Add(s.Counts())
		if s.MaxTime <= begin {
			continue
		}
		// Exemplars are in the order of time too; the few of such a series are left out.
		dropped.Sub(b.AddPoints(m, i, remotewrite.Splice{Points: f.points(m, i, begin)}).Written)
	}
	if dropped.Zero() {
		return dst, dropped
	}
	for _, md := range m.AppendMetadata(nil) {
		b.AddMetadata(md)
	}
	return b.AppendTo(dst), dropped
}

// pointFilter lists points; its slices are used again.
type pointFilter struct {
	list    []remotewrite.Point
	samples []remotewrite.Sample
	hists   []remotewrite.HistogramRef
}

// points are those of series i that are newer. They hold until the next call.
func (f *pointFilter) points(m *remotewrite.Message, i int, after int64) []remotewrite.Point {
	f.list = f.list[:0]
	f.samples = m.AppendSamples(f.samples[:0], i)
	for _, s := range f.samples {
		if s.Time > after {
			f.list = append(f.list, remotewrite.Point{Time: s.Time, Bits: math.Float64bits(s.Value), Start: s.Start})
		}
	}
	f.hists = m.AppendHistograms(f.hists[:0], i)
	for _, h := range f.hists {
		if h.Time > after {
			f.list = append(f.list, remotewrite.Point{Time: h.Time, Histogram: m.AppendHistogramContent(nil, i, h)})
		}
	}
	return f.list
}

// scan indexes a request that this package wrote.
func scan(m *remotewrite.Message, v series.Version, plain []byte) {
	if err := m.Scan(v, plain); err != nil {
		panic(fmt.Sprintf("BUG: a request without its replica labels is malformed: %v", err))
	}
}
