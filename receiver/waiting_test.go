package receiver_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/receiver"
)

// asking is a Pairs with a store that answers when answer is closed.
type asking struct {
	answer  chan struct{}
	never   bool  // settled is never enough
	err     error // of the store
	waiting atomic.Int64
	asked   atomic.Int64
}

const pairLabel = "replica"

func (a *asking) Admit(r receiver.PairRequest) (receiver.PairAdmission, error) {
	if !bytes.Contains(r.Plain, []byte(pairLabel)) {
		return nil, nil
	}
	if r.Settled == nil || a.never {
		return nil, &question{a}
	}
	return admitted(bytes.Clone(r.Plain)), nil
}

type question struct{ a *asking }

func (*question) Error() string { return "who is elected has to be asked" }

func (q *question) Settle(ctx context.Context) error {
	q.a.asked.Add(1)
	q.a.waiting.Add(1)
	defer q.a.waiting.Add(-1)
	select {
	case <-q.a.answer:
		return q.a.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

type admitted []byte

func (a admitted) Body() []byte              { return a }
func (admitted) Deduplicated() series.Counts { return series.Counts{} }
func (admitted) Check() error                { return nil }
func (admitted) Done(bool)                   {}

func newAsking(t *testing.T, change ...func(*setup)) (*asking, *gate) {
	a := &asking{answer: make(chan struct{})}
	return a, newGate(t, append(change, func(c *setup) { c.pairs = a })...)
}

func request(pairs ...string) *prompb.WriteRequest {
	return &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels: labelsV1(append([]string{"__name__", "up"}, pairs...)...), Samples: sampleV1(1),
	}}}
}

// While the store of the elections hangs, half of the places are for requests that do not
// need it, and so is every place of the decoding.
func TestWaiting_OthersGoOn(t *testing.T) {
	const places, paired = 16, 20
	a, g := newAsking(t, func(c *setup) { c.receiver.MaxInFlight = places })
	answers := make(chan answer, paired)
	for range paired {
		go func() { answers <- g.sendV1(request(pairLabel, "a")) }()
	}
	for range paired - places/2 {
		refused := <-answers
		require.Equal(t, http.StatusServiceUnavailable, refused.status)
		require.Contains(t, refused.text, "too many requests of HA pairs wait")
		require.NotEmpty(t, refused.header.Get("Retry-After"))
	}
	eventually(t, func() bool { return a.waiting.Load() == places/2 })

	const senders, each = 4, 50
	var all sync.WaitGroup
	begin := time.Now()
	for range senders {
		all.Go(func() {
			for range each {
				if status := g.sendV1(request()).status; status != http.StatusNoContent {
					t.Errorf("a request without pairs was answered %d", status)
				}
			}
		})
	}
	all.Wait()
	require.Less(t, time.Since(begin), 10*time.Second)
	require.EqualValues(t, places/2, a.waiting.Load(), "the store hangs all the time")
	require.Equal(t, series.Counts{Samples: senders * each}, g.booked())

	close(a.answer)
	for range places / 2 {
		require.Equal(t, http.StatusNoContent, (<-answers).status)
	}
	require.Equal(t, series.Counts{Samples: senders*each + places/2}, g.booked())
	require.EqualValues(t, places/2, a.asked.Load(), "once for each")
	require.Equal(t, http.StatusNoContent, g.sendV1(request(pairLabel, "a")).status, "their places are free again")
}

// Bodies that wait take half of the memory for bodies at most, but for one alone.
func TestWaiting_BytesAreBounded(t *testing.T) {
	a, g := newAsking(t, func(c *setup) {
		c.receiver.MaxRequestSize, c.receiver.MaxInFlightBytes = 64*bytesize.KiB, 100*bytesize.KiB
	})
	noise := make([]byte, 30<<10)
	_, _ = rand.Read(noise)
	big := request(pairLabel, "a", "noise", hex.EncodeToString(noise))
	body, err := big.Marshal()
	require.NoError(t, err)
	require.Greater(t, len(snappy.Encode(nil, body)), 50<<10, "more than half, for the size of what is sent counts")

	first := make(chan answer, 1)
	go func() { first <- g.sendV1(big) }()
	eventually(t, func() bool { return a.waiting.Load() == 1 })
	require.Equal(t, http.StatusServiceUnavailable, g.sendV1(request(pairLabel, "b")).status)
	require.Equal(t, http.StatusNoContent, g.sendV1(request()).status)
	close(a.answer)
	require.Equal(t, http.StatusNoContent, (<-first).status)
}

func TestWaiting_Ends(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*asking)
		want   string
		asked  int64
	}{
		"the store does not know":      {func(a *asking) { a.err = &receiver.Refusal{Status: 503, Err: errors.New("not known")} }, "not known", 1},
		"others are faster every time": {func(a *asking) { a.never = true }, "has to be asked, again and again", 3},
	} {
		t.Run(name, func(t *testing.T) {
			a, g := newAsking(t)
			close(a.answer)
			c.change(a)
			answer := g.sendV1(request(pairLabel, "a"))
			require.Equal(t, http.StatusServiceUnavailable, answer.status)
			require.Contains(t, answer.text, c.want)
			require.Equal(t, c.asked, a.asked.Load())
			require.Zero(t, g.booked())
		})
	}
}

func TestWaiting_SenderGoes(t *testing.T) {
	a, g := newAsking(t)
	ctx, cancel := context.WithCancel(t.Context())
	buf := series.NewBuffer(0)
	body, err := request(pairLabel, "a").Marshal()
	require.NoError(t, err)
	buf.B = snappy.Encode(nil, body)
	ended := make(chan error, 1)
	go func() {
		_, err := g.ingester.Ingest(ctx, receiver.Request{Version: series.V1, Body: buf})
		ended <- err
	}()
	eventually(t, func() bool { return a.waiting.Load() == 1 })
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.Zero(t, g.booked())
}
