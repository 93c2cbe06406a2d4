package remotewrite

import (
	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
)

// apartFrom is how many samples make it cheaper to send a remote write 2.0 batch as the
// bytes that were received than to encode it anew together with others: bodies of 2.0
// cannot be joined, and encoding a sample costs more than its share of a request.
const apartFrom = 500

var _ exporter.Separator = (*Backend)(nil)

// Apart implements exporter.Separator.
func (b *Backend) Apart(p *exporter.Part) bool {
	c := b.negotiation.choose()
	return c.version == series.V2 && p.Batch.Version == series.V2 && p.Take == nil &&
		p.Batch.Counts.Samples+p.Batch.Counts.Histograms >= apartFrom && b.config.forwards(c.version, p.Batch)
}
