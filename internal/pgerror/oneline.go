// Package pgerror puts errors of the PostgreSQL client into words that fit into a log line.
package pgerror

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// OneLine returns err with the text of its cause alone, in one line and without what is said
// twice: a connection that fails is told of for each address and each attempt. It unwraps to err.
func OneLine(err error) error { return &oneLine{err} }

type oneLine struct{ err error }

func (e *oneLine) Error() string {
	cause := e.err
	var connect *pgconn.ConnectError
	if errors.As(cause, &connect) && connect.Unwrap() != nil {
		cause = connect.Unwrap()
	}
	var server *pgconn.PgError
	if errors.As(cause, &server) {
		return fmt.Sprintf("%s: %s (SQLSTATE %s)", server.Severity, server.Message, server.Code)
	}
	var said []string
	for line := range strings.Lines(cause.Error()) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(said, line) {
			said = append(said, line)
		}
	}
	return strings.Join(said, "; ")
}

func (e *oneLine) Unwrap() error { return e.err }
