package gateway

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/web"
)

// protectedClass is what a Describer calls the class of which nothing is withheld.
const protectedClass = "protected"

// Explanation is the answer of GET /api/v1/explain.
type Explanation = web.Explanation

// explain says where a series goes. It is written like a selector that is exact about every
// label.
func (p *page) explain(text string) (web.Explanation, error) {
	of, list, err := parseSeries(text)
	if err != nil {
		return web.Explanation{}, err
	}
	e := web.Explanation{Series: of.String(), Routes: []web.Route{}, LastSent: p.gateway.lastSent(list)}
	for _, l := range *p.gateway.lines.Load() {
		e.Routes = append(e.Routes, l.route(of, list))
	}
	return e, nil
}

// lastSent is who sent the series with these canonical labels last; nil where nobody knows.
func (g *Gateway) lastSent(list []remotewrite.Label) *web.LastSent {
	tick, number, ok := g.router.Seen(list)
	if !ok {
		return nil
	}
	from, at, ok := g.senders.Last(number, time.Unix(int64(tick), 0))
	if !ok {
		return nil
	}
	return &web.LastSent{At: at, Address: from.Address, Forwarded: from.Forwarded, UserAgent: from.UserAgent, Protocol: from.Protocol}
}

// parseSeries reads a series, in two spellings.
func parseSeries(text string) (labels.Labels, []remotewrite.Label, error) {
	if strings.Trim(text, "{} ") == "" {
		return labels.EmptyLabels(), nil, errors.New("which series? One has at least one label, such as up{job=\"x\"}")
	}
	s, err := sampler.ParseSelector(text)
	if err != nil {
		return labels.EmptyLabels(), nil, err
	}
	var list []remotewrite.Label
	for _, m := range s.Matchers() {
		if m.Type != labels.MatchEqual {
			return labels.EmptyLabels(), nil, fmt.Errorf("%s: a series has one value for each label: use = only", m)
		}
		list = append(list, remotewrite.Label{Name: []byte(m.Name), Value: []byte(m.Value)})
	}
	list, _, reason := remotewrite.CanonicalLabels(list)
	if reason != "" {
		return labels.EmptyLabels(), nil, fmt.Errorf("such a series is refused: %s", reason)
	}
	if len(list) == 0 {
		return labels.EmptyLabels(), nil, errors.New("all labels are empty")
	}
	b := labels.NewScratchBuilder(len(list))
	for _, l := range list {
		b.Add(string(l.Name), string(l.Value))
	}
	return b.Labels(), list, nil
}

// route is what becomes of a series at the line's backend.
func (l *line) route(of labels.Labels, list []remotewrite.Label) web.Route {
	r := web.Route{Backend: l.config.Name, Takes: len(l.config.Match) == 0}
	i := slices.IndexFunc(l.config.Match, func(s sampler.Selector) bool {
		return !slices.ContainsFunc(s.Matchers(), func(m *labels.Matcher) bool { return !m.Matches(of.Get(m.Name)) })
	})
	if i >= 0 {
		r.Takes, r.Selector = true, l.config.Match[i].String()
	}
	if r.Takes && l.resolved != nil {
		r.Sampling = true
		r.Class, r.Rule = l.resolved.Describer.Explain(list)
		r.Protected = r.Class == protectedClass
	}
	return r
}
