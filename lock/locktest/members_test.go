package locktest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/etcd"
	"github.com/sluice-metrics/sluice/lock/redis"
	"github.com/sluice-metrics/sluice/lock/redlock"
)

// The leader of etcd is stopped or killed: with the documented settings (heartbeat 50 ms,
// election timeout 500 ms) a lease of 2 s lives through the election.
func TestLeaderLost(t *testing.T) {
	t.Parallel()
	members := testutil.StartEtcd(t, testutil.EtcdOptions{Members: 3})
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	p := place{etcd.Kind, members.Endpoints()}
	e := p.engine(t, "holder")
	for _, fault := range []struct {
		name   string
		strike func(*testutil.EtcdMember)
		mend   func(*testutil.EtcdMember)
	}{
		{"stopped", func(m *testutil.EtcdMember) { m.Pause(t) }, func(m *testutil.EtcdMember) { m.Resume(t) }},
		{"killed", func(m *testutil.EtcdMember) { m.Kill() }, func(m *testutil.EtcdMember) { m.Restart(t) }},
		{"stopped again", func(m *testutil.EtcdMember) { m.Pause(t) }, func(m *testutil.EtcdMember) { m.Resume(t) }},
	} {
		survived := false
		for attempt := 1; !survived; attempt++ {
			l, err := e.Acquire(ctx, "job", lock.Options{})
			require.NoError(t, err)
			leader := members.Leader(t)
			fault.strike(leader)
			start, left := time.Now(), time.Until(l.Deadline())
			writes := writesAgain(ctx, members)
			least := left
			for time.Since(start) < 4*time.Second && l.Err() == nil {
				least = min(least, time.Until(l.Deadline()))
				time.Sleep(time.Millisecond) // the least is looked for: a deadline tells nobody that it moved
			}
			election := <-writes
			survived = l.Err() == nil
			t.Logf("leader %s: etcd wrote again after %v; the lease ended: %v; left at first %v, at the least %v",
				fault.name, election.Round(time.Millisecond), !survived, left.Round(time.Millisecond), least.Round(time.Millisecond))
			// How long etcd takes to elect a leader is its own, and on a busy machine a matter
			// of luck: longer than the lease lasts without a renewal, it cannot live.
			if !survived {
				require.Greater(t, election+renewal, left, "leader %s: %v", fault.name, l.Err())
				require.Less(t, attempt, 5, "no election in time")
			}
			fault.mend(leader)
			members.Leader(t)
			require.NoError(t, l.Release(ctx))
		}
	}
}

// renewal is how long it may take until a lease is renewed once its server answers again:
// an attempt that has just begun gives up after TTL / 6, and one more has to succeed.
const renewal = lock.DefaultTTL / 3

// writesAgain tells how long it takes from now until etcd takes a write.
func writesAgain(ctx context.Context, members *testutil.Etcd) <-chan time.Duration {
	begin, took := time.Now(), make(chan time.Duration, 1)
	go func() {
		for ctx.Err() == nil {
			limited, stop := context.WithTimeout(ctx, 100*time.Millisecond)
			_, err := members.Client().Put(limited, "written", "again")
			stop()
			if err == nil {
				break
			}
		}
		took <- time.Since(begin)
	}()
	return took
}

// A minority of etcd fails: nothing happens. A majority fails: the lease ends in time, and
// when it is back there is a holder soon.
func TestMajorityOfEtcdLost(t *testing.T) {
	t.Parallel()
	members := testutil.StartEtcd(t, testutil.EtcdOptions{Members: 3})
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	p := place{etcd.Kind, members.Endpoints()}
	one, two := p.engine(t, "one"), p.engine(t, "two")
	l, err := one.Acquire(ctx, "job", lock.Options{})
	require.NoError(t, err)
	followers := members.Followers(t)
	followers[0].Pause(t)
	requireHeldFor(t, l, 3*time.Second)
	followers[1].Pause(t)
	stopped := time.Now()
	<-l.Done()
	require.LessOrEqual(t, time.Since(stopped), lock.DefaultTTL)
	acquired := acquireLater(ctx, two)
	time.Sleep(time.Second) // the schedule of the fault
	require.Empty(t, acquired)
	followers[0].Resume(t)
	followers[1].Resume(t)
	resumed := time.Now()
	writes := writesAgain(ctx, members) // what of it is the election
	require.NoError(t, <-acquired)
	took, election := time.Since(resumed), <-writes
	t.Logf("a holder again %v after the majority was back; etcd wrote again after %v", took.Round(time.Millisecond), election.Round(time.Millisecond))
	// How long two members that wake up take to elect a leader is etcd's own, and on a
	// busy machine a matter of luck. What comes after it is ours.
	require.LessOrEqual(t, took-election, 500*time.Millisecond)
}

