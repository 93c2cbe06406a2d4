package postgres_test

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/postgres"
)

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func idle(t *testing.T, tab *table) {
	p := primary(t, nil)
	r := replica(t, p, "r1")
	w := watch(t, p, r)
	w.settle(t, p, r)
	err := w.lagIs(t, r, 20*time.Second, none)
	tab.row(t, "01 idle for 20 s", w, p, r, "0", err)
	v := w.view(r)
	require.Equal(t, probe.SourceReplica, v.Lag.Source)
	require.Equal(t, probe.Some(true), v.Reading.LinkUp)
	require.Equal(t, probe.Some(false), v.Reading.ApplyPaused)
	require.Equal(t, probe.Some(time.Duration(0)), v.Reading.ApplyDelay)
	require.Equal(t, p.Addr, w.Snapshot().Primary)
	require.Equal(t, 1, w.Snapshot().Primaries)
	require.Equal(t, 100, v.Weight)
	require.Zero(t, v.RoleChanges)
}

func replayPaused(t *testing.T, tab *table) {
	p := primary(t, nil)
	r := replica(t, p, "r1")
	w := watch(t, p, r)
	w.settle(t, p, r)

	r.Exec(t, "SELECT pg_wal_replay_pause()")
	w.await(t, r, "paused", 3*time.Second, func(v probe.TargetView) bool { return v.Reading != nil && v.Reading.ApplyPaused.Value })
	err := w.lagIs(t, r, 3*time.Second, none)
	tab.row(t, "02 replay paused, nothing missing", w, p, r, "0", err)

	change := write(t, p)
	err = w.lagIs(t, r, 5*time.Second, since(change))
	tab.row(t, "03 replay paused, one write missing", w, p, r, seconds(time.Since(change)), err)
	require.Positive(t, w.view(r).Lag.Distance)

	for range 6 { // further writes do not make the oldest one younger
		write(t, p)
		err = max(err, w.lagIs(t, r, 500*time.Millisecond, since(change)))
	}
	tab.row(t, "04 replay paused, further writes", w, p, r, seconds(time.Since(change)), err)

	w.await(t, r, "circuit open beyond max_lag", 15*time.Second, func(v probe.TargetView) bool { return v.Circuit == probe.CircuitOpen && v.Weight == 0 })
	choice := w.Snapshot().Replicas(probe.Criteria{})
	require.Len(t, choice, 1)
	require.True(t, choice[0].Primary, "all replicas are out: the primary stands in")

	r.Exec(t, "SELECT pg_wal_replay_resume()")
	w.awaitSteady(t, r)
	w.await(t, r, "circuit closed after good probes", 5*tick, func(v probe.TargetView) bool { return v.Circuit == probe.CircuitClosed })
	w.lagIs(t, r, time.Second, none)
}

// conflict: a query on the replica holds a lock that replay needs.
func conflict(t *testing.T, tab *table) {
	p := primary(t, nil)
	r := replica(t, p, "r1")
	w := watch(t, p, r)
	w.settle(t, p, r)
	reader := r.Conn(t)
	_, err := reader.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t")
	require.NoError(t, err)
	change := time.Now()
	p.Exec(t, "ALTER TABLE t ADD COLUMN x int")
	off := w.lagIs(t, r, 5*time.Second, since(change))
	tab.row(t, "05 replay waits for a lock on the replica", w, p, r, seconds(time.Since(change)), off)
	require.Equal(t, probe.Some(false), w.view(r).Reading.ApplyPaused)
	_, err = reader.Exec(t.Context(), "COMMIT")
	require.NoError(t, err)
	w.awaitSteady(t, r)
}

func receiverHung(t *testing.T, tab *table) {
	p := primary(t, nil)
	r := replica(t, p, "r1")
	w := watch(t, p, r)
	w.settle(t, p, r)
	resume := r.PauseReceiver(t)
	err := w.lagIs(t, r, 2*time.Second, none)
	change := write(t, p)
	err = max(err, w.lagIs(t, r, 6*time.Second, since(change)))
	tab.row(t, "06 receiver hung", w, p, r, seconds(time.Since(change)), err)
	resume()
	w.awaitSteady(t, r)
}

func stalledLink(t *testing.T, tab *table) {
	p := primary(t, nil)
	proxy := testutil.StartProxy(t, p.Addr)
	r := p.StartReplica(t, testutil.PostgresOptions{
		Name: "r1", Via: proxy.Address(),
		Settings: map[string]string{"wal_receiver_timeout": "4s"},
	})
	w := watch(t, p, r)
	w.settle(t, p, r)
	proxy.Set(testutil.Network{HalfOpen: true})
	change := write(t, p)
	err := w.lagIs(t, r, 3*time.Second, since(change))
	tab.row(t, "07 link stalled, not noticed yet", w, p, r, seconds(time.Since(change)), err)
	w.await(t, r, "link down after the engine's timeout", 8*time.Second, func(v probe.TargetView) bool {
		return v.Reading != nil && v.Reading.LinkUp == probe.Some(false)
	})
	err = w.lagIs(t, r, 2*time.Second, since(change))
	tab.row(t, "08 link stalled, noticed", w, p, r, seconds(time.Since(change)), err)
	proxy.Set(testutil.Network{})
	proxy.CutAll()
	w.awaitSteady(t, r)
	require.Equal(t, probe.Some(true), w.view(r).Reading.LinkUp)
}

