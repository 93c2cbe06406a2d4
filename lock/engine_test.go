package lock_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	promtest "github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/local"
	"github.com/sluice-metrics/sluice/lock/locktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var background = context.Background()

// pair are two processes that compete.
type pair struct {
	one, two           *lock.Engine
	oneStore, twoStore *locktest.Faulty
}

// newPair runs in a bubble: times are exact.
func newPair(t *testing.T, o lock.EngineOptions) *pair {
	t.Helper()
	store := local.New(nil)
	p := &pair{oneStore: locktest.NewFaulty(store), twoStore: locktest.NewFaulty(store)}
	o.Instance = "one"
	p.one = lock.New(p.oneStore, o)
	p.two = lock.New(p.twoStore, lock.EngineOptions{Instance: "two"})
	t.Cleanup(func() {
		p.oneStore.SetAll(locktest.None)
		require.NoError(t, p.one.Close())
		require.NoError(t, p.two.Close())
	})
	return p
}

func acquire(t *testing.T, e *lock.Engine, o lock.Options) lock.Lease {
	t.Helper()
	l, err := e.Acquire(background, "job", o)
	require.NoError(t, err)
	return l
}

func TestDeadlines(t *testing.T) {
	tests := map[string]struct {
		ttl, margin, every time.Duration
	}{
		"shortest":                         {300 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond},
		"two seconds, the margin's floor":  {2 * time.Second, 100 * time.Millisecond, 2 * time.Second / 3},
		"ten seconds, a twentieth is more": {10 * time.Second, 500 * time.Millisecond, 10 * time.Second / 3},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, lock.EngineOptions{})
				l := acquire(t, p.one, lock.Options{TTL: test.ttl})
				start := time.Now()
				require.Equal(t, start.Add(test.ttl-test.margin), l.Deadline())
				time.Sleep(test.every)
				synctest.Wait()
				require.Equal(t, start.Add(test.every+test.ttl-test.margin), l.Deadline(), "renewed after a third")
				p.oneStore.SetAll(locktest.Stall)
				deadline := l.Deadline()
				<-l.Done()
				require.Equal(t, deadline, time.Now(), "Done closes at the deadline")
				require.False(t, l.Valid())
				require.ErrorIs(t, l.Err(), lock.ErrExpired)
			})
		})
	}
}

// A lost call is repeated soon, so that a third of the TTL is room for several.
func TestShortCallsAndRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, lock.EngineOptions{})
		l := acquire(t, p.one, lock.Options{TTL: 2 * time.Second})
		start := time.Now()
		p.oneStore.Set(locktest.Stall, locktest.Renew)
		// 667 ms to the first call, then 300 ms a call and 50 ms of pause each.
		time.Sleep(1700 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, 3, p.oneStore.Calls(locktest.Renew))
		p.oneStore.Set(locktest.None, locktest.Renew)
		time.Sleep(100 * time.Millisecond) // the fourth call is made 1.717 s after the start
		synctest.Wait()
		require.True(t, l.Valid())
		require.Greater(t, l.Deadline(), start.Add(3500*time.Millisecond))
	})
}

// The deadline counts from when a renewal was sent: a slow answer makes it no later.
func TestDeadlineCountsFromSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, lock.EngineOptions{})
		p.oneStore.Delay(locktest.Grant, 500*time.Millisecond)
		start := time.Now()
		l := acquire(t, p.one, lock.Options{TTL: 2 * time.Second})
		require.Equal(t, start.Add(1900*time.Millisecond), l.Deadline())
	})
}

// An answer that comes after the deadline does not bring the lease back.
func TestLateRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, lock.EngineOptions{})
		l := acquire(t, p.one, lock.Options{TTL: time.Second})
		p.oneStore.Delay(locktest.Renew, 900*time.Millisecond) // sent at 333 ms, answered at 1.233 s
		start := time.Now()
		<-l.Done()
		require.Equal(t, 900*time.Millisecond, time.Since(start))
		time.Sleep(5 * time.Second)
		require.False(t, l.Valid())
		require.ErrorIs(t, l.Err(), lock.ErrExpired)
		_, err := p.two.TryAcquire(background, "job", lock.Options{})
		require.NoError(t, err, "what the late renewal has kept was given back")
	})
}

// A backend that grants more than was asked for, as etcd does, is taken at its word.
func TestGrantedTTLCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := lock.New(&generous{local.New(nil)}, lock.EngineOptions{Instance: "one"})
		defer e.Close()
		start := time.Now()
		l := acquire(t, e, lock.Options{TTL: time.Second})
		require.Equal(t, start.Add(4*time.Second-200*time.Millisecond), l.Deadline())
	})
}

// generous grants four times the TTL.
type generous struct{ *local.Store }

func (g *generous) Grant(ctx context.Context, c lock.Claim) (lock.Grant, error) {
	asked := c.TTL
	c.TTL *= 4
	granted, err := g.Store.Grant(ctx, c)
	granted.Granted, granted.TTL = c.TTL, asked
	return granted, err
}

