package dashboards

// ofProbes selects what was found by probes by cluster and target.
func ofProbes(metric string) []string {
	switch {
	case !ofDatabases(metric):
		return nil
	case metric == "replica_cluster_primaries":
		return []string{"cluster"}
	}
	return []string{"cluster", "target"}
}

func databases(o *Options) dashboard {
	return dashboard{
		name: "databases", title: "databases", scope: ofProbes,
		description: "How far replicas lag, who is primary, what reads may go where; who waits for which lock; transactions and sessions.",
		variables: append(gatewayVariables(),
			variable{name: "cluster", label: "Cluster", expr: `db_probe_success`},
			variable{name: "target", label: "Database", expr: `db_probe_success`}),
		annotations: append(commonAnnotations(o.Prefix), annotation{
			name: "Roles", color: attention, title: "Role", text: "{{cluster}}: {{target}} changed its role",
			expr: `max by (cluster, target) (changes(replica_role_changes_total[2m])) > 0`,
		}),
		rows: []row{
			{panels: databaseFirst()},
			{title: "Lag and roles of $cluster", repeat: "cluster", panels: replication()},
			{title: "Locks", panels: locks()},
			{title: "Transactions and sessions", panels: transactions()},
			{title: "Replication in detail", collapsed: true, panels: replicationDetails()},
			{title: "Streams and consumer groups", collapsed: true, panels: groups()},
			{title: "etcd", collapsed: true, panels: members()},
			{title: "Probes", collapsed: true, panels: probes()},
		},
	}
}

func databaseFirst() []panel {
	return []panel{
		{
			kind: stat, title: "Databases that answer", width: 4, height: 4, unit: none,
			shows: "Targets whose last probe did well, and how many are probed.",
			good:  "both are the same.",
			act:   "Fewer: see the row Probes for which one, and the log for what it said.",
			queries: []query{
				{expr: `sum(max by (cluster, target) (db_probe_success))`, legend: "answer", color: delivered},
				{expr: `count(max by (cluster, target) (db_probe_success))`, legend: "probed", color: neutral},
			},
		},
		{
			kind: stat, title: "Worst replica lag", width: 4, height: 4, unit: seconds, limits: []string{"ReplicaLagHigh"},
			shows:   "Age of the oldest change that a replica has not applied, of the replica that is farthest behind.",
			good:    "below a second.",
			act:     "Find the replica below. Paused, not connected, or busy: the row Replication in detail tells which.",
			queries: []query{{expr: `topk(1, max by (cluster, target) (replica_lag_seconds))`, legend: "{{target}}", now: true}},
		},
		{
			kind: stat, title: "Unknown lag", width: 4, height: 4, unit: none,
			shows:   "Replicas whose lag is not known. Reads should not go there, and a backend that waits for them is treated as lagging.",
			good:    "0.",
			act:     "The reasons are in the row Replication in detail.",
			queries: []query{{expr: `sum(max by (cluster, target, reason) (replica_lag_unknown)) or 0 * sum(max by (cluster, target) (db_probe_success))`, legend: "replicas", color: attention}},
		},
		{
			kind: stat, title: "Longest wait for a lock", width: 4, height: 4, unit: seconds, limits: []string{"LocksBlocked"},
			shows:   "How long the first of those has waited that wait for a lock, in any database.",
			good:    "0, or a moment.",
			act:     "Growing: somebody holds a lock and does nothing. The row Locks shows how many wait for how many; the status page has the tree.",
			queries: []query{{expr: `topk(1, max by (cluster, target) (db_lock_wait_oldest_seconds))`, legend: "{{target}}", now: true}},
		},
		{
			kind: stat, title: "Deadlocks", width: 4, height: 4, unit: short,
			shows:   "Deadlocks that the databases have broken in the time shown.",
			good:    "0.",
			act:     "The databases' own logs have both statements. Take locks in one order.",
			queries: []query{{expr: `sum(max by (cluster, target, database) (increase(db_deadlocks_total[$__range]))) or 0 * sum(max by (cluster, target) (db_probe_success))`, legend: "deadlocks", color: attention}},
		},
		{
			kind: stat, title: "Role changes", width: 4, height: 4, unit: short,
			shows:   "Changes between primary and replica that were seen in the time shown.",
			good:    "0, but for a planned failover (which is two).",
			act:     "The marks on the panels show when; the state below shows who is primary now.",
			queries: []query{{expr: `sum(max by (cluster, target) (increase(replica_role_changes_total[$__range]))) or 0 * sum(max by (cluster, target) (db_probe_success))`, legend: "changes", color: attention}},
		},
	}
}

