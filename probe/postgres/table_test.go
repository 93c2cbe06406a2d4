package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// customary are the expressions that are often taken for lag: the first four are asked on
// the replica, the last on the server that it replicates from.
var customary = []struct{ name, query string }{
	{"now() - pg_last_xact_replay_timestamp()", "SELECT round(extract(epoch FROM now() - pg_last_xact_replay_timestamp()), 1)::text || ' s'"},
	{"0 if received = replayed, else that", "SELECT CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN '0 s' ELSE round(extract(epoch FROM now() - pg_last_xact_replay_timestamp()), 1)::text || ' s' END"},
	{"received - replayed", "SELECT (pg_last_wal_receive_lsn() - pg_last_wal_replay_lsn())::text || ' B'"},
	{"pg_stat_replication.replay_lag", "SELECT coalesce(round(extract(epoch FROM replay_lag), 1)::text || ' s', 'NULL') FROM pg_stat_replication WHERE application_name = $1"},
}

// table is the comparison with the truth, row by row.
type table struct {
	mu   sync.Mutex
	rows map[string]string
}

// row asks the customary expressions at once and notes what they say, beside what the
// cluster says.
func (tab *table) row(t *testing.T, state string, w *watched, source, r *testutil.Postgres, real string, err time.Duration) {
	t.Helper()
	v := w.view(r)
	ours := string(v.Lag.Unknown)
	if ours != "" {
		ours = "unknown (" + ours + ")"
	} else {
		ours = fmt.Sprintf("%.1f s", v.Lag.Age.Seconds())
	}
	cells := []string{state, real, ours, fmt.Sprintf("%.2f s", err.Seconds())}
	for i, c := range customary {
		at := r
		if i == len(customary)-1 {
			at = source
		}
		cells = append(cells, ask(at, r, c.query))
	}
	tab.mu.Lock()
	defer tab.mu.Unlock()
	tab.rows[state] = "| " + strings.Join(cells, " | ") + " |"
}

// ask is the answer of one expression in the words of the table.
func ask(at, r *testutil.Postgres, query string) string {
	if at == nil {
		return "no answer"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	config, err := pgx.ParseConfig(at.DSN("postgres"))
	if err != nil {
		return err.Error()
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return "no answer"
	}
	defer func() {
		_ = conn.Close(ctx)
		<-conn.PgConn().CleanupDone()
	}()
	var answer *string
	var args []any
	if strings.Contains(query, "$1") {
		args = append(args, r.Name())
	}
	switch err := conn.QueryRow(ctx, query, args...).Scan(&answer); {
	case err == pgx.ErrNoRows:
		return "no row"
	case err != nil:
		return "no answer"
	case answer == nil:
		return "NULL"
	}
	return *answer
}

func (tab *table) String() string {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	head := "| state | truth | Sluice | largest error |"
	line := "|---|---|---|---|"
	for _, c := range customary {
		head += " " + c.name + " |"
		line += "---|"
	}
	lines := []string{head, line}
	for _, state := range slices.Sorted(mapKeys(tab.rows)) {
		lines = append(lines, tab.rows[state])
	}
	return strings.Join(lines, "\n")
}

func mapKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// TestStateTable puts real clusters into every state that replication gets into and
// demands that what is reported is the truth to within one tick, or unknown where it cannot
// be known.
func TestStateTable(t *testing.T) {
	tab := &table{rows: map[string]string{}}
	t.Run("states", func(t *testing.T) {
		for name, state := range map[string]func(*testing.T, *table){
			"idle":               idle,
			"replay paused":      replayPaused,
			"conflict":           conflict,
			"receiver hung":      receiverHung,
			"stalled link":       stalledLink,
			"delayed apply":      delayedApply,
			"replica frozen":     replicaFrozen,
			"cascade":            cascade,
			"primary frozen":     primaryFrozen,
			"promotion":          promotion,
			"replica never seen": replicaNeverSeen,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				state(t, tab)
			})
		}
	})
	t.Logf("\n%s", tab)
	require.GreaterOrEqual(t, len(tab.rows), 14)
}
