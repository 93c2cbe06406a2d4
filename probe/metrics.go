package probe

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what probes cost, and what they found. What was found is read from the
// clusters' snapshots whenever it is asked for: unknown is absent.
type Metrics struct {
	clusters func() []*Cluster
	duration *prometheus.HistogramVec
	latency  *prometheus.HistogramVec
	skipped  *prometheus.CounterVec
}

// NewMetrics registers the metrics of all clusters. The function returns those that there
// are at the moment; it is called for each scrape and may be called at once by several.
func NewMetrics(reg prometheus.Registerer, clusters func() []*Cluster) *Metrics {
	buckets := prometheus.ExponentialBucketsRange(0.00025, 30, 18)
	m := &Metrics{
		clusters: clusters,
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "db_probe_duration_seconds",
			Help:    "Time that one probe of a database took, in seconds, connecting included, whether it did well or not.",
			Buckets: buckets,
		}, labelsOfTarget),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sql_read_latency_seconds",
			Help:    "Time of one read from an SQL database, in seconds, by its role: that of the probe, when it did well.",
			Buckets: buckets,
		}, append([]string{"role"}, labelsOfTarget...)),
		skipped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "db_probe_skipped_total",
			Help: "Probes that were left out, by reason; running: the one before had not ended. 0: none.",
		}, append([]string{"reason"}, labelsOfTarget...)),
	}
	reg.MustRegister(m.duration, m.latency, m.skipped, m)
	return m
}

var labelsOfTarget = []string{"cluster", "target", "engine"}

func labels(cluster string, p Prober) prometheus.Labels {
	return prometheus.Labels{"cluster": cluster, "target": p.Target(), "engine": string(p.Engine())}
}

// observe counts a probe that ended. A nil Metrics counts nothing.
func (m *Metrics) observe(cluster string, p Prober, o outcome) {
	if m == nil {
		return
	}
	took := o.end.Sub(o.start).Seconds()
	l := labels(cluster, p)
	m.duration.With(l).Observe(took)
	l["reason"] = "running"
	m.skipped.With(l) // there from the beginning, with 0
	delete(l, "reason")
	switch p.Engine() {
	case EnginePostgres, EngineMariaDB, EngineMySQL:
		if o.err == nil && o.reading.Role != RoleNone {
			l["role"] = string(o.reading.Role)
			m.latency.With(l).Observe(took)
		}
	}
}

func (m *Metrics) skip(cluster string, p Prober) {
	if m == nil {
		return
	}
	l := labels(cluster, p)
	l["reason"] = "running"
	m.skipped.With(l).Inc()
}

// forget drops what was counted for a cluster that is not probed any more.
func (m *Metrics) forget(cluster string) {
	if m == nil {
		return
	}
	l := prometheus.Labels{"cluster": cluster}
	m.duration.DeletePartialMatch(l)
	m.latency.DeletePartialMatch(l)
	m.skipped.DeletePartialMatch(l)
}

// family is one metric family that is made from snapshots.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, more ...string) family {
	return family{prometheus.NewDesc(name, help, append(labelsOfTarget[:3:3], more...), nil), prometheus.GaugeValue}
}

func counter(name, help string, more ...string) family {
	f := gauge(name, help, more...)
	f.kind = prometheus.CounterValue
	return f
}

