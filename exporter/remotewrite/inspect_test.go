package remotewrite

import (
	"net/http"
	"net/http/httptest"
	neturl "net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
)

func inspect(t *testing.T, url string, change func(*Config)) []exporter.Finding {
	t.Helper()
	c := DefaultConfig()
	parsed, err := neturl.Parse(url)
	require.NoError(t, err)
	c.URL.URL = parsed
	c.Timeout /= 10
	if change != nil {
		change(&c)
	}
	b, err := New(Options{Config: c, Name: "main"})
	require.NoError(t, err)
	defer b.Close()
	return b.Inspect(t.Context())
}

func serving(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func takesV2(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set(headerSamples, "0")
	w.WriteHeader(http.StatusNoContent)
}

func steps(list []exporter.Finding) string {
	var b strings.Builder
	for _, f := range list {
		b.WriteString(f.Step)
		if !f.OK {
			b.WriteString(" FAIL")
		}
		b.WriteString("; ")
	}
	return b.String()
}

func TestInspect(t *testing.T) {
	secure := httptest.NewTLSServer(http.HandlerFunc(takesV2))
	t.Cleanup(secure.Close)
	tests := map[string]struct {
		url    string
		change func(*Config)
		steps  string
		last   string
	}{
		"2.0": {url: serving(t, takesV2), steps: "tcp; auth; protocol; clock; ", last: "no difference"},
		"by name": {
			url:   strings.Replace(serving(t, takesV2), "127.0.0.1", "localhost", 1),
			steps: "dns; tcp; auth; protocol; clock; ", last: "no difference",
		},
		"1.0 only": {
			url: serving(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.Header.Get("Content-Type"), "v2") {
					w.WriteHeader(http.StatusUnsupportedMediaType)
				}
			}),
			steps: "tcp; auth; protocol; clock; ", last: "no difference",
		},
		"2.0 demanded, 1.0 spoken": {
			url:    serving(t, func(http.ResponseWriter, *http.Request) {}),
			change: func(c *Config) { c.Protocol = ProtocolRW2 },
			steps:  "tcp; auth; protocol FAIL; ", last: "does not speak remote write 2.0",
		},
		"wrong password": {
			url: serving(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "who?", http.StatusUnauthorized) }),
			change: func(c *Config) {
				c.HTTP.BasicAuth = &config.BasicAuth{Username: "a", Password: "b"}
			},
			steps: "tcp; auth FAIL; ", last: "status 401: who?; see basic_auth",
		},
		"wrong path":  {url: serving(t, http.NotFound), steps: "tcp; auth; protocol FAIL; ", last: "is the path of the url that of remote write"},
		"broken":      {url: serving(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }), steps: "tcp; auth; protocol FAIL; ", last: "status 500"},
		"hangs up":    {url: serving(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), steps: "tcp; answer FAIL; ", last: "EOF"},
		"nobody":      {url: "http://127.0.0.1:1/w", steps: "tcp FAIL; ", last: "connection refused"},
		"no name":     {url: "http://no..name/w", steps: "dns FAIL; ", last: "no..name"},
		"certificate": {url: secure.URL, steps: "tcp; tls FAIL; ", last: "certificate signed by unknown authority; see tls_config"},
		"TLS": {
			url:    secure.URL,
			change: func(c *Config) { c.HTTP.TLSConfig.InsecureSkipVerify = true },
			steps:  "tcp; tls; auth; protocol; clock; ", last: "no difference",
		},
		"other clock": {
			url: serving(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
				takesV2(w, r)
			}),
			steps: "tcp; auth; protocol; clock FAIL; ", last: "ahead of this machine; does NTP run on both?",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			list := inspect(t, test.url, test.change)
			require.Equal(t, test.steps, steps(list), "%v", list)
			require.Contains(t, list[len(list)-1].Text, test.last)
		})
	}
	list := inspect(t, tests["1.0 only"].url, nil)
	require.Equal(t, "remote write 1.0", list[2].Text)
}
