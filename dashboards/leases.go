package dashboards

import "strings"

// ofLocks selects locks by name.
func ofLocks(metric string) []string {
	if strings.HasPrefix(metric, "dlock_") && metric != "dlock_fencing_rejections_total" {
		return []string{"lock"}
	}
	return nil
}

func leases(o *Options) dashboard {
	return dashboard{
		name: "leases", title: "leases and HA", scope: ofLocks,
		description: "Who holds which lock and with which token, how long taking and renewing takes, what was lost; which replica of each pair of Prometheus is believed.",
		variables:   append(gatewayVariables(), variable{name: "lock", label: "Lock", expr: `dlock_held`}),
		annotations: append(commonAnnotations(o.Prefix), annotation{
			name: "Holders", color: attention, title: "Lease", text: "{{lock}} changed its holder",
			expr: `max by (lock) (changes(dlock_fencing_token[2m])) > 0`,
		}),
		rows: []row{
			{panels: leaseFirst()},
			{title: "Holders", panels: holders()},
			{title: "Taking and keeping", panels: keeping()},
			{title: "Pairs of Prometheus", panels: pairs()},
			{title: "The gateway's own transactions and connections", collapsed: true, panels: ownPool()},
		},
	}
}

func leaseFirst() []panel {
	return []panel{
		{
			kind: stat, title: "Locks with a holder", width: 4, height: 4, unit: none,
			shows: "Locks that a gateway holds, and locks that are known.",
			good:  "both are the same.",
			act:   "Fewer: nobody does the job of the lock that has none. Is the store of the leases reachable? See Failed renewals.",
			queries: []query{
				{expr: `sum(max by (kind, lock) (dlock_held))`, legend: "held", color: delivered},
				{expr: `count(count by (kind, lock) (dlock_held))`, legend: "known", color: neutral},
			},
		},
		{
			kind: stat, title: "Most holders of one lock", width: 4, height: 4, unit: none, limits: []string{"TwoLeaders"},
			shows:   "How many gateways say at the same time that they hold a lock, of the lock that has most.",
			good:    "1. For a moment of a scrape 2 may be seen while a lease moves.",
			act:     "2 for longer: clocks that jump, or a store that was restored from a copy. Fences refuse the older token; look at Refused by fences.",
			queries: []query{{expr: `max(sum by (kind, lock) (dlock_held))`, legend: "holders"}},
		},
		{
			kind: stat, title: "Lost leases", width: 4, height: 4, unit: short, limits: []string{"LockLost"},
			shows:   "Leases that ended while they were wanted, in the time shown.",
			good:    "0.",
			act:     "expired: the store did not answer in time. gone: it does not have the lease any more; perhaps it was restarted.",
			queries: []query{{expr: `sum(increase(dlock_lost_total[$__range]))`, legend: "leases"}},
		},
		{
			kind: stat, title: "Refused by fences", width: 4, height: 4, unit: short,
			shows:   "Effects that came under the token of a former holder and were refused, in the time shown.",
			good:    "0.",
			act:     "Each would have been a write of two holders at a time. It was prevented; find out why that gateway was so late.",
			queries: []query{{expr: orZero(grown(`dlock_fencing_rejections_total`, "")), legend: "effects", color: lost}},
		},
		{
			kind: stat, title: "Elections of replicas", width: 4, height: 4, unit: short,
			shows:   "How often another replica of a pair of Prometheus was elected, in the time shown.",
			good:    "0, but when one of a pair was restarted.",
			act:     "Many: both replicas send with pauses longer than failover_timeout, or the store of the elections is slow.",
			queries: []query{{expr: orZero(`sum(increase(ha_elections_total[$__range]))`), legend: "elections", color: attention}},
		},
		{
			kind: stat, title: "Oldest accepted sample", width: 4, height: 4, unit: seconds, nothing: "no pairs",
			shows:   "How long ago a sample of the elected replica was accepted, of the pair that is worst.",
			good:    "about the interval at which Prometheus sends.",
			act:     "Beyond failover_timeout: neither replica sends, or no gateway may elect.",
			queries: []query{{expr: `time() - min(max by (cluster) (ha_last_accepted_timestamp_seconds))`, legend: "ago"}},
		},
	}
}

