package postgres

// oldest is the oldest version that the queries are for.
const oldest = 13

// edgesAtMost bounds for how many waiting sessions the server is asked whom they wait
// for: that costs it more with every session in a queue.
const edgesAtMost = 50

// A probe is these queries, in one batch. Recovery is asked once per query: it may end
// between two calls.

// queryPosition is %s: how to ask whether replay is paused.
const queryPosition = `
SELECT recovering,
  (CASE WHEN recovering THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0'::pg_lsn)::numeric::text,
  (CASE WHEN recovering THEN pg_last_wal_receive_lsn() - '0/0'::pg_lsn END)::numeric::text,
  CASE WHEN recovering THEN %s END,
  CASE WHEN NOT recovering THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
  (SELECT nullif(min_recovery_end_timeline, 0) FROM pg_control_recovery()),
  (SELECT timeline_id FROM pg_control_checkpoint()),
  (SELECT system_identifier::text FROM pg_control_system()),
  extract(epoch FROM current_setting('recovery_min_apply_delay')::interval)::float8,
  current_setting('max_connections')::bigint,
  pg_has_role('pg_read_all_stats', 'USAGE')
FROM (SELECT pg_is_in_recovery() AS recovering OFFSET 0) AS s`

const (
	replayPaused14 = `pg_get_wal_replay_pause_state() <> 'not paused'`
	replayPaused13 = `pg_is_wal_replay_paused()`
)

const queryReceiver = `
SELECT status, received_tli, coalesce(slot_name, ''), coalesce(conninfo, '') FROM pg_stat_wal_receiver`

// queryReplicas leaves base backups out, which are senders too.
const queryReplicas = `
SELECT coalesce(r.application_name, ''), coalesce(s.slot_name, ''), coalesce(host(r.client_addr), ''), coalesce(r.state, ''),
  (r.flush_lsn - '0/0'::pg_lsn)::numeric::text, (r.replay_lsn - '0/0'::pg_lsn)::numeric::text
FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
WHERE r.state IS DISTINCT FROM 'backup'`

// querySlots compares with what a cascading server has received.
const querySlots = `
SELECT slot_name, active, coalesce(wal_status, '') = 'lost',
  greatest(0, CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
    ELSE pg_current_wal_lsn() END - restart_lsn)::numeric::text
FROM pg_replication_slots`

// queryWaiting is %s: since when a lock is waited for.
const queryWaiting = `
SELECT coalesce(a.datname, ''), l.locktype, l.mode, count(*), %s
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE NOT l.granted GROUP BY 1, 2, 3`

const (
	waitAge14 = `extract(epoch FROM greatest(interval '0', clock_timestamp() - min(l.waitstart)))::float8`
	waitAge13 = `NULL::float8`
)

// queryEdges is %d: for how many sessions to ask whom they wait for.
const queryEdges = `
SELECT pid::bigint, CASE WHEN place <= %d THEN pg_blocking_pids(pid)::bigint[] END
FROM (SELECT pid, row_number() OVER (ORDER BY state_change) AS place
  FROM pg_stat_activity WHERE wait_event_type = 'Lock') AS waiting`

const querySessions = `
SELECT coalesce(state, ''), count(*),
  extract(epoch FROM greatest(interval '0', clock_timestamp() - min(xact_start)))::float8,
  extract(epoch FROM greatest(interval '0', clock_timestamp() - min(state_change)))::float8
FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() GROUP BY 1`

const queryDatabases = `
SELECT datname, xact_commit, xact_rollback, deadlocks FROM pg_stat_database
WHERE datname IS NOT NULL AND datname <> 'template0'`
