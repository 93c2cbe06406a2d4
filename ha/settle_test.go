package ha

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// late is a Store that takes its time.
type late struct {
	Store
	delay atomic.Int64
}

func (l *late) wait(ctx context.Context) error {
	select {
	case <-time.After(time.Duration(l.delay.Load())):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *late) ReadRecord(ctx context.Context, name string) ([]byte, uint64, error) {
	if err := l.wait(ctx); err != nil {
		return nil, 0, err
	}
	return l.Store.ReadRecord(ctx, name)
}

func (l *late) SwapRecord(ctx context.Context, name string, revision uint64, value []byte) (uint64, bool, error) {
	if err := l.wait(ctx); err != nil {
		return 0, false, err
	}
	return l.Store.SwapRecord(ctx, name, revision, value)
}

// settling is a Tracker that has elected replica a of cluster x. Nothing but requests makes
// it look at the store.
func settling(t *testing.T) (*Tracker, *late, func(replica string) Request) {
	store := &late{Store: NewMemory()}
	tracker, err := New(Options{Config: testConfig(), Store: store, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	require.NoError(t, err)
	at := func(replica string) Request {
		return Request{Version: series.V1, Message: &remotewrite.Message{}, Plain: requestV1(t, row{
			labels: []string{"__name__", "c", "__replica__", replica, "cluster", "x"}, samples: []int64{time.Now().UnixMilli()},
		})}
	}
	a, err := admit(t.Context(), tracker, at("a"))
	require.NoError(t, err)
	a.Done(true)
	time.Sleep(2 * time.Second) // what was confirmed is not relied upon any more
	return tracker, store, at
}

func requireUnsettled(t *testing.T, tracker *Tracker, r Request) *Unsettled {
	t.Helper()
	began := time.Now()
	_, err := tracker.Admit(r)
	var u *Unsettled
	require.ErrorAs(t, err, &u)
	require.Zero(t, time.Since(began), "Admit does not wait for the store")
	return u
}

func TestAdmit_StoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, store, at := settling(t)
		store.delay.Store(int64(time.Hour))
		r := at("a")
		r.Settled = requireUnsettled(t, tracker, r)
		began := time.Now()
		require.NoError(t, r.Settled.Settle(t.Context()), "the elected one stays elected")
		require.Equal(t, storeTimeout, time.Since(began))
		a, err := tracker.Admit(r)
		require.NoError(t, err)
		require.NoError(t, a.Check())
		a.Done(true)
		_, err = tracker.Admit(at("a"))
		require.NoError(t, err, "that it does not answer is known")
		require.Equal(t, storeTimeout, time.Since(began))
	})
}

// What was got of a slow store holds until the request has a place for its decoding.
func TestSettle_StoreIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, store, at := settling(t)
		store.delay.Store(int64(storeTimeout * 9 / 10))
		r := at("a")
		r.Settled = requireUnsettled(t, tracker, r)
		require.NoError(t, r.Settled.Settle(t.Context()))
		time.Sleep(3 * time.Second)
		a, err := tracker.Admit(r)
		require.NoError(t, err)
		require.NoError(t, a.Check())
		require.Zero(t, a.Deduplicated)
	})
}

// A request that waited counts once for how often its replica sends.
func TestSettle_IsOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, _, at := settling(t)
		r := at("a")
		r.Settled = requireUnsettled(t, tracker, r)
		require.NoError(t, r.Settled.Settle(t.Context()))
		_, err := tracker.Admit(r)
		require.NoError(t, err)
		// settling sent one, in two attempts too.
		require.Equal(t, 1, tracker.clusters["x"].replicas["a"].n)
	})
}

func TestSettle_AnotherIsElectedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, store, at := settling(t)
		r := at("a")
		r.Settled = requireUnsettled(t, tracker, r)
		require.NoError(t, r.Settled.Settle(t.Context()))

		value, revision, err := store.ReadRecord(t.Context(), recordName("x"))
		require.NoError(t, err)
		record, err := decodeRecord(value)
		require.NoError(t, err)
		record.Replica = "b"
		_, swapped, err := store.SwapRecord(t.Context(), recordName("x"), revision, record.encode())
		require.NoError(t, err)
		require.True(t, swapped)
		require.NoError(t, tracker.refresh(t.Context(), tracker.clusters["x"]))

		a, err := tracker.Admit(r)
		require.NoError(t, err)
		require.Equal(t, series.Counts{Samples: 1}, a.Deduplicated)
		require.Empty(t, a.claims)
	})
}

// A sender that goes says nothing of the store.
func TestSettle_SenderGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker, store, at := settling(t)
		store.delay.Store(int64(storeTimeout / 2))
		u := requireUnsettled(t, tracker, at("a"))
		ctx, cancel := context.WithTimeout(t.Context(), storeTimeout/4)
		defer cancel()
		require.ErrorIs(t, u.Settle(ctx), context.DeadlineExceeded)
		require.False(t, tracker.clusters["x"].unsaved, "nothing was accepted")
		require.False(t, tracker.away(time.Now()))
		requireUnsettled(t, tracker, at("a"))
	})
}
