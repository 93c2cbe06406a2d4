package tsdb

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	apiv1 "github.com/prometheus/prometheus/web/api/v1"
)

// queryAPI answers the part of Prometheus' HTTP API that reads.
type queryAPI struct {
	b      *Backend
	engine *promql.Engine
	// api is made by the first request: making it costs fifty milliseconds and ten
	// thousands of objects, most of them for a description that is not served here.
	api func() *apiv1.API
	// grace is how long clients may take to read their answers once the store closes.
	grace time.Duration
}

const defaultGrace = 5 * time.Second

// noStepSubqueryInterval is the resolution of subqueries that name none; Prometheus'
// default evaluation interval.
const noStepSubqueryInterval = time.Minute

func newQueryAPI(b *Backend, o Options) *queryAPI {
	c := o.Config.Query
	p := parser.NewParser(parser.Options{ExperimentalDurationExpr: true})
	q := &queryAPI{b: b, grace: defaultGrace}
	q.engine = promql.NewEngine(promql.EngineOpts{
		Logger:                   b.logger.With("component", "query engine"),
		Reg:                      b.registry,
		MaxSamples:               c.MaxSamples,
		Timeout:                  time.Duration(c.Timeout),
		ActiveQueryTracker:       newTurnstile(c.MaxConcurrency),
		LookbackDelta:            time.Duration(c.LookbackDelta),
		NoStepSubqueryIntervalFn: func(int64) int64 { return noStepSubqueryInterval.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		Parser:                   p,
	})
	q.api = sync.OnceValue(func() *apiv1.API { return newAPI(b, o, q.engine, p) })
	return q
}

// served reports whether the API serves the route, spelled as Prometheus' router spells
// it. The rest of Prometheus' API is about scraping, about flags and files that do not
// exist here, or changes the store.
func served(route string) bool {
	switch route {
	case "/query", "/query_range", "/query_exemplars", "/format_query", "/parse_query",
		"/labels", "/label/:name/values", "/series", "/metadata", "/read",
		"/rules", "/alerts", "/status/buildinfo", "/status/tsdb",
		"/*path": // OPTIONS of everything
		return true
	}
	return false
}

// Handler returns a handler for the paths below prefix + "/api/v1/". prefix is "" or
// starts with a slash and does not end with one, as "/backends/local".
//
// It serves query, query_range, query_exemplars, format_query, parse_query, labels,
// label/<name>/values, series, metadata, rules and alerts (there are none), read,
// status/buildinfo and status/tsdb as Prometheus does, CORS included. Once Close has
// been called it answers 503.
func (b *Backend) Handler(prefix string) http.Handler {
	router := sync.OnceValue(func() http.Handler {
		r := route.New().WithInstrumentation(b.query.wrap)
		b.query.api().Register(r.WithPrefix(prefix + "/api/v1"))
		return r
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !b.gate.enter() {
			refuse(w, http.StatusServiceUnavailable, "unavailable", errClosed.Error())
			return
		}
		defer b.gate.leave()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(b.gate.closing, func() {
			cancel()
			// A client that does not read its answer must not keep the store open. Where
			// deadlines are not supported nothing blocks either: tests write to memory.
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(b.query.grace))
		})()
		router().ServeHTTP(w, r.WithContext(ctx))
	})
}

// wrap is called by the router for each route.
func (q *queryAPI) wrap(name string, next http.HandlerFunc) http.HandlerFunc {
	if !served(name) {
		return func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, http.StatusNotFound, "not_found", "the embedded store of Sluice has no such endpoint")
		}
	}
	requests := q.b.metrics.requests
	return func(w http.ResponseWriter, r *http.Request) {
		noted := &statusWriter{ResponseWriter: w, code: http.StatusOK}
		next(noted, r)
		requests.WithLabelValues(name, strconv.Itoa(noted.code)).Inc()
	}
}

// refuse answers with an error in the API's own form. message needs no escaping.
func refuse(w http.ResponseWriter, code int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// A client that is gone needs no answer.
	_, _ = w.Write([]byte(`{"status":"error","errorType":"` + kind + `","error":"` + message + `"}`))
}

// statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// Flush is needed by the streamed form of remote read.
func (w *statusWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap serves http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// turnstile lets a bounded number of queries run at a time.
type turnstile chan struct{}

func newTurnstile(n int) turnstile { return make(turnstile, n) }

// GetMaxConcurrent implements promql.QueryTracker.
func (t turnstile) GetMaxConcurrent() int { return cap(t) }

// Insert implements promql.QueryTracker: it waits for a place. A query whose time is
// over before there is one has timed out as those that run have.
func (t turnstile) Insert(ctx context.Context, _ string) (int, error) {
	select {
	case t <- struct{}{}:
		return 0, nil
	case <-ctx.Done():
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return 0, promql.ErrQueryTimeout("wait for other queries")
	}
	return 0, ctx.Err()
}

// Delete implements promql.QueryTracker: it gives a place back.
func (t turnstile) Delete(int) { <-t }

// Close implements promql.QueryTracker.
func (t turnstile) Close() error { return nil }