func requireHeldFor(t testing.TB, l lock.Lease, d time.Duration) {
	t.Helper()
	select {
	case <-l.Done():
		require.FailNow(t, "the lease ended", "%v", l.Err())
	case <-time.After(d):
	}
}

func TestMajorityOfRedlockLost(t *testing.T) {
	t.Parallel()
	servers := startRedis(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	p := place{redlock.Kind, addresses(servers)}
	one, two := p.engine(t, "one"), p.engine(t, "two")
	o := lock.Options{TTL: time.Second}
	l, err := one.Acquire(ctx, "job", o)
	require.NoError(t, err)
	servers[0].Pause(t)
	requireHeldFor(t, l, 2*time.Second)
	// A server that is stopped must not cost each acquisition its time-out.
	start := time.Now()
	for range 10 {
		other, err := two.Acquire(ctx, "other job", o)
		require.NoError(t, err)
		require.NoError(t, other.Release(ctx))
	}
	require.Less(t, time.Since(start), time.Second)
	servers[1].Pause(t)
	stopped := time.Now()
	<-l.Done()
	require.LessOrEqual(t, time.Since(stopped), time.Second)
	acquired := acquireLater(ctx, two)
	time.Sleep(time.Second) // the schedule of the fault
	require.Empty(t, acquired)
	servers[0].Resume(t)
	servers[1].Resume(t)
	resumed := time.Now()
	require.NoError(t, <-acquired)
	took := time.Since(resumed)
	t.Logf("a holder again %v after the majority was back", took.Round(time.Millisecond))
	require.LessOrEqual(t, took, convergence)
}

// One of three comes back without data: the majority knows the lease. All do: it is lost.
func TestRedlockWithoutData(t *testing.T) {
	t.Parallel()
	servers := startRedis(t, 3)
	e := place{redlock.Kind, addresses(servers)}.engine(t, "one")
	l, err := e.Acquire(context.Background(), "job", lock.Options{TTL: time.Second})
	require.NoError(t, err)
	servers[0].Restart(t)
	requireHeldFor(t, l, 2*time.Second)
	for _, s := range servers[1:] {
		s.Do(t, "FLUSHALL")
	}
	<-l.Done()
	require.ErrorIs(t, l.Err(), lock.ErrLost)
}

// A Redis that comes back without data counts its tokens anew: what a fence guards is
// refused until somebody says that no former holder is left.
func TestRedisWithoutData(t *testing.T) {
	t.Parallel()
	server := startRedis(t, 1)[0]
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	e := place{redis.Kind, []string{server.Addr}}.engine(t, "one")
	m, err := lock.NewMetrics(nil)
	require.NoError(t, err)
	fence := lock.NewFence("resource", m)
	var l lock.Lease
	for range 3 {
		l, err = e.Acquire(ctx, "job", lock.Options{TTL: time.Second})
		require.NoError(t, err)
		require.True(t, fence.Accept("job", l.Token()))
		if l.Token() < 3 {
			require.NoError(t, l.Release(ctx))
		}
	}
	server.Restart(t)
	<-l.Done()
	require.ErrorIs(t, l.Err(), lock.ErrLost)
	l, err = e.Acquire(ctx, "job", lock.Options{TTL: time.Second})
	require.NoError(t, err)
	require.Equal(t, uint64(1), l.Token())
	require.False(t, fence.Accept("job", l.Token()))
	fence.Reset("job")
	require.True(t, fence.Accept("job", l.Token()))
}

// The clock of a Redis jumps ahead: the key is gone, and the holder hears of it with its
// next renewal.
func TestRedisClockJumps(t *testing.T) {
	t.Parallel()
	server := startRedis(t, 1)[0]
	e := place{redis.Kind, []string{server.Addr}}.engine(t, "one")
	l, err := e.Acquire(context.Background(), "job", lock.Options{TTL: time.Second})
	require.NoError(t, err)
	require.EqualValues(t, 1, server.Do(t, "PEXPIRE", redis.DefaultPrefix+"{job}", 1))
	start := time.Now()
	<-l.Done()
	require.ErrorIs(t, l.Err(), lock.ErrLost)
	require.Less(t, time.Since(start), 600*time.Millisecond)
}
