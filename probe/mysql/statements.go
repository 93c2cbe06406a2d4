package mysql

// The statements. Each gives its columns the names that this package and package innodb
// look for; servers are asked by name, never by place.
const (
	// Needs no privilege.
	selectServer = `SELECT @@GLOBAL.gtid_executed AS executed, @@GLOBAL.server_uuid AS server_uuid,
		@@GLOBAL.read_only AS read_only, @@GLOBAL.max_connections AS max_connections`

	// Need REPLICATION CLIENT. The first form exists since 8.0.22, the second until 8.3.
	showReplica    = `SHOW REPLICA STATUS`
	showReplicaOld = `SHOW SLAVE STATUS`

	// Needs no privilege.
	showStatus = `SHOW GLOBAL STATUS WHERE Variable_name IN ('Innodb_row_lock_waits', 'Innodb_row_lock_time',
		'Handler_commit', 'Handler_rollback')`

	// The rest needs PROCESS and SELECT on performance_schema.
	selectDeadlocks = `SELECT 'Innodb_deadlocks' AS variable_name, COUNT AS value FROM information_schema.INNODB_METRICS
		WHERE NAME = 'lock_deadlocks' AND STATUS = 'enabled'`

	selectSessions = `SELECT CASE WHEN TYPE = 'BACKGROUND' OR PROCESSLIST_USER = 'system user' OR PROCESSLIST_COMMAND = 'Daemon' THEN 'system'
			WHEN PROCESSLIST_COMMAND LIKE 'Binlog Dump%' THEN 'other' WHEN PROCESSLIST_COMMAND = 'Sleep' THEN 'idle' ELSE 'active' END AS session_state,
			COUNT(*) AS sessions, COALESCE(SUM(PROCESSLIST_STATE LIKE 'Waiting for%lock%'), 0) AS metadata_waiting
		FROM performance_schema.threads
		WHERE PROCESSLIST_ID IS NOT NULL AND PROCESSLIST_ID <> CONNECTION_ID() GROUP BY session_state`

	selectTransactions = `SELECT trx_id, trx_mysql_thread_id AS session, trx_state, trx_requested_lock_id AS lock_id,
			TIMESTAMPDIFF(MICROSECOND, trx_started, NOW(6)) AS age_us,
			TIMESTAMPDIFF(MICROSECOND, trx_wait_started, NOW(6)) AS wait_us
		FROM information_schema.INNODB_TRX ORDER BY trx_started LIMIT 1000`

	selectOwners = `SELECT PROCESSLIST_ID AS session, PROCESSLIST_COMMAND = 'Sleep' AS asleep, PROCESSLIST_TIME * 1000 AS since_ms
		FROM performance_schema.threads
		WHERE PROCESSLIST_ID IN (SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX)`

	selectWaitedLocks = `SELECT ENGINE_LOCK_ID AS lock_id, OBJECT_SCHEMA AS lock_database, LOCK_TYPE AS lock_type, LOCK_MODE AS lock_mode
		FROM performance_schema.data_locks WHERE LOCK_STATUS = 'WAITING' LIMIT 2000`

	selectWaits = `SELECT REQUESTING_ENGINE_TRANSACTION_ID AS requesting, GROUP_CONCAT(DISTINCT BLOCKING_ENGINE_TRANSACTION_ID) AS blocking
		FROM performance_schema.data_lock_waits GROUP BY REQUESTING_ENGINE_TRANSACTION_ID LIMIT 1000`
)

// sessionVariables keep the probe from changing, blocking or burdening anything. Times
// are in UTC so that a change to summer time makes no transaction an hour older.
func sessionVariables() map[string]string {
	return map[string]string{
		"lock_wait_timeout":        "1",
		"innodb_lock_wait_timeout": "1",
		"max_execution_time":       "1000",
		"transaction_read_only":    "1",
		"group_concat_max_len":     "1048576",
		"time_zone":                "'+00:00'",
	}
}
