package postgres

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-metrics/sluice/probe"
)

// position is the row of queryPosition.
type position struct {
	recovering                     bool
	lsn, received                  *string
	paused                         *bool
	walFile                        *string
	recoveryTimeline, controlPoint *int64
	system                         *string
	applyDelay                     float64
	maxConnections                 int64
	privileged                     bool
}

// receiver is the row of queryReceiver; none while a replica has no receiver.
type receiver struct {
	running  bool
	status   *string
	timeline *int64
	slot     string
	conninfo string
}

// read asks everything in one round trip.
func (p *Prober) read(ctx context.Context) (probe.Reading, error) {
	paused, age := replayPaused14, waitAge14
	if p.version < 14 {
		paused, age = replayPaused13, waitAge13
	}
	var (
		at    position
		recv  receiver
		r     probe.Reading
		locks probe.Locks
		trans = newTransactions()
	)
	b := &pgx.Batch{}
	b.Queue(fmt.Sprintf(queryPosition, paused)).QueryRow(func(row pgx.Row) error { return at.scan(row) })
	b.Queue(queryReceiver).Query(func(rows pgx.Rows) error { return recv.scan(rows) })
	b.Queue(queryReplicas).Query(func(rows pgx.Rows) error { return scanReplicas(rows, &r) })
	b.Queue(querySlots).Query(func(rows pgx.Rows) error { return scanSlots(rows, &r) })
	b.Queue(fmt.Sprintf(queryWaiting, age)).Query(func(rows pgx.Rows) error { return scanWaiting(rows, &locks) })
	b.Queue(fmt.Sprintf(queryEdges, edgesAtMost)).Query(func(rows pgx.Rows) error { return scanEdges(rows, &locks) })
	b.Queue(querySessions).Query(func(rows pgx.Rows) error { return scanSessions(rows, trans) })
	b.Queue(queryDatabases).Query(func(rows pgx.Rows) error { return scanDatabases(rows, trans, &locks) })
	if err := p.conn.SendBatch(ctx, b).Close(); err != nil {
		return probe.Reading{}, err
	}
	if err := p.fill(&r, &at, &recv); err != nil {
		return probe.Reading{}, err
	}
	r.Privileged = map[string]bool{"replication": at.privileged, "locks": at.privileged, "transactions": at.privileged}
	if at.privileged {
		trans.SessionsLimit = probe.Some(uint64(at.maxConnections))
		r.Locks, r.Transactions = &locks, trans
	} else {
		// What an account without the privilege sees of others is NULL or missing, which
		// must not look like "nobody waits". Totals are for everybody.
		r.Replicas = nil
		r.Locks = nil
		r.Transactions = &probe.Transactions{Committed: trans.Committed, RolledBack: trans.RolledBack}
	}
	return r, nil
}

// fill sets role, history and positions.
func (p *Prober) fill(r *probe.Reading, at *position, recv *receiver) error {
	lsn, err := parseLSN(at.lsn)
	if err != nil {
		return err
	}
	received, err := parseLSN(at.received)
	if err != nil {
		return err
	}
	timeline, err := p.timeline(at, recv)
	if err != nil {
		return err
	}
	r.Unit, r.Generation = probe.UnitBytes, uint64(timeline)
	s := probe.Stream{}
	if at.system != nil && timeline != 0 {
		s.History = *at.system + "/" + strconv.FormatUint(uint64(timeline), 10)
	}
	if !at.recovering {
		r.Role, s.Head = probe.RolePrimary, lsn
		r.Streams = []probe.Stream{s}
		return nil
	}
	r.Role, s.Applied, s.Received = probe.RoleReplica, lsn, received
	r.Streams = []probe.Stream{s}
	r.ApplyDelay = probe.Some(seconds(at.applyDelay))
	if at.paused != nil {
		r.ApplyPaused = probe.Some(*at.paused)
	}
	switch {
	case !recv.running:
		r.LinkUp = probe.Some(false)
	case recv.status != nil:
		r.LinkUp = probe.Some(*recv.status == "streaming")
	}
	r.KnownAs = recv.knownAs()
	return nil
}

// timeline is the server's: a primary's is in the names of its files; a replica's is the
// first of what its receiver says, or said last, what it needs to be consistent, and its
// checkpoint, which after a promotion of its source is an old one for long. 0: unknown.
func (p *Prober) timeline(at *position, recv *receiver) (uint32, error) {
	if at.walFile != nil {
		n, err := strconv.ParseUint(*at.walFile, 16, 32)
		if err != nil {
			return 0, fmt.Errorf("read the timeline in %q: %w", *at.walFile, err)
		}
		return uint32(n), nil
	}
	if recv.timeline != nil && *recv.timeline > 0 {
		p.receivedTimeline = uint32(*recv.timeline)
	}
	timeline := p.receivedTimeline
	if timeline == 0 && at.recoveryTimeline != nil {
		timeline = uint32(*at.recoveryTimeline)
	}
	if timeline == 0 && at.controlPoint != nil {
		timeline = uint32(*at.controlPoint)
	}
	return timeline, nil
}

