package remotewrite

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
)

// authority signs certificates for 127.0.0.1.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := new(authority)
	_, der, key := a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	})
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	a.cert, a.key = cert, key
	return a
}

// sign makes a certificate; the authority's own when it has none yet.
func (a *authority) sign(t *testing.T, template *x509.Certificate) (pair tls.Certificate, der []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err = x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, der, key
}

// leaf makes a certificate for both ends of a connection on 127.0.0.1.
func (a *authority) leaf(t *testing.T) tls.Certificate {
	pair, _, _ := a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return pair
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// writePair writes a certificate and its key into dir.
func writePair(t *testing.T, dir string, pair tls.Certificate) (certFile, keyFile string) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	require.NoError(t, err)
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	return certFile, keyFile
}

// newTLSServer starts a server with a certificate of a. Handshake errors are not logged.
func newTLSServer(t *testing.T, a *authority, clients tls.ClientAuthType) *server {
	s := new(server)
	s.Server = httptest.NewUnstartedServer(s.handler(accept))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{a.leaf(t)}, ClientAuth: clients, ClientCAs: a.pool()}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = quiet()
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func one(t *testing.T) *exporter.Parcel {
	return parcel(batchOf(t, series.V1, requestV1("a", 100)))
}

func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	caFile := filepath.Join(dir, "ca.pem")
	require.NoError(t, os.WriteFile(caFile, ca.pem(), 0o600))
	certFile, keyFile := writePair(t, dir, ca.leaf(t))
	plain := newTLSServer(t, ca, tls.NoClientCert)
	mutual := newTLSServer(t, ca, tls.RequireAndVerifyClientCert)
	for name, tt := range map[string]struct {
		server *server
		config config.TLSConfig
		ok     bool
	}{
		"authority in place":        {plain, config.TLSConfig{CA: string(ca.pem())}, true},
		"authority by file":         {plain, config.TLSConfig{CAFile: caFile}, true},
		"another authority":         {plain, config.TLSConfig{CA: string(other.pem())}, false},
		"no authority":              {plain, config.TLSConfig{}, false},
		"not verified":              {plain, config.TLSConfig{InsecureSkipVerify: true}, true},
		"another name":              {plain, config.TLSConfig{CA: string(ca.pem()), ServerName: "example.org"}, false},
		"client certificate":        {mutual, config.TLSConfig{CAFile: caFile, CertFile: certFile, KeyFile: keyFile}, true},
		"client certificate misses": {mutual, config.TLSConfig{CAFile: caFile}, false},
	} {
		for _, http2 := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				b := newBackend(t, tt.server.URL, protocol(ProtocolRW1), func(c *Config) {
					c.HTTP.TLSConfig, c.HTTP.EnableHTTP2 = tt.config, http2
				})
				before := len(tt.server.got())
				_, err := b.send(t, one(t))
				if !tt.ok {
					e := failure(t, err, exporter.Retry)
					require.Error(t, e.Err)
					require.Len(t, tt.server.got(), before)
					return
				}
				require.NoError(t, err)
				require.Len(t, tt.server.got()[before].v1(t).Timeseries, 100)
			})
		}
	}
	t.Run("a renewed authority is noticed", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "ca.pem")
		require.NoError(t, os.WriteFile(file, other.pem(), 0o600))
		b := newBackend(t, plain.URL, protocol(ProtocolRW1), func(c *Config) { c.HTTP.TLSConfig.CAFile = file })
		_, err := b.send(t, one(t))
		require.False(t, failure(t, err, exporter.Retry).Unknown)
		require.NoError(t, os.WriteFile(file, ca.pem(), 0o600))
		_, err = b.send(t, one(t))
		require.NoError(t, err)
	})
	t.Run("a missing file is said at the start", func(t *testing.T) {
		c := DefaultConfig()
		c.URL = mustURL(t, plain.URL)
		c.HTTP.TLSConfig.CAFile = filepath.Join(t.TempDir(), "none.pem")
		_, err := New(Options{Config: c, Name: "main"})
		require.ErrorContains(t, err, "none.pem")
	})
}

