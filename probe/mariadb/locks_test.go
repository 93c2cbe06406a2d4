package mariadb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/mariadb"
	"github.com/sluice-metrics/sluice/probe/probetest"
)

func startAlone(t *testing.T) (*testutil.MariaDB, *probetest.Watch) {
	t.Helper()
	m := testutil.StartMariaDB(t, testutil.MariaDBOptions{Args: []string{"--innodb-lock-wait-timeout=60"}})
	m.Exec(t, "CREATE TABLE app.t (id INT PRIMARY KEY, v INT)", "INSERT INTO app.t VALUES (1, 0), (2, 0), (3, 0)")
	return m, probetest.Start(t, newProber(t, m.Addr))
}

// waiting is how many sessions wait for a lock on a row of the database app.
func waiting(v *probe.TargetView) (n uint64) {
	if v.Reading == nil {
		return 0
	}
	for _, w := range v.Reading.Locks.Waiting {
		if w.Database == "app" && w.Type == "record" {
			n += w.Sessions
		}
	}
	return n
}

func TestLockChain(t *testing.T) {
	t.Parallel()
	m, watch := startAlone(t)
	first, second, third := m.Conn(t), m.Conn(t), m.Conn(t)
	var waiters sync.WaitGroup
	defer waiters.Wait()
	first.Exec(t, "BEGIN")
	first.Exec(t, "UPDATE app.t SET v = 1 WHERE id = 1")
	second.Exec(t, "BEGIN")
	second.Exec(t, "UPDATE app.t SET v = 1 WHERE id = 2")
	waiters.Go(func() { _ = second.TryExec(context.Background(), "UPDATE app.t SET v = 1 WHERE id = 1") })
	third.Exec(t, "BEGIN")
	since := time.Now()
	waiters.Go(func() { _ = third.TryExec(context.Background(), "UPDATE app.t SET v = 1 WHERE id = 2") })

	watch.Await(t, 5*time.Second, m.Addr, func(v *probe.TargetView) bool { return waiting(v) == 2 && v.Graph.Depth == 2 })
	watch.Await(t, 5*time.Second, m.Addr, func(v *probe.TargetView) bool {
		oldest := v.Reading.Locks.Waiting[0].Oldest
		return oldest.Known && oldest.Value > 2*time.Second
	})
	v := watch.View(t, m.Addr)
	require.Less(t, v.Reading.Locks.Waiting[0].Oldest.Value, time.Since(since)+probetest.Tolerance)
	require.Len(t, v.Reading.Locks.Blocked, 2)
	require.Equal(t, uint64(1), v.Reading.Transactions.Sessions[probe.StateIdleInTransaction], "the first session does nothing")
	idle := v.Reading.Transactions.Oldest[probe.StateIdleInTransaction]
	require.InDelta(t, time.Since(since).Seconds(), idle.Seconds(), 1)
	require.Greater(t, v.Reading.Transactions.Oldest[probe.StateActive], 2*time.Second)

	first.Close()
	second.Close()
	third.Close()
	watch.Await(t, 5*time.Second, m.Addr, func(v *probe.TargetView) bool {
		waits, known := v.Reading.Locks.Waits.Get()
		return waiting(v) == 0 && v.Graph.Depth == 0 && known && waits >= 2 && v.Reading.Locks.WaitTime.Value > time.Second
	})
}

func TestHundredWaiters(t *testing.T) {
	t.Parallel()
	const sessions = 100
	m, watch := startAlone(t)
	holder := m.Conn(t)
	holder.Exec(t, "BEGIN")
	holder.Exec(t, "UPDATE app.t SET v = 1 WHERE id = 1")
	ctx, cancel := context.WithCancel(context.Background())
	var waiters sync.WaitGroup
	t.Cleanup(func() { cancel(); waiters.Wait() })
	for range sessions {
		waiters.Go(func() { _, _ = m.DB().ExecContext(ctx, "UPDATE app.t SET v = v + 1 WHERE id = 1") })
	}
	watch.Await(t, 20*time.Second, m.Addr, func(v *probe.TargetView) bool { return waiting(v) == sessions })

	p := newProber(t, m.Addr)
	defer p.Close()
	_, err := once(t, p) // connects
	require.NoError(t, err)
	best := time.Hour
	var r probe.Reading
	for range 5 {
		start := time.Now()
		r, err = once(t, p)
		require.NoError(t, err)
		graph := probe.Walk(r.Locks.Blocked)
		best = min(best, time.Since(start))
		require.Equal(t, 1, int(graph.Roots))
	}
	require.Len(t, r.Locks.Blocked, sessions)
	t.Logf("a probe with %d waiters on one row and its graph: %v", sessions, best)
	require.Less(t, best, 50*time.Millisecond)
}

