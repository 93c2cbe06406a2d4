package ha

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// crowd is a Tracker of many clusters whose elected replica a is silent from the beginning,
// while their replica b sends.
type crowd struct {
	t       *testing.T
	tracker *Tracker
	store   *late
	log     *bytes.Buffer // read it after the Tracker has ended
	size    int
}

func newCrowd(t *testing.T, size int, c Config, delay time.Duration) *crowd {
	t.Helper()
	w := &crowd{t: t, store: &late{Store: NewMemory()}, log: &bytes.Buffer{}, size: size}
	r := Record{Replica: "a", After: noTime, Accepted: time.Now().UnixMilli(), ReceivedAt: 1, PatienceMs: time.Duration(c.FailoverTimeout).Milliseconds()}
	for i := range size {
		_, swapped, err := w.store.SwapRecord(t.Context(), recordName(fmt.Sprint(i)), 0, r.encode())
		require.NoError(t, err)
		require.True(t, swapped)
	}
	w.store.delay.Store(int64(delay))
	var err error
	w.tracker, err = New(Options{
		Config: c, Store: w.store, Logger: slog.New(slog.NewTextHandler(w.log, nil)), Now: time.Now,
		Append: func(context.Context, series.Version, []byte) error { return nil },
	})
	require.NoError(t, err)
	return w
}

// run runs the Tracker for so long.
func (w *crowd) run(d time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { w.tracker.Run(ctx) })
	interval := time.Duration(w.tracker.o.Config.FailoverTimeout) / 6
	for ctx.Err() == nil {
		at := time.Now().UnixMilli()
		for i := range w.size {
			wg.Go(func() {
				plain := requestV1(w.t, row{labels: []string{"__name__", "c", "__replica__", "b", "cluster", fmt.Sprint(i)}, samples: []int64{at}})
				a, err := admit(ctx, w.tracker, Request{Version: series.V1, Plain: plain, Message: &remotewrite.Message{}})
				if err == nil {
					a.Done(true)
				}
			})
		}
		time.Sleep(interval)
	}
	wg.Wait()
}

// failedOver is how many records name replica b.
func (w *crowd) failedOver() (n int) {
	for i := range w.size {
		value, _, err := w.store.Store.ReadRecord(w.t.Context(), recordName(fmt.Sprint(i)))
		require.NoError(w.t, err)
		if r, err := decodeRecord(value); err == nil && r.Replica == "b" {
			n++
		}
	}
	return n
}

func crowdConfig(size int, timeout time.Duration) Config {
	c := testConfig()
	c.MaxClusters, c.FailoverTimeout = size, model.Duration(timeout)
	return c
}

func TestReadAll_ManyClusters(t *testing.T) {
	for name, c := range map[string]struct {
		size           int
		timeout, delay time.Duration
		within         time.Duration
		slow           bool
	}{
		"quick":          {size: 20, timeout: 30 * time.Second, delay: time.Millisecond, within: 32 * time.Second},
		"in parallel":    {size: 100, timeout: 30 * time.Second, delay: 40 * time.Millisecond, within: 34 * time.Second},
		"short timeout":  {size: 100, timeout: 2 * time.Second, delay: 40 * time.Millisecond, within: 8 * time.Second, slow: true},
		"store is slow":  {size: 100, timeout: 2 * time.Second, delay: 400 * time.Millisecond, within: time.Minute, slow: true},
		"far too slow":   {size: 100, timeout: 30 * time.Second, delay: 900 * time.Millisecond, within: 3 * time.Minute, slow: true},
		"a great number": {size: 1000, timeout: 30 * time.Second, delay: 20 * time.Millisecond, within: time.Minute, slow: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newCrowd(t, c.size, crowdConfig(c.size, c.timeout), c.delay)
				w.run(c.timeout - time.Millisecond)
				require.Zero(t, w.failedOver(), "the elected replica may come back")
				w.run(c.within - c.timeout)
				require.Equal(t, c.size, w.failedOver())
				said := strings.Count(w.log.String(), "takes long")
				if c.slow {
					require.Equal(t, 1, said, "once, not in every round")
				} else {
					require.Zero(t, said)
				}
			})
		})
	}
}

