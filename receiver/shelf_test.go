package receiver_test

import (
	"context"
	"math"
	"net/http"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/receiver"
)

// newestTap keeps the batch that was appended last.
type newestTap struct {
	receiver.Journal
	batch *series.Batch
}

func (n *newestTap) Append(ctx context.Context, b *series.Batch) error {
	if n.batch != nil {
		n.batch.Release()
	}
	b.Retain()
	n.batch = b
	return n.Journal.Append(ctx, b)
}

// While a reader is about to read what comes in, requests go on opened, as they are: the
// reader finds what is in the body, and the next request has nothing of it.
func TestRequestsAreLeftOpened(t *testing.T) {
	shelf := remotewrite.NewShelf(math.MaxInt64)
	newest := &newestTap{}
	g := newGate(t, func(s *setup) {
		s.shelf = shelf
		s.wrap = func(j receiver.Journal) receiver.Journal { newest.Journal = j; return newest }
	})
	send := func(value float64, series ...prompb.TimeSeries) {
		t.Helper()
		list := append(series, prompb.TimeSeries{Labels: named("m"), Samples: sampleV1(value)})
		require.Less(t, g.sendV1(&prompb.WriteRequest{Timeseries: list}).status, http.StatusInternalServerError)
	}
	send(1)
	require.Nil(t, shelf.Take(newest.batch), "nobody had asked")

	send(2)
	two := newest.batch
	two.Retain()
	send(3)
	for value, b := range map[float64]*series.Batch{2: two, 3: newest.batch} {
		o := shelf.Take(b)
		require.NotNil(t, o)
		require.Equal(t, []remotewrite.Sample{{Value: value, Time: startMs}}, o.Message.AppendSamples(nil, 0))
		o.Free()
	}
	two.Release()

	// What had to be written anew is not what was opened.
	send(4, prompb.TimeSeries{Labels: labelsV1("__name__", "n", "job", "test", "a", "1", "a", "2"), Samples: sampleV1(1)})
	require.EqualValues(t, 1, newest.batch.Counts.Samples)
	require.Nil(t, shelf.Take(newest.batch))
	newest.batch.Release()
}
