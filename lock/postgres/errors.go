package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-metrics/sluice/internal/pgerror"
	"github.com/sluice-metrics/sluice/lock"
)

// unreached marks the error of a connection that was not made: nothing was sent.
func (s *Store) unreached(err error) error {
	return lock.Marked(mark(err, lock.ErrUnsent), fmt.Errorf("connect to PostgreSQL at %s as %q: %w", s.address, s.user, oneLine(err)))
}

// failed says what failed where. A statement that the server refused has had no effect; of
// one that was ended from outside, such as at a shutdown, that is not known.
func (s *Store) failed(what string, err error) error {
	said := fmt.Errorf("%s at PostgreSQL at %s: %w", what, s.address, oneLine(err))
	if isReadOnly(err) {
		said = fmt.Errorf("%w; the server is a replica, or read-only: name the primary in dsn, or several hosts and target_session_attrs=read-write", said)
	}
	unsent := error(nil)
	if pgconn.SafeToRetry(err) {
		unsent = lock.ErrUnsent
	}
	if m := mark(err, unsent); m != nil {
		return lock.Marked(m, said)
	}
	return said
}

// readOnly is the SQLSTATE of a statement that writes, at a server that does not let it.
const readOnly = "25006"

func isReadOnly(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && server.Code == readOnly
}

// refusals are the classes of SQLSTATE that another attempt gets again: credentials, no such
// database, no such schema, and privileges, tables and columns.
var refusals = []string{"28", "3D", "3F", "42"}

// mark is lock.ErrRefused for a refusal, and otherwise for any other error.
func mark(err, otherwise error) error {
	var server *pgconn.PgError
	if isReadOnly(err) || errors.As(err, &server) && len(server.Code) == 5 && slices.Contains(refusals, server.Code[:2]) {
		return lock.ErrRefused
	}
	return otherwise
}

// oneLine is an error of the library whose text is put into one line, the cause alone.
func oneLine(err error) error {
	var server *pgconn.PgError
	var network net.Error
	if !errors.As(err, &server) && (errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout()) {
		return &silence{err}
	}
	return pgerror.OneLine(err)
}

// silence is the error of a server that did not answer in time.
type silence struct{ err error }

func (*silence) Error() string {
	return "no answer in time: is a firewall dropping packets, or does the server hang?"
}

func (s *silence) Unwrap() error { return s.err }
