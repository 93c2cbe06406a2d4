package innodb_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/innodb"
	"github.com/sluice-metrics/sluice/probe/internal/mysqlsession"
)

type row = mysqlsession.Row

// tables is a server where session 11 holds a row that 12 wants, 13 queues behind 12,
// and 14 waits for a lock that was granted in the meantime.
func tables() *innodb.Tables {
	return &innodb.Tables{
		Sessions: []row{
			{"session_state": "active", "sessions": "3", "metadata_waiting": "2"},
			{"session_state": "idle", "sessions": "5", "metadata_waiting": "0"},
			{"session_state": "system", "sessions": "4", "metadata_waiting": "1"},
			{"session_state": "other", "sessions": "1"},
		},
		Transactions: []row{
			{"trx_id": "1", "session": "11", "trx_state": "RUNNING", "age_us": "9000000"},
			{"trx_id": "2", "session": "12", "trx_state": "LOCK WAIT", "lock_id": "L2", "age_us": "4000000", "wait_us": "3900000"},
			{"trx_id": "3", "session": "13", "trx_state": "LOCK WAIT", "lock_id": "L3", "age_us": "2000000", "wait_us": "1000000"},
			{"trx_id": "4", "session": "14", "trx_state": "LOCK WAIT", "lock_id": "L4", "age_us": "1000000", "wait_us": "-200000"},
			{"trx_id": "5", "session": "0", "trx_state": "RUNNING", "age_us": "1000"},
		},
		Owners: []row{
			{"session": "11", "asleep": "1", "since_ms": "6500.250"},
			{"session": "12", "asleep": "0", "since_ms": "3100.5"},
			{"session": "13", "asleep": "0", "since_ms": "1700"},
		},
		WaitedLocks: []row{
			{"lock_id": "L2", "lock_table": "`app`.`t`", "lock_type": "RECORD", "lock_mode": "X"},
			{"lock_id": "L3", "lock_database": "app", "lock_type": "RECORD", "lock_mode": "X"},
		},
		Waits: []row{
			{"requesting": "3", "blocking": "2,1"},
			{"requesting": "2", "blocking": "1,2"},
			{"requesting": "4", "blocking": "77"}, // gone in the meantime
			{"requesting": "1", "blocking": "5"},  // of no session
		},
		Status: row{
			"Innodb_row_lock_waits": "7", "Innodb_row_lock_time": "1500", "Innodb_deadlocks": "2",
			"Handler_commit": "40", "Handler_rollback": "3",
		},
	}
}

func TestLocks(t *testing.T) {
	require.Equal(t, &probe.Locks{
		Waiting: []probe.LockWaiting{
			{Sessions: 1, Oldest: probe.Some(time.Duration(0))},
			{Database: "app", Type: "record", Mode: "X", Sessions: 2, Oldest: probe.Some(3100500 * time.Microsecond)},
		},
		Blocked: []probe.Blocked{
			{Session: 12, Blockers: []uint64{11}},
			{Session: 13, Blockers: []uint64{11, 12}},
		},
		MetadataWaiting: probe.Some(uint64(3)),
		Waits:           probe.Some(uint64(7)),
		WaitTime:        probe.Some(1500 * time.Millisecond),
		Deadlocks:       []probe.DatabaseTotal{{Value: 2}},
	}, tables().Locks())
}

func TestTransactions(t *testing.T) {
	require.Equal(t, &probe.Transactions{
		Oldest: map[string]time.Duration{
			probe.StateActive: 4 * time.Second, probe.StateIdleInTransaction: 6500250 * time.Microsecond,
		},
		Sessions: map[string]uint64{
			probe.StateActive: 3, probe.StateIdle: 4, probe.StateIdleInTransaction: 1, probe.StateOther: 1,
		},
		SessionsLimit: probe.Some(uint64(151)),
		Committed:     []probe.DatabaseTotal{{Value: 40}},
		RolledBack:    []probe.DatabaseTotal{{Value: 3}},
	}, tables().ReadTransactions(probe.Some(uint64(151))))
}

func TestNothingThere(t *testing.T) {
	var none innodb.Tables
	l := none.Locks()
	require.Empty(t, l.Waiting)
	require.Empty(t, l.Blocked)
	require.False(t, l.Waits.Known)
	require.Nil(t, l.Deadlocks, "a counter that the server does not have is no 0")
	x := none.ReadTransactions(probe.Maybe[uint64]{})
	require.False(t, x.SessionsLimit.Known)
	require.Nil(t, x.Committed)
	require.Equal(t, time.Duration(0), x.Oldest[probe.StateActive])
}
