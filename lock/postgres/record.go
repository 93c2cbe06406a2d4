package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A record is a row of the leases' table that does not expire: its holder is the value,
// its token the revision.
const (
	selectRecord = `SELECT holder, token FROM %TABLE% WHERE name = $1`
	insertRecord = `INSERT INTO %TABLE% (name, holder, token, expires) VALUES ($1, $2, 1, 'infinity') ON CONFLICT (name) DO NOTHING RETURNING token`
	updateRecord = `UPDATE %TABLE% SET holder = $2, token = token + 1 WHERE name = $1 AND token = $3 RETURNING token`
)

func (s statements) of(sql string) string { return strings.Replace(sql, "%TABLE%", s.table, 1) }

// ReadRecord returns a small record beside the leases and its revision. The revision of one
// that is not there is 0.
func (s *Store) ReadRecord(ctx context.Context, name string) (value []byte, revision uint64, err error) {
	var text string
	var token int64
	err = s.run(ctx, "read a record", func(conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, s.sql.of(selectRecord), name).Scan(&text, &token)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, 0, nil
	}
	return []byte(text), uint64(token), err
}

// SwapRecord writes a record if it still has the revision, and returns the new one. swapped
// is false when it has another. After an error the record may have been written or not.
func (s *Store) SwapRecord(ctx context.Context, name string, revision uint64, value []byte) (written uint64, swapped bool, err error) {
	var token int64
	err = s.run(ctx, "write a record", func(conn *pgxpool.Conn) error {
		if revision == 0 {
			return conn.QueryRow(ctx, s.sql.of(insertRecord), name, string(value)).Scan(&token)
		}
		return conn.QueryRow(ctx, s.sql.of(updateRecord), name, string(value), int64(revision)).Scan(&token)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	return uint64(token), err == nil, err
}
