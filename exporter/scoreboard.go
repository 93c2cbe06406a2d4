package exporter

import "sync/atomic"

// maxShards is how many parcels a lane can have in flight: as many as a scoreboard entry
// can tell apart.
const maxShards = 1 << slotBits

const slotBits = 6

// scoreboard knows for each series the last parcel it went into, so that no two parcels in
// flight share a series: that alone keeps the order of each series, whatever the number
// of requests in flight. An entry is a slot and the slot's generation when the parcel took
// it; the parcel is in flight as long as the slot has that generation.
//
// The lane's reader calls all methods but free.
type scoreboard struct {
	last []uint32 // by series id; 0: none
	gen  [maxShards]atomic.Uint32
}

func newScoreboard() *scoreboard {
	s := new(scoreboard)
	for i := range s.gen {
		s.gen[i].Store(1)
	}
	return s
}

// entry marks a series as being in the slot's present parcel. It is never 0.
func (s *scoreboard) entry(slot int) uint32 {
	return s.gen[slot].Load()<<slotBits | uint32(slot)
}

// conflict returns the slot of a parcel in flight, other than own, that holds a series of
// the part.
func (s *scoreboard) conflict(p *Part, own int) (slot int, found bool) {
	mine := s.entry(own)
	for i, id := range p.Batch.IDs {
		if int(id) >= len(s.last) {
			continue
		}
		e := s.last[id]
		if e == 0 || e == mine {
			continue
		}
		if k := int(e & (maxShards - 1)); s.entry(k) == e && p.Take.Has(i) {
			return k, true
		}
	}
	return 0, false
}

// enter notes that the part's series are in the slot's parcel.
func (s *scoreboard) enter(p *Part, slot int) {
	e := s.entry(slot)
	for i, id := range p.Batch.IDs {
		if !p.Take.Has(i) {
			continue
		}
		if n := int(id) + 1; n > len(s.last) {
			s.last = append(s.last, make([]uint32, n+n/4+1024-len(s.last))...)
		}
		s.last[id] = e
	}
}

// free ends the slot's parcel. Any goroutine may call it.
func (s *scoreboard) free(slot int) {
	// Generations that leave nothing in an entry are stepped over: 0 means none.
	if s.gen[slot].Add(1)<<slotBits == 0 {
		s.gen[slot].Add(1)
	}
}
