package tsdb

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/storage"

	"github.com/sluice-metrics/sluice/internal/series"
)

// place is where one series stands in the store. Its fields but for ref only mean
// something to the appender that has the number gen.
type place struct {
	ref  storage.SeriesRef // 0: not known
	last int64             // newest timestamp given to the appender gen
	gen  uint32            // the appender that had a sample of the series last
}

const (
	chunkBits = 12
	chunkSize = 1 << chunkBits
)

// refs is the places of series by their ids. Ids are dense, so that a chunked array
// costs 24 bytes a series and no hashing.
//
// A place belongs to whoever sends a sample of its series. No two parcels in flight
// hold samples of one series, and an id is forgotten only when no parcel holds it any
// more, so that no place has two owners; the array itself may grow under them.
type refs struct {
	chunks atomic.Pointer[[]*[chunkSize]place]
	mu     sync.Mutex // held while chunks is replaced
}

// at returns the place of id, which is not a shared one.
func (r *refs) at(id series.ID) *place {
	i := int(id >> chunkBits)
	if cs := r.chunks.Load(); cs != nil && i < len(*cs) && (*cs)[i] != nil {
		return &(*cs)[i][id&(chunkSize-1)]
	}
	return r.grow(id)
}

func (r *refs) grow(id series.ID) *place {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := int(id >> chunkBits)
	var old []*[chunkSize]place
	if cs := r.chunks.Load(); cs != nil {
		old = *cs
	}
	if i >= len(old) || old[i] == nil {
		cs := make([]*[chunkSize]place, max(len(old), i+1))
		copy(cs, old)
		cs[i] = new([chunkSize]place)
		r.chunks.Store(&cs)
		old = cs
	}
	return &old[i][id&(chunkSize-1)]
}

// forget empties the places of ids.
func (r *refs) forget(ids []series.ID) {
	cs := r.chunks.Load()
	if cs == nil {
		return
	}
	for _, id := range ids {
		if i := int(id >> chunkBits); !id.Shared() && i < len(*cs) && (*cs)[i] != nil {
			(*cs)[i][id&(chunkSize-1)] = place{}
		}
	}
}
