package probe

import (
	"sort"
	"time"
)

const (
	// ringCapacity is how many different head positions a ring keeps: half of it, 34
	// minutes at a tick of one second, with the precision of one tick.
	ringCapacity = 4096
	// ringsCapacity bounds the rings of one server together, as far as each can keep
	// leastCapacity: a cluster of Kafka has thousands of partitions.
	ringsCapacity = 16 * ringCapacity
	leastCapacity = 256
)

// coarsest bounds the precision of a ring's older half. What would need a coarser one is
// forgotten.
const coarsest = time.Minute

// Ring remembers when the head of one history passed which position. It has no clock:
// its owner says when things were seen. It is not safe for concurrent use.
type Ring struct {
	capacity int
	start    time.Time
	runs     []run // positions strictly rise
	// apart is how far two kept runs of the older half may lie from each other because
	// those between them were dropped; 0: none was.
	apart time.Duration
}

// run is a position with the first and the last time at which it was the head, since the
// ring's start. What is between two runs' times is not known to the ring.
type run struct {
	position    uint64
	first, last time.Duration
}

// Behind is how far a position is behind the head of a Ring.
type Behind struct {
	// Age is how long ago the oldest change beyond the position was made; 0 if there is
	// none.
	Age time.Duration
	// Distance is how many units of the position are missing.
	Distance uint64
	// LowerBound says that the position is older than the ring: the Age is the ring's.
	LowerBound bool
}

// NewRing returns an empty ring for so many different positions, at least four.
func NewRing(capacity int) *Ring { return &Ring{capacity: max(capacity, 4)} }

// Observe notes the head as it was at a time. Times must not go back. A head that went
// back means that the history was written anew: the ring starts empty, and Observe
// reports it.
func (r *Ring) Observe(head uint64, at time.Time) (restarted bool) {
	if len(r.runs) > 0 && head < r.runs[len(r.runs)-1].position {
		r.runs, r.apart = r.runs[:0], 0
		restarted = true
	}
	if len(r.runs) == 0 {
		r.start = at
	}
	since := at.Sub(r.start)
	if n := len(r.runs); n > 0 && r.runs[n-1].position == head {
		r.runs[n-1].last = since
		return restarted
	}
	if len(r.runs) == r.capacity {
		r.thin()
	}
	r.runs = append(r.runs, run{head, since, since})
	return restarted
}

// thin makes room. From the older half it drops runs that lie close between two others,
// coarser each time that is not enough. A run that lasted, an idle night, stays: without
// it the times around it could not be told any more.
func (r *Ring) thin() {
	old := r.capacity / 2
	for {
		kept := r.runs[:1]
		for i := 1; i < old; i++ {
			gap := r.runs[i+1].first - kept[len(kept)-1].last
			if gap > r.apart {
				kept = append(kept, r.runs[i])
			}
		}
		dropped := old - len(kept)
		r.runs = append(kept, r.runs[old:]...)
		old = len(kept)
		if dropped > 0 && len(r.runs) <= r.capacity*7/8 {
			return
		}
		if r.apart >= coarsest {
			r.runs = append(r.runs[:0], r.runs[r.capacity/8:]...)
			return
		}
		r.apart = max(2*r.apart, r.mean())
	}
}

// mean is the mean time between two runs of the newer half, at least a millisecond.
func (r *Ring) mean() time.Duration {
	n := len(r.runs)
	half := n / 2
	return max(time.Millisecond, (r.runs[n-1].first-r.runs[half].first)/time.Duration(n-half))
}

// Behind says how far the position was behind the head at a time, and whether anything is
// known: an empty ring knows nothing. A time before the change that is missing gives 0:
// two servers are never read at the same instant.
func (r *Ring) Behind(position uint64, at time.Time) (Behind, bool) {
	n := len(r.runs)
	if n == 0 {
		return Behind{}, false
	}
	head := r.runs[n-1].position
	if position >= head {
		return Behind{}, true
	}
	b := Behind{Distance: head - position}
	b.Age = max(0, at.Sub(r.start)-r.passed(position))
	if position < r.runs[0].position {
		b.LowerBound = true
	}
	return b, true
}

// passed is when the head passed the position, which is behind the newest run. Between
// two runs it is interpolated.
func (r *Ring) passed(position uint64) time.Duration {
	next := sort.Search(len(r.runs), func(i int) bool { return r.runs[i].position > position })
	if next == 0 {
		return r.runs[0].first
	}
	a, b := r.runs[next-1], r.runs[next]
	share := float64(position-a.position) / float64(b.position-a.position)
	return a.last + time.Duration(share*float64(b.first-a.last))
}

// Head is the newest position, and whether there is one.
func (r *Ring) Head() (uint64, bool) {
	if len(r.runs) == 0 {
		return 0, false
	}
	return r.runs[len(r.runs)-1].position, true
}
