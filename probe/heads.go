package probe

import (
	"math"
	"time"
)

// heads are the rings of one primary, or of one target whose groups are watched: one for
// each stream.
type heads struct {
	unit    Unit
	streams map[string]*head
	at      time.Time // when they were last observed; zero: never
}

type head struct {
	history string
	ring    *Ring
}

// reset forgets all positions.
func (h *heads) reset() { *h = heads{} }

// observe notes the heads of a reading. A stream whose history changed starts anew, and
// one that is not there any more is forgotten.
func (h *heads) observe(r *Reading, at time.Time) {
	next := make(map[string]*head, len(r.Streams))
	capacity := max(leastCapacity, min(ringCapacity, ringsCapacity/max(1, len(r.Streams))))
	for i := range r.Streams {
		s := &r.Streams[i]
		if !s.Head.Known {
			continue
		}
		n := h.streams[s.Name]
		if n == nil || n.history != s.History {
			n = &head{history: s.History, ring: NewRing(capacity)}
		}
		n.ring.Observe(s.Head.Value, at)
		next[s.Name] = n
	}
	if len(next) > 0 {
		h.streams, h.unit, h.at = next, r.Unit, at
	}
}

// lag compares a replica's streams, as they were at a time, with the heads. The worst
// stream gives the age; distances add up.
func (h *heads) lag(streams []Stream, at time.Time) Lag {
	if len(h.streams) == 0 {
		return Lag{Unknown: ReasonPrimaryUnknown}
	}
	byName := make(map[string]*Stream, len(streams))
	for i := range streams {
		if streams[i].Applied.Known {
			byName[streams[i].Name] = &streams[i]
		}
	}
	if len(byName) == 0 {
		return Lag{Unknown: ReasonNoPosition}
	}
	nothing := Stream{Applied: Some(uint64(0))}
	lag := Lag{Unit: h.unit, ReceiveDistance: Some(uint64(0))}
	for name, head := range h.streams {
		s := byName[name]
		if s == nil {
			s = &nothing
		}
		if s.History != "" && s.History != head.history {
			return Lag{Unknown: ReasonOtherHistory}
		}
		b, _ := head.ring.Behind(s.Applied.Value, at)
		lag.Age = max(lag.Age, b.Age)
		lag.LowerBound = lag.LowerBound || b.LowerBound
		lag.Distance = add(lag.Distance, b.Distance)
		newest, _ := head.ring.Head()
		lag.ReceiveDistance.Known = lag.ReceiveDistance.Known && s.Received.Known
		lag.ReceiveDistance.Value = add(lag.ReceiveDistance.Value, newest-min(newest, s.Received.Value))
	}
	return lag
}

func add(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}
