// Package postgres reads one PostgreSQL server, version 13 or newer, for package probe:
// role, timeline, positions, replicas and slots, locks, sessions and totals. It only
// reads, over one connection, in one round trip per probe.
//
// The account needs the role pg_monitor and nothing else; docs/probe/postgres-grants.sql
// makes it.
package postgres

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/probe"
)

// Config is the section postgres of a cluster. Start from DefaultConfig.
type Config struct {
	// Targets are the servers of the cluster, in any order: which of them is the primary
	// they say themselves. Required.
	Targets []Target `yaml:"targets"`
}

// Target is one server.
type Target struct {
	// DSN is the address of one database of the server, as a URL
	// (postgres://probe@10.0.0.1:5432/postgres) or as keywords and values. The databases'
	// locks and totals are seen from any of them; postgres is always there. Required.
	DSN DSN `yaml:"dsn"`
	// PasswordFile is a file with the password, read anew for each connection. Without
	// it the password is that of the DSN, or none.
	PasswordFile string `yaml:"password_file,omitempty"`
}

// DSN is a connection string. It is shown without its password.
type DSN string

var keywordPassword = regexp.MustCompile(`(?i)\b((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)`)

// String is the DSN with a password hidden.
func (d DSN) String() string {
	text := string(d)
	if !strings.Contains(text, "://") {
		return keywordPassword.ReplaceAllString(text, "${1}<secret>")
	}
	u, err := url.Parse(text)
	if err != nil {
		return "<secret>"
	}
	q := u.Query()
	for key := range q {
		if strings.EqualFold(key, "password") || strings.EqualFold(key, "sslpassword") {
			q.Set(key, "xxxxx")
		}
	}
	if len(q) > 0 {
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}

// MarshalYAML writes the DSN with a password hidden.
func (d DSN) MarshalYAML() (any, error) { return d.String(), nil }

// GoString hides the password from %#v too.
func (d DSN) GoString() string { return strconv.Quote(d.String()) }

// DefaultConfig returns what holds for keys that the file does not set; Targets has no
// default.
func DefaultConfig() Config { return Config{} }

// SetDirectory makes the relative names of password files relative to dir.
func (c *Config) SetDirectory(dir string) {
	for i := range c.Targets {
		if f := &c.Targets[i].PasswordFile; *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(dir, *f)
		}
	}
}

// Validate reports every bad value as a *fielderror.Error, joined into one error. Files
// are not opened.
func (c *Config) Validate() error {
	if len(c.Targets) == 0 {
		return fielderror.Errorf("targets", "is missing; list the cluster's servers, such as [{dsn: \"postgres://probe@10.0.0.1/postgres\"}]")
	}
	var errs []error
	seen := map[string]int{}
	for i, t := range c.Targets {
		path := fmt.Sprintf("targets[%d].dsn", i)
		address, _, err := t.parse()
		if err != nil {
			errs = append(errs, fielderror.Errorf(path, "%w", err))
			continue
		}
		if other, twice := seen[address]; twice {
			errs = append(errs, fielderror.Errorf(path, "is the server %s, which targets[%d] is already", address, other))
		}
		seen[address] = i
	}
	return errors.Join(errs...)
}

// parse returns host:port of the target and how to connect to it.
func (t *Target) parse() (address string, c *pgx.ConnConfig, err error) {
	if t.DSN == "" {
		return "", nil, errors.New("is missing; give the address of one server, such as postgres://probe@10.0.0.1/postgres")
	}
	c, err = pgx.ParseConfig(string(t.DSN))
	if err != nil {
		return "", nil, fmt.Errorf("cannot be read: %s", withoutSecrets(err, t.DSN))
	}
	address = net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
	if strings.HasPrefix(c.Host, "/") {
		return "", nil, fmt.Errorf("names a socket (%s); give a host", c.Host)
	}
	for _, f := range c.Fallbacks {
		if f.Host != c.Host || f.Port != c.Port {
			return "", nil, errors.New("names several servers; give each a target of its own")
		}
	}
	return address, c, nil
}

// withoutSecrets is the error's text; one that might repeat what it could not parse says
// only what kind of thing that was.
func withoutSecrets(err error, d DSN) string {
	var parse *url.Error
	if errors.As(err, &parse) {
		return "it is not a URL"
	}
	return strings.ReplaceAll(err.Error(), string(d), d.String())
}

// Probers makes a prober of each target. They open no connection before they are asked.
// The configuration has to be valid.
func (c *Config) Probers() ([]probe.Prober, error) {
	var list []probe.Prober
	for i := range c.Targets {
		p, err := New(c.Targets[i])
		if err != nil {
			return nil, fmt.Errorf("targets[%d]: %w", i, err)
		}
		list = append(list, p)
	}
	return list, nil
}
