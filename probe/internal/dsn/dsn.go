// Package dsn reads the addresses of databases with their accounts, as probes are
// configured with: scheme://user:password@host:port/name.
//
// Nothing that it returns as an error holds a password.
package dsn

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/config"

	"github.com/sluice-metrics/sluice/internal/fielderror"
)

// DSN is where a server is, and the account to use there.
type DSN struct {
	Scheme string
	// Address is host:port.
	Address  string
	User     string
	Password string
	// Name is the path without its first slash: a database's name or number.
	Name string
}

// Text is a DSN as the configuration has it. It is shown without its password.
type Text string

// String is the DSN with a password hidden.
func (t Text) String() string {
	u, err := url.Parse(string(t))
	if err != nil || u.Opaque != "" {
		return "<secret>"
	}
	return u.Redacted()
}

// MarshalYAML writes the DSN with a password hidden.
func (t Text) MarshalYAML() (any, error) { return t.String(), nil }

// GoString hides the password from %#v too.
func (t Text) GoString() string { return strconv.Quote(t.String()) }

// Format says how a DSN has to look.
type Format struct {
	// Schemes are those that are taken; the first stands in the messages.
	Schemes []string
	// Port is what stands for a missing one.
	Port string
	// Named allows a name after the address.
	Named bool
}

// Parse takes a DSN apart.
func (f Format) Parse(text string) (DSN, error) {
	if text == "" {
		return DSN{}, fmt.Errorf("is missing; give an address such as %s", f.example())
	}
	u, err := url.Parse(text)
	if err != nil {
		// What url.Parse says repeats the text, with the password in it.
		return DSN{}, fmt.Errorf("is not an address such as %s; special characters in a password are written as %%xx, or the password is given as password_file", f.example())
	}
	switch port, err := strconv.Atoi(u.Port()); {
	case !slices.Contains(f.Schemes, u.Scheme):
		return DSN{}, fmt.Errorf("must start with %s", strings.Join(f.starts(), " or "))
	case u.Hostname() == "":
		return DSN{}, fmt.Errorf("names no host; give an address such as %s", f.example())
	case u.Port() != "" && (err != nil || port < 1 || port > 65535):
		return DSN{}, fmt.Errorf("names the port %s; ports go from 1 to 65535", u.Port())
	case u.RawQuery != "" || u.Fragment != "":
		return DSN{}, errors.New("takes no parameters; TLS is set up by tls_config, time limits by the cluster's timeout")
	case !f.Named && strings.Trim(u.Path, "/") != "":
		return DSN{}, errors.New("takes nothing after the port")
	}
	d := DSN{Scheme: u.Scheme, Address: u.Host, Name: strings.Trim(u.Path, "/")}
	if u.Port() == "" {
		d.Address = net.JoinHostPort(u.Hostname(), f.Port)
	}
	if u.User != nil {
		d.User = u.User.Username()
		d.Password, _ = u.User.Password()
	}
	return d, nil
}

func (f Format) example() string {
	if f.Named {
		return fmt.Sprintf("%s://probe@10.0.0.1:%s/0", f.Schemes[0], f.Port)
	}
	return fmt.Sprintf("%s://probe@10.0.0.1:%s", f.Schemes[0], f.Port)
}

func (f Format) starts() []string {
	list := make([]string, len(f.Schemes))
	for i, s := range f.Schemes {
		list[i] = s + "://"
	}
	return list
}

// Target is the part of a target's configuration that every kind has.
type Target struct {
	// Text is the DSN.
	Text Text
	// PasswordFile holds the password, if the DSN does not.
	PasswordFile string
	// TLS is nil for a connection without it.
	TLS *config.TLSConfig
}

// Validate reports every bad value as a *fielderror.Error with the paths dsn,
// password_file and tls_config. Files are not opened.
func (t Target) Validate(f Format) error {
	var errs []error
	d, err := f.Parse(string(t.Text))
	if err != nil {
		errs = append(errs, &fielderror.Error{Path: "dsn", Err: err})
	}
	if d.Password != "" && t.PasswordFile != "" {
		errs = append(errs, fielderror.Errorf("password_file", "is given beside a password in the DSN; keep one of them"))
	}
	if t.TLS != nil {
		errs = append(errs, fielderror.Within("tls_config", t.TLS.Validate()))
	}
	return errors.Join(errs...)
}

// ValidateTargets validates each of the targets and refuses an address that is there
// twice: metrics could not tell them apart.
func ValidateTargets(f Format, targets []Target) error {
	if len(targets) == 0 {
		return fielderror.Errorf("targets", "is empty; list at least one server")
	}
	var errs []error
	seen := map[string]int{}
	for i, t := range targets {
		path := fmt.Sprintf("targets[%d]", i)
		errs = append(errs, fielderror.Within(path, t.Validate(f)))
		d, err := f.Parse(string(t.Text))
		if err != nil {
			continue
		}
		if first, twice := seen[d.Address]; twice {
			errs = append(errs, fielderror.Errorf(path+".dsn", "names %s, which targets[%d] names already", d.Address, first))
			continue
		}
		seen[d.Address] = i
	}
	return errors.Join(errs...)
}

// ReadPassword returns the password of the DSN, or what stands in the file now, so that a
// password may be changed while the gateway runs. An empty file name is no file.
func (d DSN) ReadPassword(file string) (string, error) {
	if file == "" {
		return d.Password, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read password_file: %w", err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

// TLSConfig opens the files of the TLS section. It returns nil for nil. The server's name
// is the host of the DSN unless the section has one.
func (d DSN) TLSConfig(section *config.TLSConfig) (*tls.Config, error) {
	if section == nil {
		return nil, nil //nolint:nilnil // nil is how client libraries are told to do without TLS
	}
	c, err := config.NewTLSConfig(section)
	if err != nil {
		return nil, fmt.Errorf("tls_config: %w", err)
	}
	if c.ServerName == "" {
		host, _, err := net.SplitHostPort(d.Address)
		if err != nil {
			return nil, fmt.Errorf("BUG: the address %q of a DSN has no port: %w", d.Address, err)
		}
		c.ServerName = host
	}
	return c, nil
}