func delayedApply(t *testing.T, tab *table) {
	p := primary(t, nil)
	r := p.StartReplica(t, testutil.PostgresOptions{Name: "r1", Settings: map[string]string{"recovery_min_apply_delay": "5s"}})
	w := watch(t, p, r)
	w.awaitSteady(t, r)
	var writing sync.WaitGroup
	done, first := make(chan struct{}), make(chan time.Time, 1)
	conn := p.Conn(t)
	writing.Go(func() {
		for ticker := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-done:
				ticker.Stop()
				return
			case <-ticker.C:
				if _, err := conn.Exec(t.Context(), "UPDATE t SET v = v + 1 WHERE id = 10"); err == nil {
					select {
					case first <- time.Now():
					default:
					}
				}
			}
		}
	})
	defer writing.Wait()
	defer close(done)
	change := <-first
	off := w.lagIs(t, r, 4500*time.Millisecond, since(change))
	time.Sleep(1500 * time.Millisecond) // the truth now turns from rising to steady
	off = max(off, w.lagIs(t, r, 5*time.Second, steady(5*time.Second)))
	tab.row(t, "09 delayed apply of 5 s, steady writes", w, p, r, "5.0 s", off)
	require.Equal(t, probe.Some(5*time.Second), w.view(r).Reading.ApplyDelay)
	lag, known := w.Lag()
	require.True(t, known)
	require.LessOrEqual(t, lag, within, "what is delayed on purpose does not steer")
}

func replicaFrozen(t *testing.T, tab *table) {
	p := primary(t, map[string]string{"wal_sender_timeout": "9s"})
	r := replica(t, p, "r1")
	other := replica(t, p, "r2")
	w := watch(t, p, r, other)
	w.settle(t, p, r, other)
	r.Pause(t)
	frozen := time.Now()
	change := write(t, p)
	err := w.lagIs(t, r, 6*time.Second, since(change))
	tab.row(t, "10 replica frozen, the primary has its row", w, p, r, seconds(time.Since(change)), err)
	v := w.view(r)
	require.Equal(t, probe.SourcePrimary, v.Lag.Source)
	require.False(t, v.Success)
	require.Zero(t, v.Weight, "who does not answer is not read from")
	w.await(t, r, "unknown when the row is gone", 15*time.Second, func(v probe.TargetView) bool { return v.Lag.Unknown == probe.ReasonUnreachable })
	require.Greater(t, time.Since(frozen), 6*time.Second)
	w.lagUnknown(t, r, 2*time.Second, probe.ReasonUnreachable)
	tab.row(t, "11 replica frozen, the row is gone", w, p, r, seconds(time.Since(change))+", not knowable", 0)
	w.lagIs(t, other, time.Second, none)
	require.Len(t, w.log.lines("probe of a database failed"), 1, "one line for one change")
	r.Resume(t)
	w.awaitSteady(t, r)
	require.Len(t, w.log.lines("does well again"), 1)
}

func cascade(t *testing.T, tab *table) {
	p := primary(t, nil)
	middle := replica(t, p, "middle")
	middle.AwaitReplay(t, p)
	leaf := replica(t, middle, "leaf")
	w := watch(t, leaf, middle, p)
	w.settle(t, p, middle, leaf)
	middle.Exec(t, "SELECT pg_wal_replay_pause()")
	w.await(t, middle, "paused", 3*time.Second, func(v probe.TargetView) bool { return v.Reading != nil && v.Reading.ApplyPaused.Value })
	change := write(t, p)
	var both sync.WaitGroup
	var off, offLeaf time.Duration
	both.Go(func() { offLeaf = w.lagIs(t, leaf, 4*time.Second, none) })
	off = w.lagIs(t, middle, 4*time.Second, since(change))
	both.Wait()
	tab.row(t, "12 cascade, the middle is paused: the middle", w, p, middle, seconds(time.Since(change)), off)
	tab.row(t, "13 cascade, the middle is paused: the leaf", w, middle, leaf, "0", offLeaf)

	// The leaf does not answer: the middle tells where it is.
	leaf.Pause(t)
	change = write(t, p)
	w.await(t, leaf, "the middle's row", 4*tick, func(v probe.TargetView) bool { return v.Lag.Source == probe.SourcePrimary })
	w.lagIs(t, leaf, 2*time.Second, since(change))
	leaf.Resume(t)
	middle.Exec(t, "SELECT pg_wal_replay_resume()")
	w.awaitSteady(t, middle, leaf)
}

