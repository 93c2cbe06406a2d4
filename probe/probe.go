package probe

import (
	"context"
	"errors"
	"time"
)

// ErrDenied marks an error of Prober.Probe: the server answers, and does not let the account
// in.
var ErrDenied = errors.New("access denied")

// Prober reads one target. A Cluster calls it from one goroutine, one call at a time.
type Prober interface {
	// Probe reads the target once, within the context's deadline, in as few round trips
	// as the engine allows. It connects when there is no connection; it keeps the
	// connection for the next call and drops it after an error that leaves its state in
	// doubt. A part of a Reading that the account may not see is left out and named in
	// Privileged; that is no error. Errors never hold a password or a whole DSN.
	//
	// The Reading and all that it refers to belong to the caller: a prober never changes
	// what it has returned.
	Probe(ctx context.Context) (Reading, error)
	// Target is host:port, the value of the label target. It never changes, and is
	// unique in its cluster.
	Target() string
	// Engine is what kind of server this is. It never changes.
	Engine() Engine
	// Close drops the connection. It is called once, after the last Probe has returned.
	Close() error
}

// Engine names a kind of server: the value of the label engine.
type Engine string

// The engines. A kind uses its own; the names are those of the configuration's keys.
const (
	EnginePostgres Engine = "postgres"
	EngineMariaDB  Engine = "mariadb"
	EngineMySQL    Engine = "mysql"
	EngineRedis    Engine = "redis"
	EngineEtcd     Engine = "etcd"
	EngineKafka    Engine = "kafka"
)

// Role is what a server says of itself, whatever the configuration thinks.
type Role string

// The roles. Engines without primary and replicas (etcd, Kafka) use RoleNone: their
// targets are in no computation of replica lag.
const (
	RolePrimary Role = "primary"
	RoleReplica Role = "replica"
	RoleNone    Role = ""
)

// Unit says what the positions of a Reading count.
type Unit string

// The units of positions.
const (
	UnitNone         Unit = ""
	UnitBytes        Unit = "bytes"        // PostgreSQL, Redis
	UnitTransactions Unit = "transactions" // MariaDB, MySQL
	UnitRecords      Unit = "records"      // Kafka
)

// Maybe is a value that may be unknown. The zero Maybe is unknown, whatever its Value.
type Maybe[T any] struct {
	Value T
	Known bool
}

// Some is a known value.
func Some[T any](v T) Maybe[T] { return Maybe[T]{Value: v, Known: true} }

// Get returns the value, and whether it is known.
func (m Maybe[T]) Get() (T, bool) { return m.Value, m.Known }

// Reading is what one probe found. What was not found or may not be seen is unknown,
// nil or empty; it is never filled with a zero that looks like an answer.
type Reading struct {
	// Role is primary or replica as the server says now.
	Role Role
	// Generation grows with each failover and tells two primaries apart: the higher one
	// counts. PostgreSQL: the timeline. 0 where the engine has nothing like it.
	Generation uint64
	// Unit is what the positions of Streams and Replicas count.
	Unit Unit
	// Streams are the logs of changes: one for PostgreSQL and Redis, one per GTID domain
	// for MariaDB, one per partition for Kafka. A stream that the primary has and a
	// replica does not list counts as applied up to 0, unless the replica lists none.
	Streams []Stream

	// ApplyPaused: somebody paused the applying of changes on this replica.
	ApplyPaused Maybe[bool]
	// LinkUp: the replica's connection to its source is up, as the engine sees it.
	LinkUp Maybe[bool]
	// ApplierRunning: the replica's applier runs (a thread of MariaDB). False after an
	// error or a stop.
	ApplierRunning Maybe[bool]
	// ApplyDelay is the delay that is configured on this replica on purpose.
	ApplyDelay Maybe[time.Duration]
	// Errors holds the engine's error code for each thread of replication ("io", "sql");
	// 0: no error. Threads without an entry are unknown.
	Errors map[string]uint64
	// KnownAs are names under which the server that this one replicates from lists it:
	// application name, slot. They are remembered after the target stopped answering.
	KnownAs []string
	// Replicas are those that replicate from this server, as it sees them. They are the
	// second source of a replica's position, for when it does not answer.
	Replicas []ReplicaRow
	// Slots are the replication slots of this server.
	Slots []Slot

	// Locks is who waits for whom; nil if the engine has none or they may not be seen.
	Locks *Locks
	// Transactions is sessions, transactions and their totals; nil like Locks.
	Transactions *Transactions
	// StreamGroups are consumer groups of Redis streams.
	StreamGroups []StreamGroup
	// ConsumerGroups are consumer groups of Kafka. The ends of their partitions are the
	// heads of Streams.
	ConsumerGroups []ConsumerGroup
	// Member is the state of an etcd member; nil for other engines.
	Member *Member

	// Privileged says for each kind of information ("replication", "locks", …) whether
	// the account may read it.
	Privileged map[string]bool
}

