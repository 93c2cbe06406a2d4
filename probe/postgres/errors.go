package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-metrics/sluice/internal/pgerror"
	"github.com/sluice-metrics/sluice/probe"
)

// explain says in one line what went wrong, where, and what to do.
func (p *Prober) explain(doing string, err error) error {
	said := fmt.Errorf("%s PostgreSQL at %s as %q: %w%s", doing, p.target, p.config.User, pgerror.OneLine(err), p.advice(err))
	var server *pgconn.PgError
	if errors.As(err, &server) && strings.HasPrefix(server.Code, "28") {
		return &denied{said}
	}
	return said
}

// denied is an error of a server that does not let the account in.
type denied struct{ error }

func (d *denied) Unwrap() []error { return []error{probe.ErrDenied, d.error} }

// advice is what an operator can do about an error; empty if there is nothing to add.
func (p *Prober) advice(err error) string {
	var server *pgconn.PgError
	var network net.Error
	switch {
	case errors.As(err, &server):
		return adviceFor(server.Code)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "; nothing answers in time: look whether a firewall drops packets, or the server hangs"
	}
	return ""
}

func adviceFor(code string) string {
	switch code {
	case "28P01":
		return "; the password is wrong or the account is not there: see password_file, and docs/probe/postgres-grants.sql"
	case "28000":
		return "; the account is not there, or pg_hba.conf does not let it in from here: see docs/probe/postgres-grants.sql"
	case "3D000":
		return "; name a database that is there, such as postgres"
	case "42501":
		return "; the account lacks a privilege: see docs/probe/postgres-grants.sql"
	case "53300":
		return "; the server has no connection left"
	case "57014":
		return "; the server took longer than timeout"
	}
	return ""
}
