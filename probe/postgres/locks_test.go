package postgres_test

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/postgres"
)

// prober reads the server as the account of the grants, when it is asked.
func prober(t *testing.T, s *testutil.Postgres, user string) *postgres.Prober {
	t.Helper()
	p, err := postgres.New(postgres.Target{DSN: postgres.DSN(s.DSN(user))})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

func read(t *testing.T, p *postgres.Prober) probe.Reading {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := p.Probe(ctx)
	require.NoError(t, err)
	return r
}

// block runs statements, each on a connection of its own, that wait for locks. At the end
// of the test they are let go.
func block(t *testing.T, s *testutil.Postgres, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for _, statement := range statements {
		conn := s.Conn(t)
		waiting.Go(func() { _, _ = conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol) })
	}
	t.Cleanup(func() { // before the connections are closed
		cancel()
		waiting.Wait()
	})
}

// holding has a transaction open in which the statements ran.
func holding(t *testing.T, s *testutil.Postgres, statement string) *pgx.Conn {
	t.Helper()
	conn := s.Conn(t)
	_, err := conn.Exec(t.Context(), "BEGIN; "+statement, pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	return conn
}

// awaitWaiting waits until so many sessions wait for locks.
func awaitWaiting(t *testing.T, s *testutil.Postgres, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		return s.Value(t, "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == strconv.Itoa(n)
	}, 30*time.Second, 20*time.Millisecond, "%d sessions wait", n)
}

