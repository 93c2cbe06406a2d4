package remotewrite

import (
	"testing"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

const benchSeries = 2000

// perSample reports the time of each of the n samples of one operation.
func perSample(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/sample")
}

func BenchmarkWalk(b *testing.B) {
	for _, c := range []struct {
		name    string
		version series.Version
		data    []byte
	}{
		{"V1", series.V1, mustMarshal(payloadV1(benchSeries))},
		{"V2", series.V2, mustMarshal(payloadV2(benchSeries, false))},
		{"V2Starts", series.V2, mustMarshal(payloadV2(benchSeries, true))},
	} {
		var m Message
		b.Run(c.name+"/Index", func(b *testing.B) {
			b.SetBytes(int64(len(c.data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := m.Index(c.version, c.data, 1); err != nil {
					b.Fatal(err)
				}
			}
			perSample(b, benchSeries)
		})
		b.Run(c.name+"/Scan", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := m.Scan(c.version, c.data); err != nil {
					b.Fatal(err)
				}
			}
			perSample(b, benchSeries)
		})
	}
}

func BenchmarkGeneratedDecoding(b *testing.B) {
	v1, v2 := mustMarshal(payloadV1(benchSeries)), mustMarshal(payloadV2(benchSeries, false))
	b.Run("V1", func(b *testing.B) {
		for b.Loop() {
			var req prompb.WriteRequest
			require.NoError(b, req.Unmarshal(v1))
		}
		perSample(b, benchSeries)
	})
	b.Run("V2", func(b *testing.B) {
		for b.Loop() {
			var req writev2.Request
			require.NoError(b, req.Unmarshal(v2))
		}
		perSample(b, benchSeries)
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name    string
		version series.Version
		data    []byte
	}{
		{"V1", series.V1, mustMarshal(payloadV1(benchSeries))},
		{"V2", series.V2, mustMarshal(payloadV2(benchSeries, false))},
	} {
		var m Message
		require.NoError(b, m.Index(c.version, c.data, 1))
		var ls []Label
		var ss []Sample
		b.Run(c.name+"/Labels", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for i := range m.Series {
					ls, _ = m.AppendLabels(ls[:0], i)
				}
			}
			perSample(b, benchSeries)
		})
		b.Run(c.name+"/CanonicalLabels", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for i := range m.Series {
					ls, _ = m.AppendLabels(ls[:0], i)
					ls, _, _ = CanonicalLabels(ls)
				}
			}
			perSample(b, benchSeries)
		})
		b.Run(c.name+"/CanonicalKey", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for i := range m.Series {
					ls, _ = m.AppendLabels(ls[:0], i)
					CanonicalKey(ls, 1)
				}
			}
			perSample(b, benchSeries)
		})
		b.Run(c.name+"/Samples", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for i := range m.Series {
					ss = m.AppendSamples(ss[:0], i)
				}
			}
			perSample(b, benchSeries)
		})
	}
}
