package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"

	"github.com/sluice-metrics/sluice/internal/fielderror"
)

// Config is the section `postgres` of a lease.
type Config struct {
	// DSN is how to reach the database, as a URL or as key=value pairs. With several hosts
	// add target_session_attrs=read-write, so that the primary is found. Required.
	DSN config.Secret `yaml:"dsn"`
	// PasswordFile is a file with the password, read again at each connection. It wins
	// over a password in dsn.
	PasswordFile string `yaml:"password_file,omitempty"`
	// Table of the leases, with or without a schema. It is created when it is not there
	// and the user may do so.
	Table string `yaml:"table,omitempty"`
	// MaxConnections bounds the pool. Each lease needs one for a moment per renewal.
	MaxConnections int `yaml:"max_connections,omitempty"`
	// ConnectTimeout bounds a new connection.
	ConnectTimeout model.Duration `yaml:"connect_timeout,omitempty"`
}

// SetDefaults sets what holds for keys that the file does not set.
func (c *Config) SetDefaults() {
	c.Table = "sluice_leases"
	c.MaxConnections = 4
	c.ConnectTimeout = model.Duration(time.Second)
}

// SetDirectory makes relative names of files relative to dir.
func (c *Config) SetDirectory(dir string) { c.PasswordFile = config.JoinDir(dir, c.PasswordFile) }

var tableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$`)

// Validate reports every bad value as a *fielderror.Error.
func (c *Config) Validate() error {
	var errs []error
	if c.DSN == "" {
		errs = append(errs, fielderror.Errorf("dsn", "is missing; give how to reach the database, such as postgres://sluice@10.0.0.1/sluice"))
	} else if _, err := pgxpool.ParseConfig(string(c.DSN)); err != nil {
		// The library's message may quote the text, with a password in it.
		errs = append(errs, fielderror.Errorf("dsn", "is neither a URL postgres://user@host:port/database nor pairs such as host=10.0.0.1 user=sluice"))
	}
	if !tableName.MatchString(c.Table) {
		errs = append(errs, fielderror.Errorf("table", "%q is not the name of a table, with or without a schema", c.Table))
	}
	if c.MaxConnections < 1 {
		errs = append(errs, fielderror.Errorf("max_connections", "must be 1 or more"))
	}
	if c.ConnectTimeout <= 0 {
		errs = append(errs, fielderror.Errorf("connect_timeout", "must be longer than 0s"))
	}
	return errors.Join(errs...)
}

// application is what pg_stat_activity shows of the connections, and the label
// application of the metrics.
const application = "sluice-lock"

// pool is the configuration of the library.
func (c *Config) pool() (*pgxpool.Config, error) {
	p, err := pgxpool.ParseConfig(string(c.DSN))
	if err != nil {
		return nil, errors.New("dsn cannot be parsed") // not wrapped: it may quote a password
	}
	p.MaxConns = int32(c.MaxConnections)
	p.ConnConfig.ConnectTimeout = time.Duration(c.ConnectTimeout)
	p.ConnConfig.RuntimeParams["application_name"] = application
	// One round trip, and nothing prepared that a connection pooler could mix up.
	p.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	if c.PasswordFile != "" {
		p.BeforeConnect = c.readPassword
	}
	return p, nil
}

func readPasswordFile(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// identifier is the table's name as it stands in a statement.
func (c *Config) identifier() string {
	return pgx.Identifier(strings.Split(c.Table, ".")).Sanitize()
}

func (c *Config) readPassword(_ context.Context, connection *pgx.ConnConfig) error {
	var err error
	connection.Password, err = readPasswordFile(c.PasswordFile)
	return err
}