func TestLockChainOfThree(t *testing.T) {
	t.Parallel()
	s := primary(t, map[string]string{"deadlock_timeout": "10s"})
	p := prober(t, s, "probe")
	r := read(t, p)
	require.Empty(t, r.Locks.Waiting)
	require.Equal(t, probe.Graph{}, probe.Walk(r.Locks.Blocked))

	holding(t, s, "UPDATE t SET v = 1 WHERE id = 1")
	second := s.Conn(t)
	_, err := second.Exec(t.Context(), "BEGIN; UPDATE t SET v = 1 WHERE id = 2", pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	waiting.Go(func() { _, _ = second.Exec(ctx, "UPDATE t SET v = 1 WHERE id = 1") })
	defer waiting.Wait()
	defer cancel()
	awaitWaiting(t, s, 1)
	began := time.Now()
	block(t, s, "UPDATE t SET v = 1 WHERE id = 2")
	awaitWaiting(t, s, 2)
	time.Sleep(300 * time.Millisecond) // they are to have waited for some time

	r = read(t, p)
	require.Equal(t, probe.Graph{Depth: 2, Roots: 1, Waiting: 2}, probe.Walk(r.Locks.Blocked))
	require.Len(t, r.Locks.Waiting, 1)
	w := r.Locks.Waiting[0]
	require.Equal(t, "postgres", w.Database)
	require.Equal(t, "transactionid", w.Type)
	require.Equal(t, "ShareLock", w.Mode)
	require.Equal(t, uint64(2), w.Sessions)
	require.True(t, w.Oldest.Known)
	require.GreaterOrEqual(t, w.Oldest.Value, 300*time.Millisecond)
	require.LessOrEqual(t, w.Oldest.Value, time.Since(began)+time.Second)

	require.Equal(t, uint64(1), r.Transactions.Sessions[probe.StateIdleInTransaction])
	require.GreaterOrEqual(t, r.Transactions.Oldest[probe.StateIdleInTransaction], 300*time.Millisecond)
	require.GreaterOrEqual(t, r.Transactions.Sessions[probe.StateActive], uint64(2))
	require.GreaterOrEqual(t, r.Transactions.Oldest[probe.StateActive], 300*time.Millisecond)
	require.Equal(t, probe.Some(uint64(150)), r.Transactions.SessionsLimit)
}

// A hundred sessions queue for one row: 4951 edges. The queries and the walk stay cheap.
func TestHundredWaiters(t *testing.T) {
	s := primary(t, map[string]string{"deadlock_timeout": "60s"})
	p := prober(t, s, "probe")
	read(t, p)
	holding(t, s, "UPDATE t SET v = 1 WHERE id = 1")
	block(t, s, slices.Repeat([]string{"UPDATE t SET v = v + 1 WHERE id = 1"}, 100)...)
	awaitWaiting(t, s, 100)

	best := time.Hour
	for range 10 {
		start := time.Now()
		r := read(t, p)
		g := probe.Walk(r.Locks.Blocked)
		best = min(best, time.Since(start))
		require.Equal(t, probe.Graph{Depth: 2, Roots: 1, Waiting: 100}, g)
		total := uint64(0)
		for _, w := range r.Locks.Waiting {
			total += w.Sessions
		}
		require.Equal(t, uint64(100), total)
	}
	t.Logf("a whole probe and the walk with 100 sessions queued on one row: %v at best", best)
	require.Less(t, best, 50*time.Millisecond)
}

func TestDeadlockIsCounted(t *testing.T) {
	t.Parallel()
	s := primary(t, nil)
	p := prober(t, s, "probe")
	deadlocks := func() uint64 {
		for _, d := range read(t, p).Locks.Deadlocks {
			if d.Database == "postgres" {
				return d.Value
			}
		}
		return 0
	}
	before := deadlocks()
	a, b := holding(t, s, "UPDATE t SET v = 1 WHERE id = 1"), holding(t, s, "UPDATE t SET v = 1 WHERE id = 2")
	var both sync.WaitGroup
	both.Go(func() { _, _ = a.Exec(t.Context(), "UPDATE t SET v = 1 WHERE id = 2") })
	both.Go(func() { _, _ = b.Exec(t.Context(), "UPDATE t SET v = 1 WHERE id = 1") })
	both.Wait()
	broken := time.Now()
	require.Eventually(t, func() bool {
		// The application goes on: a session tells its totals after a statement, at most
		// once a second, and only after ten seconds while it is idle.
		for _, conn := range []*pgx.Conn{a, b} {
			_, err := conn.Exec(t.Context(), "ROLLBACK")
			require.NoError(t, err)
		}
		return deadlocks() == before+1
	}, 3*time.Second, look)
	t.Logf("counted %v after it was broken", time.Since(broken).Round(time.Millisecond))
}

func TestTotals(t *testing.T) {
	t.Parallel()
	s := primary(t, nil)
	p := prober(t, s, "probe")
	totals := func() (committed, rolledBack uint64) {
		r := read(t, p)
		for i, d := range r.Transactions.Committed {
			if d.Database == "postgres" {
				return d.Value, r.Transactions.RolledBack[i].Value
			}
		}
		return 0, 0
	}
	c, r := totals()
	conn := s.Conn(t)
	for range 20 {
		_, err := conn.Exec(t.Context(), "BEGIN; UPDATE t SET v = 1 WHERE id = 1; ROLLBACK", pgx.QueryExecModeSimpleProtocol)
		require.NoError(t, err)
		_, err = conn.Exec(t.Context(), "UPDATE t SET v = 1 WHERE id = 1")
		require.NoError(t, err)
	}
	require.NoError(t, conn.Close(t.Context())) // a session reports its totals at its end
	require.Eventually(t, func() bool {
		nc, nr := totals()
		return nc >= c+20 && nr >= r+20 && nr < r+30
	}, 5*time.Second, look)
}

// The cost is what the server itself counts for the account, planning included.
func TestCost(t *testing.T) {
	s := primary(t, map[string]string{
		"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_planning": "on",
		"pg_stat_statements.track": "all",
	})
	s.Exec(t, "CREATE EXTENSION pg_stat_statements")
	replica(t, s, "r1")
	p := prober(t, s, "probe")
	for range 10 {
		read(t, p)
	}
	s.Exec(t, "SELECT pg_stat_statements_reset()")
	const probes = 100
	best, mean := time.Hour, time.Duration(0)
	before := cpu(t)
	for range probes {
		start := time.Now()
		read(t, p)
		best = min(best, time.Since(start))
		mean += time.Since(start) / probes
	}
	own := (cpu(t) - before) / probes
	total, err := strconv.ParseFloat(s.Value(t, "SELECT sum(total_plan_time + total_exec_time)::text FROM pg_stat_statements WHERE userid = 'probe'::regrole"), 64)
	require.NoError(t, err)
	calls := s.Value(t, "SELECT min(calls)::text FROM pg_stat_statements WHERE userid = 'probe'::regrole")
	require.Equal(t, strconv.Itoa(probes), calls)
	perProbe := time.Duration(total / probes * float64(time.Millisecond))
	t.Logf("server time per probe %v, as the gateway sees it %v on average, %v at best; CPU time of the gateway %v", perProbe, mean, best, own)
	require.Less(t, perProbe, 2*time.Millisecond)
	require.Less(t, own, time.Millisecond, "20 targets at 1 s are to take at most 2 %% of a core")
	require.Equal(t, "1", s.Value(t, "SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'gateway-probe'"), "one connection")
}

// cpu is the CPU time that this process has used.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