func primaryFrozen(t *testing.T, tab *table) {
	p := primary(t, nil)
	r := replica(t, p, "r1")
	w := watch(t, p, r)
	w.settle(t, p, r)
	p.Pause(t)
	frozen := time.Now()
	w.await(t, r, "unknown", 6*tick, func(v probe.TargetView) bool { return v.Lag.Unknown == probe.ReasonPrimaryUnknown })
	require.Less(t, time.Since(frozen), 5*tick, "three ticks, and the one in which it happened")
	w.lagUnknown(t, r, 2*time.Second, probe.ReasonPrimaryUnknown)
	tab.row(t, "14 primary frozen", w, nil, r, "not knowable", 0)
	_, known := w.Lag()
	require.False(t, known)
	require.Empty(t, w.Snapshot().Replicas(probe.Criteria{}))
	p.Resume(t)
	w.awaitSteady(t, r)
	p.Kill(t)
	w.await(t, r, "unknown", 6*tick, func(v probe.TargetView) bool { return v.Lag.Unknown == probe.ReasonPrimaryUnknown })
	p.Restart(t)
	w.awaitSteady(t, r)
}

// promotion, and the old primary coming back.
func promotion(t *testing.T, tab *table) {
	p := primary(t, nil)
	r1, r2 := replica(t, p, "r1"), replica(t, p, "r2")
	w := watch(t, p, r1, r2)
	w.awaitSteady(t, r1, r2)
	write(t, p)
	r1.AwaitReplay(t, p)
	r2.AwaitReplay(t, p)
	p.Kill(t)
	r1.Promote(t)
	promoted := time.Now()
	w.await(t, r1, "known as primary", 5*time.Second, func(v probe.TargetView) bool { return v.Role == probe.RolePrimary && v.Head })
	t.Logf("known as primary %v after pg_promote", time.Since(promoted).Round(time.Millisecond))
	require.Equal(t, uint64(1), w.view(r1).RoleChanges)
	require.Equal(t, uint64(2), w.view(r1).Reading.Generation)
	write(t, r1)
	w.lagUnknown(t, r2, 2*time.Second, probe.ReasonOtherHistory)
	tab.row(t, "15 promotion, this one has not followed", w, r1, r2, "on an old history", 0)

	// It follows the new primary: no spike on the way.
	host, port, err := net.SplitHostPort(r1.Addr)
	require.NoError(t, err)
	r2.Exec(t, fmt.Sprintf("ALTER SYSTEM SET primary_conninfo = 'host=%s port=%s user=postgres application_name=r2'", host, port),
		"ALTER SYSTEM SET primary_slot_name = ''", "SELECT pg_reload_conf()")
	w.await(t, r2, "follows", 20*time.Second, func(v probe.TargetView) bool {
		require.LessOrEqual(t, v.Lag.Age, 3*time.Second, "a spike")
		return v.Lag.Known() && v.Lag.Age == 0
	})
	off := w.lagIs(t, r2, 2*time.Second, none)
	tab.row(t, "16 promotion, this one follows", w, r1, r2, "0", off)

	p.Restart(t)
	w.await(t, p, "seen again", 5*time.Second, func(v probe.TargetView) bool { return v.Role == probe.RolePrimary })
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(look) {
		s := w.Snapshot()
		require.Equal(t, 2, s.Primaries)
		require.Equal(t, r1.Addr, s.Primary, "the higher timeline wins")
		require.LessOrEqual(t, w.view(r2).Lag.Age, tick)
		require.True(t, w.view(r2).Lag.Known())
	}
	require.Len(t, w.log.lines("several databases"), 1)
	require.Zero(t, w.view(p).RoleChanges, "it never was anything else")
	change := write(t, p) // a write to the wrong one
	w.lagIs(t, r2, time.Second, none)
	require.False(t, change.IsZero())
}

// replicaNeverSeen: a target that is configured and not there disturbs nobody.
func replicaNeverSeen(t *testing.T, _ *table) {
	p := primary(t, nil)
	r := replica(t, p, "r1")
	nobody := testutil.FreeAddress(t)
	w := watchConfig(t, postgres.Config{Targets: []postgres.Target{
		{DSN: postgres.DSN(p.DSN("probe"))}, {DSN: postgres.DSN(r.DSN("probe"))}, {DSN: postgres.DSN("postgres://probe@" + nobody + "/postgres")},
	}})
	w.awaitSteady(t, r)
	require.Eventually(t, func() bool { return w.Snapshot().Targets[2].Probed }, 5*time.Second, look)
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(look) {
		s := w.Snapshot()
		require.LessOrEqual(t, s.Targets[1].Lag.Age, tick)
		require.Equal(t, probe.ReasonUnreachable, s.Targets[2].Lag.Unknown)
		require.Zero(t, s.Targets[2].Weight)
		choice := s.Replicas(probe.Criteria{})
		require.Len(t, choice, 1)
		require.Equal(t, r.Addr, choice[0].Target)
	}
	lines := w.log.lines("probe of a database failed")
	require.Len(t, lines, 1)
	require.Contains(t, lines[0], "connection refused")
}
