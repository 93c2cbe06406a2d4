package web

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func do(s *Site, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, "http://gate.example:9201"+path, nil))
	return w
}

// A sender that is told 404 drops its data: before there are routes everything that is
// not an admin page is 503.
func TestNothingIsMissingWhileStarting(t *testing.T) {
	w := newWorld(t, "")
	s := w.site
	w.change(func(st *Status) { st.NotReady = "opening backend local" })
	r := do(s, http.MethodPost, "/api/v1/write")
	require.Equal(t, http.StatusServiceUnavailable, r.Code)
	require.Equal(t, "1", r.Header().Get("Retry-After"))
	require.Contains(t, r.Body.String(), "opening backend local")
	// Nor is it taken when the gateway became ready after the request had found no routes.
	w.change(func(st *Status) { st.NotReady = "" })
	for _, path := range []string{"/api/v1/write", "/v1/metrics"} {
		require.Equal(t, http.StatusServiceUnavailable, do(s, http.MethodPost, path).Code, path)
	}
	for _, path := range []string{"/", "/-/healthy", "/metrics", "/api/v1/status", "/assets/status.css", "/assets/status.js"} {
		require.Equal(t, http.StatusOK, do(s, http.MethodGet, path).Code, path)
	}

	routes := http.NewServeMux()
	routes.HandleFunc("/api/v1/write", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	s.SetRoutes(routes)
	require.Equal(t, http.StatusNoContent, do(s, http.MethodPost, "/api/v1/write").Code)
	require.Equal(t, http.StatusNotFound, do(s, http.MethodPost, "/api/v9/write").Code)
	require.Equal(t, http.StatusOK, do(s, http.MethodGet, "/metrics").Code)
}

// A backend that answers queries has the whole of /api/v1/, but for what the gateway says
// of itself.
func TestAdminPagesGoFirst(t *testing.T) {
	s := newWorld(t, "").site
	routes := http.NewServeMux()
	routes.HandleFunc("/api/v1/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	s.SetRoutes(routes)
	require.Equal(t, http.StatusOK, do(s, http.MethodGet, "/api/v1/status").Code)
	require.Equal(t, http.StatusOK, do(s, http.MethodGet, "/api/v1/explain?series=up").Code)
	require.Equal(t, http.StatusTeapot, do(s, http.MethodGet, "/api/v1/status/buildinfo").Code)
	require.Equal(t, http.StatusTeapot, do(s, http.MethodGet, "/api/v1/query").Code)
}

func TestReadySaysWhyNot(t *testing.T) {
	w := newWorld(t, "")
	w.site.SetRoutes(http.NewServeMux())
	require.Equal(t, http.StatusOK, do(w.site, http.MethodGet, "/-/ready").Code)
	w.change(func(st *Status) { st.NotReady = "shutting down" })
	r := do(w.site, http.MethodGet, "/-/ready")
	require.Equal(t, http.StatusServiceUnavailable, r.Code)
	require.Equal(t, "Sluice is not ready: shutting down.\n", r.Body.String())
}

func TestReload(t *testing.T) {
	w := newWorld(t, "")
	w.site.SetRoutes(http.NewServeMux())
	require.Equal(t, http.StatusMethodNotAllowed, do(w.site, http.MethodGet, "/-/reload").Code)
	require.Equal(t, http.StatusOK, do(w.site, http.MethodPost, "/-/reload").Code)
	w.reload = errors.New("sluice.yaml:3:1: no")
	r := do(w.site, http.MethodPost, "/-/reload")
	require.Equal(t, http.StatusInternalServerError, r.Code)
	require.Contains(t, r.Body.String(), "sluice.yaml:3:1: no")
}