// The process was paused beyond its deadline: no timer has run yet, and Valid knows.
func TestValidAfterPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		e := lock.New(local.New(now), lock.EngineOptions{Instance: "one", Now: now})
		defer e.Close()
		l := acquire(t, e, lock.Options{})
		require.True(t, l.Valid())
		ahead.Store(int64(1900 * time.Millisecond))
		require.False(t, l.Valid())
		require.NoError(t, l.Err(), "nothing has run yet")
		<-l.Done() // what runs next must not renew it
		require.ErrorIs(t, l.Err(), lock.ErrExpired)
	})
}

// The backend is gone for a minute and more: the lease ends in time, waiting goes on, and
// soon after the return somebody has the lock.
func TestBackendGoneForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, fault := range []locktest.Fault{locktest.Cut, locktest.Stall} {
			p := newPair(t, lock.EngineOptions{})
			l := acquire(t, p.one, lock.Options{})
			gone := time.Now()
			p.oneStore.SetAll(fault)
			p.twoStore.SetAll(fault)
			<-l.Done()
			require.LessOrEqual(t, time.Since(gone), 2*time.Second)
			acquired := make(chan lock.Lease, 1)
			go func() { acquired <- acquire(t, p.two, lock.Options{}) }()
			time.Sleep(time.Minute)
			require.Empty(t, acquired)
			back := time.Now()
			p.oneStore.SetAll(locktest.None)
			p.twoStore.SetAll(locktest.None)
			l = <-acquired
			require.Less(t, time.Since(back), 1800*time.Millisecond)
			require.NoError(t, l.Release(background))
			require.NoError(t, p.one.Close())
			require.NoError(t, p.two.Close())
		}
	})
}

// A lock that is acquired while the engine closes is given back, by a call that is bounded
// as any other.
func TestCloseOvertakesAnAcquisition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := locktest.NewFaulty(local.New(nil))
		e := lock.New(store, lock.EngineOptions{Instance: "one"})
		acquire(t, e, lock.Options{TTL: 10 * time.Second})
		store.Set(locktest.Stall, locktest.Release)
		store.Delay(locktest.Grant, 500*time.Millisecond)
		overtaken := make(chan error, 1)
		go func() {
			_, err := e.Acquire(background, "another", lock.Options{TTL: 10 * time.Second})
			overtaken <- err
		}()
		synctest.Wait()
		start := time.Now()
		require.Error(t, e.Close()) // the first lock is not given back either
		require.ErrorIs(t, <-overtaken, lock.ErrClosed)
		require.Equal(t, time.Second, time.Since(start))
		require.Greater(t, store.Calls(locktest.Release), 1)
	})
}

func TestOptions(t *testing.T) {
	p := newPair(t, lock.EngineOptions{})
	for _, test := range []struct {
		name    string
		options lock.Options
		want    string
	}{
		{"job", lock.Options{TTL: 299 * time.Millisecond}, "TTL 299ms is too short, use 300ms or more"},
		{"job", lock.Options{TTL: -time.Second}, "too short"},
		{"job", lock.Options{RenewEvery: 1001 * time.Millisecond}, "RenewEvery 1.001s must be between 0 and half of the TTL 2s"},
		{"job", lock.Options{RenewEvery: -1}, "RenewEvery"},
		{"", lock.Options{}, "a lock needs a name"},
	} {
		_, err := p.one.TryAcquire(background, test.name, test.options)
		require.ErrorContains(t, err, test.want)
	}
	l, err := p.one.TryAcquire(background, "job", lock.Options{RenewEvery: 10 * time.Millisecond})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return p.oneStore.Calls(locktest.Renew) > 3 }, 5*time.Second, time.Millisecond)
	require.NoError(t, l.Release(background))
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		m, err := lock.NewMetrics(reg)
		require.NoError(t, err)
		_, err = lock.NewMetrics(reg)
		require.ErrorContains(t, err, "registering the metrics of locks")
		p := newPair(t, lock.EngineOptions{Metrics: m})
		labels := prometheus.Labels{"kind": "local", "lock": "job"}
		value := func(name string, more ...string) float64 {
			t.Helper()
			with := prometheus.Labels{}
			for k, v := range labels {
				with[k] = v
			}
			for i := 0; i < len(more); i += 2 {
				with[more[i]] = more[i+1]
			}
			return sample(t, reg, name, with)
		}
		other := acquire(t, p.two, lock.Options{})
		_, err = p.one.TryAcquire(background, "job", lock.Options{})
		require.ErrorIs(t, err, lock.ErrHeld)
		require.Equal(t, 1., value("dlock_contention_total"))
		require.Equal(t, 0., value("dlock_held"))
		require.Equal(t, 1., value("dlock_holder_info", "holder", "two"))
		require.Equal(t, 1., value("dlock_acquire_duration_seconds", "outcome", "held"))
		require.NoError(t, other.Release(background))

		l := acquire(t, p.one, lock.Options{})
		require.Equal(t, 1., value("dlock_held"))
		require.Equal(t, 2., value("dlock_fencing_token"))
		require.Equal(t, 1., value("dlock_holder_info", "holder", "one"))
		require.Equal(t, 2., value("dlock_transitions_total"))
		require.Equal(t, 1., value("dlock_wait_seconds"))
		require.InDelta(t, 1.9, value("dlock_deadline_remaining_seconds"), 1e-6)
		time.Sleep(time.Second)
		require.Equal(t, 1., value("dlock_renewals_total"))
		require.Equal(t, 1., value("dlock_renewal_duration_seconds"))
		p.oneStore.Set(locktest.Cut, locktest.Renew)
		<-l.Done()
		require.Positive(t, value("dlock_renewal_failures_total", "reason", "error"))
		require.Equal(t, 1., value("dlock_lost_total", "reason", "expired"))
		require.Equal(t, 0., value("dlock_lost_total", "reason", "gone"))
		require.Equal(t, 0., value("dlock_held"))
		require.Equal(t, 1., value("dlock_held_duration_seconds"))
		require.Zero(t, promtest.CollectAndCount(reg, "dlock_deadline_remaining_seconds", "dlock_holder_info"))
		p.oneStore.Set(locktest.None, locktest.Renew)

		l = acquire(t, p.one, lock.Options{})
		p.oneStore.Set(locktest.Cut, locktest.Release)
		ctx, cancel := context.WithTimeout(background, 10*time.Millisecond)
		defer cancel()
		require.Error(t, l.Release(ctx))
		require.Equal(t, 1., value("dlock_release_failures_total"))

		f := lock.NewFence("log", m)
		require.True(t, f.Accept("job", 2))
		require.False(t, f.Accept("job", 1))
		labels = prometheus.Labels{"resource": "log"}
		require.Equal(t, 1., value("dlock_fencing_rejections_total"))
	})
}

