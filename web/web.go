// Package web serves the admin pages: status, health, metrics, profiles and reload.
package web

import (
	_ "embed"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/version"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Options is what a Site shows and does.
type Options struct {
	Gatherer prometheus.Gatherer
	// Ready is why the gateway is not ready, empty when it is.
	Ready func() string
	// Reload reads the configuration again.
	Reload func() error
	// Config is the configuration in force, with secrets hidden.
	Config func() string
	// Backends are the backends as they stand.
	Backends func() []Backend
	Logger   *slog.Logger
}

// Backend is what the status page shows of one backend.
type Backend struct {
	Name, Kind, State string
	Delivered         series.Counts
	Rejected, GivenUp uint64 // samples and histograms
	InJournal         series.Counts
	Batches           int64
	Age               time.Duration
	Queries           bool // it answers PromQL
}

// Site is the whole of what the gateway serves: the admin pages, and the routes that were
// set last. Before there are any, it answers 503 for them.
type Site struct {
	o      Options
	admin  *http.ServeMux
	routes atomic.Pointer[http.ServeMux]
}

//go:embed status.html
var statusText string

var statusPage = template.Must(template.New("status").Parse(statusText))

// New returns a Site without routes.
func New(o Options) *Site {
	s := &Site{o: o, admin: http.NewServeMux()}
	s.admin.HandleFunc("GET /{$}", s.status)
	s.admin.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("Sluice is healthy.\n"))
	})
	s.admin.HandleFunc("GET /-/ready", s.ready)
	s.admin.HandleFunc("POST /-/reload", s.reload)
	s.admin.HandleFunc("PUT /-/reload", s.reload)
	s.admin.HandleFunc("GET /config", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(o.Config()))
	})
	s.admin.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{EnableOpenMetrics: true, ErrorHandling: promhttp.ContinueOnError, ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelError)}))
	s.admin.HandleFunc("GET /debug/pprof/", pprof.Index)
	s.admin.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	s.admin.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	s.admin.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	s.admin.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return s
}

// SetRoutes replaces what is served beside the admin pages.
func (s *Site) SetRoutes(m *http.ServeMux) { s.routes.Store(m) }

func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	routes := s.routes.Load()
	if routes == nil {
		s.starting(w, r)
		return
	}
	if h, pattern := routes.Handler(r); pattern != "" {
		h.ServeHTTP(w, r)
		return
	}
	s.admin.ServeHTTP(w, r)
}

// starting serves the admin pages while there are no routes yet. Whoever asks for
// anything else is to come back: a 404 would make a sender drop its data.
func (s *Site) starting(w http.ResponseWriter, r *http.Request) {
	if h, pattern := s.admin.Handler(r); pattern != "" {
		h.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Retry-After", "1")
	s.ready(w, r)
}

func (s *Site) ready(w http.ResponseWriter, _ *http.Request) {
	if reason := s.o.Ready(); reason != "" {
		http.Error(w, "Sluice is not ready: "+reason+".", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("Sluice is ready.\n"))
}

func (s *Site) reload(w http.ResponseWriter, _ *http.Request) {
	if err := s.o.Reload(); err != nil {
		http.Error(w, "reload refused: "+err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write([]byte("Reloaded.\n"))
}

func (s *Site) status(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	data := struct {
		Version, Ready, Write string
		Backends              []Backend
	}{version.Version, s.o.Ready(), "http://" + r.Host + "/api/v1/write", s.o.Backends()}
	if err := statusPage.Execute(w, data); err != nil && !errors.Is(err, http.ErrHandlerTimeout) {
		s.o.Logger.Debug("The status page was not sent whole", "err", err)
	}
}
