package etcd

import (
	"fmt"

	"github.com/prometheus/common/config"

	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/dsn"
)

// schemeTLS is the scheme of an address that asks for TLS without a section for it.
const schemeTLS = "https"

// format is that of a DSN, as etcd writes its client URLs.
var format = dsn.Format{Schemes: []string{"http", schemeTLS}, Port: "2379"}

// Config lists the members of one cluster.
type Config struct {
	// Targets are the members, each by its own client URL.
	Targets []Target `yaml:"targets"`
}

// DSN is an address with an account. It is shown without its password.
type DSN = dsn.Text

// Target is one member.
type Target struct {
	// DSN is the member's client URL, http://user:password@host:port, without port 2379;
	// https:// turns TLS on. Required.
	DSN DSN `yaml:"dsn"`
	// PasswordFile holds the password, in place of one in the DSN. It is read at each
	// connection.
	PasswordFile string `yaml:"password_file,omitempty"`
	// TLS turns TLS on, and may hold a client certificate.
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
