package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/redis/go-redis/v9"

	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/internal/redisclient"
)

// Config is the section `redis` of a lease: one Redis (or a primary that is failed over
// behind one address).
type Config struct {
	// Address of the Redis, host:port. Required.
	Address string `yaml:"address"`
	// Prefix of the keys. Gateways that shall exclude each other have the same one.
	Prefix string `yaml:"prefix,omitempty"`
	// Client is how to log in and connect: database, username, password, password_file,
	// tls_config, timeout.
	Client ClientConfig `yaml:",inline"`
}

// ClientConfig is how to log in to a Redis and connect to it.
type ClientConfig struct {
	// Database is the number of the database.
	Database int `yaml:"database,omitempty"`
	// Username for the ACL. Empty: the default user.
	Username string `yaml:"username,omitempty"`
	// Password as text; better in password_file.
	Password config.Secret `yaml:"password,omitempty"`
	// PasswordFile is a file with the password, read again at each connection.
	PasswordFile string `yaml:"password_file,omitempty"`
	// TLSConfig turns on TLS when it is present. The keys are those known from
	// Prometheus.
	TLSConfig *config.TLSConfig `yaml:"tls_config,omitempty"`
	// Timeout bounds the connection and each command. Renewals are bounded more tightly
	// by the lease's TTL.
	Timeout model.Duration `yaml:"timeout,omitempty"`
}

// DefaultPrefix is the prefix of keys when none is configured.
const DefaultPrefix = "sluice:lock:"

// SetDefaults sets what holds for keys that the file does not set.
func (c *Config) SetDefaults() {
	c.Prefix = DefaultPrefix
	c.Client.SetDefaults()
}

// SetDefaults sets what holds for keys that the file does not set.
func (c *ClientConfig) SetDefaults() { c.Timeout = model.Duration(time.Second) }

// SetDirectory makes relative names of files relative to dir.
func (c *Config) SetDirectory(dir string) { c.Client.SetDirectory(dir) }

// SetDirectory makes relative names of files relative to dir.
func (c *ClientConfig) SetDirectory(dir string) {
	c.PasswordFile = config.JoinDir(dir, c.PasswordFile)
	if c.TLSConfig != nil {
		c.TLSConfig.SetDirectory(dir)
	}
}

// Validate reports every bad value as a *fielderror.Error.
func (c *Config) Validate() error {
	return errors.Join(ValidateAddress("address", c.Address), c.Client.Validate())
}

// ValidateAddress checks that the address is host:port.
func ValidateAddress(path, address string) error {
	if address == "" {
		return fielderror.Errorf(path, "is missing; give host:port, such as 127.0.0.1:6379")
	}
	if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
		return fielderror.Errorf(path, "%q is not host:port", address)
	}
	return nil
}

// Validate reports every bad value as a *fielderror.Error.
func (c *ClientConfig) Validate() error {
	var errs []error
	if c.Password != "" && c.PasswordFile != "" {
		errs = append(errs, fielderror.Errorf("password_file", "cannot stand beside password; keep one of them"))
	}
	if c.Username != "" && c.Password == "" && c.PasswordFile == "" {
		errs = append(errs, fielderror.Errorf("password_file", "is missing: a user without a password cannot log in"))
	}
	if c.Database < 0 {
		errs = append(errs, fielderror.Errorf("database", "must not be negative"))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fielderror.Errorf("timeout", "must be longer than 0s"))
	}
	if c.TLSConfig != nil {
		errs = append(errs, fielderror.Within("tls_config", c.TLSConfig.Validate()))
	}
	return errors.Join(errs...)
}

// NewClient returns a client for one address. It does not connect yet. The retries of
// the library are off, because the lease has its own.
func NewClient(address string, c ClientConfig) (*redis.Client, error) {
	timeout := time.Duration(c.Timeout)
	var secure *tls.Config
	if c.TLSConfig != nil {
		var err error
		if secure, err = config.NewTLSConfig(c.TLSConfig); err != nil {
			return nil, fmt.Errorf("TLS to Redis %s: %w", address, err)
		}
		if secure.ServerName == "" {
			secure.ServerName, _, _ = net.SplitHostPort(address)
		}
	}
	return redisclient.New(&redis.Options{
		Addr:                       address,
		DB:                         c.Database,
		CredentialsProviderContext: c.credentials,
		TLSConfig:                  secure,
		ClientName:                 "sluice-lock",
		MaxRetries:                 -1,
		DialerRetries:              1,
		DialTimeout:                timeout,
		ReadTimeout:                timeout,
		WriteTimeout:               timeout,
		ContextTimeoutEnabled:      true,
		DisableIdentity:            true,
	}), nil
}

func (c ClientConfig) credentials(context.Context) (username, password string, err error) {
	if c.PasswordFile == "" {
		return c.Username, string(c.Password), nil
	}
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", "", fmt.Errorf("password_file: %w", err)
	}
	return c.Username, strings.TrimSpace(string(text)), nil
}
