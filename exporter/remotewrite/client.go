package remotewrite

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/common/config"
)

const (
	connectTimeout = 10 * time.Second
	idleTimeout    = 5 * time.Minute
	writeBuffer    = 64 << 10
	maxRedirects   = 10
)

// proxyRefusal is a proxy's refusal to open a tunnel. Nothing reached the backend.
type proxyRefusal struct {
	status int
	text   string
}

func (e *proxyRefusal) Error() string {
	return "the proxy refuses the tunnel to the backend: " + e.text
}

// newClient returns a client for cfg, which must be validated and not change, that
// connects through cs. The
// client library's own constructor is not used because it fixes the buffer sizes of the
// transport and puts connection metrics into the default registry.
func newClient(cfg *Config, cs *connections) (*http.Client, error) {
	h := &cfg.HTTP
	tlsConfig, err := config.NewTLSConfig(&h.TLSConfig)
	if err != nil {
		return nil, fmt.Errorf("tls_config: %w", err)
	}
	build := func(t *tls.Config) (http.RoundTripper, error) { return newTransport(cfg, cs, t), nil }
	files := tlsFiles(&h.TLSConfig)
	var rt http.RoundTripper
	if files == (config.TLSRoundTripperSettings{}) {
		rt = newTransport(cfg, cs, tlsConfig)
	} else if rt, err = config.NewTLSRoundTripper(tlsConfig, files, build); err != nil {
		return nil, fmt.Errorf("tls_config: %w", err)
	}
	client := &http.Client{Transport: authenticate(cfg, rt)}
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		// Other redirects turn a POST into a GET: its 200 would be taken for an
		// acknowledgement of what was never sent.
		if !h.FollowRedirects || req.Method != http.MethodPost || len(via) >= maxRedirects {
			return http.ErrUseLastResponse
		}
		return nil
	}
	return client, nil
}

func newTransport(cfg *Config, cs *connections, tlsConfig *tls.Config) *http.Transport {
	h := &cfg.HTTP
	t := &http.Transport{
		DialContext:         cs.dial,
		Proxy:               h.Proxy(),
		ProxyConnectHeader:  h.GetProxyConnectHeader(),
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: connectTimeout,
		// One connection more than requests in flight, for trials and probes.
		MaxIdleConnsPerHost: cfg.Lane.MaxShards + 1,
		IdleConnTimeout:     idleTimeout,
		WriteBufferSize:     writeBuffer,
		DisableCompression:  true,
		Protocols:           new(http.Protocols),
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
			if res.StatusCode != http.StatusOK {
				return &proxyRefusal{status: res.StatusCode, text: res.Status}
			}
			return nil
		},
	}
	t.Protocols.SetHTTP1(true)
	t.Protocols.SetHTTP2(h.EnableHTTP2)
	return t
}

// authenticate puts the configured credentials and headers around rt.
func authenticate(cfg *Config, rt http.RoundTripper) http.RoundTripper {
	h := &cfg.HTTP
	if a := h.Authorization; a != nil {
		rt = config.NewAuthorizationCredentialsRoundTripper(a.Type, secret(string(a.Credentials), a.CredentialsFile), rt)
	}
	if a := h.BasicAuth; a != nil {
		rt = config.NewBasicAuthRoundTripper(secret(a.Username, a.UsernameFile), secret(string(a.Password), a.PasswordFile), rt)
	}
	if o := h.OAuth2; o != nil {
		credential := secret(string(o.ClientSecret), o.ClientSecretFile)
		if o.ClientCertificateKey != "" || o.ClientCertificateKeyFile != "" {
			credential = secret(string(o.ClientCertificateKey), o.ClientCertificateKeyFile)
		}
		rt = config.NewOAuth2RoundTripper(credential, o, rt, config.WithKeepAlivesDisabled(),
			config.WithDialContextFunc(dialUntil(time.Duration(cfg.Timeout))))
	}
	if h.HTTPHeaders != nil {
		rt = config.NewHeadersRoundTripper(h.HTTPHeaders, rt)
	}
	return rt
}

// dialUntil dials connections that live for at most d. The token requests of OAuth2 are
// made outside of any request's context, and a token server that never answers would
// hold their senders for ever.
func dialUntil(d time.Duration) config.DialContextFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		dialer := net.Dialer{Timeout: d}
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if err := conn.SetDeadline(time.Now().Add(d)); err != nil {
			conn.Close()
			return nil, fmt.Errorf("limiting the time of a token request: %w", err)
		}
		return conn, nil
	}
}

// secret returns the reader of a value given in place or by file, nil for neither.
func secret(text, file string) config.SecretReader {
	switch {
	case text != "":
		return config.NewInlineSecret(text)
	case file != "":
		return config.NewFileSecret(file)
	}
	return nil
}

// tlsFiles returns the certificate files to be watched for changes; all of the TLS
// settings when any of them is a file, else none.
func tlsFiles(t *config.TLSConfig) config.TLSRoundTripperSettings {
	if t.CAFile == "" && t.CertFile == "" && t.KeyFile == "" {
		return config.TLSRoundTripperSettings{}
	}
	return config.TLSRoundTripperSettings{
		CA:   secret(t.CA, t.CAFile),
		Cert: secret(t.Cert, t.CertFile),
		Key:  secret(string(t.Key), t.KeyFile),
	}
}