func replication() []panel {
	return []panel{
		{
			kind: timeSeries, title: "Replica lag", width: 12, height: 8, unit: seconds, limits: []string{"ReplicaLagHigh"},
			shows:   "Age of the oldest change that each replica has not applied. A gap: it is unknown. Vertical marks: changes of role.",
			good:    "below a second; the line is where the alert begins.",
			act:     "A second per second: applying stands still, see whether it is paused. In steps: long transactions or a batch job on the primary.",
			queries: []query{{expr: `max by (target) (replica_lag_seconds)`, legend: "{{target}}"}},
		},
		{
			kind: stateTimeline, title: "Roles", width: 12, height: 8, unit: none,
			states:  []state{{"1", "primary", delivered}, {"2", "replica", waiting}, {"3", "unknown", attention}},
			shows:   "What each server says it is.",
			good:    "one primary, the others replicas.",
			act:     "Two primaries: stop the older one before clients write to both. Unknown: it does not answer.",
			queries: []query{{expr: codes("replica_role", "role", "target", "primary", "replica", "unknown"), legend: "{{target}}"}},
		},
		{
			kind: timeSeries, title: "Primaries", width: 8, height: 6, unit: none,
			shows:   "Servers of the cluster that say they are its primary.",
			good:    "1.",
			act:     "0: nothing can be written, a failover is due. 2: split brain.",
			queries: []query{{expr: `max by (cluster) (replica_cluster_primaries)`, legend: "{{cluster}}"}},
		},
		{
			kind: timeSeries, title: "Read weights", width: 8, height: 6, unit: none, top: 100,
			shows:   "The share of reads that each replica should get: 100 for one that is idle and has everything.",
			good:    "above 0 for every replica.",
			act:     "0: its lag is above max_lag or unknown; it comes back by itself.",
			queries: []query{{expr: `max by (target) (replica_read_weight)`, legend: "{{target}}"}},
		},
		{
			kind: stateTimeline, title: "Circuits", width: 8, height: 6, unit: none,
			states:  []state{{"1", "closed", delivered}, {"2", "half open", withheld}, {"3", "open", lost}},
			shows:   "Whether reads may go to the replica: closed, they may; open, they may not; half open, it is being tried.",
			good:    "closed.",
			act:     "Open: too much lag, or its role changed. It closes after three good probes.",
			queries: []query{{expr: codes("circuit_state", "state", "target", "closed", "half_open", "open"), legend: "{{target}}"}},
		},
	}
}

