package web

import (
	"math"
	"time"
)

// The history is bounded: points of the last hour, of as many backends as a gateway can
// have.
const (
	historyEvery    = 10 * time.Second
	historyPoints   = 360
	historyBackends = 64
)

// track are the values of one backend, in the order of history.times.
type track struct{ delivered, lag, kept []float64 }

// history are the values of the last hour. NaN stands for one that is not known.
type history struct {
	times    []time.Time
	received []float64
	names    []string // of backends, oldest first
	tracks   map[string]*track
}

func newHistory() *history { return &history{tracks: map[string]*track{}} }

// due reports whether a point is to be added.
func (h *history) due(now time.Time) bool {
	n := len(h.times)
	return n == 0 || now.Sub(h.times[n-1]) >= historyEvery
}

// add appends a point.
func (h *history) add(st *Status) {
	h.times = push(h.times, st.At)
	h.received = push(h.received, st.Received.PerSecond)
	present := map[string]bool{}
	for i := range st.Lanes {
		l := &st.Lanes[i]
		t := h.track(l.Name)
		if t == nil || present[l.Name] {
			continue
		}
		present[l.Name] = true
		kept := 1.0
		if l.Sampling != nil {
			kept = l.Sampling.Kept
		}
		t.push(l.PerSecond.Delivered, l.LagSeconds, kept)
	}
	names := h.names[:0]
	for _, name := range h.names {
		t := h.tracks[name]
		if !present[name] {
			t.push(math.NaN(), math.NaN(), math.NaN())
		}
		if t.empty() {
			delete(h.tracks, name)
			continue
		}
		names = append(names, name)
	}
	h.names = names
}

// track is that of a backend, which may be new; nil where there are too many. The newest
// point of a new one is missing.
func (h *history) track(name string) *track {
	if t := h.tracks[name]; t != nil {
		return t
	}
	if len(h.names) >= historyBackends {
		return nil
	}
	t := &track{}
	for range len(h.times) - 1 {
		t.push(math.NaN(), math.NaN(), math.NaN())
	}
	h.names = append(h.names, name)
	h.tracks[name] = t
	return t
}

func (t *track) push(delivered, lag, kept float64) {
	t.delivered, t.lag, t.kept = push(t.delivered, delivered), push(t.lag, lag), push(t.kept, kept)
}

// empty reports whether nothing is known of the backend any more.
func (t *track) empty() bool {
	for _, v := range t.lag {
		if !math.IsNaN(v) {
			return false
		}
	}
	return true
}

// push appends v and drops the oldest where there are too many.
func push[T any](list []T, v T) []T {
	if len(list) >= historyPoints {
		copy(list, list[1:])
		list = list[:len(list)-1]
	}
	return append(list, v)
}

// History is what the last hour was like, as the API gives it.
type History struct {
	Times []time.Time `json:"times"`
	// Received is samples and histograms a second.
	Received []*float64     `json:"received_per_second"`
	Backends []LaneOverTime `json:"backends"`
}

// LaneOverTime are the values of one backend, one for each of the times; nil where it is
// not known.
type LaneOverTime struct {
	Name      string     `json:"backend"`
	Delivered []*float64 `json:"delivered_per_second"`
	Lag       []*float64 `json:"lag_seconds"`
	Kept      []*float64 `json:"kept"`
}

func (h *history) view() History {
	v := History{Times: append([]time.Time{}, h.times...), Received: known(h.received), Backends: []LaneOverTime{}}
	for _, name := range h.names {
		t := h.tracks[name]
		v.Backends = append(v.Backends, LaneOverTime{Name: name, Delivered: known(t.delivered), Lag: known(t.lag), Kept: known(t.kept)})
	}
	return v
}

// known is the list as JSON can have it.
func known(list []float64) []*float64 {
	out := make([]*float64, len(list))
	for i, v := range list {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			v = math.Round(v*1000) / 1000
			out[i] = &v
		}
	}
	return out
}
