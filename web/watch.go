package web

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/prometheus/common/version"
)

// Picture is all that the page shows at one instant. Nobody changes it once it is made.
type Picture struct {
	Status
	Events  []Event `json:"events"`
	History History `json:"history"`

	plots []plot
}

const (
	// lookEvery is how often a Site looks at the gateway.
	lookEvery = time.Second
	// rateOver is over how long rates are averaged.
	rateOver = 10 * time.Second
	// growthOver is over how long the growth of the journal is measured, and growthLeast
	// how long it has to be known for: segments come and go.
	growthOver  = 10 * time.Minute
	growthLeast = 2 * time.Minute
)

// watch looks at the gateway and remembers what rates and plots are made of.
type watch struct {
	status func() Status
	events *Events

	mu       sync.Mutex
	looks    []Status // of the last rateOver, oldest first
	lookedAt time.Time
	picture  *Picture
	since    map[string]standing // by backend
	history  *history
	past     History // what history is like
	plots    []plot
	disk     []reading // of the last growthOver
}

// standing is a state and when it was first seen.
type standing struct {
	state string
	at    time.Time
}

type reading struct {
	at    time.Time
	value float64
}

func newWatch(status func() Status, events *Events) *watch {
	h := newHistory()
	return &watch{status: status, events: events, since: map[string]standing{}, history: h, past: h.view(), plots: h.plots()}
}

// look returns a picture that is at most a second old.
func (w *watch) look() *Picture {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); w.picture == nil || now.Sub(w.lookedAt) >= lookEvery*9/10 {
		w.lookedAt = now
		w.picture = w.take()
	}
	return w.picture
}

// take takes a picture; w.mu is held.
func (w *watch) take() *Picture {
	st := w.status()
	if st.Version == "" {
		st.Version = version.Version
	}
	for len(w.looks) > 0 && st.At.Sub(w.looks[0].At) > rateOver+lookEvery/2 {
		w.looks = w.looks[1:]
	}
	if len(w.looks) > 0 {
		rates(&st, &w.looks[0])
	} else {
		rates(&st, &st)
	}
	w.complete(&st)
	if len(w.looks) > 0 && w.history.due(st.At) {
		w.history.add(&st)
		w.past, w.plots = w.history.view(), w.history.plots()
	}
	w.looks = append(w.looks, st)
	return &Picture{Status: st, Events: w.events.last(maxEvents), History: w.past, plots: w.plots}
}

// complete fills in what a single look does not show.
func (w *watch) complete(st *Status) {
	present := map[string]standing{}
	for i := range st.Lanes {
		l := &st.Lanes[i]
		s := w.since[l.Name]
		if s.state != l.State {
			s = standing{l.State, st.At}
		}
		present[l.Name] = s
		l.Since = s.at
		l.LastError = w.events.lastFailed(l.Name)
	}
	w.since = present
	for i := range st.Clusters {
		for k := range st.Clusters[i].Targets {
			t := &st.Clusters[i].Targets[k]
			t.Blocking = forest(t.Waits)
		}
	}
	st.Journal.FullInSeconds = w.fullIn(st)
}

// fullIn is when the journal is full if it goes on growing as it does; nil where it does
// not grow.
func (w *watch) fullIn(st *Status) *float64 {
	n := len(w.disk)
	if n == 0 || st.At.Sub(w.disk[n-1].at) >= historyEvery {
		w.disk = append(w.disk, reading{st.At, float64(st.Journal.Bytes)})
	}
	for len(w.disk) > 1 && st.At.Sub(w.disk[0].at) > growthOver {
		w.disk = w.disk[1:]
	}
	first := w.disk[0]
	dt, room := st.At.Sub(first.at), float64(st.Journal.Limit-st.Journal.Bytes)
	grown := float64(st.Journal.Bytes) - first.value
	if dt < growthLeast || grown <= 0 || room < 0 {
		return nil
	}
	in := room / grown * dt.Seconds()
	return &in
}

// rates fills in what changed a second since before. Both may be the same.
func rates(now, before *Status) {
	per := perSecond(now.At.Sub(before.At).Seconds())
	in, was := &now.Received, &before.Received
	in.PerSecond = per(in.Samples, was.Samples)
	in.RefusedPerSecond = per(in.Refused, was.Refused)
	in.FailedPerSecond = per(in.Failed, was.Failed)
	for i := range in.Protocols {
		p := &in.Protocols[i]
		for k := range was.Protocols {
			if o := &was.Protocols[k]; o.Name == p.Name {
				p.RequestsPerSecond, p.BytesPerSecond = per(p.Requests, o.Requests), per(p.Bytes, o.Bytes)
			}
		}
	}
	for i := range now.Lanes {
		l := &now.Lanes[i]
		for k := range before.Lanes {
			if o := &before.Lanes[k]; o.Name == l.Name {
				laneRates(l, o, per)
			}
		}
		shares(l.Sampling, before.sampling(l.Name))
	}
}

func laneRates(l, o *Lane, per func(now, before uint64) float64) {
	l.PerSecond = LaneRates{
		Routed:    per(l.Routed.Samples+l.Routed.Histograms, o.Routed.Samples+o.Routed.Histograms),
		Delivered: per(l.Delivered.Samples+l.Delivered.Histograms, o.Delivered.Samples+o.Delivered.Histograms),
		Withheld:  per(l.Withheld.Samples+l.Withheld.Histograms, o.Withheld.Samples+o.Withheld.Histograms),
		Restored:  per(l.Restored.Samples+l.Restored.Histograms, o.Restored.Samples+o.Restored.Histograms),
		Lost:      per(l.Rejected+l.GivenUp, o.Rejected+o.GivenUp),
	}
}

// sampling is that of the named backend; nil where there is none.
func (st *Status) sampling(backend string) *Sampling {
	for i := range st.Lanes {
		if st.Lanes[i].Name == backend {
			return st.Lanes[i].Sampling
		}
	}
	return nil
}

// shares fills in the shares of the classes; before may be nil.
func shares(now, before *Sampling) {
	if now == nil {
		return
	}
	for i := range now.Classes {
		c := &now.Classes[i]
		c.Share = 1
		if before == nil {
			continue
		}
		for k := range before.Classes {
			o := &before.Classes[k]
			if o.Name != c.Name || c.Kept < o.Kept || c.Withheld < o.Withheld {
				continue
			}
			if kept, withheld := c.Kept-o.Kept, c.Withheld-o.Withheld; kept+withheld > 0 {
				c.Share = float64(kept) / float64(kept+withheld)
			}
		}
	}
}

// perSecond returns what differences come to a second. A total that went down began anew.
func perSecond(dt float64) func(now, before uint64) float64 {
	return func(now, before uint64) float64 {
		if dt <= 0 || now < before {
			return 0
		}
		return math.Round(float64(now-before)/dt*10) / 10
	}
}

// Run looks at the gateway each second and tells the listeners of /events, until ctx ends;
// then it ends their streams. It is called once.
func (s *Site) Run(ctx context.Context) {
	s.stream.begin()
	defer s.stream.end()
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		s.watch.look()
		s.stream.tell()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
