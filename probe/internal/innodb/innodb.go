// Package innodb turns what the system tables of InnoDB say about locks and transactions
// into the words of package probe. MariaDB and MySQL keep them in different tables; a
// kind's statements give the columns the names that stand here.
//
// Rows of several tables are put together here and not by the server, which would compare
// each row with each other one.
package innodb

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/mysqlsession"
)

// What a session does: values of the column session_state.
const (
	sessionActive = "active"
	sessionIdle   = "idle"
	sessionSystem = "system" // a thread of the server: no client's
)

// Tables are the answers to a kind's statements. Columns that a table has to have are
// named with it.
type Tables struct {
	// Sessions are counted by what they do: session_state (active, idle, other, system),
	// sessions, metadata_waiting.
	Sessions []mysqlsession.Row
	// Transactions are the open ones, oldest first: trx_id, session, trx_state, lock_id
	// of the lock that it waits for, age_us, wait_us.
	Transactions []mysqlsession.Row
	// Owners are the sessions of the transactions: session, asleep, since_ms.
	Owners []mysqlsession.Row
	// WaitedLocks are locks that somebody waits for: lock_id, lock_table or
	// lock_database, lock_type, lock_mode.
	WaitedLocks []mysqlsession.Row
	// Waits are who waits for whom: requesting is the id of a transaction, blocking a list
	// of such ids with commas between. As pairs they would be many: in a queue each
	// waits for all before it.
	Waits []mysqlsession.Row
	// Status are the server's counters by name.
	Status mysqlsession.Row
}

// owner is the session that a transaction belongs to.
type owner struct {
	asleep bool
	since  probe.Maybe[time.Duration] // how long it has done what it does
}

func (t *Tables) owners() map[string]owner {
	owners := make(map[string]owner, len(t.Owners))
	for _, r := range t.Owners {
		owners[r["session"]] = owner{asleep: r["asleep"] == "1", since: r.Duration("since_ms", time.Millisecond)}
	}
	return owners
}

// Locks is who waits for whom.
func (t *Tables) Locks() *probe.Locks {
	l := &probe.Locks{
		Waiting:  t.waiting(),
		Blocked:  t.blocked(),
		Waits:    t.Status.Uint("Innodb_row_lock_waits"),
		WaitTime: t.Status.Duration("Innodb_row_lock_time", time.Millisecond),
	}
	var metadata uint64
	for _, r := range t.Sessions {
		metadata += r.Uint("metadata_waiting").Value
	}
	l.MetadataWaiting = probe.Some(metadata)
	if n, known := t.Status.Uint("Innodb_deadlocks").Get(); known {
		l.Deadlocks = []probe.DatabaseTotal{{Value: n}}
	}
	return l
}

// waiting groups the transactions that wait by what they wait for.
func (t *Tables) waiting() []probe.LockWaiting {
	type kind struct{ database, lockType, mode string }
	locks := make(map[string]kind, len(t.WaitedLocks))
	for _, r := range t.WaitedLocks {
		database := r["lock_database"]
		if table, ok := r["lock_table"]; ok {
			database = databaseOf(table)
		}
		locks[r["lock_id"]] = kind{database, strings.ToLower(r["lock_type"]), r["lock_mode"]}
	}
	owners := t.owners()
	groups := map[kind]*probe.LockWaiting{}
	for _, r := range t.Transactions {
		if r["trx_state"] != "LOCK WAIT" {
			continue
		}
		k := locks[r["lock_id"]] // all empty if the lock was granted between two tables
		g := groups[k]
		if g == nil {
			g = &probe.LockWaiting{Database: k.database, Type: k.lockType, Mode: k.mode}
			groups[k] = g
		}
		g.Sessions++
		// The table knows whole seconds only, and the statement cannot have waited for
		// longer than it has run.
		wait := r.Duration("wait_us", time.Microsecond)
		if since := owners[r["session"]].since; since.Known && (!wait.Known || since.Value < wait.Value) {
			wait = since
		}
		if wait.Known && (!g.Oldest.Known || wait.Value > g.Oldest.Value) {
			g.Oldest = wait
		}
	}
	list := make([]probe.LockWaiting, 0, len(groups))
	for _, g := range groups {
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b probe.LockWaiting) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Mode, b.Mode))
	})
	return list
}

// blocked turns the waits between transactions into waits between sessions.
func (t *Tables) blocked() []probe.Blocked {
	sessions := make(map[string]uint64, len(t.Transactions))
	for _, r := range t.Transactions {
		if s, known := r.Uint("session").Get(); known && s != 0 {
			sessions[r["trx_id"]] = s
		}
	}
	list := make([]probe.Blocked, 0, len(t.Waits))
	for _, r := range t.Waits {
		waiter, known := sessions[r["requesting"]]
		if !known {
			continue
		}
		edges := probe.Blocked{Session: waiter}
		for id := range strings.SplitSeq(r["blocking"], ",") {
			if blocker, known := sessions[id]; known && blocker != waiter {
				edges.Blockers = append(edges.Blockers, blocker)
			}
		}
		if len(edges.Blockers) > 0 {
			slices.Sort(edges.Blockers)
			list = append(list, edges)
		}
	}
	slices.SortFunc(list, func(a, b probe.Blocked) int { return cmp.Compare(a.Session, b.Session) })
	return list
}

// ReadTransactions is what is known of sessions and transactions. limit is how many
// sessions the server lets in.
func (t *Tables) ReadTransactions(limit probe.Maybe[uint64]) *probe.Transactions {
	x := &probe.Transactions{
		Oldest:        map[string]time.Duration{probe.StateActive: 0, probe.StateIdleInTransaction: 0},
		SessionsLimit: limit,
	}
	owners := t.owners()
	var idleInTransaction uint64
	for _, r := range t.Transactions {
		o, known := owners[r["session"]]
		if known && o.asleep {
			idleInTransaction++
			x.Oldest[probe.StateIdleInTransaction] = max(x.Oldest[probe.StateIdleInTransaction], o.since.Value)
			continue
		}
		x.Oldest[probe.StateActive] = max(x.Oldest[probe.StateActive], r.Duration("age_us", time.Microsecond).Value)
	}
	x.Sessions = t.sessions(idleInTransaction)
	// A server counts per engine: where there is a binary log, a transaction that
	// writes counts for it and for InnoDB.
	if n, known := t.Status.Uint("Handler_commit").Get(); known {
		x.Committed = []probe.DatabaseTotal{{Value: n}}
	}
	if n, known := t.Status.Uint("Handler_rollback").Get(); known {
		x.RolledBack = []probe.DatabaseTotal{{Value: n}}
	}
	return x
}

// sessions counts client sessions by state. Those that sleep inside of a transaction are
// taken from those that sleep.
func (t *Tables) sessions(idleInTransaction uint64) map[string]uint64 {
	n := map[string]uint64{
		probe.StateActive: 0, probe.StateIdle: 0, probe.StateOther: 0, probe.StateIdleInTransaction: idleInTransaction,
	}
	for _, r := range t.Sessions {
		count := r.Uint("sessions").Value
		switch r["session_state"] {
		case sessionActive:
			n[probe.StateActive] += count
		case sessionIdle:
			n[probe.StateIdle] += count - min(count, idleInTransaction)
		case sessionSystem:
		default:
			n[probe.StateOther] += count
		}
	}
	return n
}

// databaseOf takes the database out of a name such as `app`.`orders`.
func databaseOf(table string) string {
	database, _, _ := strings.Cut(strings.TrimPrefix(table, "`"), "`")
	return database
}
