package ha

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// A stop in the midst of a handover finishes it: what was held back was answered with success,
// and its replica is the elected one.
func TestHandover_IsFinishedAtAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{points: map[string][]point{}}
		ctx, stop := context.WithCancel(t.Context())
		tracker, err := New(Options{
			Config: testConfig(), Store: NewMemory(), Logger: slog.New(slog.DiscardHandler), Now: time.Now,
			Append: func(ctx context.Context, v series.Version, body []byte) error {
				if ctx.Err() != nil {
					return ctx.Err() // as the pipeline does
				}
				stop() // the first of several
				plain, err := s2.Decode(nil, body)
				require.NoError(t, err)
				b.take(t, "held", v, plain)
				return nil
			},
		})
		require.NoError(t, err)
		var wg sync.WaitGroup
		wg.Go(func() { tracker.Run(ctx) })
		sent := map[string]int{}
		send := func(replica string) error {
			plain := requestV1(t, row{labels: []string{"__name__", "c", "__replica__", replica, "cluster", "x"}, samples: []int64{time.Now().UnixMilli()}})
			a, err := admit(t.Context(), tracker, Request{Version: series.V1, Plain: plain, Message: &remotewrite.Message{}})
			if err != nil {
				return err
			}
			if a.Deduplicated.Zero() {
				b.take(t, "live", series.V1, a.Body)
			}
			a.Done(true)
			sent[replica]++
			return nil
		}
		for range 10 {
			require.NoError(t, send("a"))
			time.Sleep(time.Millisecond)
			require.NoError(t, send("b"))
			time.Sleep(scrape)
		}
		from := sent["b"]
		for ctx.Err() == nil {
			if send("b") != nil {
				break
			}
			time.Sleep(scrape)
		}
		wg.Wait()
		held := 0
		for _, p := range b.points["__name__=c,cluster=x,"] {
			if p.by == "held" {
				held++
			}
		}
		require.Greater(t, sent["b"]-from, 3)
		require.GreaterOrEqual(t, held, sent["b"]-from, "answered with success, elected, and nowhere")
	})
}
