package sampler

// Stats is what a Sampler did since it was made, and what it holds.
type Stats struct {
	Step Step
	// Share is the share that was kept lately, weighted by time; 1 when nothing came in.
	Share float64
	// FloorBound says that more is kept than was asked for, since no more can be given.
	FloorBound bool
	Series     int
	Units      int
	Targets    int
	// Unknown is the number of samples of series that are not known; all were sent.
	Unknown uint64
	// Classes has an entry for each class in the order of the configuration, and one
	// for what is protected.
	Classes []ClassStats
}

// ClassStats counts the samples of a class. Each sample that came in was either kept or
// withheld; Replayed of those withheld were sent after all.
type ClassStats struct {
	Class    string
	Seen     uint64
	Kept     uint64
	Withheld [reasons]uint64 // by Reason
	Replayed uint64
}

// Share is Stats.Share.
func (s *Sampler) Share() float64 { return s.pressure.Share() }

// Stats returns the counts. It allocates.
func (s *Sampler) Stats() Stats {
	stats := Stats{
		Step:       s.Step(),
		Share:      s.pressure.Share(),
		FloorBound: s.pressure.Bound(),
		Series:     s.series,
		Units:      len(s.unitOf),
		Targets:    len(s.targetOf),
		Unknown:    s.unknown,
	}
	for i := range s.classes {
		counts := s.classes[i].counts
		counts.Class = s.classes[i].name
		stats.Classes = append(stats.Classes, counts)
	}
	return stats
}

// Seen is the number of samples that came in.
func (s *Stats) Seen() uint64 {
	n := s.Unknown
	for i := range s.Classes {
		n += s.Classes[i].Seen
	}
	return n
}

// Sent is the number of samples that went out, at once or later.
func (s *Stats) Sent() uint64 {
	n := s.Unknown
	for i := range s.Classes {
		n += s.Classes[i].Kept + s.Classes[i].Replayed
	}
	return n
}
