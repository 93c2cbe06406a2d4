package remotewrite

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/xxh3"
)

// MetadataSource knows the metadata of metric families.
type MetadataSource interface {
	// Get returns what is known about a family. The result may be kept and must not
	// be changed.
	Get(family []byte) (Metadata, bool)
}

// MetadataCacheOptions bounds a MetadataCache.
type MetadataCacheOptions struct {
	MaxFamilies int // entries kept; 0 means 100,000
	MaxBytes    int // bytes of names, help texts and units kept; 0 means 32 MiB
}

// MetadataCache remembers the last metadata seen of each metric family: RW 1.0
// senders tell it in requests of their own, RW 2.0 backends want it with the series
// (M13). The oldest entry goes when a bound is reached; a family still told about
// returns with the next Observe. It is safe for concurrent use.
type MetadataCache struct {
	o MetadataCacheOptions

	mu       sync.RWMutex
	families map[string]*familyEntry
	oldest   *familyEntry // a list in order of arrival, newest is its end
	newest   *familyEntry
	bytes    int
	evicted  uint64
}

type familyEntry struct {
	md   Metadata // own copies, never overwritten
	next *familyEntry
}

var _ MetadataSource = (*MetadataCache)(nil)

// NewMetadataCache returns an empty cache.
func NewMetadataCache(o MetadataCacheOptions) *MetadataCache {
	if o.MaxFamilies == 0 {
		o.MaxFamilies = 100_000
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 32 << 20
	}
	return &MetadataCache{o: o, families: make(map[string]*familyEntry)}
}

// Observe remembers md, which is copied. What was known of the family before is
// replaced as a whole. Metadata without a family name, or larger than the cache, is
// not kept; the latter counts as evicted.
func (c *MetadataCache) Observe(md Metadata) {
	if len(md.Family) == 0 {
		return
	}
	c.mu.RLock()
	e, ok := c.families[string(md.Family)]
	same := ok && sameMetadata(e.md, md)
	c.mu.RUnlock()
	if same {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if sizeMetadata(md) > c.o.MaxBytes {
		c.evicted++
		return
	}
	if e, ok = c.families[string(md.Family)]; ok {
		c.bytes -= sizeMetadata(e.md)
		family := e.md.Family
		e.md = cloneMetadata(md)
		e.md.Family = family
	} else {
		e = &familyEntry{md: cloneMetadata(md)}
		c.families[string(md.Family)] = e
		if c.newest == nil {
			c.oldest = e
		} else {
			c.newest.next = e
		}
		c.newest = e
	}
	c.bytes += sizeMetadata(md)
	for len(c.families) > c.o.MaxFamilies || c.bytes > c.o.MaxBytes {
		c.evict()
	}
}

// evict lets the oldest entry go. The caller holds mu for writing.
func (c *MetadataCache) evict() {
	e := c.oldest
	c.oldest = e.next
	if c.oldest == nil {
		c.newest = nil
	}
	delete(c.families, string(e.md.Family))
	c.bytes -= sizeMetadata(e.md)
	c.evicted++
}

// Get implements MetadataSource.
func (c *MetadataCache) Get(family []byte) (Metadata, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e, ok := c.families[string(family)]; ok {
		return e.md, true
	}
	return Metadata{}, false
}

// All returns at most limit entries, sorted by family name; all of them when limit
// is 0 or less. They may be kept and must not be changed.
func (c *MetadataCache) All(limit int) []Metadata {
	c.mu.RLock()
	all := make([]Metadata, 0, len(c.families))
	for _, e := range c.families {
		all = append(all, e.md)
	}
	c.mu.RUnlock()
	slices.SortFunc(all, func(a, b Metadata) int { return bytes.Compare(a.Family, b.Family) })
	if limit > 0 && limit < len(all) {
		return slices.Clip(all[:limit])
	}
	return all
}

// Len is the number of families known.
func (c *MetadataCache) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.families)
}

// Evicted counts the entries that went to keep the bounds.
func (c *MetadataCache) Evicted() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.evicted
}

func sizeMetadata(md Metadata) int { return len(md.Family) + len(md.Help) + len(md.Unit) }

func sameMetadata(a, b Metadata) bool {
	return a.Type == b.Type && bytes.Equal(a.Help, b.Help) && bytes.Equal(a.Unit, b.Unit)
}

func cloneMetadata(md Metadata) Metadata {
	md.Family = bytes.Clone(md.Family)
	md.Help = bytes.Clone(md.Help)
	md.Unit = bytes.Clone(md.Unit)
	return md
}

// MetadataThrottleOptions sets up a MetadataThrottle.
type MetadataThrottleOptions struct {
	Interval    time.Duration    // between two mentions of unchanged metadata; 0 means 10 minutes
	MaxFamilies int              // families remembered; 0 means 100,000. One forgotten is told again early
	Now         func() time.Time // nil means time.Now
}

// MetadataThrottle lets the metadata of a family through when it is new, changed, or
// was let through an interval ago. A lane that translates RW 2.0, where each series
// carries its metadata, to RW 1.0 owns one. It is safe for concurrent use.
type MetadataThrottle struct {
	o    MetadataThrottleOptions
	mu   sync.Mutex
	told map[uint64]telling // by the hash of the family name
}

type telling struct {
	content uint64 // hash of type, help and unit
	at      int64  // Unix ns
}

// NewMetadataThrottle returns a throttle that has let nothing through yet.
func NewMetadataThrottle(o MetadataThrottleOptions) *MetadataThrottle {
	if o.Interval == 0 {
		o.Interval = 10 * time.Minute
	}
	if o.MaxFamilies == 0 {
		o.MaxFamilies = 100_000
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &MetadataThrottle{o: o, told: make(map[uint64]telling)}
}

// Allow reports whether md should be sent now, and takes it as sent then. That the
// request arrives is not waited for: metadata is told again an interval later anyway.
func (t *MetadataThrottle) Allow(md Metadata) bool {
	family := xxh3.Hash(md.Family)
	content := xxh3.HashSeed(md.Help, uint64(md.Type)) ^ 3*xxh3.Hash(md.Unit)
	now := t.o.Now().UnixNano()
	t.mu.Lock()
	defer t.mu.Unlock()
	last, ok := t.told[family]
	if ok && last.content == content && now-last.at < int64(t.o.Interval) {
		return false
	}
	if !ok && len(t.told) >= t.o.MaxFamilies {
		for k := range t.told {
			delete(t.told, k)
			break
		}
	}
	t.told[family] = telling{content, now}
	return true
}
