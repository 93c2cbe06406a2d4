package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/ha"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/receiver"
)

// cutOff is a store of elections that does not answer while err is set.
type cutOff struct {
	*ha.Memory
	err error
}

func (c *cutOff) ReadRecord(ctx context.Context, name string) ([]byte, uint64, error) {
	if c.err != nil {
		return nil, 0, c.err
	}
	return c.Memory.ReadRecord(ctx, name)
}

// What the store has to be asked for is left to the receiver, which is told in its own words
// what to answer.
func TestPairs_TheReceiverWaits(t *testing.T) {
	body, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: "up"}, {Name: "__replica__", Value: "a"}, {Name: "cluster", Value: "x"}},
		Samples: []prompb.Sample{{Value: 1, Timestamp: time.Now().UnixMilli()}},
	}}}).Marshal()
	require.NoError(t, err)
	for name, away := range map[string]error{"the store answers": nil, "the store does not": errors.New("cut off")} {
		t.Run(name, func(t *testing.T) {
			c := ha.DefaultConfig()
			tracker, err := ha.New(ha.Options{Config: c, Store: &cutOff{ha.NewMemory(), away}, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
			require.NoError(t, err)
			p := &pairs{tracker: tracker}
			r := receiver.PairRequest{Version: series.V1, Plain: body, Message: &remotewrite.Message{}}
			_, err = p.Admit(r)
			require.ErrorAs(t, err, &r.Settled)
			err = r.Settled.Settle(t.Context())
			if away != nil {
				var refusal *receiver.Refusal
				require.ErrorAs(t, err, &refusal)
				require.Equal(t, http.StatusServiceUnavailable, refusal.Status)
				require.ErrorIs(t, err, away)
				return
			}
			require.NoError(t, err)
			a, err := p.Admit(r)
			require.NoError(t, err)
			require.NoError(t, a.Check())
			require.NotEmpty(t, a.Body())
			require.NotContains(t, string(a.Body()), "__replica__")
			a.Done(true)
		})
	}
}
