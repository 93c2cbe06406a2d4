// Package postgres is the kind of lock on a row of a PostgreSQL table. Each operation is
// one statement, a transaction of its own, that compares with the database's clock; no
// other clock is asked. The fencing token is a column that grows with every grant, and any
// table of the same database can be guarded by it (WHERE token <= $1).
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sluice-metrics/sluice/lock"
)

// Kind is the key of this kind in the configuration.
const Kind = "postgres"

// Store is a lock.Store on a PostgreSQL table.
type Store struct {
	address string // for errors: host:port, the first one of several
	user    string
	pool    *pgxpool.Pool
	metrics *metrics
	sql     statements
}

var (
	_ lock.Store    = (*Store)(nil)
	_ lock.Recorder = (*Store)(nil)
)

// New returns a Store. The configuration is valid. It does not connect yet; the pool has a
// goroutine that Close ends.
func New(c Config, o Options) (*Store, error) {
	config, err := c.pool()
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL lease: %w", err)
	}
	m, err := newMetrics(o, pool.Stat)
	if err != nil {
		pool.Close()
		return nil, err
	}
	server := config.ConnConfig
	return &Store{address: net.JoinHostPort(server.Host, strconv.Itoa(int(server.Port))), user: server.User, pool: pool, metrics: m, sql: newStatements(c.identifier())}, nil
}

// statements are the SQL of a Store.
type statements struct{ table, create, insert, grant, find, renew, release, holder string }

func newStatements(table string) statements {
	const expiry = `clock_timestamp() + $3::bigint * interval '1 millisecond'`
	return statements{
		table:  table,
		create: `CREATE TABLE IF NOT EXISTS ` + table + ` (name text PRIMARY KEY, holder text NOT NULL, token bigint NOT NULL, expires timestamptz NOT NULL)`,
		insert: `INSERT INTO ` + table + ` (name, holder, token, expires) VALUES ($1, '', 0, '-infinity') ON CONFLICT (name) DO NOTHING`,
		// The row is read as it was before: it tells a name that is held from one that
		// has no row yet.
		grant: `WITH taken AS (
	UPDATE ` + table + `
	SET token = CASE WHEN holder = $2 AND expires >= clock_timestamp() THEN token ELSE token + 1 END, holder = $2, expires = ` + expiry + `
	WHERE name = $1 AND (expires < clock_timestamp() OR holder = $2)
	RETURNING token
)
SELECT taken.token, before.holder, before.token FROM ` + table + ` before LEFT JOIN taken ON true WHERE before.name = $1`,
		find:    `SELECT token FROM ` + table + ` WHERE name = $1 AND holder = $2 AND expires >= clock_timestamp()`,
		renew:   `UPDATE ` + table + ` SET expires = ` + expiry + ` WHERE name = $1 AND holder = $2 AND expires >= clock_timestamp()`,
		release: `UPDATE ` + table + ` SET holder = '', expires = '-infinity' WHERE name = $1 AND holder = $2`,
		holder: `SELECT holder, token, (extract(epoch FROM expires - clock_timestamp()) * 1000)::bigint
FROM ` + table + ` WHERE name = $1 AND expires >= clock_timestamp()`,
	}
}

// Kind implements lock.Store.
func (*Store) Kind() string { return Kind }

// Close implements lock.Store.
func (s *Store) Close() error {
	s.metrics.close()
	s.pool.Close()
	return nil
}

// undefinedTable is the SQLSTATE of a table that is not there.
const undefinedTable = "42P01"

// run runs f, one statement, on a connection. A table that is not there is made once.
func (s *Store) run(ctx context.Context, what string, f func(*pgxpool.Conn) error) error {
	got := s.metrics.waits()
	conn, err := s.pool.Acquire(ctx)
	got(err)
	if err != nil {
		return s.unreached(err)
	}
	defer conn.Release()
	err = s.transaction(conn, f)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == undefinedTable {
		if err := s.createTable(ctx, conn); err != nil {
			return err
		}
		err = s.transaction(conn, f)
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return s.failed(what, err)
	}
	return err
}