// A store that did not answer is not silence of the elected replica, however long a round
// takes otherwise.
func TestReadAll_OutageIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, timeout, delay = 100, 30 * time.Second, 500 * time.Millisecond
		w := newCrowd(t, size, crowdConfig(size, timeout), delay)
		w.run(25 * time.Second)
		usual := w.tracker.round.Load()
		require.Equal(t, (size+parallelReads-1)/parallelReads*delay, time.Duration(usual))
		w.store.delay.Store(int64(time.Hour))
		w.run(25 * time.Second)
		require.Equal(t, usual, w.tracker.round.Load(), "a round without answers is no measure")
		w.store.delay.Store(int64(delay))
		w.run(timeout - time.Second)
		require.Zero(t, w.failedOver(), "it is counted anew")
		w.run(time.Minute)
		require.Equal(t, size, w.failedOver())
	})
}

// What may pass unseen between two reads does not count as silence either.
func TestReadAll_SpreadIsAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCrowd(t, 1, crowdConfig(1, 30*time.Second), 0)
		c := w.tracker.cluster("0", time.Now())
		require.NoError(t, w.tracker.refresh(t.Context(), c))
		w.tracker.round.Store(int64(5 * time.Second))
		const least = storeTimeout + 3*time.Second
		begin := c.seen
		time.Sleep(least + 10*time.Second)
		require.NoError(t, w.tracker.refresh(t.Context(), c))
		require.Equal(t, begin, c.seen, "two rounds may take that long")
		time.Sleep(least + 10*time.Second + 1)
		require.NoError(t, w.tracker.refresh(t.Context(), c))
		require.Equal(t, time.Now(), c.seen, "they may not take that long")

		begin = time.Now()
		for time.Since(begin) < 40*time.Second {
			c.note("b", time.Now())
			_, due := c.candidate(time.Now())
			require.False(t, due)
			time.Sleep(time.Second)
		}
		_, due := c.candidate(time.Now())
		require.True(t, due)
	})
}

func TestReadAll_EndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCrowd(t, 100, crowdConfig(100, 30*time.Second), storeTimeout/2)
		for i := range w.size {
			w.tracker.cluster(fmt.Sprint(i), time.Now())
		}
		ctx, cancel := context.WithTimeout(t.Context(), storeTimeout/4)
		defer cancel()
		began := time.Now()
		w.tracker.look(ctx)
		require.Equal(t, storeTimeout/4, time.Since(began))
		require.Zero(t, w.tracker.round.Load())
		require.False(t, w.tracker.away(time.Now()))
	})
}

// A cluster whose requests queue for the exchange does not hold up the others.
func TestReadAll_ClusterIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCrowd(t, 3, crowdConfig(3, 30*time.Second), time.Millisecond)
		for i := range w.size {
			w.tracker.cluster(fmt.Sprint(i), time.Now())
		}
		busy := w.tracker.clusters["1"]
		require.NoError(t, busy.hold(t.Context()))
		defer busy.release()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		w.tracker.look(ctx)
		require.NoError(t, ctx.Err())
		for name, c := range w.tracker.clusters {
			require.Equal(t, c != busy, c.known, name)
		}
	})
}

// Whose record was not read for the longest time is read first, though rounds end early.
func TestReadAll_EachHasItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 10 * parallelReads
		w := newCrowd(t, size, crowdConfig(size, 30*time.Second), storeTimeout/4)
		for i := range size {
			w.tracker.cluster(fmt.Sprint(i), time.Now())
		}
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), storeTimeout/3)
			w.tracker.look(ctx)
			cancel()
		}
		for name, c := range w.tracker.clusters {
			require.True(t, c.known, name)
		}
	})
}

// One record that is something else is no outage of the store.
func TestReadAll_UnreadableRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 40
		w := newCrowd(t, size, crowdConfig(size, 30*time.Second), time.Millisecond)
		spoil := func(value []byte) {
			_, revision, err := w.store.Store.ReadRecord(t.Context(), recordName("7"))
			require.NoError(t, err)
			_, swapped, err := w.store.Store.SwapRecord(t.Context(), recordName("7"), revision, value)
			require.NoError(t, err)
			require.True(t, swapped)
		}
		good, _, err := w.store.Store.ReadRecord(t.Context(), recordName("7"))
		require.NoError(t, err)
		spoil([]byte("not json"))
		w.run(32 * time.Second)
		require.Equal(t, size-1, w.failedOver())
		require.False(t, w.tracker.away(time.Now()))
		require.NotContains(t, w.log.String(), "does not answer")
		require.Equal(t, 1, strings.Count(w.log.String(), "cannot be read; no replica"), "once, not at every look")

		spoil(good)
		w.run(28 * time.Second)
		require.Equal(t, size-1, w.failedOver(), "nothing is known of the time before")
		w.run(5 * time.Second)
		require.Equal(t, size, w.failedOver())
	})
}
