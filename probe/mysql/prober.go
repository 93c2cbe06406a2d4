package mysql

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/innodb"
	"github.com/sluice-metrics/sluice/probe/internal/mysqlsession"
	"github.com/sluice-metrics/sluice/probe/internal/replication"
)

// Prober reads one MySQL server over one connection.
type Prober struct {
	session *mysqlsession.Session
	may     privileges
}

var _ probe.Prober = (*Prober)(nil)

// privileges are what the account may read, as far as was found out.
type privileges struct {
	replication string // the form of SHOW REPLICA STATUS that works; empty: none
	locks       bool   // PROCESS and SELECT on performance_schema
	checked     time.Time
}

func (p privileges) all() bool { return p.replication != "" && p.locks }

// New makes a Prober. It opens no connection.
func New(t Target) (*Prober, error) {
	session, err := mysqlsession.New(mysqlsession.Options{Format: format, Target: t, Variables: sessionVariables()})
	if err != nil {
		return nil, err
	}
	return &Prober{session: session}, nil
}

// Target is host:port.
func (p *Prober) Target() string { return p.session.Address() }

// Engine is MySQL.
func (p *Prober) Engine() probe.Engine { return probe.EngineMySQL }

// Close drops the connection.
func (p *Prober) Close() error { return p.session.Close() }

// Probe reads the server in one round trip; a new connection takes some more, to find out
// what the account may read and which statements the server knows.
func (p *Prober) Probe(ctx context.Context) (probe.Reading, error) {
	start := time.Now()
	r, err := p.probe(ctx)
	if err != nil {
		return r, p.session.Explain("MySQL", "docs/probe/mysql-grants.sql", err, time.Since(start))
	}
	return r, nil
}

func (p *Prober) probe(ctx context.Context) (probe.Reading, error) {
	if err := p.prepare(ctx); err != nil {
		return probe.Reading{}, err
	}
	answers, err := p.ask(ctx)
	if mysqlsession.Refused(err) {
		// A privilege was taken away. What is left is read by the next probe.
		p.may = privileges{}
	}
	if err != nil {
		return probe.Reading{}, fmt.Errorf("read the server's state: %w", err)
	}
	return reading(answers)
}

// prepare connects and finds out what can be read.
func (p *Prober) prepare(ctx context.Context) error {
	// The server gives an account its privileges when it connects.
	anew := !p.may.all() && time.Since(p.may.checked) >= mysqlsession.Recheck
	fresh, err := p.session.Connect(ctx, anew)
	if err != nil {
		return err
	}
	if !fresh {
		return nil
	}
	p.may = privileges{}
	for _, form := range []string{showReplica, showReplicaOld} {
		allowed, err := p.allowed(ctx, form)
		if err != nil {
			return err
		}
		if allowed {
			p.may.replication = form
			break
		}
	}
	p.may.locks = true
	for _, statement := range []string{selectTransactions, selectSessions, selectWaitedLocks, selectWaits} {
		allowed, err := p.allowed(ctx, statement)
		if err != nil {
			return err
		}
		p.may.locks = p.may.locks && allowed
	}
	p.may.checked = time.Now()
	return nil
}

// allowed is false, too, for a statement that the server's version does not know.
func (p *Prober) allowed(ctx context.Context, statement string) (bool, error) {
	ok, err := p.session.Allows(ctx, statement)
	if mysqlsession.Unsupported(err) {
		return false, nil
	}
	return ok, err
}

// answers are the rows of the statements.
type answers struct {
	server      mysqlsession.Row
	replication bool               // replicas was asked
	replicas    []mysqlsession.Row // one for each source that this server replicates from
	locks       bool               // the tables of innodb were asked
	innodb      innodb.Tables
}

func (p *Prober) ask(ctx context.Context) (*answers, error) {
	statements := []string{selectServer, showStatus}
	if p.may.replication != "" {
		statements = append(statements, p.may.replication)
	}
	if p.may.locks {
		statements = append(statements, selectDeadlocks, selectSessions, selectTransactions, selectOwners, selectWaitedLocks, selectWaits)
	}
	tables, err := p.session.Query(ctx, statements...)
	if err != nil {
		return nil, err
	}
	next := func() []mysqlsession.Row {
		table := tables[0]
		tables = tables[1:]
		return table
	}
	a := &answers{server: next()[0], replication: p.may.replication != "", locks: p.may.locks}
	a.innodb.Status = mysqlsession.Named(next())
	if a.replication {
		a.replicas = next()
	}
	if a.locks {
		maps.Copy(a.innodb.Status, mysqlsession.Named(next()))
		a.innodb.Sessions, a.innodb.Transactions, a.innodb.Owners = next(), next(), next()
		a.innodb.WaitedLocks, a.innodb.Waits = next(), next()
	}
	return a, nil
}

func reading(a *answers) (probe.Reading, error) {
	r := probe.Reading{
		Role:       probe.RolePrimary,
		Unit:       probe.UnitTransactions,
		Privileged: map[string]bool{mysqlsession.KindReplication: a.replication, mysqlsession.KindLocks: a.locks, mysqlsession.KindTransactions: a.locks},
	}
	if len(a.replicas) > 0 || a.server.Yes("read_only").Value {
		r.Role = probe.RoleReplica
	}
	executed, err := parseGTIDs(a.server["executed"])
	if err != nil {
		return probe.Reading{}, err
	}
	if r.Role == probe.RolePrimary {
		r.Streams = heads(executed, a.server["server_uuid"])
	} else if r.Streams, err = applied(executed, a.replicas); err != nil {
		return probe.Reading{}, err
	}
	replication.Threads(&r, a.replicas)
	if a.locks {
		r.Locks = a.innodb.Locks()
		r.Transactions = a.innodb.ReadTransactions(a.server.Uint("max_connections"))
	}
	return r, nil
}

// heads are the streams of a primary. Its UUID is their history: after a failover another
// server makes the changes.
func heads(executed gtids, server string) (streams []probe.Stream) {
	for _, source := range slices.Sorted(maps.Keys(executed)) {
		streams = append(streams, probe.Stream{Name: source, History: server, Head: probe.Some(executed.count(source))})
	}
	return streams
}

// applied are the streams of a replica. What it has applied it has received, also when
// that is not in its relay log any more.
func applied(executed gtids, rows []mysqlsession.Row) (streams []probe.Stream, err error) {
	received := gtids{}
	received.add(executed)
	for _, row := range rows {
		retrieved, err := parseGTIDs(row["retrieved_gtid_set"])
		if err != nil {
			return nil, err
		}
		received.add(retrieved)
	}
	for _, source := range slices.Sorted(maps.Keys(executed)) {
		s := probe.Stream{Name: source, Applied: probe.Some(executed.count(source))}
		if len(rows) > 0 {
			s.Received = probe.Some(received.count(source))
		}
		streams = append(streams, s)
	}
	return streams, nil
}
