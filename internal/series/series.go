// Package series holds the vocabulary that the stages of the gateway share: the
// identity of a series, the counts that the accounting equation is made of, and
// the Batch, one remote-write request as it travels from the receiver through the
// journal to the lanes.
package series

// ID is the dense number of a series, assigned by a Table and valid while the
// Table knows the series. Ids are never written to disk. The ids below Overflow
// do not name one series: series that found no room in the Table share them.
type ID uint32

// Overflow is the number of ids that series beyond the Table's bound share by hash.
// State kept per id is kept for all sharers of an overflow id together, which is
// safe where sharing only costs parallelism (order) and wrong where it decides
// something (routes): such decisions are made anew from the labels.
const Overflow ID = 4096

// Shared reports whether the id may stand for more than one series.
func (id ID) Shared() bool { return id < Overflow }

// Key is a 128-bit hash of a series' labels in one spelling. Several keys may lead
// to one ID (RW 1.0 bytes, RW 2.0 references, an unsorted spelling).
type Key struct{ Hi, Lo uint64 }

// Version is the version of the remote-write message that a body is written in.
type Version uint8

const (
	V1 Version = 1 // prometheus.WriteRequest
	V2 Version = 2 // io.prometheus.write.v2.Request
)

func (v Version) String() string {
	switch v {
	case V1:
		return "rw1"
	case V2:
		return "rw2"
	}
	return "unknown"
}

// Counts is how many of each kind something holds. The accounting equation is kept
// per kind.
type Counts struct {
	Samples    uint64 `json:"samples"`
	Histograms uint64 `json:"histograms"`
	Exemplars  uint64 `json:"exemplars"`
}

// Add adds o to c.
func (c *Counts) Add(o Counts) {
	c.Samples += o.Samples
	c.Histograms += o.Histograms
	c.Exemplars += o.Exemplars
}

// Sub takes o away from c. The caller knows that o is a part of c.
func (c *Counts) Sub(o Counts) {
	c.Samples -= o.Samples
	c.Histograms -= o.Histograms
	c.Exemplars -= o.Exemplars
}

// Without is c without o, of each kind never below zero: where o is more than a part of c,
// what it has beyond c does not count.
func (c Counts) Without(o Counts) Counts {
	c.Samples -= min(c.Samples, o.Samples)
	c.Histograms -= min(c.Histograms, o.Histograms)
	c.Exemplars -= min(c.Exemplars, o.Exemplars)
	return c
}

// Within is what c and o have both, of each kind.
func (c Counts) Within(o Counts) Counts {
	return Counts{
		Samples:    min(c.Samples, o.Samples),
		Histograms: min(c.Histograms, o.Histograms),
		Exemplars:  min(c.Exemplars, o.Exemplars),
	}
}

// Zero reports whether nothing is counted.
func (c Counts) Zero() bool { return c == Counts{} }

// Set is a set of the ordinals of a batch's series: bit i of word i/64.
type Set []uint64

// NewSet returns an empty set for n ordinals.
func NewSet(n int) Set { return make(Set, (n+63)/64) }

// Add puts i into the set.
func (s Set) Add(i int) { s[i>>6] |= 1 << (i & 63) }

// Has reports whether i is in the set. The nil set holds every ordinal.
func (s Set) Has(i int) bool { return s == nil || s[i>>6]&(1<<(i&63)) != 0 }
