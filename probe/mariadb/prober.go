package mariadb

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

// Prober reads one MariaDB server over one connection.
type Prober struct {
	session *mysqlsession.Session
	may     privileges
	recheck time.Duration
}

var _ probe.Prober = (*Prober)(nil)

// privileges are what the account may read, as far as was found out.
type privileges struct {
	replication bool // SLAVE MONITOR
	process     bool // PROCESS
	checked     time.Time
}

func (p privileges) all() bool { return p.replication && p.process }

// New makes a Prober. It opens no connection.
func New(t Target) (*Prober, error) {
	session, err := mysqlsession.New(mysqlsession.Options{Format: format, Target: t, Variables: sessionVariables()})
	if err != nil {
		return nil, err
	}
	return &Prober{session: session, recheck: mysqlsession.Recheck}, nil
}

// Target is host:port.
func (p *Prober) Target() string { return p.session.Address() }

// Engine is MariaDB.
func (p *Prober) Engine() probe.Engine { return probe.EngineMariaDB }

// Close drops the connection.
func (p *Prober) Close() error { return p.session.Close() }

// Probe reads the server in one round trip; a new connection takes some more, to find out
// what the account may read.
func (p *Prober) Probe(ctx context.Context) (probe.Reading, error) {
	start := time.Now()
	r, err := p.probe(ctx)
	if err != nil {
		return r, p.session.Explain("MariaDB", "docs/probe/mariadb-grants.sql", err, time.Since(start))
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
	return p.reading(answers)
}

// prepare connects and finds out what the account may read.
func (p *Prober) prepare(ctx context.Context) error {
	// The server gives an account its privileges when it connects.
	anew := !p.may.all() && time.Since(p.may.checked) >= p.recheck
	fresh, err := p.session.Connect(ctx, anew)
	if err != nil {
		return err
	}
	if !fresh {
		return nil
	}
	p.may = privileges{}
	if p.may.replication, err = p.session.Allows(ctx, showReplicas); err != nil {
		return err
	}
	if p.may.process, err = p.session.Allows(ctx, selectTransactions); err != nil {
		return err
	}
	p.may.checked = time.Now()
	return nil
}

// answers are the rows of the statements; those that the account may not ask are nil.
type answers struct {
	server   mysqlsession.Row
	replicas []mysqlsession.Row // one for each source that this server replicates from
	innodb   innodb.Tables
}

// followsNobody is false, too, where the account may not see whom the server follows.
func (a *answers) followsNobody() bool { return a.replicas != nil && len(a.replicas) == 0 }

func (p *Prober) ask(ctx context.Context) (*answers, error) {
	statements := []string{selectServer, showStatus}
	if p.may.replication {
		statements = append(statements, showReplicas)
	}
	if p.may.process {
		statements = append(statements, selectSessions, selectTransactions, selectOwners, selectWaitedLocks, selectWaits)
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
	a := &answers{server: next()[0]}
	a.innodb.Status = mysqlsession.Named(next())
	if p.may.replication {
		a.replicas = next()
	}
	if p.may.process {
		a.innodb.Sessions, a.innodb.Transactions, a.innodb.Owners = next(), next(), next()
		a.innodb.WaitedLocks, a.innodb.Waits = next(), next()
	}
	return a, nil
}

func (p *Prober) reading(a *answers) (probe.Reading, error) {
	r := probe.Reading{
		Role: probe.RolePrimary,
		Unit: probe.UnitTransactions,
		Privileged: map[string]bool{
			mysqlsession.KindReplication: p.may.replication, mysqlsession.KindLocks: p.may.process, mysqlsession.KindTransactions: p.may.process,
		},
	}
	var err error
	if len(a.replicas) > 0 || a.server.Yes("read_only").Value {
		r.Role = probe.RoleReplica
		r.Streams, err = applied(a)
		replication.Threads(&r, a.replicas)
	} else {
		r.Streams, err = heads(a)
	}
	if err != nil {
		return probe.Reading{}, err
	}
	if p.may.process {
		r.Locks = a.innodb.Locks()
		r.Transactions = a.innodb.ReadTransactions(a.server.Uint("max_connections"))
	}
	return r, nil
}

// heads are the streams of a primary. Its server id is their history: after a failover
// another server makes the changes.
func heads(a *answers) ([]probe.Stream, error) {
	positions, err := parseGTIDs(a.server["binlog_position"])
	if err != nil {
		return nil, err
	}
	var streams []probe.Stream
	for _, domain := range slices.Sorted(maps.Keys(positions)) {
		streams = append(streams, probe.Stream{
			Name: domain, History: a.server["server_id"], Head: probe.Some(positions[domain]),
		})
	}
	return streams, nil
}

// applied are the streams of a replica. One that follows nobody may have made changes of
// its own before it was made read-only; they are in the current position.
func applied(a *answers) ([]probe.Stream, error) {
	source := "replica_position"
	if a.followsNobody() {
		source = "current_position"
	}
	positions, err := parseGTIDs(a.server[source])
	if err != nil {
		return nil, err
	}
	received := gtids{}
	for _, row := range a.replicas {
		list, err := parseGTIDs(row["gtid_io_pos"])
		if err != nil {
			return nil, err
		}
		received.merge(list)
	}
	var streams []probe.Stream
	for _, domain := range slices.Sorted(maps.Keys(positions)) {
		s := probe.Stream{Name: domain, Applied: probe.Some(positions[domain])}
		if n, known := received[domain]; known {
			// The receiver's position is behind the applier's right after a start.
			s.Received = probe.Some(max(n, positions[domain]))
		}
		streams = append(streams, s)
	}
	return streams, nil
}
