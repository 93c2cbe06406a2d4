package redis_test

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/probetest"
)

// An idle primary, and one that is written to.
func TestSteady(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	p.watch.Holds(t, p.replica.Addr, 20*time.Second, noLag)
	p.compare(t, "idle for 20 s", 0)
	stop := probetest.Every(t, 20*time.Millisecond, func() { p.write(t) })
	p.watch.Holds(t, p.replica.Addr, 2*time.Second, noLag)
	stop()
	v := p.watch.View(t, p.primary.Addr)
	require.Equal(t, probe.Some(uint64(10000)), v.Reading.Transactions.SessionsLimit)
	require.NotZero(t, v.Reading.Transactions.Sessions[probe.StateOther], "the harness is connected")
}

// Nothing arrives at the replica, and it notices only after its timeout.
func TestStalledLink(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	p.link.Set(testutil.Network{HalfOpen: true})
	since := time.Now()
	stop := probetest.Every(t, 50*time.Millisecond, func() { p.write(t) })
	p.watch.HoldsLag(t, p.replica.Addr, since, 4*time.Second)
	p.compare(t, "link swallows everything", time.Since(since))
	require.Equal(t, probe.Some(true), p.watch.View(t, p.replica.Addr).Reading.LinkUp)
	p.watch.Await(t, 10*time.Second, p.replica.Addr, func(v *probe.TargetView) bool {
		return v.Reading.LinkUp == probe.Some(false)
	})
	p.watch.HoldsLag(t, p.replica.Addr, since, 2*time.Second)
	p.compare(t, "the same after repl-timeout", time.Since(since))
	stop()
	p.link.Set(testutil.Network{})
	p.link.CutAll()
	p.watch.AwaitNoLag(t, p.replica.Addr)
	p.watch.Await(t, 10*time.Second, p.replica.Addr, func(v *probe.TargetView) bool {
		return v.Reading.LinkUp == probe.Some(true)
	})
}

// A frozen replica: the primary knows its position until it drops it.
func TestFrozenReplica(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	// A replica tells its position once a second, or when asked, which the wait does.
	p.write(t)
	require.EqualValues(t, 1, p.primary.Do(t, "WAIT", 1, 5000))
	p.replica.Pause(t)
	since := p.write(t)
	// Probes of the replica fail after their timeout; then the primary's word counts.
	p.watch.Await(t, 8*time.Second, p.replica.Addr, func(v *probe.TargetView) bool { return v.Lag.Source == probe.SourcePrimary })
	p.watch.HoldsLag(t, p.replica.Addr, since, 2*time.Second)
	p.compare(t, "replica frozen", time.Since(since))
	p.watch.Await(t, 15*time.Second, p.replica.Addr, func(v *probe.TargetView) bool { return v.Lag.Unknown == probe.ReasonUnreachable })
	p.watch.Holds(t, p.replica.Addr, time.Second, func(v *probe.TargetView) bool { return !v.Lag.Known() && v.Weight == 0 })
	p.replica.Resume(t)
	p.watch.AwaitNoLag(t, p.replica.Addr)
	require.Equal(t, probe.SourceReplica, p.watch.View(t, p.replica.Addr).Lag.Source)
}

// A frozen primary: nobody knows.
func TestFrozenPrimary(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	p.primary.Pause(t)
	frozen := time.Now()
	p.watch.Await(t, 5*time.Second, p.replica.Addr, func(v *probe.TargetView) bool { return v.Lag.Unknown == probe.ReasonPrimaryUnknown })
	require.Less(t, time.Since(frozen), 3*probetest.Tick+probetest.Tolerance)
	p.primary.Resume(t)
	p.watch.AwaitNoLag(t, p.replica.Addr)
}

// A replica that is being given its first copy says no position.
func TestFirstCopy(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	late := testutil.StartRedis(t, testutil.RedisOptions{ReplicaOf: testutil.FreeAddress(t)})
	r, err := once(t, newProber(t, late.Addr))
	require.NoError(t, err)
	require.Equal(t, probe.RoleReplica, r.Role)
	require.Equal(t, probe.Some(false), r.LinkUp)
	require.False(t, r.Streams[0].Applied.Known)
	require.False(t, r.Streams[0].Received.Known)

	host, port, err := net.SplitHostPort(p.primary.Addr)
	require.NoError(t, err)
	late.Do(t, "REPLICAOF", host, port)
	late.AwaitLink(t)
	r, err = once(t, newProber(t, late.Addr))
	require.NoError(t, err)
	require.True(t, r.Streams[0].Applied.Known)
}

// A failover, and the old primary's return.
func TestFailover(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	for range 50 {
		p.write(t)
	}
	p.primary.Do(t, "WAIT", 1, 5000)
	p.primary.Pause(t)
	p.replica.Do(t, "REPLICAOF", "NO", "ONE")
	promoted := time.Now()
	p.watch.Await(t, 5*time.Second, p.replica.Addr, func(v *probe.TargetView) bool { return v.Role == probe.RolePrimary && v.Head })
	require.Less(t, time.Since(promoted), 5*time.Second)
	require.Equal(t, uint64(1), p.watch.View(t, p.replica.Addr).RoleChanges)

	p.primary.Resume(t)
	p.watch.Await(t, 5*time.Second, p.primary.Addr, func(v *probe.TargetView) bool { return v.Success && p.watch.Snapshot().Primaries == 2 })
	require.Equal(t, p.replica.Addr, p.watch.Snapshot().Primary, "the one that was promoted counts")

	host, port, err := net.SplitHostPort(p.replica.Addr)
	require.NoError(t, err)
	p.primary.Do(t, "REPLICAOF", host, port)
	p.watch.Await(t, 10*time.Second, p.primary.Addr, func(v *probe.TargetView) bool { return v.Role == probe.RoleReplica })
	p.watch.AwaitNoLag(t, p.primary.Addr)
	p.replica.Do(t, "SET", "after", "failover")
	p.watch.Holds(t, p.primary.Addr, 2*time.Second, noLag)
	require.Equal(t, 1, p.watch.Snapshot().Primaries)
}
