package etcd

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"

	"github.com/sluice-metrics/sluice/internal/fielderror"
)

// Config is the section `etcd` (or `etcdcas`) of a lease.
type Config struct {
	// Endpoints are the client addresses of the members, host:port or URLs. Required; give
	// all members, so that one which is down costs nothing.
	Endpoints []string `yaml:"endpoints"`
	// Prefix of the keys. Gateways that shall exclude each other have the same one.
	Prefix string `yaml:"prefix,omitempty"`
	// Username to log in with; needs a password. With client certificates leave it empty.
	Username string `yaml:"username,omitempty"`
	// Password as text; better in password_file.
	Password config.Secret `yaml:"password,omitempty"`
	// PasswordFile is a file with the password, read when the connection is made.
	PasswordFile string `yaml:"password_file,omitempty"`
	// TLSConfig turns on TLS when it is present. The keys are those known from
	// Prometheus.
	TLSConfig *config.TLSConfig `yaml:"tls_config,omitempty"`
	// DialTimeout bounds the login of a new connection.
	DialTimeout model.Duration `yaml:"dial_timeout,omitempty"`
}

// DefaultPrefix is the prefix of keys when none is configured.
const DefaultPrefix = "sluice/lock/"

// SetDefaults sets what holds for keys that the file does not set.
func (c *Config) SetDefaults() {
	c.Prefix = DefaultPrefix
	c.DialTimeout = model.Duration(2 * time.Second)
}

// SetDirectory makes relative names of files relative to dir.
func (c *Config) SetDirectory(dir string) {
	c.PasswordFile = config.JoinDir(dir, c.PasswordFile)
	if c.TLSConfig != nil {
		c.TLSConfig.SetDirectory(dir)
	}
}

// Validate reports every bad value as a *fielderror.Error.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Endpoints) == 0 {
		errs = append(errs, fielderror.Errorf("endpoints", "is missing; list the members' client addresses, such as [10.0.0.1:2379, 10.0.0.2:2379, 10.0.0.3:2379]"))
	}
	for i, e := range c.Endpoints {
		path := fmt.Sprintf("endpoints[%d]", i)
		address, secure := e, c.TLSConfig != nil
		if u, err := url.Parse(e); err == nil && u.Host != "" {
			address = u.Host
			if (u.Scheme == "https") != secure {
				errs = append(errs, fielderror.Errorf(path, "%q does not go with tls_config: https:// needs it, http:// goes without", e))
			}
		}
		if i := strings.LastIndexByte(address, ':'); i <= 0 || i == len(address)-1 {
			errs = append(errs, fielderror.Errorf(path, "%q is not host:port", e))
		}
	}
	if c.Password != "" && c.PasswordFile != "" {
		errs = append(errs, fielderror.Errorf("password_file", "cannot stand beside password; keep one of them"))
	}
	if named := c.Username != ""; named != (c.Password != "" || c.PasswordFile != "") {
		errs = append(errs, fielderror.Errorf("username", "needs a password, and a password needs it"))
	}
	if c.DialTimeout <= 0 {
		errs = append(errs, fielderror.Errorf("dial_timeout", "must be longer than 0s"))
	}
	if c.TLSConfig != nil {
		errs = append(errs, fielderror.Within("tls_config", c.TLSConfig.Validate()))
	}
	return errors.Join(errs...)
}
