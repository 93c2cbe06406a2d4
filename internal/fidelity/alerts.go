package fidelity

import (
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// EpisodeSlack is how far from an episode the other side's may be and still be the same.
const EpisodeSlack = 2 * time.Minute

// firing is when the alerts of one rule fire: by their labels, in their order.
type firing []episodes

// episodes is when one alert fires: steps of a grid, first included, second not.
type episodes struct {
	labels labels.Labels
	spans  [][2]int
}

// fire turns the answer of an alert's expression into when its alerts fire.
func fire(a Alert, expr answer, g grid) firing {
	present := map[string]*presence{}
	var order []*presence
	for _, t := range expr {
		ls := alertLabels(a, t.labels)
		key := string(ls.Bytes(nil))
		p, ok := present[key]
		if !ok {
			p = &presence{labels: ls, at: make([]bool, g.n)}
			present[key], order = p, append(order, p)
		}
		for i, there := range t.present {
			p.at[i] = p.at[i] || there
		}
	}
	var out firing
	for _, p := range order {
		if spans := p.spans(a, g.step); len(spans) > 0 {
			out = append(out, episodes{p.labels, spans})
		}
	}
	slices.SortFunc(out, func(x, y episodes) int { return labels.Compare(x.labels, y.labels) })
	return out
}

// alertLabels are those of an alert: of the result but its name, and of the rule.
func alertLabels(a Alert, result labels.Labels) labels.Labels {
	b := labels.NewBuilder(result)
	b.Del(model.MetricNameLabel)
	a.Labels.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	b.Set(labels.AlertName, a.Name)
	return b.Labels()
}

// presence is at which steps an alert's expression gives it.
type presence struct {
	labels labels.Labels
	at     []bool
}

// spans is when the alert fires: present for as long as "for" says, until it is absent
// for as long as "keep_firing_for" says.
func (p *presence) spans(a Alert, step time.Duration) [][2]int {
	var out [][2]int
	active, absent := -1, -1 // since which step; -1: not
	fires := false
	for i, there := range p.at {
		was := fires
		if there {
			absent = -1
			if active < 0 {
				active = i
			}
			fires = fires || time.Duration(i-active)*step >= a.For
		} else {
			if absent < 0 {
				absent = i
			}
			fires = fires && time.Duration(i-absent)*step < a.KeepFiring
			if !fires {
				active = -1
			}
		}
		switch {
		case fires && !was:
			out = append(out, [2]int{i, len(p.at)})
		case !fires && was:
			out[len(out)-1][1] = i
		}
	}
	return out
}

// agreement is how alerts on thinned data compare with those on full data.
type agreement struct {
	both, either int // steps of firing
	episodes     int // on full data
	missed       int
	spurious     int   // on thinned data alone
	delays       []int // of episodes on both sides, steps; negative is early
	odd          []oddEpisode
}

// oddEpisode is one that only one side has, or that begins at another step.
type oddEpisode struct {
	labels labels.Labels
	at     int // step at which it begins: on full data, if it is there
	what   string
	delay  int // steps; 0 where one side has none
}

// add compares when the alerts of one rule fire.
func (g *agreement) add(full, thinned firing, slack int) {
	for len(full) > 0 || len(thinned) > 0 {
		order := 0
		switch {
		case len(thinned) == 0:
			order = -1
		case len(full) == 0:
			order = 1
		default:
			order = labels.Compare(full[0].labels, thinned[0].labels)
		}
		var a, b [][2]int
		var ls labels.Labels
		if order <= 0 {
			ls, a, full = full[0].labels, full[0].spans, full[1:]
		}
		if order >= 0 {
			ls, b, thinned = thinned[0].labels, thinned[0].spans, thinned[1:]
		}
		before := len(g.odd)
		g.addAlert(a, b, slack)
		for i := range g.odd[before:] {
			g.odd[before+i].labels = ls
		}
	}
}

func (g *agreement) addAlert(full, thinned [][2]int, slack int) {
	both := overlap(full, thinned)
	g.both += both
	g.either += length(full) + length(thinned) - both
	g.episodes += len(full)
	for _, e := range full {
		if o, ok := near(e, thinned, slack); ok {
			g.delays = append(g.delays, o[0]-e[0])
			if o[0] != e[0] {
				g.odd = append(g.odd, oddEpisode{at: e[0], what: "shifted", delay: o[0] - e[0]})
			}
		} else {
			g.missed++
			g.odd = append(g.odd, oddEpisode{at: e[0], what: "missed"})
		}
	}
	for _, e := range thinned {
		if _, ok := near(e, full, slack); !ok {
			g.spurious++
			g.odd = append(g.odd, oddEpisode{at: e[0], what: "false"})
		}
	}
}

// near is the first of the episodes that reaches into e, widened by slack on both sides.
func near(e [2]int, all [][2]int, slack int) ([2]int, bool) {
	for _, o := range all {
		if o[0] < e[1]+slack && o[1] > e[0]-slack {
			return o, true
		}
	}
	return [2]int{}, false
}

func length(spans [][2]int) int {
	n := 0
	for _, s := range spans {
		n += s[1] - s[0]
	}
	return n
}

func overlap(a, b [][2]int) int {
	n := 0
	for _, x := range a {
		for _, y := range b {
			n += max(0, min(x[1], y[1])-max(x[0], y[0]))
		}
	}
	return n
}

// share is the time of firing on both sides over that on either; 1 when nothing fires.
func (g *agreement) share() float64 {
	if g.either == 0 {
		return 1
	}
	return float64(g.both) / float64(g.either)
}

// delay is the mean and the largest delay.
func (g *agreement) delay(step time.Duration) (mean, largest float64) {
	if len(g.delays) == 0 {
		return 0, 0
	}
	sum := 0
	for _, d := range g.delays {
		sum += d
	}
	mean = float64(sum) / float64(len(g.delays)) * step.Seconds()
	return mean, float64(slices.Max(g.delays)) * step.Seconds()
}