func TestAuthentication(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(file, []byte("from-file\n"), 0o600))
	for name, tt := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"none":          {func(*Config) {}, ""},
		"basic":         {func(c *Config) { c.HTTP.BasicAuth = &config.BasicAuth{Username: "user", Password: "pass"} }, "Basic dXNlcjpwYXNz"},
		"basic by file": {func(c *Config) { c.HTTP.BasicAuth = &config.BasicAuth{Username: "user", PasswordFile: "token"} }, "Basic dXNlcjpmcm9tLWZpbGU="},
		"in the url": {func(c *Config) {
			c.URL.Host = "user:pass@" + c.URL.Host
			c.URL = mustURL(t, c.URL.Scheme+"://"+c.URL.Host)
		}, "Basic dXNlcjpwYXNz"},
		"bearer":       {func(c *Config) { c.HTTP.Authorization = &config.Authorization{Credentials: "secret"} }, "Bearer secret"},
		"bearer, old":  {func(c *Config) { c.HTTP.BearerToken = "secret" }, "Bearer secret"},
		"by file":      {func(c *Config) { c.HTTP.Authorization = &config.Authorization{CredentialsFile: "token"} }, "Bearer from-file"},
		"another type": {func(c *Config) { c.HTTP.Authorization = &config.Authorization{Type: "Token", Credentials: "x"} }, "Token x"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, accept)
			b := newBackend(t, s.URL, tt.change, func(c *Config) { c.SetDirectory(dir) })
			_, err := b.send(t, one(t))
			require.NoError(t, err)
			require.Equal(t, tt.want, s.got()[0].header.Get("Authorization"))
		})
	}
	t.Run("an unreadable file", func(t *testing.T) {
		s := newServer(t, accept)
		b := newBackend(t, s.URL, func(c *Config) {
			c.HTTP.Authorization = &config.Authorization{CredentialsFile: filepath.Join(dir, "none")}
		})
		_, err := b.send(t, one(t))
		e := failure(t, err, exporter.Retry)
		require.False(t, e.Unknown)
		require.ErrorContains(t, e, "none")
		require.Empty(t, s.got())
	})
	t.Run("headers by client settings", func(t *testing.T) {
		s := newServer(t, accept)
		b := newBackend(t, s.URL, func(c *Config) {
			c.HTTP.HTTPHeaders = &config.Headers{Headers: map[string]config.Header{
				"X-Token": {Secrets: []config.Secret{"a"}}, "X-File": {Files: []string{file}},
			}}
		})
		_, err := b.send(t, one(t))
		require.NoError(t, err)
		require.Equal(t, "a", s.got()[0].header.Get("X-Token"))
		require.Equal(t, "from-file", s.got()[0].header.Get("X-File"))
	})
}

func TestOAuth2(t *testing.T) {
	var mu sync.Mutex
	code, asked := http.StatusOK, 0
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		id, secret, _ := r.BasicAuth()
		if code != http.StatusOK {
			w.WriteHeader(code)
			return
		}
		if id != "client" || secret != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"granted","token_type":"Bearer","expires_in":3600}`)
	}))
	t.Cleanup(tokens.Close)
	s := newServer(t, accept)
	client := func(secret config.Secret) func(*Config) {
		return func(c *Config) {
			c.HTTP.OAuth2 = &config.OAuth2{ClientID: "client", ClientSecret: secret, TokenURL: tokens.URL}
			c.Protocol = ProtocolRW1
		}
	}
	b := newBackend(t, s.URL, client("secret"))
	mu.Lock()
	code = http.StatusBadGateway
	mu.Unlock()
	_, err := b.send(t, one(t))
	require.False(t, failure(t, err, exporter.Retry).Unknown)
	mu.Lock()
	code, asked = http.StatusOK, 0
	mu.Unlock()
	for range 3 {
		_, err := b.send(t, one(t))
		require.NoError(t, err)
	}
	require.Equal(t, "Bearer granted", s.got()[0].header.Get("Authorization"))
	mu.Lock()
	require.Equal(t, 1, asked, "the token is kept")
	mu.Unlock()

	_, err = newBackend(t, s.URL, client("wrong")).send(t, one(t))
	require.False(t, failure(t, err, exporter.Denied).Unknown)
	require.Len(t, s.got(), 3)
}

// A token server that takes connections and never answers must not hold a sender longer
// than a request may take.
func TestOAuth2_SilentTokenServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	b := newBackend(t, "http://"+closedPort(t), func(c *Config) {
		c.HTTP.OAuth2 = &config.OAuth2{ClientID: "client", TokenURL: "http://" + l.Addr().String()}
		c.Timeout = 50e6
	})
	_, err = b.send(t, one(t))
	require.False(t, failure(t, err, exporter.Retry).Unknown)
}

func TestProxy(t *testing.T) {
	s := newServer(t, accept)
	secure := newTLSServer(t, newAuthority(t), tls.NoClientCert)
	proxied := func(address string) func(*Config) {
		return func(c *Config) {
			c.Protocol = ProtocolRW1
			c.HTTP.ProxyURL = mustURL(t, address)
			c.HTTP.TLSConfig.InsecureSkipVerify = true
		}
	}
	t.Run("refused connection", func(t *testing.T) {
		_, err := newBackend(t, s.URL, proxied("http://"+closedPort(t))).send(t, one(t))
		require.False(t, failure(t, err, exporter.Retry).Unknown)
	})
	t.Run("passes on", func(t *testing.T) {
		proxy := newServer(t, accept)
		_, err := newBackend(t, "http://backend.invalid/write", proxied(proxy.URL)).send(t, one(t))
		require.NoError(t, err)
		require.Equal(t, "/write", proxy.got()[0].path)
	})
	for code, class := range map[int]exporter.Class{407: exporter.Denied, 403: exporter.Denied, 502: exporter.Retry} {
		proxy := newServer(t, status(code, ""))
		_, err := newBackend(t, secure.URL, proxied(proxy.URL)).send(t, one(t))
		e := failure(t, err, class)
		require.False(t, e.Unknown)
		require.ErrorContains(t, e, "proxy refuses")
	}
	t.Run("tunnel", func(t *testing.T) {
		_, err := newBackend(t, secure.URL, proxied(tunnel(t))).send(t, one(t))
		require.NoError(t, err)
		require.Len(t, secure.got(), 1)
	})
}

// tunnel starts a proxy that opens tunnels, one connection each.
func tunnel(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer in.Close()
				r := bufio.NewReader(in)
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				out, err := net.Dial("tcp", req.Host)
				if err != nil {
					return
				}
				defer out.Close()
				_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
				wg.Go(func() { _, _ = io.Copy(in, out); in.Close() })
				_, _ = io.Copy(out, r)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}
