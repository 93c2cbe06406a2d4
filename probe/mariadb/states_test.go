package mariadb_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/probetest"
)

const erDuplicateKey = 1062

func noLag(v *probe.TargetView) bool { return v.Lag.Known() && v.Lag.Age < probetest.Tolerance }

// The states of an applier that does not apply, one after another.
func TestApplierStates(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	replica := p.replica.Addr

	stop := probetest.Every(t, 50*time.Millisecond, func() { p.write(t) })
	p.watch.Holds(t, replica, 2*time.Second, noLag)
	stop()

	// Stopped, while the primary is written to on and on.
	p.replica.Exec(t, "STOP SLAVE SQL_THREAD")
	since := time.Now()
	stop = probetest.Every(t, 50*time.Millisecond, func() { p.write(t) })
	p.watch.HoldsLag(t, replica, since, 3*time.Second)
	p.compare(t, "applier stopped, writes go on", time.Since(since))
	v := p.watch.View(t, replica)
	require.Equal(t, probe.Some(false), v.Reading.ApplierRunning)
	require.Equal(t, probe.Some(true), v.Reading.ApplyPaused)
	require.Equal(t, probe.Some(true), v.Reading.LinkUp)
	require.Greater(t, v.Lag.Distance, uint64(10), "transactions")
	received, known := v.Lag.ReceiveDistance.Get()
	require.True(t, known)
	require.Less(t, received, v.Lag.Distance)
	stop()
	p.replica.Exec(t, "START SLAVE SQL_THREAD")
	p.watch.AwaitNoLag(t, replica)

	// Stopped, with one write and silence afterwards.
	p.replica.Exec(t, "STOP SLAVE SQL_THREAD")
	p.watch.Holds(t, replica, time.Second, noLag)
	since = p.write(t)
	p.watch.HoldsLag(t, replica, since, 3*time.Second)
	p.compare(t, "applier stopped, one write", time.Since(since))
	p.replica.Exec(t, "START SLAVE SQL_THREAD")
	p.watch.AwaitNoLag(t, replica)

	// A table lock on the replica: both threads run.
	lock := p.replica.Conn(t)
	lock.Exec(t, "LOCK TABLE app.t READ")
	since = p.write(t)
	p.watch.HoldsLag(t, replica, since, 3*time.Second)
	p.compare(t, "table lock on the replica", time.Since(since))
	v = p.watch.View(t, replica)
	require.Equal(t, probe.Some(true), v.Reading.ApplierRunning)
	require.Equal(t, probe.Some(uint64(1)), v.Reading.Locks.MetadataWaiting, "the applier waits")
	lock.Close()
	p.watch.AwaitNoLag(t, replica)

	// An error.
	local := p.replica.Conn(t)
	local.Exec(t, "SET sql_log_bin=0")
	local.Exec(t, "INSERT INTO app.t VALUES (1000000, 0)")
	p.primary.Exec(t, "INSERT INTO app.t VALUES (1000000, 0)")
	since = time.Now()
	p.watch.HoldsLag(t, replica, since, 3*time.Second)
	p.compare(t, "applier stopped by an error", time.Since(since))
	v = p.watch.View(t, replica)
	require.Equal(t, uint64(erDuplicateKey), v.Reading.Errors["sql"])
	require.Equal(t, uint64(0), v.Reading.Errors["io"])
	require.Equal(t, probe.Some(false), v.Reading.ApplierRunning)
	require.Equal(t, probe.Some(false), v.Reading.ApplyPaused, "nobody paused it")
	local.Exec(t, "DELETE FROM app.t WHERE id = 1000000")
	local.Close()
	p.replica.Exec(t, "START SLAVE SQL_THREAD")
	p.watch.AwaitNoLag(t, replica)

	// A delay on purpose.
	p.replica.Exec(t, "STOP SLAVE", "CHANGE MASTER TO MASTER_DELAY=5", "START SLAVE")
	stop = probetest.Every(t, 50*time.Millisecond, func() { p.write(t) })
	p.watch.Await(t, 10*time.Second, replica, func(v *probe.TargetView) bool { return v.Lag.Age > 4500*time.Millisecond })
	// The server counts in whole seconds: the truth is between 5 and 6 s.
	p.watch.Holds(t, replica, 4*time.Second, func(v *probe.TargetView) bool {
		return v.Lag.Known() && v.Lag.Age > 5*time.Second-probetest.Tolerance && v.Lag.Age < 6*time.Second+probetest.Tolerance &&
			v.Reading.ApplyDelay == probe.Some(5*time.Second)
	})
	p.compare(t, "delay of 5 s on purpose", 5*time.Second)
	stop()
}

