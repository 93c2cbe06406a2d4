package remotewrite

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"golang.org/x/net/http/httpguts"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// Protocol is the remote-write version that a backend is spoken to in.
type Protocol string

const (
	// ProtocolAuto starts with remote write 2.0 and falls back to 1.0 when the backend
	// does not take it.
	ProtocolAuto Protocol = "auto"
	// ProtocolRW1 is remote write 1.0 only.
	ProtocolRW1 Protocol = "rw1"
	// ProtocolRW2 is remote write 2.0 only.
	ProtocolRW2 Protocol = "rw2"
)

// maxBytesPerSend is what Prometheus and its kin take as decoded size of one request.
const maxBytesPerSend = 32 * bytesize.MiB

// Config is the configuration of one backend that takes Prometheus remote write. Start
// from DefaultConfig; the zero Config is not valid.
type Config struct {
	// URL is where the requests are posted to. Required.
	URL config.URL `yaml:"url"`
	// Protocol is the remote-write version: auto, rw1 or rw2. auto tries 2.0, falls back
	// to 1.0 when the backend does not take it, and tries again hourly and after the
	// connection was lost.
	Protocol Protocol `yaml:"protocol"`
	// OutOfOrderTimeWindow is how far behind the newest sample of a series the backend
	// still takes samples. 0s means strict order, and no backfill.
	OutOfOrderTimeWindow model.Duration `yaml:"out_of_order_time_window"`
	// Timeout bounds one request, from the connection to the end of the answer.
	Timeout model.Duration `yaml:"timeout"`

	// Lane is how requests are collected, sent and retried: max_samples_per_send,
	// max_bytes_per_send, min_shards, max_shards, min_backoff, max_backoff.
	Lane exporter.LaneConfig `yaml:",inline"`

	// Escaping says what happens to metric and label names outside of the classic
	// character set when the backend cannot take them (remote write 1.0, or legacy):
	// values, underscores or dots rewrite the name, refuse drops the series, allow
	// sends the name as it is.
	Escaping remotewrite.Escaping `yaml:"escaping"`
	// Legacy says that the backend takes only classic names in remote write 2.0 too.
	Legacy bool `yaml:"legacy"`
	// NHCBOnRW1 says what happens to native histograms with custom buckets, which remote
	// write 1.0 cannot carry: expand_to_classic sends them as a classic histogram, drop
	// leaves them out.
	NHCBOnRW1 remotewrite.NHCBPolicy `yaml:"nhcb_on_rw1"`

	// Headers are added to every request. The headers that the protocol sets cannot be
	// given.
	Headers map[string]string `yaml:"headers,omitempty"`
	// HTTP holds the client settings known from Prometheus: basic_auth, authorization,
	// oauth2, tls_config, proxy_url, no_proxy, follow_redirects, enable_http2, http_headers.
	HTTP config.HTTPClientConfig `yaml:",inline"`
}

// DefaultConfig returns what holds for keys that the file does not set; only URL has no
// default.
func DefaultConfig() Config {
	return Config{
		Protocol:  ProtocolAuto,
		Timeout:   model.Duration(30 * time.Second),
		Lane:      exporter.DefaultLaneConfig(),
		Escaping:  remotewrite.EscapeValues,
		NHCBOnRW1: remotewrite.NHCBExpand,
		HTTP:      config.DefaultHTTPClientConfig,
	}
}

// SetDirectory makes the relative names of credential and certificate files relative to
// dir. Call it before Validate and New.
func (c *Config) SetDirectory(dir string) { c.HTTP.SetDirectory(dir) }

// OutOfOrderWindow is OutOfOrderTimeWindow.
func (c *Config) OutOfOrderWindow() time.Duration { return time.Duration(c.OutOfOrderTimeWindow) }

// Validate reports every bad value as a *fielderror.Error, joined into one error. It puts
// deprecated spellings of the client settings into the current ones. Files are not
// opened; New does that.
func (c *Config) Validate() error {
	var errs []error
	check := func(ok bool, path, format string, args ...any) {
		if !ok {
			errs = append(errs, fielderror.Errorf(path, format, args...))
		}
	}
	switch u := c.URL.URL; {
	case u == nil || u.String() == "":
		check(false, "url", "is missing; give the backend's remote-write address, such as http://127.0.0.1:9090/api/v1/write")
	default:
		check(u.Scheme == "http" || u.Scheme == "https", "url", "must start with http:// or https://, not %q", c.URL.Redacted())
		check(u.Host != "", "url", "names no host: %q", c.URL.Redacted())
	}
	check(c.Protocol == ProtocolAuto || c.Protocol == ProtocolRW1 || c.Protocol == ProtocolRW2,
		"protocol", "must be auto, rw1 or rw2, not %q", c.Protocol)
	check(c.OutOfOrderTimeWindow >= 0, "out_of_order_time_window", "must not be negative")
	check(c.Timeout > 0, "timeout", "must be longer than 0s")
	check(c.Lane.MaxBytesPerSend <= maxBytesPerSend, "max_bytes_per_send", "must be at most 32MiB, which is what receivers take")
	errs = append(errs, c.Lane.Validate(), c.validateHeaders(), c.validateClient())
	return errors.Join(errs...)
}