func parseLSN(text *string) (probe.Maybe[uint64], error) {
	if text == nil {
		return probe.Maybe[uint64]{}, nil
	}
	n, err := strconv.ParseUint(*text, 10, 64)
	if err != nil {
		return probe.Maybe[uint64]{}, fmt.Errorf("read a position: %w", err)
	}
	return probe.Some(n), nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func maybeSeconds(s *float64) probe.Maybe[time.Duration] {
	if s == nil {
		return probe.Maybe[time.Duration]{}
	}
	return probe.Some(seconds(*s))
}

func (at *position) scan(row pgx.Row) error {
	return row.Scan(&at.recovering, &at.lsn, &at.received, &at.paused, &at.walFile, &at.recoveryTimeline,
		&at.controlPoint, &at.system, &at.applyDelay, &at.maxConnections, &at.privileged)
}

func (recv *receiver) scan(rows pgx.Rows) error {
	for rows.Next() {
		recv.running = true
		if err := rows.Scan(&recv.status, &recv.timeline, &recv.slot, &recv.conninfo); err != nil {
			return err
		}
	}
	return rows.Err()
}

var nameInConninfo = regexp.MustCompile(`(?:^| )(?:fallback_)?application_name=('[^']*'|\S+)`)

// Names under which a server lists its replicas; the prefixes keep a slot and an
// application of one name apart.
const (
	slotPrefix        = "slot "
	applicationPrefix = "application "
)

// knownAs are the names under which the source lists this server.
func (recv *receiver) knownAs() (names []string) {
	if recv.slot != "" {
		names = append(names, slotPrefix+recv.slot)
	}
	if m := nameInConninfo.FindStringSubmatch(recv.conninfo); m != nil {
		names = append(names, applicationPrefix+trimQuotes(m[1]))
	}
	return names
}

func trimQuotes(s string) string {
	if len(s) >= 2 && s[0] == '\'' && s[len(s)-1] == '\'' {
		return s[1 : len(s)-1]
	}
	return s
}

func scanReplicas(rows pgx.Rows, r *probe.Reading) error {
	for rows.Next() {
		var name, slot string
		var flushed, applied *string
		var row probe.ReplicaRow
		if err := rows.Scan(&name, &slot, &row.Address, &row.State, &flushed, &applied); err != nil {
			return err
		}
		if slot != "" {
			row.KnownAs = append(row.KnownAs, slotPrefix+slot)
		}
		if name != "" {
			row.KnownAs = append(row.KnownAs, applicationPrefix+name)
		}
		var s probe.Stream
		var err error
		if s.Received, err = parseLSN(flushed); err != nil {
			return err
		}
		if s.Applied, err = parseLSN(applied); err != nil {
			return err
		}
		row.Streams = []probe.Stream{s}
		if row.Address == "" {
			row.Address = "localhost" // a replica over a socket
		} else if ip := net.ParseIP(row.Address); ip != nil {
			row.Address = ip.String()
		}
		r.Replicas = append(r.Replicas, row)
	}
	return rows.Err()
}

func scanSlots(rows pgx.Rows, r *probe.Reading) error {
	for rows.Next() {
		var s probe.Slot
		var retained *string
		if err := rows.Scan(&s.Name, &s.Active, &s.Lost, &retained); err != nil {
			return err
		}
		var err error
		if s.Retained, err = parseLSN(retained); err != nil {
			return err
		}
		r.Slots = append(r.Slots, s)
	}
	return rows.Err()
}

func scanWaiting(rows pgx.Rows, l *probe.Locks) error {
	for rows.Next() {
		var w probe.LockWaiting
		var n int64
		var oldest *float64
		if err := rows.Scan(&w.Database, &w.Type, &w.Mode, &n, &oldest); err != nil {
			return err
		}
		w.Sessions, w.Oldest = uint64(n), maybeSeconds(oldest)
		l.Waiting = append(l.Waiting, w)
	}
	return rows.Err()
}

func scanEdges(rows pgx.Rows, l *probe.Locks) error {
	for rows.Next() {
		var pid int64
		var blockers []int64
		if err := rows.Scan(&pid, &blockers); err != nil {
			return err
		}
		b := probe.Blocked{Session: uint64(pid)}
		for _, blocker := range blockers {
			b.Blockers = append(b.Blockers, uint64(blocker))
		}
		l.Blocked = append(l.Blocked, b)
	}
	return rows.Err()
}

func newTransactions() *probe.Transactions {
	return &probe.Transactions{
		Oldest:   map[string]time.Duration{probe.StateActive: 0, probe.StateIdleInTransaction: 0},
		Sessions: map[string]uint64{probe.StateActive: 0, probe.StateIdle: 0, probe.StateIdleInTransaction: 0, probe.StateOther: 0},
	}
}

func scanSessions(rows pgx.Rows, t *probe.Transactions) error {
	for rows.Next() {
		var word string
		var n int64
		var transaction, state *float64
		if err := rows.Scan(&word, &n, &transaction, &state); err != nil {
			return err
		}
		switch name := stateOf(word); name {
		case probe.StateActive:
			t.Sessions[name] += uint64(n)
			t.Oldest[name] = max(t.Oldest[name], maybeSeconds(transaction).Value)
		case probe.StateIdleInTransaction:
			t.Sessions[name] += uint64(n)
			t.Oldest[name] = max(t.Oldest[name], maybeSeconds(state).Value)
		default:
			t.Sessions[name] += uint64(n)
		}
	}
	return rows.Err()
}

func stateOf(word string) string {
	switch word {
	case "active":
		return probe.StateActive
	case "idle":
		return probe.StateIdle
	case "idle in transaction", "idle in transaction (aborted)":
		return probe.StateIdleInTransaction
	}
	return probe.StateOther
}

func scanDatabases(rows pgx.Rows, t *probe.Transactions, l *probe.Locks) error {
	for rows.Next() {
		var name string
		var committed, rolledBack, deadlocks int64
		if err := rows.Scan(&name, &committed, &rolledBack, &deadlocks); err != nil {
			return err
		}
		t.Committed = append(t.Committed, probe.DatabaseTotal{Database: name, Value: uint64(committed)})
		t.RolledBack = append(t.RolledBack, probe.DatabaseTotal{Database: name, Value: uint64(rolledBack)})
		l.Deadlocks = append(l.Deadlocks, probe.DatabaseTotal{Database: name, Value: uint64(deadlocks)})
	}
	return rows.Err()
}
