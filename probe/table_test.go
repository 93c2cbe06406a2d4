package probe

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// everyCluster is a picture with a target of each kind, and some of which little is known.
func everyCluster() []*Snapshot {
	primary := TargetView{
		Target: "db1:5432", Engine: EnginePostgres, Probed: true, Success: true, Role: RolePrimary, Head: true,
		Reading: &Reading{
			Privileged: map[string]bool{"locks": true},
			Locks: &Locks{
				Waiting: []LockWaiting{{Database: "app", Type: "relation", Mode: "AccessShareLock", Sessions: 3, Oldest: Some(12 * time.Second)}},
				Blocked: []Blocked{
					{Session: 4101, Blockers: []uint64{3990, 3991}}, {Session: 4102, Blockers: []uint64{4101}}, {Session: 4103},
				},
				Deadlocks: []DatabaseTotal{{"app", 2}, {"postgres", 0}},
			},
			Transactions: &Transactions{
				Oldest:   map[string]time.Duration{StateActive: 0, StateIdleInTransaction: 15 * time.Second},
				Sessions: map[string]uint64{StateActive: 4, StateIdle: 2}, SessionsLimit: Some(uint64(100)),
				Committed: []DatabaseTotal{{"app", 70}, {"postgres", 7}}, RolledBack: []DatabaseTotal{{"app", 5}},
			},
			Slots: []Slot{{Name: "r1", Active: true, Retained: Some(uint64(4096))}, {Name: "old", Lost: true}},
		},
	}
	primary.Graph = Walk(primary.Reading.Locks.Blocked)
	blind := TargetView{
		Target: "db2:5432", Engine: EnginePostgres, Probed: true, Success: true, Role: RoleReplica, Replica: true, Circuit: CircuitClosed,
		Lag: Lag{Unknown: ReasonNoPosition}, Reading: &Reading{Privileged: map[string]bool{"replication": false, "locks": false, "transactions": true}},
	}
	return []*Snapshot{
		{Cluster: "orders", Leading: true, Targets: []TargetView{
			primary, blind,
			{Target: "db3:5432", Engine: EnginePostgres, Probed: true, Error: "connection refused", Replica: true, Lag: Lag{Unknown: ReasonUnreachable}, Circuit: CircuitOpen},
		}},
		{Cluster: "cache", Leading: true, Targets: []TargetView{{
			Target: "r1:6379", Engine: EngineRedis, Probed: true, Success: true, Role: RolePrimary,
			Reading: &Reading{StreamGroups: []StreamGroup{{Stream: "orders", Group: "billing", Lag: Some(3 * time.Second), Pending: Some(uint64(1)), OldestPending: Some(5 * time.Second)}}},
		}}},
		{Cluster: "bus", Leading: true, Targets: []TargetView{{
			Target: "k1:9092", Engine: EngineKafka, Probed: true, Success: true,
			Reading: &Reading{ConsumerGroups: []ConsumerGroup{{Group: "billing", Members: Some(uint64(2))}, {Group: "idle"}}},
			Groups:  []GroupLag{{Group: "billing", Topic: "t", Records: 3, Age: time.Second}, {Group: "billing", Topic: "t", Partition: 1, Records: 4, Age: 2 * time.Second, LowerBound: true}},
		}}},
		{Cluster: "registry", Leading: true, Targets: []TargetView{{
			Target: "e1:2379", Engine: EngineEtcd, Probed: true, Success: true, MemberLag: Some(uint64(7)),
			Reading: &Reading{Member: &Member{HasLeader: true, Term: 5, Index: 100, Applied: 99}},
		}}},
	}
}