func locks() []panel {
	return []panel{
		{
			kind: timeSeries, title: "Sessions that wait for a lock", width: 8, height: 7, unit: none, stacked: true,
			shows:   "How many sessions wait, by database, type and mode of the lock.",
			good:    "0, or short peaks.",
			act:     "A plateau: somebody holds a lock for long. Look for the root on the status page and end that session.",
			queries: []query{{expr: `topk(10, max by (target, database, type, mode) (db_locks_waiting) > 0) or max by (target) (db_locks_waiting == 0)`, legend: "{{target}} {{database}} {{type}} {{mode}}"}},
		},
		{
			kind: timeSeries, title: "Longest wait", width: 8, height: 7, unit: seconds, limits: []string{"LocksBlocked"},
			shows:   "How long the first of those has waited that wait, for each database.",
			good:    "0, or a moment.",
			act:     "A line that climbs: nothing moves behind that lock.",
			queries: []query{{expr: `max by (target) (db_lock_wait_oldest_seconds)`, legend: "{{target}}"}},
		},
		{
			kind: timeSeries, title: "Blocking", width: 8, height: 7, unit: none,
			shows: "Sessions that block others and wait for nobody, and how deep the chains behind them are.",
			good:  "0.",
			act:   "One root and a deep chain: end the root. Many roots: contention, look at what they all touch.",
			queries: []query{
				{expr: `max by (target) (db_lock_root_blockers)`, legend: "roots, {{target}}"},
				{expr: `max by (target) (db_lock_blocking_chain_depth)`, legend: "depth, {{target}}", dashed: true},
			},
		},
		{
			kind: timeSeries, title: "Deadlocks", width: 8, height: 7, unit: perSecond, nothing: "no database counts deadlocks",
			shows:   "Deadlocks a second that the databases have broken.",
			good:    "0.",
			act:     "Regular ones: two pieces of code take the same locks in different order.",
			queries: []query{{expr: `topk(10, max by (target, database) (rate(db_deadlocks_total[$__rate_interval])))`, legend: "{{target}} {{database}}"}},
		},
		{
			kind: timeSeries, title: "Waits that ended", width: 8, height: 7, unit: perSecond, nothing: "no database counts waits",
			shows: "Waits for a lock a second, and the seconds of each second that were spent in them (right axis). MariaDB and MySQL count them.",
			good:  "low and steady.",
			act:   "A step: something new competes for the same rows.",
			queries: []query{
				{expr: `max by (target) (rate(db_lock_waits_total[$__rate_interval]))`, legend: "waits, {{target}}"},
				{expr: `max by (target) (rate(db_lock_wait_seconds_total[$__rate_interval]))`, legend: "time, {{target}}", right: true, unit: share, dashed: true},
			},
		},
		{
			kind: timeSeries, title: "Waits for metadata locks", width: 8, height: 7, unit: none, nothing: "no database tells",
			shows:   "Sessions that wait for a metadata lock, where MariaDB or MySQL tell.",
			good:    "0.",
			act:     "Somebody changes a table that an open transaction has touched: end that transaction.",
			queries: []query{{expr: `max by (target) (db_metadata_lock_waiting)`, legend: "{{target}}"}},
		},
	}
}

func transactions() []panel {
	return []panel{
		{
			kind: timeSeries, title: "Transactions", width: 8, height: 7, unit: perSecond,
			shows: "Transactions a second of all clients, committed and rolled back.",
			good:  "what the applications do; few rolled back.",
			act:   "Many rolled back: errors in an application, or deadlocks and timeouts.",
			queries: []query{
				{expr: `sum by (target) (max by (target, database) (rate(db_transactions_total{outcome="committed"}[$__rate_interval])))`, legend: "committed, {{target}}"},
				{expr: `sum by (target) (max by (target, database) (rate(db_transactions_total{outcome="rolled_back"}[$__rate_interval])))`, legend: "rolled back, {{target}}", dashed: true},
			},
		},
		{
			kind: timeSeries, title: "Oldest transaction", width: 8, height: 7, unit: seconds,
			shows:   "Age of the oldest transaction by state; of one that is idle, how long it has been idle.",
			good:    "seconds.",
			act:     "Idle in transaction for minutes: an application forgot to end it. It holds its locks and keeps the database from cleaning up.",
			queries: []query{{expr: `max by (target, state) (db_transaction_oldest_seconds)`, legend: "{{target}} {{state}}"}},
		},
		{
			kind: timeSeries, title: "Sessions", width: 8, height: 7, unit: none,
			shows: "Client sessions by state, and how many the database lets in (dashed).",
			good:  "far below the limit.",
			act:   "Near the limit: a pool is too large, or sessions pile up behind a lock.",
			queries: []query{
				{expr: `max by (target, state) (db_sessions)`, legend: "{{target}} {{state}}"},
				{expr: `max by (target) (db_sessions_limit)`, legend: "limit, {{target}}", color: neutral, dashed: true},
			},
		},
	}
}