// The families. They are descriptions and never change.
var (
	probeSuccess     = gauge("db_probe_success", "1: the last probe of the database did well. 0: it failed, or is too old; what is unknown because of that is absent.")
	probeLastSuccess = gauge("db_probe_last_success_timestamp_seconds", "Unix time in seconds at which a probe last did well; absent: never.")
	probePrivileged  = gauge("db_probe_privileged", "1: the probe's account may read this kind of information. 0: it lacks the privilege; what the server does not show to it is absent, what it shows to everybody is not.", "kind")

	lagSeconds      = gauge("replica_lag_seconds", "Age of the oldest change that this replica has not applied; absent when unknown. In seconds; 0: it has applied all.")
	lagBytes        = gauge("replica_lag_bytes", "Bytes of log that this replica has not applied; absent when unknown. 0: it has applied all.")
	lagTransactions = gauge("replica_lag_transactions", "Transactions that this replica has not applied; absent when unknown. 0: it has applied all.")
	receiveLagBytes = gauge("replica_receive_lag_bytes", "Bytes of log that this replica has not received; absent when unknown. 0: it has received all.")
	lagLowerBound   = gauge("replica_lag_lower_bound", "1: the missing change is older than what the gateway remembers; the lag is replica_lag_seconds or more. 0: it is exact to one tick.")
	lagUnknown      = gauge("replica_lag_unknown", "1: the lag is unknown, for this reason. 0: it is known, or unknown for another reason.", "reason")
	lagSource       = gauge("replica_lag_source", "1: the replica's position comes from this source (the replica itself, or the server it replicates from). 0: not from this one; all 0: the lag is unknown.", "source")
	headAge         = gauge("replica_head_age_seconds", "Time in seconds since the head of the primary was read that the replica's position is compared with; 0: just now, absent: never.")
	applyPaused     = gauge("replica_apply_paused", "1: somebody paused the applying of changes on this replica. 0: not paused.")
	linkUp          = gauge("replica_link_up", "1: the replica's connection to its source is up, as the engine sees it, which may take its timeout to notice. 0: down.")
	applierRunning  = gauge("replica_applier_running", "1: the replica's applier runs. 0: it was stopped or ended with an error.")
	applyDelay      = gauge("replica_apply_delay_configured_seconds", "Delay in seconds that is configured on this replica on purpose. 0: none.")
	errorCode       = gauge("replica_error_code", "Error code of the engine that stopped this thread of replication. 0: no error.", "thread")
	role            = gauge("replica_role", "1: the server says that it has this role now; unknown: it does not answer. 0: it has another one.", "role")
	generation      = gauge("replica_generation", "Number that grows with each failover (PostgreSQL: the timeline). 0: the engine has none.")
	roleChanges     = counter("replica_role_changes_total", "Changes between primary and replica that were seen. 0: none since the gateway began to probe.")
	readWeight      = gauge("replica_read_weight", "Share of reads that this replica should get, of 100 for one that is idle and has everything. 0: none.")
	slotRetained    = gauge("replica_slot_retained_bytes", "Bytes of log that the replication slot keeps on this server. 0: none.", "slot")
	circuitState    = gauge("circuit_state", "1: the replica's circuit is in this state (closed: reads may go there). 0: in another one.", "state")
	circuitOpened   = counter("circuit_open_total", "Times that the replica's circuit opened: its lag was above max_lag, or its role changed. 0: never.")

	locksWaiting    = gauge("db_locks_waiting", "Sessions that wait for a lock, by database, type and mode of the lock. 0, with empty labels: nobody waits.", "database", "type", "mode")
	lockWaitOldest  = gauge("db_lock_wait_oldest_seconds", "How long the first of those has waited that wait for a lock, in seconds. 0: nobody waits.")
	lockWaits       = counter("db_lock_waits_total", "Waits for a lock since the database's start. 0: none.")
	lockWaitSeconds = counter("db_lock_wait_seconds_total", "Time that was spent in waits for a lock that have ended, in seconds, since the database's start. 0: none.")
	chainDepth      = gauge("db_lock_blocking_chain_depth", "Steps from a session that blocks others and waits for nobody to the farthest that waits for it. 0: nobody waits.")
	rootBlockers    = gauge("db_lock_root_blockers", "Sessions that block others and wait for nobody. 0: nobody blocks.")
	deadlocks       = counter("db_deadlocks_total", "Deadlocks that the database has broken since its start or the reset of its statistics. 0: none.", "database")
	metadataWaiting = gauge("db_metadata_lock_waiting", "Sessions that wait for a metadata lock. 0: nobody waits.")
	transactions    = counter("db_transactions_total", "Transactions since the database's start or the reset of its statistics, by outcome. 0: none.", "database", "outcome")
	oldest          = gauge("db_transaction_oldest_seconds", "Age in seconds of the oldest transaction by state; for idle_in_transaction how long it has been idle. 0: there is none.", "state")
	sessions        = gauge("db_sessions", "Client sessions by state. 0: none.", "state")
	sessionsLimit   = gauge("db_sessions_limit", "Sessions that the database lets in. 0: none.")

	groupEntries       = gauge("stream_group_lag_entries", "Entries of the stream that the group has not been given; absent when unknown, as after deletions. 0: it has been given all.", "stream", "group")
	groupSeconds       = gauge("stream_group_lag_seconds", "Age in seconds of the oldest entry that the group has not been given. 0: it has been given all.", "stream", "group")
	groupPending       = gauge("stream_group_pending_entries", "Entries that were given to consumers and not acknowledged. 0: none.", "stream", "group")
	groupOldestPending = gauge("stream_group_oldest_pending_seconds", "How long in seconds the longest of the pending entries has been with its consumer. 0: none is pending.", "stream", "group")
	consumerRecords    = gauge("consumer_group_lag_records", "Records of the partition that the group has not committed. 0: it has committed all.", "group", "topic", "partition")
	consumerSeconds    = gauge("consumer_group_lag_seconds", "Age in seconds of the oldest record of the partition that the group has not committed, since the gateway watches. 0: it has committed all.", "group", "topic", "partition")
	consumerMembers    = gauge("consumer_group_members", "Consumers in the group. 0: nobody consumes.", "group")

	memberLag      = gauge("etcd_member_lag_entries", "Entries that the member's log is behind the longest log among the members that answer. 0: none.")
	memberApplyLag = gauge("etcd_member_apply_lag_entries", "Entries in the member's log that it has not applied. 0: none.")
	memberLeader   = gauge("etcd_member_has_leader", "1: the member knows a leader. 0: it knows none and cannot write.")
	memberIsLeader = gauge("etcd_member_is_leader", "1: the member is the leader. 0: it is not.")
	memberTerm     = gauge("etcd_member_raft_term", "Raft term of the member, which grows with each election. 0: before the first.")

	clusterPrimaries = family{prometheus.NewDesc("replica_cluster_primaries", "Databases of the cluster that say they are its primary: 1 is right. 0: none answers.", []string{"cluster"}, nil), prometheus.GaugeValue}
)