func holders() []panel {
	return []panel{
		{
			kind: table, title: "Who holds what", width: 12, height: 8, unit: none, nothing: "no locks",
			shows: "Each lock with the instance that was last seen to hold it, and the newest token.",
			good:  "one line for each lock.",
			act:   "Two lines: gateways see different holders, or one has not looked for a while.",
			queries: []query{
				{expr: `max by (kind, lock, holder) (dlock_holder_info)`},
				{expr: `max by (kind, lock) (dlock_fencing_token) * on (kind, lock) group_right () max by (kind, lock, holder) (dlock_holder_info)`},
			},
			columns: []column{{label: "lock", title: "Lock"}, {label: "kind", title: "Kind"}, {label: "holder", title: "Holder"}, {query: 1, title: "Token"}},
		},
		{
			kind: stateTimeline, title: "Held by", width: 12, height: 8, unit: none, nothing: "no locks",
			states:  []state{{"0", "not held", neutral}, {"1", "held", delivered}},
			shows:   "Which gateway held which lock when.",
			good:    "one green bar at a time for each lock.",
			act:     "Gaps: nobody held it. Bars that alternate: the store is slow for one of them, or it is restarted.",
			queries: []query{{expr: `max by (lock, instance) (dlock_held)`, legend: "{{lock}} {{instance}}"}},
		},
		{
			kind: timeSeries, title: "Time left", width: 8, height: 7, unit: seconds, nothing: "no locks",
			shows:   "Time until each lease ends without another renewal.",
			good:    "between two thirds of the TTL and the TTL.",
			act:     "Towards 0: renewals fail; see Failed renewals.",
			queries: []query{{expr: `max by (lock) (dlock_deadline_remaining_seconds)`, legend: "{{lock}}"}},
		},
		{
			kind: timeSeries, title: "Tokens", width: 8, height: 7, unit: none, nothing: "no locks with tokens",
			shows:   "The token of the lease that was granted last. It grows with each grant.",
			good:    "flat.",
			act:     "Falling: the store lost its data, and fences refuse until they are reset. Many steps: the lock moves all the time.",
			queries: []query{{expr: `max by (lock) (dlock_fencing_token)`, legend: "{{lock}}"}},
		},
		{
			kind: timeSeries, title: "Changes of holders", width: 8, height: 7, unit: perSecond, nothing: "no locks",
			shows: "Changes of the lock's holder a second, and attempts that found it held by another (dashed).",
			good:  "no changes.",
			act:   "Changes: leases are lost or gateways restart.",
			queries: []query{
				{expr: `max by (lock) (rate(dlock_transitions_total[$__rate_interval]))`, legend: "changes, {{lock}}"},
				{expr: `sum by (lock) (rate(dlock_contention_total[$__rate_interval]))`, legend: "held by another, {{lock}}", dashed: true},
			},
		},
	}
}