func replicationDetails() []panel {
	return []panel{
		{
			kind: timeSeries, title: "Bytes behind", width: 8, height: 7, unit: sizeBytes, nothing: "no engine counts bytes",
			shows: "Log that each replica has not applied, and, dashed, not received.",
			good:  "near 0.",
			act:   "Not received: the network or the sender. Received and not applied: the replica is busy or paused.",
			queries: []query{
				{expr: `max by (target) (replica_lag_bytes)`, legend: "not applied, {{target}}"},
				{expr: `max by (target) (replica_receive_lag_bytes)`, legend: "not received, {{target}}", dashed: true},
			},
		},
		{
			kind: timeSeries, title: "Transactions behind", width: 8, height: 7, unit: short, nothing: "no engine counts transactions",
			shows:   "Transactions that each replica has not applied, where the engine counts them.",
			good:    "near 0.",
			act:     "Growing with a lag of seconds: many small transactions, and one applier.",
			queries: []query{{expr: `max by (target) (replica_lag_transactions)`, legend: "{{target}}"}},
		},
		{
			kind: timeSeries, title: "Why lag is unknown", width: 8, height: 7, unit: none, nothing: "no replicas",
			shows:   "1 for the reason why the lag of a replica is unknown.",
			good:    "0 everywhere.",
			act:     "starting: wait. primary_unknown: no primary answers. unreachable: the replica does not. no_position: privileges. other_history: it follows another primary and has to be rebuilt.",
			queries: []query{{expr: `max by (target, reason) (replica_lag_unknown)`, legend: "{{target}} {{reason}}"}},
		},
		{
			kind: timeSeries, title: "Standing still", width: 8, height: 7, unit: none, nothing: "no replicas",
			shows: "1 where applying was paused, where the applier does not run, and where the link to the source is down.",
			good:  "0.",
			act:   "Paused: somebody did it; resume it. Applier: see the error code. Link: network, password, or a slot that is gone.",
			queries: []query{
				{expr: `max by (target) (replica_apply_paused)`, legend: "paused, {{target}}"},
				{expr: `1 - min by (target) (replica_applier_running)`, legend: "applier, {{target}}"},
				{expr: `1 - min by (target) (replica_link_up)`, legend: "link, {{target}}"},
			},
		},
		{
			kind: timeSeries, title: "Error codes", width: 8, height: 7, unit: none, nothing: "no engine has error codes",
			shows:   "The engine's error code that stopped a thread of replication.",
			good:    "0.",
			act:     "Look the code up in the engine's manual; its log has the statement.",
			queries: []query{{expr: `max by (target, thread) (replica_error_code)`, legend: "{{target}} {{thread}}"}},
		},
		{
			kind: timeSeries, title: "Log that slots keep", width: 8, height: 7, unit: sizeBytes, nothing: "no slots",
			shows:   "Log that the primary keeps for each replication slot.",
			good:    "small, and falling back.",
			act:     "Growing: the slot's reader is gone or stuck. The primary's disk fills; drop a slot that nobody needs.",
			queries: []query{{expr: `topk(10, max by (target, slot) (replica_slot_retained_bytes))`, legend: "{{target}} {{slot}}"}},
		},
		{
			kind: timeSeries, title: "How well lag is known", width: 8, height: 7, unit: seconds, nothing: "no replicas",
			shows: "Age of the primary's head that positions are compared with, and replicas of which only a lower bound is known (right axis).",
			good:  "about the interval of the probes; 0 replicas.",
			act:   "Old: the primary does not answer. Lower bounds: the replica is farther behind than the gateway remembers.",
			queries: []query{
				{expr: `max by (cluster) (replica_head_age_seconds)`, legend: "{{cluster}}"},
				{expr: `sum by (cluster) (max by (cluster, target) (replica_lag_lower_bound))`, legend: "lower bounds, {{cluster}}", right: true, unit: none},
			},
		},
		{
			kind: timeSeries, title: "Where positions come from", width: 8, height: 7, unit: none, nothing: "no replicas",
			shows:   "Replicas by the source of their position: the replica itself, or the server that it replicates from.",
			good:    "replica.",
			act:     "primary: the replica does not answer us, but still replicates.",
			queries: []query{{expr: `sum by (source) (max by (cluster, target, source) (replica_lag_source))`, legend: "{{source}}"}},
		},
		{
			kind: timeSeries, title: "Generation and configured delay", width: 8, height: 7, unit: none, nothing: "no replicas",
			shows: "The number that grows with each failover, and the delay that is configured on purpose (right axis).",
			good:  "the same generation everywhere; a delay only where somebody wants one.",
			act:   "A replica of an older generation does not follow the new primary.",
			queries: []query{
				{expr: `max by (target) (replica_generation)`, legend: "generation, {{target}}"},
				{expr: `max by (target) (replica_apply_delay_configured_seconds)`, legend: "delay, {{target}}", right: true, unit: seconds},
			},
		},
	}
}