// families lists all that Collect may send.
func families() []family {
	return []family{
		probeSuccess, probeLastSuccess, probePrivileged,
		lagSeconds, lagBytes, lagTransactions, receiveLagBytes, lagLowerBound, lagUnknown, lagSource, headAge, applyPaused,
		linkUp, applierRunning, applyDelay, errorCode, role, generation, roleChanges, readWeight, slotRetained,
		circuitState, circuitOpened, clusterPrimaries,
		locksWaiting, lockWaitOldest, lockWaits, lockWaitSeconds, chainDepth, rootBlockers, deadlocks, metadataWaiting,
		transactions, oldest, sessions, sessionsLimit,
		groupEntries, groupSeconds, groupPending, groupOldestPending, consumerRecords, consumerSeconds, consumerMembers,
		memberLag, memberApplyLag, memberLeader, memberIsLeader, memberTerm,
	}
}

// Describe sends the descriptions of what Collect may send.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range families() {
		ch <- f.desc
	}
}

// Collect sends what is known now.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.clusters() {
		s := c.Snapshot()
		if !s.Leading {
			continue
		}
		clusterPrimaries.send(ch, float64(s.Primaries), s.Cluster)
		for i := range s.Targets {
			v := &s.Targets[i]
			e := emitter{ch, []string{s.Cluster, v.Target, string(v.Engine)}}
			e.probe(v)
			e.replication(s, v)
			if v.Reading != nil {
				e.locks(v)
				e.transactions(v.Reading.Transactions)
				e.groups(v)
				e.member(v)
			}
		}
	}
}

func (f family) send(ch chan<- prometheus.Metric, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
}

// emitter sends the metrics of one target.
type emitter struct {
	ch     chan<- prometheus.Metric
	labels []string
}

func (e emitter) put(f family, value float64, more ...string) {
	f.send(e.ch, value, append(e.labels[:3:3], more...)...)
}

func (e emitter) bool(f family, value bool, more ...string) { e.put(f, number(value), more...) }

func (e emitter) maybeBool(f family, value Maybe[bool]) {
	if value.Known {
		e.bool(f, value.Value)
	}
}

func (e emitter) maybeCount(f family, value Maybe[uint64], more ...string) {
	if value.Known {
		e.put(f, float64(value.Value), more...)
	}
}

