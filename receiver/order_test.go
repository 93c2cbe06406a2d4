package receiver_test

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

// 1.6: repeated requests are accepted again, and so is what looks out of order.
func TestOrder_DuplicatesAndDisorderAreAccepted(t *testing.T) {
	g := newGate(t)
	body := packV2(t, everythingV2().done())
	for range 3 {
		require.Equal(t, 204, g.do(g.request(typeV2, body)).status)
		require.Equal(t, body, g.keptOne().body)
	}
	req := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
		{Labels: named("a"), Samples: []prompb.Sample{{Value: 1, Timestamp: startMs}, {Value: 2, Timestamp: startMs}, {Value: 3, Timestamp: startMs - 10}}},
		{Labels: named("a"), Samples: []prompb.Sample{{Value: 4, Timestamp: startMs - 20}}},
	}}
	require.Equal(t, 204, g.sendV1(req).status)
	require.Equal(t, req.Timeseries, g.keptOne().v1.Timeseries)
}

func TestFutureLimit(t *testing.T) {
	const limit = 600_000
	for _, tc := range []struct {
		ahead  int64
		off    bool
		status int
	}{
		{0, false, 204},
		{limit, false, 204},
		{limit + 1, false, 400},
		{math.MaxInt64 - startMs, false, 400},
		{limit + 1, true, 204},
		{math.MaxInt64 - startMs, true, 204},
	} {
		g := newGate(t, func(s *setup) {
			if tc.off {
				s.receiver.FutureLimit = 0
			}
		})
		h := intHistogram()
		h.Timestamp = startMs + tc.ahead
		b := newV2().sample(1, "__name__", "now")
		b.add(writev2.TimeSeries{Samples: []writev2.Sample{{Value: 1, Timestamp: startMs + tc.ahead}}}, "__name__", "sample")
		b.add(writev2.TimeSeries{Histograms: []writev2.Histogram{h}}, "__name__", "histogram")
		a := g.sendV2(b.done())
		require.Equal(t, tc.status, a.status, "%d ahead: %s", tc.ahead, a.text)
		if tc.status == 204 {
			require.Equal(t, [3]int{2, 1, 0}, a.written(t))
			continue
		}
		require.Contains(t, a.text, "2 of 3 samples rejected: too_far_in_future=2")
		require.Equal(t, [3]int{1, 0, 0}, a.written(t))
		require.Len(t, g.keptOne().v2.Timeseries, 1)
	}
}

// Many senders at once, with requests of all kinds: what the answers say was written is
// what the journal has and what the books were told, and each sender's samples are in
// the order in which they were acknowledged.
func TestOrder_ManySenders(t *testing.T) {
	const senders, requests = 8, 40
	g := newGate(t)
	var mu sync.Mutex
	var told series.Counts
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			name := fmt.Sprint("sender_", s)
			for i := range requests {
				b := newV2().sample(float64(i), "__name__", name)
				status := 204
				switch i % 4 {
				case 1: // to be written anew
					b.sample(0, "job", "x", "__name__", "unsorted")
				case 2: // a partial write
					b.sample(0, "job", "nameless")
					status = 400
				case 3:
					b.add(writev2.TimeSeries{Exemplars: []writev2.Exemplar{b.exemplar("x")}}, "__name__", name)
				}
				a := <-g.later(g.request(typeV2, packV2(t, b.done())))
				if a.status != status {
					t.Errorf("answered %d, not %d: %s", a.status, status, a.text)
					return
				}
				n := a.written(t)
				mu.Lock()
				told.Add(series.Counts{Samples: uint64(n[0]), Histograms: uint64(n[1]), Exemplars: uint64(n[2])})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.Equal(t, series.Counts{Samples: senders * requests * 5 / 4, Exemplars: senders * requests / 4}, told)
	require.Equal(t, told, g.booked())
	last := map[string]float64{}
	var have series.Counts
	for _, k := range g.kept() {
		for _, ts := range k.v2.Timeseries {
			have.Samples += uint64(len(ts.Samples))
			have.Exemplars += uint64(len(ts.Exemplars))
			if name := k.v2.Symbols[ts.LabelsRefs[1]]; name != "unsorted" && name != "job" {
				if v, ok := last[name]; ok {
					require.Equal(t, v+1, ts.Samples[0].Value, name)
				}
				last[name] = ts.Samples[0].Value
			}
		}
	}
	require.Equal(t, told, have)
	require.Len(t, last, senders)
}
