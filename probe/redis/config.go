package redis

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/prometheus/common/config"

	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/dsn"
)

// schemeTLS is the scheme of a DSN that asks for TLS without a section for it.
const schemeTLS = "rediss"

// format is that of a DSN: redis://user:password@host:port/database.
var format = dsn.Format{Schemes: []string{"redis", schemeTLS}, Port: "6379", Named: true}

// Config lists the servers of one cluster. Which of them is the primary is found out.
type Config struct {
	// Targets are the servers: the primary and its replicas.
	Targets []Target `yaml:"targets"`
	// Streams are those whose consumer groups are watched, on the primary.
	Streams []Stream `yaml:"streams,omitempty"`
}

// DSN is an address with an account. It is shown without its password.
type DSN = dsn.Text

// Target is one server.
type Target struct {
	// DSN is redis://user:password@host:port/database, without port 6379, without
	// database 0; rediss:// turns TLS on. Required.
	DSN DSN `yaml:"dsn"`
	// PasswordFile holds the password, in place of one in the DSN. It is read at each
	// connection.
	PasswordFile string `yaml:"password_file,omitempty"`
	// TLS turns TLS on.
	TLS *config.TLSConfig `yaml:"tls_config,omitempty"`
}

// Stream is a stream whose consumer groups are watched.
type Stream struct {
	// Key is the stream's key. Required.
	Key string `yaml:"key"`
	// Groups are the consumer groups; none stands for all that the stream has.
	Groups []string `yaml:"groups,omitempty"`
}

func (t *Target) common() dsn.Target {
	return dsn.Target{Text: t.DSN, PasswordFile: t.PasswordFile, TLS: t.TLS}
}

// SetDirectory makes relative names of files relative to dir. Call it before Validate and
// Probers.
func (c *Config) SetDirectory(dir string) {
	for i := range c.Targets {
		t := &c.Targets[i]
		t.PasswordFile = config.JoinDir(dir, t.PasswordFile)
		if t.TLS != nil {
			t.TLS.SetDirectory(dir)
		}
	}
}

// Validate reports every bad value as a *fielderror.Error, joined into one error. Files
// are not opened; Probers opens those of TLS.
func (c *Config) Validate() error {
	common := make([]dsn.Target, len(c.Targets))
	for i := range c.Targets {
		common[i] = c.Targets[i].common()
	}
	errs := []error{dsn.ValidateTargets(format, common)}
	for i, t := range c.Targets {
		if d, err := format.Parse(string(t.DSN)); err == nil {
			if _, err := database(d); err != nil {
				errs = append(errs, &fielderror.Error{Path: fmt.Sprintf("targets[%d].dsn", i), Err: err})
			}
		}
	}
	for i, s := range c.Streams {
		path := fmt.Sprintf("streams[%d]", i)
		switch {
		case s.Key == "":
			errs = append(errs, fielderror.Errorf(path+".key", "is missing; give the stream's key"))
		case slices.ContainsFunc(c.Streams[:i], func(o Stream) bool { return o.Key == s.Key }):
			errs = append(errs, fielderror.Errorf(path+".key", "%q is there twice", s.Key))
		}
		for j, g := range s.Groups {
			if g == "" || slices.Contains(s.Groups[:j], g) {
				errs = append(errs, fielderror.Errorf(fmt.Sprintf("%s.groups[%d]", path, j), "%q is empty or there twice", g))
			}
		}
	}
	return errors.Join(errs...)
}

// Probers makes a prober of each target. No connection is opened yet.
func (c *Config) Probers() ([]probe.Prober, error) {
	list := make([]probe.Prober, len(c.Targets))
	for i := range c.Targets {
		p, err := New(c.Targets[i], c.Streams)
		if err != nil {
			return nil, fmt.Errorf("targets[%d]: %w", i, err)
		}
		list[i] = p
	}
	return list, nil
}

// database is the number of the database that the DSN names.
func database(d dsn.DSN) (int, error) {
	if d.Name == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(d.Name, 10, 16)
	if err != nil {
		return 0, errors.New("names a database that is no number; give redis://host:port/0")
	}
	return int(n), nil
}