func TestWriteTable(t *testing.T) {
	var b strings.Builder
	require.NoError(t, WriteTable(&b, everyCluster()))
	var got []string
	for line := range strings.Lines(b.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	require.Equal(t, []string{
		"CLUSTER TARGET ENGINE ROLE LAG WEIGHT CIRCUIT WAITING BLOCKED BY NOTE",
		"orders db1:5432 postgres primary - - - 3 session 3990, 3991 (2 deep)",
		"orders db2:5432 postgres replica unknown: no_position 0 closed - - lacks rights for locks, replication: see docs/probe/postgres-grants.sql",
		"orders db3:5432 postgres - unknown: unreachable 0 open - - connection refused",
		"cache r1:6379 redis primary - - - - -",
		"bus k1:9092 kafka - 7 records - - - -",
		"registry e1:2379 etcd follower 7 entries - - - -",
		"",
		"CLUSTER TARGET WHAT STATE",
		"orders db1:5432 waits 3 for relation AccessShareLock in app, the first since 12s",
		"orders db1:5432 blocked session 4101 by 3990, 3991",
		"orders db1:5432 blocked session 4102 by 4101",
		"orders db1:5432 blocked session 4103 not told by whom",
		"orders db1:5432 deadlocks app 2",
		"orders db1:5432 transactions oldest idle_in_transaction 15s, committed 77, rolled back 5",
		"orders db1:5432 sessions active 4, idle 2, limit 100",
		"orders db1:5432 slot r1: active, keeps 4096 bytes of log",
		"orders db1:5432 slot old: lost: its replica has to be made anew",
		"cache r1:6379 stream group billing of orders: unknown behind for 3s, 1 pending for 5s",
		"bus k1:9092 consumer group billing of t: 7 records behind for at least 2s, members 2",
		"bus k1:9092 consumer group idle: members unknown",
		"registry e1:2379 member term 5, index 100, applied 99",
	}, got)
}

func TestWriteTable_ManySessions(t *testing.T) {
	v := TargetView{Target: "db1:5432", Engine: EnginePostgres, Reading: &Reading{Locks: &Locks{}}}
	for i := range uint64(30) {
		v.Reading.Locks.Blocked = append(v.Reading.Locks.Blocked, Blocked{Session: 100 + i, Blockers: []uint64{i}})
	}
	v.Reading.Locks.Blocked = append(v.Reading.Locks.Blocked, Blocked{Session: 200, Blockers: []uint64{201}}, Blocked{Session: 201, Blockers: []uint64{200}})
	v.Graph = Walk(v.Reading.Locks.Blocked)
	require.Equal(t, "session 0, 1, 2 and 27 more (1 deep), a circle of 2", v.blockerText())
	list := v.details()
	require.Len(t, list, maxDetails+1)
	require.Equal(t, detail{"blocked", "and 12 more"}, list[maxDetails])
}

// What is not known is null: a zero would be an answer.
func TestWriteJSON(t *testing.T) {
	var b strings.Builder
	require.NoError(t, WriteJSON(&b, everyCluster()))
	var rows []map[string]any
	require.NoError(t, json.Unmarshal([]byte(b.String()), &rows))
	require.Len(t, rows, 6)
	primary, blind, down, cache, bus, etcd := rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]

	for _, key := range []string{"sessions_waiting", "blocking_depth", "root_blockers", "locks", "transactions", "lag_seconds"} {
		require.Contains(t, blind, key)
		require.Nil(t, blind[key], key)
		require.Nil(t, down[key], key)
	}
	require.Equal(t, []any{"locks", "replication"}, blind["lacks_rights_for"])
	require.Nil(t, down["lacks_rights_for"])
	require.Equal(t, []any{}, primary["lacks_rights_for"])
	require.Nil(t, primary["weight"])

	require.Equal(t, 2.0, primary["blocking_depth"])
	require.Equal(t, 2.0, primary["root_blockers"])
	locks := primary["locks"].(map[string]any)
	require.Equal(t, []any{3990.0, 3991.0}, locks["root_sessions"])
	require.Nil(t, locks["metadata_sessions_waiting"])
	require.Equal(t, map[string]any{"app": 2.0, "postgres": 0.0}, locks["deadlocks"])
	require.Equal(t, map[string]any{"session": 4103.0, "blocked_by": nil}, locks["blocked"].([]any)[2])
	transactions := primary["transactions"].(map[string]any)
	require.Equal(t, map[string]any{"active": 0.0, "idle_in_transaction": 15.0}, transactions["oldest_seconds"])
	require.Equal(t, 100.0, transactions["sessions_limit"])
	require.Equal(t, map[string]any{"slot": "old", "active": false, "lost": true, "retained_bytes": nil}, primary["slots"].([]any)[1])

	require.Equal(t, map[string]any{
		"stream": "orders", "group": "billing", "lag_entries": nil, "lag_seconds": 3.0, "pending_entries": 1.0, "oldest_pending_seconds": 5.0,
	}, cache["stream_groups"].([]any)[0])
	consumers := bus["consumer_groups"].([]any)
	require.Len(t, consumers[0].(map[string]any)["partitions"], 2)
	require.Nil(t, consumers[1].(map[string]any)["members"])
	require.Equal(t, 7.0, etcd["member"].(map[string]any)["lag_entries"])
}

// The files that a note points to are there.
func TestGrants(t *testing.T) {
	for engine, file := range grants {
		_, err := os.Stat(filepath.Join("..", file))
		require.NoError(t, err, engine)
	}
	require.Len(t, grants, 6)
}
