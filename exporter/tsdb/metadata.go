package tsdb

import (
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
)

// MetadataStore is what the query API tells about metric families;
// *remotewrite.MetadataCache is one.
type MetadataStore interface {
	// Get returns what is known about a family. The result is not changed later.
	Get(family []byte) (remotewrite.Metadata, bool)
	// All returns at most limit families, every one when limit is 0.
	All(limit int) []remotewrite.Metadata
}

// metadataTargets is a scrape target that has scraped nothing but the metadata of s.
func metadataTargets(s MetadataStore) map[string][]*scrape.Target {
	if s == nil {
		return nil
	}
	t := scrape.NewTarget(labels.EmptyLabels(), &config.ScrapeConfig{}, nil, nil)
	t.SetMetadataStore(targetMetadata{s})
	return map[string][]*scrape.Target{"sluice": {t}}
}

// targetMetadata is a MetadataStore in the form of a scrape target's.
type targetMetadata struct{ store MetadataStore }

// ListMetadata implements scrape.MetricMetadataStore.
func (m targetMetadata) ListMetadata() []scrape.MetricMetadata {
	all := m.store.All(0)
	list := make([]scrape.MetricMetadata, len(all))
	for i, md := range all {
		list[i] = scrapeMetadata(md)
	}
	return list
}

// GetMetadata implements scrape.MetricMetadataStore.
func (m targetMetadata) GetMetadata(family string) (scrape.MetricMetadata, bool) {
	md, ok := m.store.Get([]byte(family))
	if !ok {
		return scrape.MetricMetadata{}, false
	}
	return scrapeMetadata(md), true
}

// SizeMetadata implements scrape.MetricMetadataStore; only scraping asks.
func (m targetMetadata) SizeMetadata() int { return 0 }

// LengthMetadata implements scrape.MetricMetadataStore; only scraping asks.
func (m targetMetadata) LengthMetadata() int { return 0 }

func scrapeMetadata(md remotewrite.Metadata) scrape.MetricMetadata {
	return scrape.MetricMetadata{
		MetricFamily: string(md.Family),
		Type:         metricType(md.Type),
		Help:         string(md.Help),
		Unit:         string(md.Unit),
	}
}

func metricType(t remotewrite.MetricType) model.MetricType {
	switch t {
	case remotewrite.MetricCounter:
		return model.MetricTypeCounter
	case remotewrite.MetricGauge:
		return model.MetricTypeGauge
	case remotewrite.MetricHistogram:
		return model.MetricTypeHistogram
	case remotewrite.MetricGaugeHistogram:
		return model.MetricTypeGaugeHistogram
	case remotewrite.MetricSummary:
		return model.MetricTypeSummary
	case remotewrite.MetricInfo:
		return model.MetricTypeInfo
	case remotewrite.MetricStateset:
		return model.MetricTypeStateset
	}
	return model.MetricTypeUnknown
}
