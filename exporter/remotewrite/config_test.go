package remotewrite

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// load reads a section as the configuration file does: defaults first, no unknown keys.
func load(text string) (Config, error) {
	c := DefaultConfig()
	err := yaml.Load([]byte(text), &c, yaml.WithKnownFields())
	return c, err
}

func TestConfig_Default(t *testing.T) {
	c, err := load(`{url: "http://127.0.0.1:9090/api/v1/write", protocol: auto, out_of_order_time_window: 0s}`)
	require.NoError(t, err)
	require.NoError(t, c.Validate())
	want := DefaultConfig()
	want.URL = mustURL(t, "http://127.0.0.1:9090/api/v1/write")
	require.Equal(t, want, c)
	require.Equal(t, 30*time.Second, time.Duration(c.Timeout))
	require.Equal(t, 10000, c.Lane.MaxSamplesPerSend)
	require.Equal(t, 16*bytesize.MiB, c.Lane.MaxBytesPerSend)
	require.Equal(t, 1, c.Lane.MinShards)
	require.Equal(t, 16, c.Lane.MaxShards)
	require.True(t, c.HTTP.EnableHTTP2)
	require.True(t, c.HTTP.FollowRedirects)
}

func TestConfig_EveryKey(t *testing.T) {
	c, err := load(`
url: https://user@example.org/api/v1/write
protocol: rw2
out_of_order_time_window: 2h
timeout: 5s
max_samples_per_send: 500
max_bytes_per_send: 1MiB
min_shards: 2
max_shards: 3
min_backoff: 1s
max_backoff: 2s
escaping: underscores
legacy: true
nhcb_on_rw1: drop
headers: {X-Scope-OrgID: team-a}
basic_auth: {username: a, password_file: secret}
tls_config: {ca_file: ca.pem, server_name: example.com}
proxy_url: http://127.0.0.1:3128
no_proxy: 10.0.0.0/8
follow_redirects: false
enable_http2: false
http_headers: {X-More: {values: [b]}}
`)
	require.NoError(t, err)
	require.NoError(t, c.Validate())
	dir := t.TempDir()
	c.SetDirectory(dir)
	require.Equal(t, filepath.Join(dir, "secret"), c.HTTP.BasicAuth.PasswordFile)
	require.Equal(t, filepath.Join(dir, "ca.pem"), c.HTTP.TLSConfig.CAFile)
	require.Equal(t, ProtocolRW2, c.Protocol)
	require.Equal(t, remotewrite.EscapeUnderscores, c.Escaping)
	require.Equal(t, remotewrite.NHCBDrop, c.NHCBOnRW1)
	require.True(t, c.Legacy)
	require.Equal(t, model.Duration(2*time.Hour), c.OutOfOrderTimeWindow)
	require.Equal(t, bytesize.MiB, c.Lane.MaxBytesPerSend)
	require.Equal(t, map[string]string{"X-Scope-OrgID": "team-a"}, c.Headers)
	require.False(t, c.HTTP.EnableHTTP2)
	require.False(t, c.HTTP.FollowRedirects)
}

func TestConfig_SecretsAreNotWritten(t *testing.T) {
	c, err := load(`
url: http://user:hidden@example.org/write
authorization: {credentials: hidden}
http_headers: {X-Token: {secrets: [hidden]}}
`)
	require.NoError(t, err)
	text, err := yaml.Marshal(&c)
	require.NoError(t, err)
	require.NotContains(t, string(text), "hidden")
	_, err = load(string(text))
	require.NoError(t, err)
}

func TestConfig_StrictKeys(t *testing.T) {
	for text, want := range map[string]string{
		"url: http://a\nurll: http://b":                                 "line 2: field urll not found",
		"url: http://a\nbasic_auth: {usernam: a}":                       "line 2: field usernam not found",
		"url: http://a\n\ntls_config: {ca_filee: a}":                    "line 3: field ca_filee not found",
		"url: http://a\noauth2: {client_id: a, tls_config: {cb: true}}": "line 2: field cb not found",
		"url: http://a\ntimeout: 5x":                                    "line 2: ",
		"url: http://a\nescaping: sometimes":                            "line 2: ",
		"url: http://a\nnhcb_on_rw1: maybe":                             "line 2: ",
		"url: \"http://[::1\"":                                          "line 1: ",
	} {
		_, err := load(text)
		require.ErrorContains(t, err, want, text)
	}
}

