package mysql

import (
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/dsn"
	"github.com/sluice-metrics/sluice/probe/internal/mysqlsession"
)

// format is that of a DSN: mysql://user:password@host:port.
var format = dsn.Format{Schemes: []string{"mysql"}, Port: mysqlsession.Port}

// Config lists the servers of one cluster. Which of them is the primary is found out.
type Config struct {
	// Targets are the servers: the primary and its replicas.
	Targets []Target `yaml:"targets"`
}

// DSN is an address with an account. It is shown without its password.
type DSN = dsn.Text

// Target is one server.
type Target = mysqlsession.Target

// SetDirectory makes relative names of files relative to dir. Call it before Validate and
// Probers.
func (c *Config) SetDirectory(dir string) { mysqlsession.SetDirectory(dir, c.Targets) }

// Validate reports every bad value as a *fielderror.Error, joined into one error. Files
// are not opened; Probers opens those of TLS.
func (c *Config) Validate() error { return mysqlsession.Validate(format, c.Targets) }

// Probers makes a prober of each target. No connection is opened yet.
func (c *Config) Probers() ([]probe.Prober, error) { return mysqlsession.Probers(c.Targets, New) }
