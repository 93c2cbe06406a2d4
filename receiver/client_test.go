package receiver_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/journal"
)

func newClient(t testing.TB, g *gate, retries int) *remote.API {
	t.Helper()
	c, err := remote.NewAPI(g.url,
		remote.WithAPIHTTPClient(http.DefaultClient),
		remote.WithAPIBackoff(remote.BackoffConfig{Min: time.Millisecond, Max: time.Millisecond, MaxRetries: retries}))
	require.NoError(t, err)
	return c
}

// The reference client understands every answer as it is meant.
func TestClient_Written(t *testing.T) {
	g := newGate(t)
	c := newClient(t, g, 1)
	stats, err := c.Write(context.Background(), remote.WriteV2MessageType, everythingV2().done())
	require.NoError(t, err)
	require.Equal(t, []int{8, 4, 2}, []int{stats.Samples, stats.Histograms, stats.Exemplars})
	require.Equal(t, seriesV2(t, everythingV2().done()), seriesV2(t, g.keptOne().v2))

	_, err = c.Write(context.Background(), remote.WriteV1MessageType, everythingV1())
	require.NoError(t, err)
	require.Equal(t, seriesV1(t, everythingV1()), seriesV1(t, g.keptOne().v1))
}

func TestClient_PartialWriteIsNotRetried(t *testing.T) {
	g := newGate(t)
	stats, err := newClient(t, g, 5).Write(context.Background(), remote.WriteV2MessageType, mixedV2())
	require.ErrorContains(t, err, "7 of 11 samples rejected")
	require.Equal(t, []int{2, 1, 1}, []int{stats.Samples, stats.Histograms, stats.Exemplars})
	require.Len(t, g.kept(), 1)
}

func TestClient_RetriesWhatIsNotDurable(t *testing.T) {
	var h heldJournal
	g := newGate(t, holdJournal(&h))
	done := make(chan error, 1)
	var stats remote.WriteResponseStats
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go func() {
		var err error
		stats, err = newClient(t, g, 3).Write(ctx, remote.WriteV2MessageType, newV2().sample(1, "__name__", "up").done())
		done <- err
	}()
	<-h.arrived
	h.release <- journal.ErrFull
	<-h.arrived // after Retry-After
	h.release <- nil
	require.NoError(t, <-done)
	require.Equal(t, 1, stats.Samples)
	require.Len(t, g.kept(), 1)
}

func TestClient_BadRequestsAreErrors(t *testing.T) {
	g := newGate(t)
	c := newClient(t, g, 5)
	_, err := c.Write(context.Background(), remote.WriteV2MessageType, &writev2.Request{Symbols: []string{"x"}})
	require.Error(t, err)
	_, err = c.Write(context.Background(), remote.WriteV1MessageType, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Samples: sampleV1(1)}}})
	require.ErrorContains(t, err, "missing_name")
	require.False(t, errors.Is(err, context.DeadlineExceeded))
	require.Empty(t, g.kept())
}