func groups() []panel {
	return []panel{
		{
			kind: timeSeries, title: "Lag of stream groups", width: 8, height: 7, unit: seconds, nothing: "no Redis streams are probed",
			shows:   "Age of the oldest entry that a group of a Redis stream has not been given.",
			good:    "seconds.",
			act:     "Growing: consumers are gone or too slow.",
			queries: []query{{expr: `topk(10, max by (stream, group) (stream_group_lag_seconds))`, legend: "{{stream}} {{group}}"}},
		},
		{
			kind: timeSeries, title: "Entries behind, and pending", width: 8, height: 7, unit: short, nothing: "no Redis streams are probed",
			shows: "Entries that a group has not been given, and, dashed, that were given and not acknowledged.",
			good:  "low, pending about what consumers work on.",
			act:   "Pending grows: a consumer died with its entries; they have to be claimed.",
			queries: []query{
				{expr: `topk(10, max by (stream, group) (stream_group_lag_entries))`, legend: "behind, {{stream}} {{group}}"},
				{expr: `topk(10, max by (stream, group) (stream_group_pending_entries))`, legend: "pending, {{stream}} {{group}}", dashed: true},
			},
		},
		{
			kind: timeSeries, title: "Longest pending", width: 8, height: 7, unit: seconds, nothing: "no Redis streams are probed",
			shows:   "How long the longest of the pending entries has been with its consumer.",
			good:    "the time that an entry takes.",
			act:     "Growing: that consumer is gone.",
			queries: []query{{expr: `topk(10, max by (stream, group) (stream_group_oldest_pending_seconds))`, legend: "{{stream}} {{group}}"}},
		},
		{
			kind: timeSeries, title: "Lag of consumer groups", width: 8, height: 7, unit: seconds, nothing: "no Kafka is probed",
			shows:   "Age of the oldest record that a group has not committed, worst partition of each topic.",
			good:    "seconds.",
			act:     "One topic: its consumers. All: Kafka itself, or a rebalance that does not end.",
			queries: []query{{expr: `topk(10, max by (group, topic) (consumer_group_lag_seconds))`, legend: "{{group}} {{topic}}"}},
		},
		{
			kind: timeSeries, title: "Records behind", width: 8, height: 7, unit: short, nothing: "no Kafka is probed",
			shows:   "Records that a group has not committed, all partitions of a topic.",
			good:    "low.",
			act:     "Growing in one partition only: a key that has most of the records.",
			queries: []query{{expr: `topk(10, sum by (group, topic) (max by (cluster, group, topic, partition) (consumer_group_lag_records)))`, legend: "{{group}} {{topic}}"}},
		},
		{
			kind: timeSeries, title: "Members of consumer groups", width: 8, height: 7, unit: none, nothing: "no Kafka is probed",
			shows:   "Consumers in each group.",
			good:    "as many as are deployed.",
			act:     "0: nobody consumes. Changing all the time: consumers are thrown out and come back.",
			queries: []query{{expr: `max by (cluster, group) (consumer_group_members)`, legend: "{{cluster}} {{group}}"}},
		},
	}
}