// sample is the value of one sample, or the count of a histogram.
func sample(t *testing.T, g prometheus.Gatherer, name string, labels prometheus.Labels) float64 {
	t.Helper()
	families, err := g.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			matches := len(m.Label) == len(labels)
			for _, l := range m.Label {
				matches = matches && labels[l.GetName()] == l.GetValue()
			}
			if matches {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	require.FailNow(t, "no such sample", "%s%v", name, labels)
	return 0
}

func TestSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		recorder := tracetest.NewSpanRecorder()
		provider := trace.NewTracerProvider(trace.WithSpanProcessor(recorder))
		p := newPair(t, lock.EngineOptions{Tracer: provider.Tracer("test")})
		ctx, parent := provider.Tracer("test").Start(background, "parent")
		l, err := p.one.Acquire(ctx, "job", lock.Options{})
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		require.NoError(t, l.Release(ctx))
		require.Equal(t, []string{"dlock.acquire", "dlock.release"}, names(recorder), "renewals that go well leave no span")
		l, err = p.one.Acquire(ctx, "job", lock.Options{})
		require.NoError(t, err)
		p.oneStore.Delay(locktest.Renew, 200*time.Millisecond)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, "dlock.renew", names(recorder)[3], "a slow one does")
		p.oneStore.Delay(locktest.Renew, 0)
		p.oneStore.SetAll(locktest.Cut)
		<-l.Done()
		synctest.Wait()
		parent.End()
		var lost int
		for _, s := range recorder.Ended() {
			if s.Name() == "parent" {
				continue
			}
			require.Equal(t, parent.SpanContext().SpanID(), s.Parent().SpanID(), s.Name())
			for _, e := range s.Events() {
				if e.Name == "dlock.lost" {
					lost++
				}
			}
		}
		require.Equal(t, 1, lost)
		p.oneStore.SetAll(locktest.None)
	})
}

func names(r *tracetest.SpanRecorder) []string {
	var list []string
	for _, s := range r.Ended() {
		list = append(list, s.Name())
	}
	return list
}

func TestFence(t *testing.T) {
	m, err := lock.NewMetrics(nil)
	require.NoError(t, err)
	f := lock.NewFence("log", m)
	require.True(t, f.Accept("a", 0), "no token was seen yet")
	require.True(t, f.Accept("a", 5))
	require.True(t, f.Accept("a", 5), "the same holder again")
	require.False(t, f.Accept("a", 4))
	require.False(t, f.Accept("a", 0))
	require.True(t, f.Accept("b", 1), "names do not know each other")
	require.True(t, f.Accept("a", 6))
	require.Equal(t, uint64(6), f.Highest("a"))
	f.Reset("a")
	require.Zero(t, f.Highest("a"))
	require.True(t, f.Accept("a", 1))
}

// A backend that refuses for good says why, with each error of the last attempt.
func TestErrorsSayWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, lock.EngineOptions{})
		p.oneStore.Set(locktest.Cut, locktest.Grant, locktest.Find)
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		_, err := p.one.Acquire(ctx, "job", lock.Options{})
		require.EqualError(t, err, `acquire lock "job" (local): context deadline exceeded; the last attempt: injected fault`)
		require.True(t, errors.Is(err, context.DeadlineExceeded) && errors.Is(err, locktest.ErrInjected))
	})
}