func keeping() []panel {
	return []panel{
		{
			kind: stateTimeline, title: "Answers of the store", width: 24, height: 5, unit: none, nothing: "no locks",
			states:  []state{{"0", "no answer", lost}, {"1", "answers", delivered}},
			shows:   "Whether the store of the leases gave an answer when each gateway last asked it about a lock.",
			good:    "answers.",
			act:     "No answer: nobody may know who holds the lock, and nobody may do its job. The log has the error; mend the store, or the account that the gateways use.",
			queries: []query{{expr: `min by (lock, instance) (dlock_backend_up)`, legend: "{{lock}} {{instance}}"}},
		},
		{
			kind: timeSeries, title: "Time of an attempt", width: 8, height: 7, unit: seconds, nothing: "no attempts",
			shows:   "99 of 100 attempts to take a lock take at most so long, by outcome; where there was none lately, of all since the gateways started.",
			good:    "milliseconds; tens of them with a PostgreSQL that syncs.",
			act:     "Near 300 ms: the store is overloaded. late: it grants so slowly that the lease is given back at once.",
			queries: []query{{expr: `(` + quantile("0.99", "dlock_acquire_duration_seconds", "kind", "outcome") + `) >= 0 or ` + quantileEver("0.99", "dlock_acquire_duration_seconds", "kind", "outcome"), legend: "{{kind}} {{outcome}}"}},
		},
		{
			kind: timeSeries, title: "Time until a lock is had", width: 8, height: 7, unit: seconds, nothing: "no lock was acquired",
			shows:   "Time from the wish for a lock until it was acquired, 99 of 100 since the gateways started.",
			good:    "after the death of a holder at most its TTL and a second.",
			act:     "Longer: releases are not told, or the store was away.",
			queries: []query{{expr: quantileEver("0.99", "dlock_wait_seconds", "lock"), legend: "{{lock}}"}},
		},
		{
			kind: timeSeries, title: "Time of a renewal", width: 8, height: 7, unit: seconds, nothing: "no locks",
			shows: "Half of the renewals take at most the lower line, 99 of 100 the upper one.",
			good:  "milliseconds.",
			act:   "Near 300 ms calls are given up and repeated.",
			queries: []query{
				{expr: quantile("0.5", "dlock_renewal_duration_seconds", "kind"), legend: "half, {{kind}}", color: waiting},
				{expr: quantile("0.99", "dlock_renewal_duration_seconds", "kind"), legend: "99 of 100, {{kind}}", color: attention},
			},
		},
		{
			kind: timeSeries, title: "Renewals", width: 8, height: 7, unit: perSecond, nothing: "no locks",
			shows:   "Confirmed renewals a second.",
			good:    "three in each TTL for each lock that is held.",
			act:     "Fewer: see Failed renewals.",
			queries: []query{{expr: `sum by (lock) (rate(dlock_renewals_total[$__rate_interval]))`, legend: "{{lock}}"}},
		},
		{
			kind: timeSeries, title: "Failed renewals", width: 8, height: 7, unit: perSecond, nothing: "no locks",
			shows:   "Renewals a second that were not confirmed, by reason.",
			good:    "0; a few do no harm.",
			act:     "timeout: slow store or network. error: no connection. gone: the lease is not there any more.",
			queries: []query{{expr: `sum by (lock, reason) (rate(dlock_renewal_failures_total[$__rate_interval]))`, legend: "{{lock}} {{reason}}"}},
		},
		{
			kind: timeSeries, title: "Lost leases by reason", width: 8, height: 7, unit: perSecond, nothing: "no locks",
			shows: "Leases a second that ended while they were wanted, and releases that the store was not told of (dashed).",
			good:  "0.",
			act:   "The runbook, under LockLost.",
			queries: []query{
				{expr: `sum by (lock, reason) (rate(dlock_lost_total[$__rate_interval]))`, legend: "{{lock}} {{reason}}"},
				{expr: `sum by (lock) (rate(dlock_release_failures_total[$__rate_interval]))`, legend: "release, {{lock}}", dashed: true},
			},
		},
		{
			kind: timeSeries, title: "How long leases are held", width: 8, height: 7, unit: seconds, nothing: "no lease has ended",
			shows:   "Half of the leases that ended since the gateways started had been held for at most so long.",
			good:    "days; in this picture nothing, as none ends.",
			act:     "Seconds: leases are lost again and again.",
			queries: []query{{expr: quantileEver("0.5", "dlock_held_duration_seconds", "lock"), legend: "{{lock}}"}},
		},
	}
}

func pairs() []panel {
	return []panel{
		{
			kind: table, title: "Elected replicas", width: 8, height: 8, unit: none, nothing: "no pairs",
			shows: "The replica of each pair that is believed, as the gateways see it.",
			good:  "one line for each pair.",
			act:   "Two lines for one pair for longer than a few seconds: a gateway does not reach the store of the elections and keeps what it knew.",
			queries: []query{
				{expr: `max by (cluster, replica) (ha_elected_replica_info)`},
				{expr: `time() - max by (cluster) (ha_last_election_timestamp_seconds) * on (cluster) group_right () max by (cluster, replica) (ha_elected_replica_info)`},
			},
			columns: []column{{label: "cluster", title: "Pair"}, {label: "replica", title: "Elected"}, {query: 1, title: "Since", unit: seconds}},
		},
		{
			kind: timeSeries, title: "Since the last accepted sample", width: 8, height: 8, unit: seconds, nothing: "no pairs",
			shows:   "How long ago a sample of each pair was accepted.",
			good:    "a saw tooth of the interval at which Prometheus sends.",
			act:     "Climbing beyond failover_timeout: neither replica sends.",
			queries: []query{{expr: `time() - max by (cluster) (ha_last_accepted_timestamp_seconds)`, legend: "{{cluster}}"}},
		},
		{
			kind: timeSeries, title: "Samples that were put aside", width: 8, height: 8, unit: perSecond, nothing: "no pairs",
			shows:   "Samples a second that were taken from a replica and not passed on, by reason.",
			good:    "those of the replica that is not elected: as many as are passed on.",
			act:     "Other reasons are explained in docs/ha.md.",
			queries: []query{{expr: `sum by (reason) (rate(ha_dropped_samples_total[$__rate_interval]))`, legend: "{{reason}}"}},
		},
		{
			kind: timeSeries, title: "Elections", width: 8, height: 7, unit: perSecond, nothing: "no pairs",
			shows:   "Elections a second.",
			good:    "0.",
			act:     "See the panel of the first row.",
			queries: []query{{expr: `sum by (cluster) (rate(ha_elections_total[$__rate_interval]))`, legend: "{{cluster}}"}},
		},
		{
			kind: timeSeries, title: "Writes of the record", width: 8, height: 7, unit: perSecond, nothing: "no pairs",
			shows:   "Compare-and-swap operations on the records of elections a second, by outcome.",
			good:    "one for each interval at which Prometheus sends, and no errors.",
			act:     "Errors: the store does not answer. Conflicts: two gateways write for the same replica.",
			queries: []query{{expr: `sum by (outcome) (rate(ha_kv_cas_total[$__rate_interval]))`, legend: "{{outcome}}"}},
		},
		{
			kind: timeSeries, title: "Hold-back buffer", width: 8, height: 7, unit: sizeBytes, nothing: "no pairs",
			shows: "Memory of the samples of replicas that are not elected, and how often something did not fit (right axis).",
			good:  "flat below buffer_bytes, no overflow.",
			act:   "Overflow: a failover would leave a gap. Raise buffer_bytes.",
			queries: []query{
				{expr: `sum by (instance) (ha_buffer_bytes)`, legend: "{{instance}}", color: waiting},
				{expr: `sum by (instance) (rate(ha_buffer_overflow_total[$__rate_interval]))`, legend: "overflow, {{instance}}", color: lost, right: true, unit: perSecond},
			},
		},
	}
}

