package ha

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// BenchmarkAdmit takes the replica label off requests of 2,000 series of one pair, on top
// of what a request costs without it.
func BenchmarkAdmit(b *testing.B) {
	const samples = 2000
	rows := make([]row, samples)
	for i := range rows {
		rows[i].samples = []int64{1}
		rows[i].labels = []string{"__name__", "http_request_duration_seconds_bucket", "__replica__", "prometheus-0", "cluster", "production"}
		for k := range 10 {
			rows[i].labels = append(rows[i].labels, fmt.Sprintf("label_%02d", k), fmt.Sprintf("some-value-of-usual-length-%d", i/(k+1)))
		}
	}
	for v, plain := range map[series.Version][]byte{series.V1: requestV1(b, rows...), series.V2: requestV2(b, rows...)} {
		b.Run(v.String(), func(b *testing.B) {
			tracker, err := New(Options{Config: testConfig(), Store: NewMemory(), Logger: slog.New(slog.DiscardHandler), Now: time.Now})
			require.NoError(b, err)
			var m remotewrite.Message
			var room []byte
			b.ReportAllocs()
			for b.Loop() {
				a, err := admit(b.Context(), tracker, Request{Version: v, Plain: plain, Message: &m, Room: room})
				if err != nil {
					b.Fatal(err)
				}
				room = a.Body
				a.Done(true)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/samples, "ns/sample")
		})
	}
}
