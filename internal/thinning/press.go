package thinning

import (
	"github.com/klauspost/compress/s2"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// newBuilder returns one that changes nothing.
func newBuilder(v series.Version) *remotewrite.Builder {
	return remotewrite.NewBuilder(remotewrite.BuilderOptions{Version: v, NHCBOnV1: remotewrite.NHCBKeep})
}

// draft is what a derived batch is, besides what its Builder knows.
type draft struct {
	version  series.Version
	ids      []series.ID // the batch's from now on
	epoch    uint32
	received int64
	minTime  int64
	maxTime  int64
	legacy   bool // names
	custom   bool // buckets
}

// span widens the time range.
func (d *draft) span(from, to int64) {
	d.minTime, d.maxTime = min(d.minTime, from), max(d.maxTime, to)
}

// press makes batches of what Builders hold.
type press struct {
	packed []byte
}

// batch returns what w holds as a batch of its own. The body gets a buffer of its size, since
// room for the worst case would stay with it while it waits in a queue.
func (p *press) batch(w *remotewrite.Builder, d draft) *series.Batch {
	body := w.Bytes()
	p.packed = s2.EncodeSnappy(p.packed, body)
	buf := series.NewBuffer(len(p.packed))
	buf.B = append(buf.B, p.packed...)
	b := series.NewBatch(buf)
	b.Version, b.Decoded, b.Received = d.version, len(body), d.received
	b.MinTime, b.MaxTime, b.Counts = d.minTime, d.maxTime, w.Counts()
	b.Legacy, b.CustomBuckets = d.legacy, d.custom
	b.Series, b.IDs, b.Epoch = w.Len(), d.ids, d.epoch
	if cap(p.packed) > scratchLimit {
		p.packed = nil
	}
	return b
}
