package web

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

// site returns a Site, and what it shows: why it is not ready, and what a reload returns.
func site(t *testing.T) (s *Site, reason *string, reload *error) {
	t.Helper()
	reason, reload = new(string), new(error)
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "sluice_test", Help: "Of a test."}))
	return New(Options{
		Gatherer: reg,
		Ready:    func() string { return *reason },
		Reload:   func() error { return *reload },
		Config:   func() string { return "backends: []\n" },
		Backends: func() []Backend {
			return []Backend{{Name: "<main>", Kind: "tsdb", State: "ok", Delivered: series.Counts{Samples: 42}, Batches: 3, Age: time.Second, Queries: true}}
		},
		Logger: slog.New(slog.DiscardHandler),
	}), reason, reload
}

func do(s *Site, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, "http://gate.example:9201"+path, nil))
	return w
}

// A sender that is told 404 drops its data: before there are routes everything that is
// not an admin page is 503.
func TestNothingIsMissingWhileStarting(t *testing.T) {
	s, reason, _ := site(t)
	*reason = "opening backend local"
	w := do(s, http.MethodPost, "/api/v1/write")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
	require.Contains(t, w.Body.String(), "opening backend local")
	require.Equal(t, http.StatusOK, do(s, http.MethodGet, "/-/healthy").Code)
	require.Equal(t, http.StatusOK, do(s, http.MethodGet, "/metrics").Code)

	routes := http.NewServeMux()
	routes.HandleFunc("/api/v1/write", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	s.SetRoutes(routes)
	require.Equal(t, http.StatusNoContent, do(s, http.MethodPost, "/api/v1/write").Code)
	require.Equal(t, http.StatusNotFound, do(s, http.MethodPost, "/api/v9/write").Code)
	require.Equal(t, http.StatusOK, do(s, http.MethodGet, "/metrics").Code)
}

func TestReadySaysWhyNot(t *testing.T) {
	s, reason, _ := site(t)
	s.SetRoutes(http.NewServeMux())
	require.Equal(t, http.StatusOK, do(s, http.MethodGet, "/-/ready").Code)
	*reason = "shutting down"
	w := do(s, http.MethodGet, "/-/ready")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "Sluice is not ready: shutting down.\n", w.Body.String())
}

func TestReload(t *testing.T) {
	s, _, reload := site(t)
	s.SetRoutes(http.NewServeMux())
	require.Equal(t, http.StatusMethodNotAllowed, do(s, http.MethodGet, "/-/reload").Code)
	require.Equal(t, http.StatusOK, do(s, http.MethodPost, "/-/reload").Code)
	*reload = errors.New("sluice.yaml:3:1: no")
	w := do(s, http.MethodPost, "/-/reload")
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Contains(t, w.Body.String(), "sluice.yaml:3:1: no")
}

func TestStatusPage(t *testing.T) {
	s, reason, _ := site(t)
	s.SetRoutes(http.NewServeMux())
	*reason = "starting"
	w := do(s, http.MethodGet, "/")
	require.Equal(t, http.StatusOK, w.Code)
	page := w.Body.String()
	for _, want := range []string{"Not ready: starting.", "&lt;main&gt;", ">42<", "http://gate.example:9201/api/v1/write"} {
		require.Contains(t, page, want)
	}
	require.False(t, strings.Contains(page, "<main>"), "names are escaped")
	require.Equal(t, "backends: []\n", do(s, http.MethodGet, "/config").Body.String())
}
