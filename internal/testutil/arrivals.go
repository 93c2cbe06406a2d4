package testutil

import (
	"slices"
	"sort"
	"sync"
)

// Arrivals remembers every point that came, per series. The zero value is empty.
// Its methods may be called from several goroutines.
type Arrivals struct {
	mu     sync.Mutex
	series map[string]*arrived
	// Changed content and disorder are found at arrival, because only then the
	// order is known.
	changed, disordered []Trouble
	total               [3]int
}

// Trouble names one point that is not as it should be.
type Trouble struct {
	Key  string
	Kind string
	Time int64
	What string
}

// maxTroubles bounds what is remembered of each kind of trouble, beside the count.
const maxTroubles = 1000

type arrived struct {
	row    Row // without points; the newest metadata
	tracks [3]track
}

// track is one kind of points of one series, sorted by time.
type track struct {
	points []arrivedPoint
}

type arrivedPoint struct {
	Point
	times int
}

// kindIndex is the place of a kind in Kinds.
func kindIndex(kind string) int { return slices.Index(Kinds(), kind) }

// Add remembers the rows and returns how many samples, histograms and exemplars
// they hold.
func (a *Arrivals) Add(rows []Row) [3]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.series == nil {
		a.series = map[string]*arrived{}
	}
	var n [3]int
	for i := range rows {
		row := &rows[i]
		s := a.series[row.Key]
		if s == nil {
			s = &arrived{row: Row{Key: row.Key}}
			a.series[row.Key] = s
		}
		if row.Type != "" {
			s.row.Type, s.row.Help, s.row.Unit = row.Type, row.Help, row.Unit
		}
		for _, p := range row.Points {
			k := kindIndex(p.Kind)
			n[k]++
			a.add(row.Key, &s.tracks[k], p)
		}
	}
	for k := range n {
		a.total[k] += n[k]
	}
	return n
}

func (a *Arrivals) add(key string, t *track, p Point) {
	i := sort.Search(len(t.points), func(i int) bool { return t.points[i].Time >= p.Time })
	if i < len(t.points) && t.points[i].Time == p.Time {
		t.points[i].times++
		if t.points[i].Sum != p.Sum && len(a.changed) < maxTroubles {
			a.changed = append(a.changed, Trouble{key, p.Kind, p.Time, "came again with another content"})
		}
		return
	}
	// Something older than what the series has, and not a repetition: order was not
	// kept.
	if i < len(t.points) && len(a.disordered) < maxTroubles {
		a.disordered = append(a.disordered, Trouble{key, p.Kind, p.Time, "came after something newer of its series"})
	}
	t.points = slices.Insert(t.points, i, arrivedPoint{Point: p, times: 1})
}

// Total is how many samples, histograms and exemplars came, repetitions included.
func (a *Arrivals) Total() [3]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total
}

// Unique is how many different points of the kind came.
func (a *Arrivals) Unique(kind string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, k := 0, kindIndex(kind)
	for _, s := range a.series {
		n += len(s.tracks[k].points)
	}
	return n
}

// Repeated is how many of the different points of the kind came more than once.
func (a *Arrivals) Repeated(kind string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, k := 0, kindIndex(kind)
	for _, s := range a.series {
		for _, p := range s.tracks[k].points {
			if p.times > 1 {
				n++
			}
		}
	}
	return n
}

// Find returns the point of the series at the time.
func (a *Arrivals) Find(key, kind string, time int64) (Point, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, times := a.find(key, kind, time)
	return p, times > 0
}

func (a *Arrivals) find(key, kind string, time int64) (p Point, times int) {
	s := a.series[key]
	if s == nil {
		return Point{}, 0
	}
	points := s.tracks[kindIndex(kind)].points
	i := sort.Search(len(points), func(i int) bool { return points[i].Time >= time })
	if i == len(points) || points[i].Time != time {
		return Point{}, 0
	}
	return points[i].Point, points[i].times
}

// Row returns what is known of the series beside its points.
func (a *Arrivals) Row(key string) (Row, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.series[key]
	if s == nil {
		return Row{}, false
	}
	return s.row, true
}

// Keys lists the series, sorted.
func (a *Arrivals) Keys() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	keys := make([]string, 0, len(a.series))
	for key := range a.series {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Points returns a copy of the points of a series of one kind, sorted by time.
func (a *Arrivals) Points(key, kind string) []Point {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.series[key]
	if s == nil {
		return nil
	}
	var out []Point
	for _, p := range s.tracks[kindIndex(kind)].points {
		out = append(out, p.Point)
	}
	return out
}

// Disordered lists the points that came after something newer of their series, and
// Changed those that came twice with different content; at most a thousand each.
func (a *Arrivals) Disordered() []Trouble {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.disordered)
}

// Changed is described at Disordered.
func (a *Arrivals) Changed() []Trouble {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.changed)
}