func TestDeadlock(t *testing.T) {
	t.Parallel()
	m, watch := startAlone(t)
	watch.Await(t, 5*time.Second, m.Addr, func(v *probe.TargetView) bool { return v.Success })
	deadlocks := func(v *probe.TargetView) uint64 { return v.Reading.Locks.Deadlocks[0].Value }
	v := watch.View(t, m.Addr)
	before, rolledBack := deadlocks(&v), v.Reading.Transactions.RolledBack[0].Value
	a, b := m.Conn(t), m.Conn(t)
	for i, c := range []*testutil.MariaDBConn{a, b} {
		c.Exec(t, "BEGIN")
		c.Exec(t, fmt.Sprintf("UPDATE app.t SET v = 1 WHERE id = %d", i+1))
	}
	first := make(chan error, 1)
	go func() { first <- a.TryExec(context.Background(), "UPDATE app.t SET v = 1 WHERE id = 2") }()
	watch.Await(t, 5*time.Second, m.Addr, func(v *probe.TargetView) bool { return waiting(v) == 1 })
	second := b.TryExec(context.Background(), "UPDATE app.t SET v = 1 WHERE id = 1")
	broken := time.Now()
	firstErr := <-first
	require.True(t, (firstErr == nil) != (second == nil), "one of the two is the victim: %v, %v", firstErr, second)
	watch.Await(t, 3*time.Second, m.Addr, func(v *probe.TargetView) bool { return deadlocks(v) == before+1 })
	require.Less(t, time.Since(broken), 3*time.Second)
	v = watch.View(t, m.Addr)
	require.Greater(t, v.Reading.Transactions.RolledBack[0].Value, rolledBack)
}

func TestMetadataLock(t *testing.T) {
	t.Parallel()
	m, watch := startAlone(t)
	reader := m.Conn(t)
	reader.Exec(t, "BEGIN")
	reader.Exec(t, "SELECT * FROM app.t")
	ctx, cancel := context.WithCancel(context.Background())
	altered := make(chan error, 1)
	go func() {
		_, err := m.DB().ExecContext(ctx, "ALTER TABLE app.t ADD COLUMN w INT")
		altered <- err
	}()
	watch.Await(t, 5*time.Second, m.Addr, func(v *probe.TargetView) bool {
		return v.Reading != nil && v.Reading.Locks.MetadataWaiting == probe.Some(uint64(1))
	})
	reader.Close()
	require.NoError(t, <-altered)
	cancel()
	watch.Await(t, 5*time.Second, m.Addr, func(v *probe.TargetView) bool {
		return v.Reading.Locks.MetadataWaiting == probe.Some(uint64(0))
	})
}

// The published grants are enough, and each that lacks is named.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	m, _ := startAlone(t)
	m.Exec(t, "CREATE USER weak@'%' IDENTIFIED BY 'hush'")
	runScript(t, m, "s3cret")

	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte("s3cret\n"), 0o600))
	strong, err := mariadb.New(mariadb.Target{DSN: mariadb.DSN("mariadb://gateway_probe@" + m.Addr), PasswordFile: password})
	require.NoError(t, err)
	defer strong.Close()
	r, err := once(t, strong)
	require.NoError(t, err)
	require.Equal(t, map[string]bool{"replication": true, "locks": true, "transactions": true}, r.Privileged)
	require.NotNil(t, r.Locks)
	require.Equal(t, probe.RolePrimary, r.Role)
	require.NotZero(t, r.Streams[0].Head.Value)

	weak, err := mariadb.New(mariadb.Target{DSN: mariadb.DSN("mariadb://weak:hush@" + m.Addr)})
	require.NoError(t, err)
	defer weak.Close()
	r, err = once(t, weak)
	require.NoError(t, err)
	require.Equal(t, map[string]bool{"replication": false, "locks": false, "transactions": false}, r.Privileged)
	require.Nil(t, r.Locks)
	require.Nil(t, r.Transactions)
	require.True(t, r.Streams[0].Head.Known, "positions need no privilege")

	// The account cannot change or read anything else.
	account, err := sql.Open("mysql", "gateway_probe:s3cret@tcp("+m.Addr+")/")
	require.NoError(t, err)
	defer account.Close()
	for _, statement := range []string{"UPDATE app.t SET v = 9", "SELECT * FROM app.t", "SET GLOBAL read_only=1", "CREATE DATABASE x"} {
		_, err = account.ExecContext(t.Context(), statement)
		require.ErrorContains(t, err, "denied", statement)
	}

	// A connection keeps the privileges that it began with; the next one has what is left.
	m.Exec(t, "REVOKE SLAVE MONITOR ON *.* FROM gateway_probe", "KILL USER gateway_probe")
	require.Eventually(t, func() bool {
		r, err = once(t, strong)
		return err == nil && !r.Privileged["replication"]
	}, 5*time.Second, 50*time.Millisecond)
	require.True(t, r.Privileged["locks"])

	// A grant is found without a restart.
	m.Exec(t, "GRANT SLAVE MONITOR ON *.* TO gateway_probe@'%'")
	strong.RecheckAfter(0)
	r, err = once(t, strong)
	require.NoError(t, err)
	require.True(t, r.Privileged["replication"])
}