// Stream is one ordered log of changes with its positions on one server.
type Stream struct {
	// Name tells the streams of one server apart, and is the same on primary and
	// replica. Empty for engines with one stream. MariaDB: the domain's number; Kafka:
	// PartitionName.
	Name string
	// History names the line of changes in which positions may be compared: PostgreSQL
	// system identifier and timeline, Redis master_replid. When the primary's changes,
	// its old positions are forgotten. Positions of a replica are compared only if its
	// history is the primary's, or empty: the replica does not say.
	History string
	// Head is the newest change of a primary. On a replica it is unknown.
	Head Maybe[uint64]
	// Received is how far a replica has received changes.
	Received Maybe[uint64]
	// Applied is how far a replica has applied changes, so that a reader sees them.
	Applied Maybe[uint64]
}

// ReplicaRow is what a server knows about one that replicates from it.
type ReplicaRow struct {
	// KnownAs are the names that the row carries: application name, slot.
	KnownAs []string
	// Address is where the replica is: host:port if its own port is known, else host.
	Address string
	// Streams holds Received and Applied as last heard of. An empty History stands for
	// that of the server whose row this is.
	Streams []Stream
	// State is the engine's word ("streaming", "catchup", "online").
	State string
}

// Slot is a replication slot, which keeps log for a replica that is away.
type Slot struct {
	Name   string
	Active bool
	// Retained is the bytes of log that the slot keeps.
	Retained Maybe[uint64]
	// Lost: the server has given up the slot's log; its replica has to be made anew.
	Lost bool
}

// Locks is what one server says about its locks.
type Locks struct {
	// Waiting are those that wait, grouped. Empty: nobody.
	Waiting []LockWaiting
	// Blocked are all sessions that wait, with the edges of the graph of who waits for
	// whom. The kind may ask only for some of them whom they wait for, the first ones.
	Blocked []Blocked
	// MetadataWaiting is how many sessions wait for a metadata lock (MariaDB, MySQL).
	MetadataWaiting Maybe[uint64]
	// Waits and WaitTime are totals since the server's start, of waits that have ended.
	Waits    Maybe[uint64]
	WaitTime Maybe[time.Duration]
	// Deadlocks are totals since the server's start or the last reset of its statistics.
	Deadlocks []DatabaseTotal
}

// LockWaiting is how many sessions wait for one kind of lock.
type LockWaiting struct {
	// Database is empty where the engine does not say.
	Database string
	// Type and Mode are the engine's words: relation, transactionid; ExclusiveLock, X.
	Type, Mode string
	Sessions   uint64
	// Oldest is how long the first of them has waited.
	Oldest Maybe[time.Duration]
}

// Blocked is one session that waits, with those that it waits for; without any if that
// was not asked. Numbers are process or connection ids; they never become labels.
type Blocked struct {
	Session  uint64
	Blockers []uint64
}

// DatabaseTotal is a total of one database; the name is empty where the engine counts
// for the whole server.
type DatabaseTotal struct {
	Database string
	Value    uint64
}

// States of sessions and transactions: values of the label state. A kind maps its
// engine's words to these.
const (
	StateActive            = "active"
	StateIdle              = "idle"
	StateIdleInTransaction = "idle_in_transaction"
	StateOther             = "other"
)

// Transactions is what one server says about sessions and transactions.
type Transactions struct {
	// Oldest is the age of the oldest transaction for each state that the engine knows
	// (active, idle_in_transaction), 0 if there is none. For idle_in_transaction it is
	// how long the session has been idle.
	Oldest map[string]time.Duration
	// Sessions is how many client sessions are in each state; a state that the engine
	// knows is present with 0.
	Sessions map[string]uint64
	// SessionsLimit is how many sessions the server lets in.
	SessionsLimit Maybe[uint64]
	// Committed and RolledBack are totals since the server's start or reset.
	Committed, RolledBack []DatabaseTotal
}

// StreamGroup is a consumer group of a Redis stream.
type StreamGroup struct {
	Stream, Group string
	// Entries is how many entries the group has not been given; unknown after deletions.
	Entries Maybe[uint64]
	// Lag is the age of the oldest entry that the group has not been given; 0 if it has
	// all.
	Lag Maybe[time.Duration]
	// Pending is how many entries were given and not acknowledged.
	Pending Maybe[uint64]
	// OldestPending is how long the longest of them has been with its consumer.
	OldestPending Maybe[time.Duration]
}

// ConsumerGroup is a consumer group of Kafka.
type ConsumerGroup struct {
	Group string
	// Members is how many consumers are in it.
	Members    Maybe[uint64]
	Partitions []ConsumerPartition
}

// ConsumerPartition is how far a group is in one partition. A partition without a commit
// is listed only while the group is active.
type ConsumerPartition struct {
	Topic     string
	Partition int32
	// Committed is the next offset that the group will read; unknown without a commit.
	Committed Maybe[uint64]
}

// Member is the state of one etcd member.
type Member struct {
	HasLeader, IsLeader bool
	Term                uint64
	// Index and Applied are the member's raft index and its applied index.
	Index, Applied uint64
}