func TestConfig_Validate(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Config)
		paths  []string
		text   string
	}{
		"no url":       {func(c *Config) { c.URL = config.URL{} }, []string{"url"}, "is missing"},
		"other scheme": {func(c *Config) { c.URL = mustURL(t, "ftp://u:hidden@a/b") }, []string{"url"}, `must start with http:// or https://, not "ftp://u:xxxxx@a/b"`},
		"no host":      {func(c *Config) { c.URL = mustURL(t, "http:///write") }, []string{"url"}, "names no host"},
		"protocol":     {func(c *Config) { c.Protocol = "rw3" }, []string{"protocol"}, `must be auto, rw1 or rw2, not "rw3"`},
		"window":       {func(c *Config) { c.OutOfOrderTimeWindow = -1 }, []string{"out_of_order_time_window"}, "must not be negative"},
		"timeout":      {func(c *Config) { c.Timeout = 0 }, []string{"timeout"}, "must be longer than 0s"},
		"lane":         {func(c *Config) { c.Lane.MaxSamplesPerSend = 0 }, []string{"max_samples_per_send"}, ""},
		"big":          {func(c *Config) { c.Lane.MaxBytesPerSend = 33 * bytesize.MiB }, []string{"max_bytes_per_send"}, "32MiB"},
		"two schemes": {func(c *Config) {
			c.HTTP.BasicAuth = &config.BasicAuth{Username: "a"}
			c.HTTP.OAuth2 = &config.OAuth2{ClientID: "a", TokenURL: "http://b"}
		}, []string{""}, "at most one of"},
		"oauth2 without an address": {func(c *Config) { c.HTTP.OAuth2 = &config.OAuth2{ClientID: "a"} }, []string{""}, "token_url"},
		"secret manager":            {func(c *Config) { c.HTTP.BasicAuth = &config.BasicAuth{PasswordRef: "x"} }, []string{"basic_auth.password_ref"}, "no secret manager"},
		"two certificates":          {func(c *Config) { c.HTTP.TLSConfig = config.TLSConfig{CA: "a", CAFile: "b"} }, []string{"tls_config"}, ""},
		"all at once": {func(c *Config) {
			c.URL = config.URL{}
			c.Protocol, c.Timeout = "x", -1
			c.Headers = map[string]string{"Content-Type": "a", "no good": "b", "X-A": "a", "x-a": "b", "X-B": "a\nb"}
		}, []string{"url", "protocol", "timeout", "headers.Content-Type", "headers.X-B", "headers", "headers.x-a"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := DefaultConfig()
			c.URL = mustURL(t, "http://127.0.0.1/write")
			tt.change(&c)
			err := c.Validate()
			require.ErrorContains(t, err, tt.text)
			var paths []string
			for _, e := range fielderror.List(err) {
				paths = append(paths, e.Path)
			}
			require.ElementsMatch(t, tt.paths, paths, "%v", err)
			_, err = New(Options{Config: c, Name: "main"})
			require.ErrorContains(t, err, `remote_write backend "main"`)
		})
	}
}

func TestH6_ReservedHeaders(t *testing.T) {
	for _, name := range []string{
		"Content-Encoding", "content-type", "USER-AGENT", "x-prometheus-remote-write-version", "Retry-Attempt", "x-dataprovenance",
		"Authorization", "host", "Content-Length", "Transfer-Encoding", "connection", "Accept-Encoding",
	} {
		for _, change := range []func(*Config){
			func(c *Config) { c.Headers = map[string]string{name: "x"} },
			func(c *Config) {
				c.HTTP.HTTPHeaders = &config.Headers{Headers: map[string]config.Header{name: {Values: []string{"x"}}}}
			},
		} {
			c := DefaultConfig()
			c.URL = mustURL(t, "http://127.0.0.1/write")
			change(&c)
			err := c.Validate()
			require.ErrorContains(t, err, "set by the protocol")
			require.ErrorContains(t, err, name)
		}
	}
}

func TestM5_Forwards(t *testing.T) {
	for _, tt := range []struct {
		escaping        remotewrite.Escaping
		legacy, classic bool
		v1, v2          bool
	}{
		{remotewrite.EscapeAllow, false, false, true, true},
		{remotewrite.EscapeAllow, true, false, true, true},
		{remotewrite.EscapeValues, false, false, false, true},
		{remotewrite.EscapeValues, false, true, true, true},
		{remotewrite.EscapeValues, true, false, false, false},
		{remotewrite.EscapeValues, true, true, true, true},
		{remotewrite.EscapeRefuse, false, false, false, true},
		{remotewrite.EscapeUnderscores, true, true, true, true},
		{remotewrite.EscapeDots, false, true, false, true},
		{remotewrite.EscapeDots, true, true, false, false},
	} {
		c := DefaultConfig()
		c.Escaping, c.Legacy = tt.escaping, tt.legacy
		require.Equal(t, tt.v1, c.forwards(series.V1, &series.Batch{Legacy: tt.classic}), "%+v", tt)
		require.Equal(t, tt.v2, c.forwards(series.V2, &series.Batch{Legacy: tt.classic}), "%+v", tt)
	}
}

func TestCustomBucketsAreNotForwardedAsRW1(t *testing.T) {
	c := DefaultConfig()
	b := &series.Batch{Legacy: true, CustomBuckets: true}
	require.False(t, c.forwards(series.V1, b))
	require.True(t, c.forwards(series.V2, b))
}