// The states of a link or a server that does not answer.
func TestLinkStates(t *testing.T) {
	t.Parallel()
	p := startPair(t, "--slave-net-timeout=4")
	replica := p.replica.Addr

	p.watch.Holds(t, replica, 20*time.Second, noLag) // an idle primary
	p.compare(t, "idle for 20 s", 0)

	// A network that swallows everything: the engine notices after its timeout.
	p.link.Set(testutil.Network{HalfOpen: true})
	since := p.write(t)
	require.Equal(t, probe.Some(true), p.watch.View(t, replica).Reading.LinkUp)
	p.watch.HoldsLag(t, replica, since, 3*time.Second)
	p.compare(t, "link swallows everything", time.Since(since))
	p.watch.Await(t, 10*time.Second, replica, func(v *probe.TargetView) bool { return v.Reading.LinkUp == probe.Some(false) })
	p.watch.HoldsLag(t, replica, since, time.Second)
	p.link.Set(testutil.Network{})
	p.link.CutAll()
	p.watch.AwaitNoLag(t, replica)
	p.watch.Await(t, 10*time.Second, replica, func(v *probe.TargetView) bool { return v.Reading.LinkUp == probe.Some(true) })

	// The receiver stopped.
	p.replica.Exec(t, "STOP SLAVE IO_THREAD")
	since = p.write(t)
	p.watch.HoldsLag(t, replica, since, 3*time.Second)
	p.compare(t, "receiver stopped", time.Since(since))
	require.Equal(t, probe.Some(false), p.watch.View(t, replica).Reading.LinkUp)
	require.Equal(t, probe.Some(true), p.watch.View(t, replica).Reading.ApplierRunning)
	p.replica.Exec(t, "START SLAVE IO_THREAD")
	p.watch.AwaitNoLag(t, replica)

	// A frozen replica: MariaDB's primary does not know its position.
	p.replica.Pause(t)
	p.write(t)
	p.watch.Await(t, 5*time.Second, replica, func(v *probe.TargetView) bool { return v.Lag.Unknown == probe.ReasonUnreachable })
	p.watch.Holds(t, replica, time.Second, func(v *probe.TargetView) bool { return !v.Lag.Known() && v.Weight == 0 })
	p.replica.Resume(t)
	p.watch.AwaitNoLag(t, replica)

	// A frozen primary: nobody knows.
	p.primary.Pause(t)
	frozen := time.Now()
	p.watch.Await(t, 5*time.Second, replica, func(v *probe.TargetView) bool { return v.Lag.Unknown == probe.ReasonPrimaryUnknown })
	require.Less(t, time.Since(frozen), 3*probetest.Tick+probetest.Tolerance)
	p.primary.Resume(t)
	p.watch.AwaitNoLag(t, replica)
}

// A failover, and the old primary's return.
func TestFailover(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	for range 20 {
		p.write(t)
	}
	p.catchUp(t)
	p.primary.Pause(t)
	p.replica.Exec(t, "STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only=0")
	promoted := time.Now()
	p.watch.Await(t, 5*time.Second, p.replica.Addr, func(v *probe.TargetView) bool { return v.Role == probe.RolePrimary && v.Head })
	require.Less(t, time.Since(promoted), 5*time.Second)
	require.Equal(t, uint64(1), p.watch.View(t, p.replica.Addr).RoleChanges)
	p.replica.Exec(t, "INSERT INTO app.t VALUES (2000000, 0)")

	// Back, and it believes that nothing happened.
	p.primary.Signal(t, syscall.SIGCONT)
	p.watch.Await(t, 5*time.Second, p.primary.Addr, func(v *probe.TargetView) bool { return v.Success && p.watch.Snapshot().Primaries == 2 })
	require.Equal(t, p.replica.Addr, p.watch.Snapshot().Primary, "the one that was promoted counts")

	// As a replica of the new one it has no lag but the change it lacks, and no spike.
	p.primary.Exec(t, "SET GLOBAL gtid_slave_pos=@@GLOBAL.gtid_binlog_pos")
	p.primary.Follow(t, p.replica.Addr)
	p.watch.Await(t, 10*time.Second, p.primary.Addr, func(v *probe.TargetView) bool { return v.Role == probe.RoleReplica })
	p.watch.AwaitNoLag(t, p.primary.Addr)
	stop := probetest.Every(t, 50*time.Millisecond, func() {
		if _, err := p.replica.DB().ExecContext(t.Context(), "UPDATE app.t SET v = v + 1 WHERE id = 1"); err != nil {
			t.Errorf("write to the new primary: %v", err)
		}
	})
	p.watch.Holds(t, p.primary.Addr, 2*time.Second, noLag)
	stop()
	require.Equal(t, 1, p.watch.Snapshot().Primaries)
	require.Equal(t, uint64(1), p.watch.View(t, p.primary.Addr).RoleChanges)
}