// transaction runs one statement, which is a transaction.
func (s *Store) transaction(conn *pgxpool.Conn, f func(*pgxpool.Conn) error) error {
	end := s.metrics.transaction()
	err := f(conn)
	if errors.Is(err, pgx.ErrNoRows) {
		end(nil) // committed, and found nothing
	} else {
		end(err)
	}
	return err
}

func (s *Store) createTable(ctx context.Context, conn *pgxpool.Conn) error {
	err := s.transaction(conn, func(conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, s.sql.create)
		return err
	})
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "23505" {
		return nil // another made it at the same moment
	}
	if isReadOnly(err) {
		return s.failed("make the table "+s.sql.table, err)
	}
	if err != nil {
		return s.failed(fmt.Sprintf("the table %s is not there and could not be made; run as its owner: %s; GRANT SELECT, INSERT, UPDATE ON %s TO the user: create the table", s.sql.table, s.sql.create, s.sql.table), err)
	}
	return nil
}

// row makes the row of a name; a row is never deleted, because its token has to grow.
func (s *Store) row(ctx context.Context, name string) error {
	return s.run(ctx, "make the row", func(conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, s.sql.insert, name)
		return err
	})
}

// Grant implements lock.Store.
func (s *Store) Grant(ctx context.Context, c lock.Claim) (lock.Grant, error) {
	for first := true; ; first = false {
		var token *int64
		var holder string
		var before int64
		err := s.run(ctx, "grant", func(conn *pgxpool.Conn) error {
			return conn.QueryRow(ctx, s.sql.grant, c.Name, c.Holder, c.TTL.Milliseconds()).Scan(&token, &holder, &before)
		})
		switch {
		case errors.Is(err, pgx.ErrNoRows) && first:
			if err := s.row(ctx, c.Name); err != nil {
				return lock.Grant{}, err
			}
		case err != nil:
			return lock.Grant{}, err
		case token == nil:
			return lock.Grant{}, &lock.HeldError{By: lock.HolderInfo{Held: true, Instance: lock.InstanceOf(holder), Token: uint64(before)}}
		default:
			return lock.Grant{Claim: c, Token: uint64(*token)}, nil
		}
	}
}

// Find implements lock.Store.
func (s *Store) Find(ctx context.Context, c lock.Claim) (lock.Grant, error) {
	var token int64
	err := s.run(ctx, "read back", func(conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, s.sql.find, c.Name, c.Holder).Scan(&token)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return lock.Grant{}, lock.ErrNotHeld
	}
	return lock.Grant{Claim: c, Token: uint64(token)}, err
}

// Renew implements lock.Store.
func (s *Store) Renew(ctx context.Context, g lock.Grant) (lock.Grant, error) {
	var extended int64
	err := s.run(ctx, "renew", func(conn *pgxpool.Conn) error {
		tag, err := conn.Exec(ctx, s.sql.renew, g.Name, g.Holder, g.TTL.Milliseconds())
		extended = tag.RowsAffected()
		return err
	})
	if err == nil && extended == 0 {
		err = lock.ErrLost
	}
	return g, err
}

// Release implements lock.Store.
func (s *Store) Release(ctx context.Context, g lock.Grant) error {
	return s.run(ctx, "release", func(conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, s.sql.release, g.Name, g.Holder)
		return err
	})
}

// Holder implements lock.Store.
func (s *Store) Holder(ctx context.Context, name string) (lock.HolderInfo, error) {
	var holder string
	var token, left int64
	err := s.run(ctx, "read", func(conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, s.sql.holder, name).Scan(&holder, &token, &left)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return lock.HolderInfo{}, nil
	}
	if err != nil {
		return lock.HolderInfo{}, err
	}
	return lock.HolderInfo{Held: true, Instance: lock.InstanceOf(holder), Token: uint64(token), Remaining: time.Duration(left) * time.Millisecond}, nil
}
