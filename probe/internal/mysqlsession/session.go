// Package mysqlsession keeps the one connection that a probe has to a server which speaks
// the MySQL protocol, and sends several statements in one round trip.
package mysqlsession

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/sluice-metrics/sluice/probe/internal/dsn"
	"github.com/sluice-metrics/sluice/probe/internal/failure"
)

// Options make a Session.
type Options struct {
	// Format is that of the target's DSN.
	Format dsn.Format
	Target Target
	// Variables are set for the session when it connects, as name and literal.
	Variables map[string]string
}

// Session is one connection, opened by the first statement and again after it broke. It
// is not safe for concurrent use.
type Session struct {
	address   string
	connector driver.Connector
	db        *sql.DB // nil until the first Connect: it has a goroutine
	conn      *sql.Conn
}

// New makes a Session. It opens the files of the TLS section and no connection, and starts
// nothing.
func New(o Options) (*Session, error) {
	d, err := o.Format.Parse(string(o.Target.DSN))
	if err != nil {
		return nil, fmt.Errorf("dsn: %w", err)
	}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName = d.User, "tcp", d.Address, d.Name
	cfg.ConnectionAttributes = "program_name:gateway-probe"
	cfg.MultiStatements = true
	cfg.Params = o.Variables
	// The driver would write to standard error what it also returns.
	cfg.Logger = &mysql.NopLogger{}
	if cfg.TLS, err = d.TLSConfig(o.Target.TLS); err != nil {
		return nil, err
	}
	err = cfg.Apply(mysql.BeforeConnect(func(_ context.Context, c *mysql.Config) error {
		var err error
		c.Passwd, err = d.ReadPassword(o.Target.PasswordFile)
		return err
	}))
	if err != nil {
		return nil, fmt.Errorf("set up the connection to %s: %w", d.Address, err)
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("set up the connection to %s: %w", d.Address, err)
	}
	return &Session{address: d.Address, connector: connector}, nil
}

// Address is host:port of the server.
func (s *Session) Address() string { return s.address }

// Connect makes sure that there is a connection, with anew another one than before, and
// reports whether it is a new one: what was found out about the server over the old one may
// not hold any more.
func (s *Session) Connect(ctx context.Context, anew bool) (fresh bool, err error) {
	if anew {
		s.Disconnect()
	}
	if s.conn != nil {
		return false, nil
	}
	if s.db == nil {
		s.db = sql.OpenDB(s.connector)
		s.db.SetMaxOpenConns(1)
	}
	if s.conn, err = s.db.Conn(ctx); err != nil {
		s.conn = nil
		return false, fmt.Errorf("connect: %w", err)
	}
	return true, nil
}

// Allows reports whether the account may use the statement.
func (s *Session) Allows(ctx context.Context, statement string) (bool, error) {
	switch _, err := s.Query(ctx, statement); {
	case Refused(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("find out the account's privileges: %w", err)
	}
	return true, nil
}

// Query sends the statements in one round trip and returns the rows of each. The first
// error of the server ends it; the connection stays usable then (see Refused). After any
// other error the connection is dropped: it may still bring an old answer.
func (s *Session) Query(ctx context.Context, statements ...string) ([][]Row, error) {
	if s.conn == nil {
		return nil, errors.New("BUG: a session that is not connected was asked")
	}
	tables, err := s.query(ctx, statements)
	if err != nil && !isServerError(err) {
		s.Disconnect()
	}
	return tables, err
}

func (s *Session) query(ctx context.Context, statements []string) ([][]Row, error) {
	rows, err := s.conn.QueryContext(ctx, strings.Join(statements, ";"))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	tables := make([][]Row, 0, len(statements))
	for more := true; more; more = rows.NextResultSet() {
		table, err := scan(rows)
		if err != nil {
			return nil, err
		}
		tables = append(tables, table)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(tables) != len(statements) {
		return nil, fmt.Errorf("BUG: %d statements gave %d results", len(statements), len(tables))
	}
	return tables, nil
}

func scan(rows *sql.Rows) ([]Row, error) {
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	table := []Row{} // nil is for what was not asked
	cells := make([]any, len(names))
	for i := range names {
		// Servers differ in the case of names, also between their own versions.
		names[i] = strings.ToLower(names[i])
	}
	for rows.Next() {
		values := make([]sql.NullString, len(names))
		for i := range values {
			cells[i] = &values[i]
		}
		if err := rows.Scan(cells...); err != nil {
			return nil, err
		}
		row := make(Row, len(names))
		for i, name := range names {
			if values[i].Valid {
				row[name] = values[i].String
			}
		}
		table = append(table, row)
	}
	return table, rows.Err()
}

// Disconnect closes the connection, if there is one. The next Connect opens another.
func (s *Session) Disconnect() {
	if s.conn == nil {
		return
	}
	// This error is the word by which database/sql closes a connection instead of
	// keeping it for reuse.
	_ = s.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = s.conn.Close()
	s.conn = nil
}

// Close drops the connection. The Session must not be used after that.
func (s *Session) Close() error {
	s.Disconnect()
	if s.db == nil {
		return nil
	}
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close the connection: %w", err)
	}
	return nil
}

func isServerError(err error) bool {
	var server *mysql.MySQLError
	return errors.As(err, &server)
}

// Numbers of errors by which a server does not let an account in.
const (
	errAccountAccess   = 1045
	errAccountPlugin   = 1698
	errHostNotAllowed  = 1130
	errHostBlocked     = 1129
	errUnknownDatabase = 1049
)

// Explain says in one line what went wrong with a probe, after it has waited so long. Name
// is what people call the server; grants the file with the account's rights.
func (s *Session) Explain(name, grants string, err error, waited time.Duration) error {
	return failure.Server{Name: name, Address: s.address, Grants: grants}.Explain(err, failure.Finding{
		Within: waited,
		Denied: hasNumber(err, errAccountAccess, errAccountPlugin, errHostNotAllowed, errHostBlocked, errUnknownDatabase, errDatabaseAccess),
		Foreign: errors.Is(err, mysql.ErrMalformPkt) || errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, mysql.ErrPktSync) ||
			errors.Is(err, mysql.ErrOldProtocol) || errors.Is(err, driver.ErrBadConn) || Unsupported(err) || hasNumber(err, errUnknownVariable),
	})
}

// Numbers of errors by which a server refuses a statement to an account.
const (
	errDatabaseAccess   = 1044
	errTableAccess      = 1142
	errColumnAccess     = 1143
	errSpecificAccess   = 1227
	errProcedureAccess  = 1370
	errUnknownVariable  = 1193
	errUnknownStatement = 1064
	errUnknownTable     = 1109
	errNoTable          = 1146
)

// Refused reports whether the server refused the statement because the account lacks a
// privilege.
func Refused(err error) bool {
	return hasNumber(err, errDatabaseAccess, errTableAccess, errColumnAccess, errSpecificAccess, errProcedureAccess)
}

// Unsupported reports whether the server does not know the statement, or a table in it.
func Unsupported(err error) bool {
	return hasNumber(err, errUnknownStatement, errUnknownTable, errNoTable)
}

func hasNumber(err error, numbers ...uint16) bool {
	var server *mysql.MySQLError
	if !errors.As(err, &server) {
		return false
	}
	for _, n := range numbers {
		if server.Number == n {
			return true
		}
	}
	return false
}
