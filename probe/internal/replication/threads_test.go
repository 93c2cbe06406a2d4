package replication_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/mysqlsession"
	"github.com/sluice-metrics/sluice/probe/internal/replication"
)

type row = mysqlsession.Row

func TestThreads(t *testing.T) {
	running := row{
		"replica_io_running": "Yes", "replica_sql_running": "Yes", "last_io_errno": "0", "last_sql_errno": "0", "sql_delay": "0",
	}
	for name, c := range map[string]struct {
		rows []row
		want probe.Reading
	}{
		"no replica": {nil, probe.Reading{}},
		"all well": {[]row{running}, probe.Reading{
			LinkUp: probe.Some(true), ApplierRunning: probe.Some(true), ApplyPaused: probe.Some(false),
			ApplyDelay: probe.Some(time.Duration(0)), Errors: map[string]uint64{"io": 0, "sql": 0},
		}},
		"connecting, paused, delayed, old names": {
			[]row{{
				"slave_io_running": "Connecting", "slave_sql_running": "No", "last_io_errno": "2003", "last_sql_errno": "0", "sql_delay": "5",
			}},
			probe.Reading{
				LinkUp: probe.Some(false), ApplierRunning: probe.Some(false), ApplyPaused: probe.Some(true),
				ApplyDelay: probe.Some(5 * time.Second), Errors: map[string]uint64{"io": 2003, "sql": 0},
			},
		},
		"the second source failed": {
			[]row{running, {
				"replica_io_running": "Yes", "replica_sql_running": "No", "last_io_errno": "0", "last_sql_errno": "1062", "sql_delay": "3",
			}},
			probe.Reading{
				LinkUp: probe.Some(true), ApplierRunning: probe.Some(false), ApplyPaused: probe.Some(false),
				ApplyDelay: probe.Some(3 * time.Second), Errors: map[string]uint64{"io": 0, "sql": 1062},
			},
		},
		"columns are missing": {[]row{{}}, probe.Reading{Errors: map[string]uint64{}}},
	} {
		var got probe.Reading
		replication.Threads(&got, c.rows)
		require.Equal(t, c.want, got, name)
	}
}