func members() []panel {
	return []panel{
		{
			kind: timeSeries, title: "Members behind", width: 8, height: 7, unit: short, nothing: "no etcd is probed",
			shows: "Entries that a member's log is behind the longest, and, dashed, that it has not applied.",
			good:  "near 0.",
			act:   "One member: its disk or network. All, not applied: the disks.",
			queries: []query{
				{expr: `max by (target) (etcd_member_lag_entries)`, legend: "log, {{target}}"},
				{expr: `max by (target) (etcd_member_apply_lag_entries)`, legend: "applied, {{target}}", dashed: true},
			},
		},
		{
			kind: stateTimeline, title: "Leader", width: 8, height: 7, unit: none, nothing: "no etcd is probed",
			states:  []state{{"0", "no leader", lost}, {"1", "follower", waiting}, {"2", "leader", delivered}},
			shows:   "What each member is.",
			good:    "one leader, the others follow.",
			act:     "No leader: most of the members are gone or cannot reach each other; nothing can be written, and leases run out.",
			queries: []query{{expr: `max by (target) (etcd_member_has_leader) + max by (target) (etcd_member_is_leader)`, legend: "{{target}}"}},
		},
		{
			kind: timeSeries, title: "Term", width: 8, height: 7, unit: none, nothing: "no etcd is probed",
			shows:   "The raft term, which grows with each election.",
			good:    "flat, and the same for all.",
			act:     "Growing: elections all the time. Disks too slow for the heartbeat interval, or a bad network.",
			queries: []query{{expr: `max by (target) (etcd_member_raft_term)`, legend: "{{target}}"}},
		},
	}
}

func probes() []panel {
	return []panel{
		{
			kind: stateTimeline, title: "Probes", width: 8, height: 7, unit: none,
			states:  []state{{"0", "failed", lost}, {"1", "well", delivered}},
			shows:   "Whether the last probe of each database did well.",
			good:    "well.",
			act:     "Failed: the log has the database's words. Network, password, or the database is down.",
			queries: []query{{expr: `max by (target) (db_probe_success)`, legend: "{{target}}"}},
		},
		{
			kind: timeSeries, title: "Time of a probe", width: 8, height: 7, unit: seconds,
			shows:   "99 of 100 probes take at most so long, connecting included.",
			good:    "milliseconds.",
			act:     "Near the timeout: the database is overloaded, or the network drops packets.",
			queries: []query{{expr: quantile("0.99", "db_probe_duration_seconds", "target"), legend: "{{target}}"}},
		},
		{
			kind: timeSeries, title: "Time of a read by role", width: 8, height: 7, unit: seconds, nothing: "no SQL database is probed",
			shows:   "Half of the reads of probes that did well take at most so long, by role of the server.",
			good:    "milliseconds, replicas like primaries.",
			act:     "Replicas slower: they are too small for the reads that go there.",
			queries: []query{{expr: quantile("0.5", "sql_read_latency_seconds", "role"), legend: "{{role}}"}},
		},
		{
			kind: timeSeries, title: "Skipped probes", width: 8, height: 7, unit: perSecond,
			shows:   "Probes a second that were left out because the one before had not ended.",
			good:    "0.",
			act:     "The database answers slower than the interval; raise the interval or help the database.",
			queries: []query{{expr: `max by (target, reason) (rate(db_probe_skipped_total[$__rate_interval]))`, legend: "{{target}} {{reason}}"}},
		},
		{
			kind: timeSeries, title: "Since the last good probe", width: 8, height: 7, unit: seconds,
			shows:   "How long ago a probe of each database last did well.",
			good:    "about the interval.",
			act:     "Growing: it has not answered since.",
			queries: []query{{expr: `time() - max by (target) (db_probe_last_success_timestamp_seconds)`, legend: "{{target}}"}},
		},
		{
			kind: table, title: "Privileges", width: 8, height: 7, unit: none,
			shows:   "What the account of the probes may read.",
			good:    "yes everywhere.",
			act:     "No: the metrics of that kind are missing. docs/probe has the statements that grant it.",
			queries: []query{{expr: `max by (cluster, target, kind) (db_probe_privileged)`}},
			columns: []column{
				{label: "cluster", title: "Cluster"},
				{label: "target", title: "Database"},
				{label: "kind", title: "Kind"},
				{query: 0, title: "May read", states: []state{{"0", "no", attention}, {"1", "yes", delivered}}},
			},
		},
		{
			kind: timeSeries, title: "Circuits opened", width: 8, height: 7, unit: perSecond, nothing: "no replicas",
			shows:   "How often a second the circuits of replicas opened: reads were turned away.",
			good:    "0.",
			act:     "Regular: the lag swings around max_lag.",
			queries: []query{{expr: `max by (target) (rate(circuit_open_total[$__rate_interval]))`, legend: "{{target}}"}},
		},
	}
}
