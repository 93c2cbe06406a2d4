package mysqlsession

import (
	"fmt"
	"time"

	"github.com/prometheus/common/config"

	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/dsn"
)

// Port is the standard port of the servers.
const Port = "3306"

// Target is one server.
type Target struct {
	// DSN is mariadb://user:password@host:port, for MySQL mysql://user:password@host:port,
	// without port 3306. Required.
	DSN dsn.Text `yaml:"dsn"`
	// PasswordFile holds the password, in place of one in the DSN. It is read at each
	// connection.
	PasswordFile string `yaml:"password_file,omitempty"`
	// TLS turns TLS on.
	TLS *config.TLSConfig `yaml:"tls_config,omitempty"`
}

func (t *Target) common() dsn.Target {
	return dsn.Target{Text: t.DSN, PasswordFile: t.PasswordFile, TLS: t.TLS}
}

// SetDirectory makes relative names of files relative to dir.
func SetDirectory(dir string, targets []Target) {
	for i := range targets {
		t := &targets[i]
		t.PasswordFile = config.JoinDir(dir, t.PasswordFile)
		if t.TLS != nil {
			t.TLS.SetDirectory(dir)
		}
	}
}

// Validate reports every bad value as a *fielderror.Error, joined into one error. Files
// are not opened.
func Validate(f dsn.Format, targets []Target) error {
	common := make([]dsn.Target, len(targets))
	for i := range targets {
		common[i] = targets[i].common()
	}
	return dsn.ValidateTargets(f, common)
}

// Probers makes a prober of each target.
func Probers[P probe.Prober](targets []Target, open func(Target) (P, error)) ([]probe.Prober, error) {
	list := make([]probe.Prober, len(targets))
	for i := range targets {
		p, err := open(targets[i])
		if err != nil {
			return nil, fmt.Errorf("targets[%d]: %w", i, err)
		}
		list[i] = p
	}
	return list, nil
}

// Kinds of information that need a privilege: keys of Reading.Privileged.
const (
	KindReplication  = "replication"
	KindLocks        = "locks"
	KindTransactions = "transactions"
)

// Recheck is after how long a privilege that was missing is looked for again, so that a
// GRANT takes effect without a restart of the gateway.
const Recheck = time.Minute
