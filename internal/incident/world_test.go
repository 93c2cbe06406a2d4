package incident_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/capture"
)

const (
	worldStart   = 1_700_000_000_000 // Unix ms
	worldMinutes = 21
	targets      = 6
	perTarget    = 20 // series
)

// world is a recording of some targets that are scraped every 15 s, one request each.
func world(t *testing.T) []byte {
	t.Helper()
	var out []byte
	for at := int64(0); at < worldMinutes*60; at++ {
		if at%15%2 != 0 || at%15/2 >= targets {
			continue
		}
		target := int(at % 15 / 2)
		var req prompb.WriteRequest
		for s := range perTarget {
			name := "requests_total"
			v := float64(at * int64(s+1))
			if s%2 == 1 {
				name, v = "load", float64((at/60+int64(s))%7)
			}
			req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
				Labels: []prompb.Label{
					{Name: "__name__", Value: name},
					{Name: "instance", Value: fmt.Sprintf("host%d", target)},
					{Name: "job", Value: "shop"},
					{Name: "series", Value: fmt.Sprint(s)},
				},
				Samples: []prompb.Sample{{Value: v, Timestamp: worldStart + 1000*at}},
			})
		}
		body, err := req.Marshal()
		require.NoError(t, err)
		out = capture.AppendRecord(out, worldStart+1000*at+50, s2.EncodeSnappy(nil, body))
	}
	return out
}

func reader(data []byte) *bytes.Reader { return bytes.NewReader(data) }