// reservedHeader reports whether a header belongs to the protocol or the connection
// (H6), whatever its spelling.
func reservedHeader(name string) bool {
	name = http.CanonicalHeaderKey(name)
	switch name {
	case provenanceHeader, "Retry-Attempt", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Connection", "Expect":
		return true
	}
	_, reserved := config.ReservedHeaders[name]
	return reserved
}

func (c *Config) validateHeaders() error {
	var errs []error
	seen := map[string]string{}
	check := func(key, name string, values ...string) {
		canonical := http.CanonicalHeaderKey(name)
		switch other, twice := seen[canonical]; {
		case !httpguts.ValidHeaderFieldName(name):
			errs = append(errs, fielderror.Errorf(key, "%q is not a valid header name", name))
		case reservedHeader(name):
			errs = append(errs, fielderror.Errorf(key+"."+name, "the header %q is set by the protocol and cannot be given", canonical))
		case twice:
			errs = append(errs, fielderror.Errorf(key+"."+name, "the header is given twice, also as %q", other))
		}
		seen[canonical] = name
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				errs = append(errs, fielderror.Errorf(key+"."+name, "the value holds a character that no header may hold"))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		check("headers", name, c.Headers[name])
	}
	if c.HTTP.HTTPHeaders != nil {
		for _, name := range slices.Sorted(maps.Keys(c.HTTP.HTTPHeaders.Headers)) {
			h := c.HTTP.HTTPHeaders.Headers[name]
			values := slices.Clone(h.Values)
			for _, s := range h.Secrets {
				values = append(values, string(s))
			}
			check("http_headers", name, values...)
		}
	}
	return errors.Join(errs...)
}

// validateClient covers what the client library checks, and the references to a secret
// manager that its types have and this program does not.
func (c *Config) validateClient() error {
	client := c.HTTP
	client.HTTPHeaders = nil // checked by validateHeaders, all names at once
	errs := []error{client.Validate()}
	client.HTTPHeaders = c.HTTP.HTTPHeaders
	c.HTTP = client

	refuse := func(path, ref string) {
		if ref != "" {
			errs = append(errs, fielderror.Errorf(path, "there is no secret manager to ask; give the value or a file"))
		}
	}
	checkTLS := func(path string, t *config.TLSConfig) {
		errs = append(errs, fielderror.Within(path, t.Validate()))
		refuse(path+".ca_ref", t.CARef)
		refuse(path+".cert_ref", t.CertRef)
		refuse(path+".key_ref", t.KeyRef)
	}
	checkTLS("tls_config", &client.TLSConfig)
	if a := client.BasicAuth; a != nil {
		refuse("basic_auth.username_ref", a.UsernameRef)
		refuse("basic_auth.password_ref", a.PasswordRef)
	}
	if a := client.Authorization; a != nil {
		refuse("authorization.credentials_ref", a.CredentialsRef)
	}
	if o := client.OAuth2; o != nil {
		refuse("oauth2.client_secret_ref", o.ClientSecretRef)
		refuse("oauth2.client_certificate_key_ref", o.ClientCertificateKeyRef)
		checkTLS("oauth2.tls_config", &o.TLSConfig)
	}
	return errors.Join(errs...)
}

// escaping is what happens to names beyond the classic character set in requests of
// version v.
func (c *Config) escaping(v series.Version) remotewrite.Escaping {
	if v == series.V2 && !c.Legacy {
		return remotewrite.EscapeAllow
	}
	return c.Escaping
}

// forwards reports whether the body of a batch can go out in version v as it is.
func (c *Config) forwards(v series.Version, b *series.Batch) bool {
	if v == series.V1 && b.CustomBuckets {
		return false
	}
	switch c.escaping(v) {
	case remotewrite.EscapeAllow:
		return true
	case remotewrite.EscapeDots:
		return false // changes "_", which is classic, too
	}
	return b.Legacy
}
