package tsdb

import (
	"context"
	"net/http"
	"net/url"
	"runtime"

	"github.com/grafana/regexp"
	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	apiv1 "github.com/prometheus/prometheus/web/api/v1"
)

// prometheusVersion is the release whose API this is. Clients choose by it which
// parameters they may use.
const prometheusVersion = "3.15.0"

// The bounds of remote read that no configuration sets; Prometheus' defaults.
const (
	readConcurrency  = 10
	readBytesInFrame = 1 << 20
)

// newAPI calls the constructor of Prometheus' API, whose parameters change from
// release to release. This is the only place that knows them.
func newAPI(b *Backend, o Options, engine *promql.Engine, p parser.Parser) *apiv1.API {
	scraping := noScraping{metadata: metadataTargets(o.Metadata)}
	var queries storage.SampleAndChunkQueryable = b.db
	if o.Config.StartTimestamps {
		queries = olderChunks{b.db}
	}
	return apiv1.NewAPI(
		engine,
		queries,
		nil,  // appends, first form
		nil,  // appends, second form
		b.db, // exemplar queries
		func(context.Context) apiv1.ScrapePoolsRetriever { return scraping },
		func(context.Context) apiv1.TargetRetriever { return scraping },
		func(context.Context) apiv1.AlertmanagerRetriever { return scraping },
		func() config.Config { return config.Config{} }, // remote read takes the external labels from it
		map[string]string{},      // flags
		apiv1.GlobalURLOptions{}, // of targets
		func(h http.HandlerFunc) http.HandlerFunc { return h }, // readiness: the gate is around the routes
		storeStats{b.db}, // status/tsdb
		b.dir,            // snapshots
		false,            // admin API
		false,            // search API
		0,                // search limit
		b.logger.With("component", "query api"),
		func(context.Context) apiv1.RulesRetriever { return noRules{} },
		o.Config.Query.MaxSamples, // of a remote read
		readConcurrency,
		readBytesInFrame,
		false,                          // agent
		regexp.MustCompile("^(?:.*)$"), // CORS origins
		nil,                            // status/runtimeinfo
		&apiv1.PrometheusVersion{
			Version:   prometheusVersion,
			Revision:  "sluice-" + version.Version,
			Branch:    "sluice",
			BuildUser: version.BuildUser,
			BuildDate: version.BuildDate,
			GoVersion: runtime.Version(),
		},
		nil,        // notifications
		nil,        // subscription to them
		b.registry, // gatherer, for status/tsdb
		b.registry,
		nil,                 // stats renderer
		false,               // remote write
		nil,                 // its messages
		false, false, false, // OTLP
		false, // zero samples for start timestamps
		0,     // lookback of OTLP deltas
		false, // type and unit labels
		false, // metadata of remote write
		nil,   // error codes
		nil,   // feature registry
		apiv1.OpenAPIOptions{IncludePaths: []string{"none"}}, // the description is not served
		p,
	)
}

// storeStats is the store as status/tsdb sees it.
type storeStats struct{ *tsdb.DB }

// Stats implements apiv1.TSDBAdminStats.
func (s storeStats) Stats(label string, limit int) (*tsdb.Stats, error) {
	return s.Head().Stats(label, limit), nil
}

// WALReplayStatus implements apiv1.TSDBAdminStats; an open store has no log to replay.
func (storeStats) WALReplayStatus() (tsdb.WALReplayStatus, error) {
	return tsdb.WALReplayStatus{}, nil
}

// BlockMetas implements apiv1.TSDBAdminStats.
func (s storeStats) BlockMetas() ([]tsdb.BlockMeta, error) { return s.DB.BlockMetas(), nil }

// noScraping is a Prometheus that scrapes nothing. Its one target exists because the
// API reads metadata from targets only.
type noScraping struct {
	metadata map[string][]*scrape.Target
}

// ScrapePools implements apiv1.ScrapePoolsRetriever.
func (noScraping) ScrapePools() []string { return nil }

// TargetsActive implements apiv1.TargetRetriever.
func (s noScraping) TargetsActive() map[string][]*scrape.Target { return s.metadata }

// TargetsDropped implements apiv1.TargetRetriever.
func (noScraping) TargetsDropped() map[string][]*scrape.Target { return nil }

// TargetsDroppedCounts implements apiv1.TargetRetriever.
func (noScraping) TargetsDroppedCounts() map[string]int { return nil }

// ScrapePoolConfig implements apiv1.TargetRetriever.
func (noScraping) ScrapePoolConfig(string) (*config.ScrapeConfig, error) {
	return &config.ScrapeConfig{}, nil
}

// Alertmanagers implements apiv1.AlertmanagerRetriever.
func (noScraping) Alertmanagers() []*url.URL { return nil }

// DroppedAlertmanagers implements apiv1.AlertmanagerRetriever.
func (noScraping) DroppedAlertmanagers() []*url.URL { return nil }

// noRules is a Prometheus without rules.
type noRules struct{}

// RuleGroups implements apiv1.RulesRetriever.
func (noRules) RuleGroups() []*rules.Group { return nil }

// AlertingRules implements apiv1.RulesRetriever.
func (noRules) AlertingRules() []*rules.AlertingRule { return nil }