func (e emitter) maybeSeconds(f family, value Maybe[time.Duration], more ...string) {
	if value.Known {
		e.put(f, value.Value.Seconds(), more...)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (e emitter) probe(v *TargetView) {
	if !v.Probed {
		return
	}
	e.bool(probeSuccess, v.Success)
	if !v.LastSuccess.IsZero() {
		e.put(probeLastSuccess, float64(v.LastSuccess.UnixMilli())/1000)
	}
	if v.Reading == nil {
		return
	}
	for kind, ok := range v.Reading.Privileged {
		e.bool(probePrivileged, ok, kind)
	}
}

func (e emitter) replication(s *Snapshot, v *TargetView) {
	switch v.Engine {
	case EngineEtcd, EngineKafka:
		return
	}
	for _, r := range []Role{RolePrimary, RoleReplica} {
		e.bool(role, v.Role == r, string(r))
	}
	e.bool(role, v.Role == RoleNone, "unknown")
	e.put(roleChanges, float64(v.RoleChanges))
	if v.Replica {
		e.lag(s, v)
		e.steering(v)
	}
	r := v.Reading
	if r == nil {
		return
	}
	e.put(generation, float64(r.Generation))
	e.maybeBool(applyPaused, r.ApplyPaused)
	e.maybeBool(linkUp, r.LinkUp)
	e.maybeBool(applierRunning, r.ApplierRunning)
	e.maybeSeconds(applyDelay, r.ApplyDelay)
	for thread, code := range r.Errors {
		e.put(errorCode, float64(code), thread)
	}
	for _, slot := range r.Slots {
		e.maybeCount(slotRetained, slot.Retained, slot.Name)
	}
}

func (e emitter) lag(s *Snapshot, v *TargetView) {
	e.maybeSeconds(headAge, s.HeadAge)
	for _, reason := range Reasons() {
		e.bool(lagUnknown, v.Lag.Unknown == reason, string(reason))
	}
	for _, source := range []Source{SourceReplica, SourcePrimary} {
		e.bool(lagSource, v.Lag.Source == source, string(source))
	}
	if !v.Lag.Known() {
		return
	}
	e.put(lagSeconds, v.Lag.Age.Seconds())
	e.bool(lagLowerBound, v.Lag.LowerBound)
	switch v.Lag.Unit {
	case UnitBytes:
		e.put(lagBytes, float64(v.Lag.Distance))
		e.maybeCount(receiveLagBytes, v.Lag.ReceiveDistance)
	case UnitTransactions:
		e.put(lagTransactions, float64(v.Lag.Distance))
	}
}

func (e emitter) steering(v *TargetView) {
	e.put(readWeight, float64(v.Weight))
	for _, state := range []CircuitState{CircuitClosed, CircuitHalfOpen, CircuitOpen} {
		e.bool(circuitState, v.Circuit == state, string(state))
	}
	e.put(circuitOpened, float64(v.Opened))
}

func (e emitter) locks(v *TargetView) {
	l := v.Reading.Locks
	if l == nil {
		return
	}
	if len(l.Waiting) == 0 {
		e.put(locksWaiting, 0, "", "", "")
	}
	first := Maybe[time.Duration]{Known: len(l.Waiting) == 0}
	for _, w := range l.Waiting {
		e.put(locksWaiting, float64(w.Sessions), w.Database, w.Type, w.Mode)
		first.Known = first.Known || w.Oldest.Known
		first.Value = max(first.Value, w.Oldest.Value)
	}
	e.maybeSeconds(lockWaitOldest, first)
	e.maybeCount(lockWaits, l.Waits)
	e.maybeSeconds(lockWaitSeconds, l.WaitTime)
	e.put(chainDepth, float64(v.Graph.Depth))
	e.put(rootBlockers, float64(v.Graph.Roots))
	e.maybeCount(metadataWaiting, l.MetadataWaiting)
	for _, d := range l.Deadlocks {
		e.put(deadlocks, float64(d.Value), d.Database)
	}
}

func (e emitter) transactions(t *Transactions) {
	if t == nil {
		return
	}
	for state, age := range t.Oldest {
		e.put(oldest, age.Seconds(), state)
	}
	for state, n := range t.Sessions {
		e.put(sessions, float64(n), state)
	}
	e.maybeCount(sessionsLimit, t.SessionsLimit)
	for _, d := range t.Committed {
		e.put(transactions, float64(d.Value), d.Database, "committed")
	}
	for _, d := range t.RolledBack {
		e.put(transactions, float64(d.Value), d.Database, "rolled_back")
	}
}

func (e emitter) groups(v *TargetView) {
	for _, g := range v.Reading.StreamGroups {
		e.maybeCount(groupEntries, g.Entries, g.Stream, g.Group)
		e.maybeSeconds(groupSeconds, g.Lag, g.Stream, g.Group)
		e.maybeCount(groupPending, g.Pending, g.Stream, g.Group)
		e.maybeSeconds(groupOldestPending, g.OldestPending, g.Stream, g.Group)
	}
	for _, g := range v.Groups {
		partition := strconv.Itoa(int(g.Partition))
		e.put(consumerRecords, float64(g.Records), g.Group, g.Topic, partition)
		e.put(consumerSeconds, g.Age.Seconds(), g.Group, g.Topic, partition)
	}
	for _, g := range v.Reading.ConsumerGroups {
		e.maybeCount(consumerMembers, g.Members, g.Group)
	}
}

func (e emitter) member(v *TargetView) {
	m := v.Reading.Member
	if m == nil {
		return
	}
	e.maybeCount(memberLag, v.MemberLag)
	e.put(memberApplyLag, float64(m.Index-min(m.Index, m.Applied)))
	e.bool(memberLeader, m.HasLeader)
	e.bool(memberIsLeader, m.IsLeader)
	e.put(memberTerm, float64(m.Term))
}
