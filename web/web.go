// Package web serves the admin pages: status, health, metrics, profiles and reload. It knows
// nothing of the gateway: what the status page shows is a Status that it is given.
package web

import (
	"cmp"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
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
	// Flags are the flags that it was started with, and their defaults.
	Flags []string
	// Status is how the gateway stands. It is called at most about once a second.
	Status func() Status
	// Explain says what becomes of a series, which is given as people write it, such as
	// up{job="x"}. Its error says what is wrong with that.
	Explain func(series string) (Explanation, error)
	// Events are the last lines of the log.
	Events *Events
	Logger *slog.Logger
}

// Site is the whole of what the gateway serves: the admin pages, and the routes that were
// set last. Before there are any, it answers 503 for them.
type Site struct {
	o      Options
	admin  *http.ServeMux
	routes atomic.Pointer[http.ServeMux]

	watch    *watch
	stream   *stream
	rendered rendered
}

// New returns a Site without routes. Until Run is called it answers everything but /events.
func New(o Options) *Site {
	if o.Events == nil {
		o.Events = NewEvents()
	}
	s := &Site{o: o, admin: http.NewServeMux(), watch: newWatch(o.Status, o.Events), stream: newStream()}
	s.admin.HandleFunc("GET /{$}", s.page)
	s.admin.HandleFunc("GET /events", s.live)
	s.admin.HandleFunc("GET /assets/status.css", asset("status.css", "text/css; charset=utf-8"))
	s.admin.HandleFunc("GET /assets/status.js", asset("status.js", "text/javascript; charset=utf-8"))
	s.admin.HandleFunc("GET /api/v1/status", s.status)
	s.admin.HandleFunc("GET /api/v1/explain", s.explained)
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
	s.admin.HandleFunc("GET /flags", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		for _, f := range o.Flags {
			_, _ = io.WriteString(w, f+"\n") // the client went away
		}
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
	// A backend that answers queries has all of /api/v1/ that nobody else has.
	if _, pattern := s.admin.Handler(r); pattern == "" {
		if h, pattern := routes.Handler(r); pattern != "" {
			h.ServeHTTP(w, r)
			return
		}
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
	// Whatever Ready says by now: nobody looked at the request, and a 2xx would tell a
	// sender that its data is kept.
	w.Header().Set("Retry-After", "1")
	notReady(w, cmp.Or(s.o.Ready(), "starting"))
}

func (s *Site) ready(w http.ResponseWriter, _ *http.Request) {
	if reason := s.o.Ready(); reason != "" {
		notReady(w, reason)
		return
	}
	_, _ = w.Write([]byte("Sluice is ready.\n"))
}

func notReady(w http.ResponseWriter, reason string) {
	http.Error(w, "Sluice is not ready: "+reason+".", http.StatusServiceUnavailable)
}

func (s *Site) reload(w http.ResponseWriter, _ *http.Request) {
	if err := s.o.Reload(); err != nil {
		http.Error(w, "reload refused: "+err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write([]byte("Reloaded.\n"))
}