// runScript runs docs/probe/mariadb-grants.sql with the password filled in.
func runScript(t *testing.T, m *testutil.MariaDB, password string) {
	t.Helper()
	root, err := testutil.Root()
	require.NoError(t, err)
	script, err := os.ReadFile(filepath.Join(root, "docs", "probe", "mariadb-grants.sql"))
	require.NoError(t, err)
	n := 0
	for line := range strings.Lines(string(script)) {
		statement, isSQL := strings.CutSuffix(strings.TrimSpace(line), ";")
		if isSQL && !strings.HasPrefix(statement, "--") {
			m.Exec(t, strings.ReplaceAll(statement, "change-me", password))
			n++
		}
	}
	require.GreaterOrEqual(t, n, 2)
}

// What is set up wrongly gives one clear error, without the password.
func TestBadSetups(t *testing.T) {
	t.Parallel()
	m, _ := startAlone(t)
	m.Exec(t, "CREATE USER probe@'%' IDENTIFIED BY 'right'")
	silent := testutil.StartProxy(t, m.Addr)
	silent.Set(testutil.Network{HalfOpen: true})
	other := testutil.StartRedis(t, testutil.RedisOptions{})
	for name, c := range map[string]struct {
		target mariadb.Target
		want   string
	}{
		"wrong password":  {mariadb.Target{DSN: mariadb.DSN("mariadb://probe:hush@" + m.Addr)}, "see password_file and docs/probe/mariadb-grants.sql"},
		"no such account": {mariadb.Target{DSN: mariadb.DSN("mariadb://nobody:hush@" + m.Addr)}, "Access denied for user 'nobody'"},
		"no server":       {mariadb.Target{DSN: mariadb.DSN("mariadb://probe:hush@" + testutil.FreeAddress(t))}, "connection refused: does the server run"},
		"no such host":    {mariadb.Target{DSN: "mariadb://probe:hush@db.invalid"}, "the name has no address"},
		"Redis":           {mariadb.Target{DSN: mariadb.DSN("mariadb://probe:hush@" + other.Addr)}, "is it no MariaDB"},
		"silent network":  {mariadb.Target{DSN: mariadb.DSN("mariadb://probe:hush@" + silent.Address())}, "from " + silent.Address() + ": is a firewall dropping packets"},
		"no password file": {
			mariadb.Target{DSN: mariadb.DSN("mariadb://probe@" + m.Addr), PasswordFile: filepath.Join(t.TempDir(), "gone")},
			"read password_file",
		},
	} {
		p, err := mariadb.New(c.target)
		require.NoError(t, err, name)
		start := time.Now()
		_, err = once(t, p)
		require.ErrorContains(t, err, c.want, name)
		require.ErrorContains(t, err, "MariaDB at "+p.Target()+": ", name)
		require.NotContains(t, err.Error(), "\n", name)
		require.Equal(t, name == "wrong password" || name == "no such account", errors.Is(err, probe.ErrDenied), name)
		require.NotContains(t, err.Error(), "hush", name)
		t.Log(err)
		require.Less(t, time.Since(start), 3*time.Second, name)
		require.NoError(t, p.Close(), name)
	}
}

// A server that restarts is read again over a new connection.
func TestReconnect(t *testing.T) {
	t.Parallel()
	m, watch := startAlone(t)
	watch.Await(t, 5*time.Second, m.Addr, func(v *probe.TargetView) bool { return v.Success })
	m.Restart(t)
	watch.Await(t, 10*time.Second, m.Addr, func(v *probe.TargetView) bool { return !v.Success || time.Since(v.LastSuccess) < probetest.Tick })
	watch.Await(t, 10*time.Second, m.Addr, func(v *probe.TargetView) bool { return v.Success })
}
