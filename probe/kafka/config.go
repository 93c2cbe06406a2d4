package kafka

import (
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/common/config"

	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/dsn"
)

// format is that of a DSN: kafka://user:password@host:port.
var format = dsn.Format{Schemes: []string{"kafka"}, Port: "9092"}

// Mechanism is how an account logs in.
type Mechanism string

// The mechanisms.
const (
	MechanismPlain    Mechanism = "plain"
	MechanismScram256 Mechanism = "scram_sha_256"
	MechanismScram512 Mechanism = "scram_sha_512"
)

// Config says which consumer groups of one Kafka cluster are watched. Start from
// DefaultConfig.
type Config struct {
	// Targets are brokers to begin with; the others of their cluster are found through
	// them. The first gives the label target, and its account and TLS are those for all
	// brokers.
	Targets []Target `yaml:"targets"`
	// Groups are the consumer groups; none stands for all that the cluster has.
	Groups []string `yaml:"groups,omitempty"`
	// SASLMechanism is how the account of the first target logs in: plain,
	// scram_sha_256 or scram_sha_512.
	SASLMechanism Mechanism `yaml:"sasl_mechanism"`
}

// DSN is an address with an account. It is shown without its password.
type DSN = dsn.Text

// Target is one broker.
type Target struct {
	// DSN is kafka://user:password@host:port, without port 9092. Required.
	DSN DSN `yaml:"dsn"`
	// PasswordFile holds the password, in place of one in the DSN. It is read at each
	// login.
	PasswordFile string `yaml:"password_file,omitempty"`
	// TLS turns TLS on, and may hold a client certificate.
	TLS *config.TLSConfig `yaml:"tls_config,omitempty"`
}

// DefaultConfig returns what holds for keys that the file does not set; Targets have no
// default.
func DefaultConfig() Config { return Config{SASLMechanism: MechanismScram512} }

// SetDefaults makes c the DefaultConfig.
func (c *Config) SetDefaults() { *c = DefaultConfig() }

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
		d, err := format.Parse(string(t.DSN))
		if i > 0 && err == nil && (d.User != "" || t.PasswordFile != "" || t.TLS != nil) {
			errs = append(errs, fielderror.Errorf(fmt.Sprintf("targets[%d]", i), "has an account or TLS; those of targets[0] hold for all brokers"))
		}
	}
	switch c.SASLMechanism {
	case MechanismPlain, MechanismScram256, MechanismScram512:
	default:
		errs = append(errs, fielderror.Errorf("sasl_mechanism", "must be plain, scram_sha_256 or scram_sha_512, not %q", c.SASLMechanism))
	}
	for i, g := range c.Groups {
		if g == "" || slices.Contains(c.Groups[:i], g) {
			errs = append(errs, fielderror.Errorf(fmt.Sprintf("groups[%d]", i), "%q is empty or there twice", g))
		}
	}
	return errors.Join(errs...)
}

// Probers makes the one prober of the cluster. No connection is opened yet.
func (c *Config) Probers() ([]probe.Prober, error) {
	p, err := New(*c)
	if err != nil {
		return nil, err
	}
	return []probe.Prober{p}, nil
}