func ownPool() []panel {
	return []panel{
		{
			kind: timeSeries, title: "Time of a transaction", width: 8, height: 7, unit: seconds, limits: []string{"TransactionSlow"}, nothing: "no lease is kept in PostgreSQL",
			shows:   "95 of 100 of the gateway's own transactions take at most so long.",
			good:    "milliseconds.",
			act:     "Seconds: the database is overloaded, or waits for a lock.",
			queries: []query{{expr: quantile("0.95", "transaction_duration_seconds", "application"), legend: "{{application}}"}},
		},
		{
			kind: timeSeries, title: "Rolled back", width: 8, height: 7, unit: share, top: 1, limits: []string{"TransactionRollbacksHigh"}, nothing: "no lease is kept in PostgreSQL",
			shows:   "The share of the gateway's own transactions that were refused or got no answer.",
			good:    "0.",
			act:     "Look at the database's log; the gateway's names the error.",
			queries: []query{{expr: `sum by (application) (rate(transaction_rollback_total[$__rate_interval])) / (sum by (application) (rate(transaction_total[$__rate_interval])) > 0)`, legend: "{{application}}"}},
		},
		{
			kind: timeSeries, title: "Nesting", width: 8, height: 7, unit: none, limits: []string{"TransactionNestingDeep"}, nothing: "no lease is kept in PostgreSQL",
			shows:   "Depth of the gateway's own open transactions.",
			good:    "0 or 1.",
			act:     "More cannot be; report it.",
			queries: []query{{expr: `max by (application, pool) (transaction_nesting_depth)`, legend: "{{application}} {{pool}}"}},
		},
		{
			kind: timeSeries, title: "Connections", width: 8, height: 7, unit: none, nothing: "no lease is kept in PostgreSQL",
			shows: "Connections of the gateway's own pools by state, and the bound (dashed).",
			good:  "below the bound.",
			act:   "At the bound: calls wait; see the time below.",
			queries: []query{
				{expr: `sum by (pool, state) (db_pool_connections)`, legend: "{{pool}} {{state}}"},
				{expr: `sum by (pool) (db_pool_max_connections)`, legend: "bound, {{pool}}", color: neutral, dashed: true},
			},
		},
		{
			kind: timeSeries, title: "Use of the pool", width: 8, height: 7, unit: share, top: 1, limits: []string{"PoolNearlyFull"}, nothing: "no lease is kept in PostgreSQL",
			shows:   "The share of the pool's connections that are in use.",
			good:    "low.",
			act:     "Near the line: more is asked for than the pool has.",
			queries: []query{{expr: `max by (pool) (hikaricp_connections_active / hikaricp_connections_max)`, legend: "{{pool}}"}},
		},
		{
			kind: timeSeries, title: "Waits for a connection", width: 8, height: 7, unit: seconds, limits: []string{"ConnectionQueueSlow"}, nothing: "no lease is kept in PostgreSQL",
			shows: "99 of 100 calls wait at most so long for a connection, and statements that were cut off a second (right axis).",
			good:  "0.",
			act:   "Growing: the database does not let more connections in, or connecting is slow.",
			queries: []query{
				{expr: `max by (pool) (db_conn_queue_time_seconds{quantile="0.99"})`, legend: "{{pool}}"},
				{expr: `sum by (reason) (rate(jdbc_statement_timeout_total[$__rate_interval]))`, legend: "cut off, {{reason}}", color: lost, right: true, unit: perSecond},
			},
		},
	}
}
