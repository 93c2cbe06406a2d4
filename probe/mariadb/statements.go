package mariadb

// The statements. Each gives its columns the names that this package and package innodb
// look for; servers are asked by name, never by place.
const (
	// Needs no privilege.
	selectServer = `SELECT @@GLOBAL.gtid_binlog_pos AS binlog_position, @@GLOBAL.gtid_slave_pos AS replica_position,
		@@GLOBAL.gtid_current_pos AS current_position, @@GLOBAL.server_id AS server_id,
		@@GLOBAL.read_only AS read_only, @@GLOBAL.max_connections AS max_connections`

	// Needs SLAVE MONITOR.
	showReplicas = `SHOW ALL SLAVES STATUS`

	// Needs no privilege.
	showStatus = `SHOW GLOBAL STATUS WHERE Variable_name IN ('Innodb_row_lock_waits', 'Innodb_row_lock_time',
		'Innodb_deadlocks', 'Handler_commit', 'Handler_rollback')`

	// The rest needs PROCESS. Without it PROCESSLIST shows the account's own sessions
	// and no error; the tables of InnoDB refuse.
	selectSessions = `SELECT CASE WHEN USER = 'system user' OR COMMAND = 'Daemon' THEN 'system'
			WHEN COMMAND LIKE 'Binlog Dump%' THEN 'other' WHEN COMMAND = 'Sleep' THEN 'idle' ELSE 'active' END AS session_state,
			COUNT(*) AS sessions, COALESCE(SUM(STATE LIKE 'Waiting for%lock%'), 0) AS metadata_waiting
		FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() GROUP BY session_state`

	selectTransactions = `SELECT trx_id, trx_mysql_thread_id AS session, trx_state, trx_requested_lock_id AS lock_id,
			TIMESTAMPDIFF(MICROSECOND, trx_started, NOW(6)) AS age_us,
			TIMESTAMPDIFF(MICROSECOND, trx_wait_started, NOW(6)) AS wait_us
		FROM information_schema.INNODB_TRX ORDER BY trx_started LIMIT 1000`

	selectOwners = `SELECT ID AS session, COMMAND = 'Sleep' AS asleep, TIME_MS AS since_ms
		FROM information_schema.PROCESSLIST WHERE ID IN (SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX)`

	selectWaitedLocks = `SELECT lock_id, lock_table, lock_type, lock_mode FROM information_schema.INNODB_LOCKS LIMIT 2000`

	selectWaits = `SELECT requesting_trx_id AS requesting, GROUP_CONCAT(DISTINCT blocking_trx_id) AS blocking
		FROM information_schema.INNODB_LOCK_WAITS GROUP BY requesting_trx_id LIMIT 1000`
)

// sessionVariables keep the probe from changing, blocking or burdening anything. Times
// are in UTC so that a change to summer time makes no transaction an hour older.
func sessionVariables() map[string]string {
	return map[string]string{
		"lock_wait_timeout":        "1",
		"innodb_lock_wait_timeout": "1",
		"max_statement_time":       "1",
		"tx_read_only":             "1",
		"group_concat_max_len":     "1048576",
		"time_zone":                "'+00:00'",
	}
}
