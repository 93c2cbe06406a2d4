package thinning_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/sluice-metrics/sluice/internal/series"
)

// load is what senders send.
type load struct {
	w     *world
	rng   *rand.Rand
	input store
	next  int
	stale map[string]bool     // markers
	ends  map[string]position // of the records in which the samples came first
	n     series.Counts
	twin  *station // gets the same; nil: there is none
}

func newLoad(seed uint64, exemplars bool) *load {
	l := &load{w: newWorld(seed, worldOptions{version: series.V2, exemplars: exemplars}), rng: rand.New(rand.NewPCG(seed, 9)), input: store{}, stale: map[string]bool{}, ends: map[string]position{}}
	for _, a := range l.w.actors {
		a.start = time.Now().UnixMilli() - 1000
		slices.SortFunc(a.labels, func(x, y prompb.Label) int { return strings.Compare(x.Name, y.Name) })
	}
	l.next = len(l.w.actors)
	return l
}

// churn replaces a series by a new one of its kind.
func (l *load) churn() {
	i := l.rng.IntN(len(l.w.actors))
	a := *l.w.actors[i]
	a.labels = slices.Clone(a.labels)
	for k := range a.labels {
		if a.labels[k].Name == "n" {
			a.labels[k].Value = fmt.Sprint(l.next)
		}
	}
	l.next++
	a.h = a.h.Copy()
	a.dead, a.idle = false, 0
	l.w.actors[i] = &a
}

// round is one scrape of all targets, in two requests of both versions.
func (l *load) round(s *station) {
	now := time.Now().UnixMilli()
	if l.rng.IntN(10) == 0 {
		l.churn()
	}
	var lists [2][]scrape
	for i, a := range l.w.actors {
		k := i % 2
		l.w.o.version = series.Version(1 + k)
		at := now - 900 + int64(a.labels[1].Value[5]-'0')*100
		f, h := l.w.step(a, at)
		x := scrape{a: a, floats: f, hists: h}
		if l.w.o.exemplars && k == 0 && len(f) > 0 && l.rng.IntN(4) == 0 {
			x.exemplars = append(x.exemplars, prompb.Exemplar{
				Labels: []prompb.Label{{Name: "trace", Value: fmt.Sprint(l.rng.Uint32())}}, Value: 1, Timestamp: at,
			})
		}
		if len(f)+len(h) > 0 {
			lists[k] = append(lists[k], x)
		}
	}
	for k, list := range lists {
		if len(list) == 0 {
			continue
		}
		v := series.Version(1 + k)
		s.append(v, list)
		if l.twin != nil {
			l.twin.append(v, list)
		}
		l.note(v, list, s.journal.Tail())
	}
}

func (l *load) note(v series.Version, list []scrape, end position) {
	b := makeBatch(v, list)
	defer b.Release()
	l.n.Add(b.Counts)
	all := decode(panics{}, b)
	l.input.add(all)
	for _, m := range all {
		for _, p := range m.points {
			x := fmt.Sprint(m.labels, p)
			if p.stale {
				l.stale[x] = true
			}
			if _, ok := l.ends[x]; !ok {
				l.ends[x] = end
			}
		}
	}
}

const scrapeEvery = 5 * time.Second

// feed scrapes for a while.
func (l *load) feed(s *station, d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		l.round(s)
		time.Sleep(scrapeEvery)
	}
}
