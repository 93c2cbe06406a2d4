package mariadb

import (
	"fmt"

	"github.com/prometheus/common/config"

	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/dsn"
)

// format is that of a DSN: mariadb://user:password@host:port.
var format = dsn.Format{Schemes: []string{"mariadb"}, Port: "3306"}

// Config lists the servers of one cluster. Which of them is the primary is found out.
type Config struct {
	// Targets are the servers: the primary and its replicas.
	Targets []Target `yaml:"targets"`
}

// DSN is an address with an account. It is shown without its password.
type DSN = dsn.Text

// Target is one server.
type Target struct {
	// DSN is mariadb://user:password@host:port, without port 3306. Required.
	DSN DSN `yaml:"dsn"`
	// PasswordFile holds the password, in place of one in the DSN. It is read at each
	// connection.
	PasswordFile string `yaml:"password_file,omitempty"`
	// TLS turns TLS on.
	TLS *config.TLSConfig `yaml:"tls_config,omitempty"`
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
	return dsn.ValidateTargets(format, common)
}

// Probers makes a prober of each target. No connection is opened yet.
func (c *Config) Probers() ([]probe.Prober, error) {
	list := make([]probe.Prober, len(c.Targets))
	for i := range c.Targets {
		p, err := New(c.Targets[i])
		if err != nil {
			return nil, fmt.Errorf("targets[%d]: %w", i, err)
		}
		list[i] = p
	}
	return list, nil
}
