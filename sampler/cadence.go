package sampler

// Cadence finds the distance between the scrapes of a target from their timestamps. The
// zero Cadence has seen none. The first distance is believed: where a scrape was lost just
// then it is wrong for a single scrape, and each one that a target is given until its
// distance is known is sent in full.
type Cadence struct {
	distances [5]uint32 // the last ones, a ring
	count     uint8     // how many of them there are
	next      uint8     // place of the next
	ms        uint32    // what they say
}

// Add notes the distance, in ms, between two successive scrapes.
func (c *Cadence) Add(distance uint32) {
	c.distances[c.next] = distance
	c.next = (c.next + 1) % uint8(len(c.distances))
	c.count = min(c.count+1, uint8(len(c.distances)))
	c.ms = roundCadence(c.lowerMedian())
}

// Ms is the distance in ms, rounded so that jitter does not change it; 0 means that it is
// not known yet.
func (c *Cadence) Ms() int64 { return int64(c.ms) }

func (c *Cadence) lowerMedian() uint32 {
	sorted := c.distances
	n := int(c.count)
	for i := 1; i < n; i++ {
		for j := i; j > 0 && sorted[j] < sorted[j-1]; j-- {
			sorted[j], sorted[j-1] = sorted[j-1], sorted[j]
		}
	}
	return sorted[(n-1)/2]
}

// roundCadence rounds to whole seconds, below 1.5 s to tenths, and never to 0.
func roundCadence(ms uint32) uint32 {
	unit := uint32(1000)
	if ms < 1500 {
		unit = 100
	}
	return max(100, (ms/unit+(ms%unit+unit/2)/unit)*unit)
}
