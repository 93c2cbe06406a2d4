package gateway

import (
	"net/http"

	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/receiver"
	"github.com/sluice-metrics/sluice/receiver/otlp"
)

// querier is a backend that answers queries.
type querier interface {
	// Handler serves the Prometheus query API below prefix.
	Handler(prefix string) http.Handler
}

// routes is what is served beside the admin pages: remote write, OTLP, and the query APIs of
// the backends that have one. The first of them answers at the root too.
func (g *Gateway) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for _, path := range receiver.Paths {
		mux.Handle(path, g.telling(g.receiver))
	}
	if c := g.o.Config.Receiver.OTLP; c.Enabled {
		exports := g.receiver.OTLP(otlp.New(c))
		for _, path := range receiver.OTLPPaths {
			mux.Handle(path, exports)
		}
	}
	mux.HandleFunc("GET /api/v1/lag", g.lag)
	mux.HandleFunc("GET /api/v1/ledger", g.missing)
	mux.HandleFunc("GET /api/v1/tap", g.watchTap)
	mux.Handle(probe.ReplicasPath, probe.ReplicasHandler(g.clusters))
	root := false
	for _, l := range *g.lines.Load() {
		q, ok := l.backend.(querier)
		if !ok {
			continue
		}
		prefix := "/backends/" + l.config.Name
		mux.Handle(prefix+"/api/v1/", q.Handler(prefix))
		if !root {
			root = true
			mux.Handle("/api/v1/", q.Handler(""))
		}
	}
	return mux
}
