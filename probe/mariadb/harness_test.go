package mariadb_test

import (
	"context"
	"database/sql"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/mariadb"
	"github.com/sluice-metrics/sluice/probe/probetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a primary with one replica, both watched.
type pair struct {
	primary, replica *testutil.MariaDB
	link             *testutil.Proxy // through which the replica follows the primary
	watch            *probetest.Watch
	rows             atomic.Int64
}

// startPair starts a pair whose replica has all there is.
func startPair(t *testing.T, replicaArgs ...string) *pair {
	t.Helper()
	p := &pair{primary: testutil.StartMariaDB(t, testutil.MariaDBOptions{ServerID: 1})}
	p.replica = testutil.StartMariaDB(t, testutil.MariaDBOptions{ServerID: 2, Args: replicaArgs})
	p.link = testutil.StartProxy(t, p.primary.Addr)
	p.replica.Follow(t, p.link.Address())
	p.primary.Exec(t, "CREATE TABLE app.t (id INT PRIMARY KEY, v INT)")
	p.write(t)
	p.watch = probetest.Start(t, newProber(t, p.primary.Addr), newProber(t, p.replica.Addr))
	p.watch.AwaitNoLag(t, p.replica.Addr)
	return p
}

// write adds a row on the primary and returns when that began.
func (p *pair) write(t *testing.T) time.Time {
	at := time.Now()
	if _, err := p.primary.DB().ExecContext(context.Background(), "INSERT INTO app.t VALUES (?, 0)", p.rows.Add(1)); err != nil {
		t.Errorf("write to the primary: %v", err)
	}
	return at
}

// catchUp waits until the replica has what the primary has.
func (p *pair) catchUp(t *testing.T) {
	t.Helper()
	var position string
	require.NoError(t, p.primary.DB().QueryRowContext(t.Context(), "SELECT @@GLOBAL.gtid_binlog_pos").Scan(&position))
	var late int
	require.NoError(t, p.replica.DB().QueryRowContext(t.Context(), "SELECT MASTER_GTID_WAIT(?, 10)", position).Scan(&late))
	require.Zero(t, late, "the replica did not reach %s", position)
}

// compare logs a row of the table that sets the customary expression beside ours, for the
// operator's documentation.
func (p *pair) compare(t *testing.T, state string, truth time.Duration) {
	t.Helper()
	rows, err := p.replica.DB().QueryContext(t.Context(), "SHOW ALL SLAVES STATUS")
	require.NoError(t, err)
	defer rows.Close()
	names, err := rows.Columns()
	require.NoError(t, err)
	customary := "no row"
	if rows.Next() {
		values := make([]sql.NullString, len(names))
		cells := make([]any, len(names))
		for i := range values {
			cells[i] = &values[i]
		}
		require.NoError(t, rows.Scan(cells...))
		if i := slices.Index(names, "Seconds_Behind_Master"); values[i].Valid {
			customary = values[i].String
		} else {
			customary = "NULL"
		}
	}
	v := p.watch.View(t, p.replica.Addr)
	t.Logf("| MariaDB: %s | %.1f | %.1f | Seconds_Behind_Master %s |", state, truth.Seconds(), v.Lag.Age.Seconds(), customary)
}

func newProber(t testing.TB, addr string) *mariadb.Prober {
	t.Helper()
	p, err := mariadb.New(mariadb.Target{DSN: mariadb.DSN("mariadb://root@" + addr)})
	require.NoError(t, err)
	return p
}

func once(t testing.TB, p probe.Prober) (probe.Reading, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return p.Probe(ctx)
}
