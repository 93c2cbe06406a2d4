package thinning

import (
	"math"
	"time"
)

const (
	// unknownPace is how many samples a second are given back while it is not known what the
	// backend takes.
	unknownPace = 50
	// batchFor is for how long the pace is sent at once, in batches of fewestSamples to
	// mostSamples: what is given back must not hold up what is new.
	batchFor      = 250 * time.Millisecond
	fewestSamples = 50
	mostSamples   = 1000

	// capacityOver is over about how long what the backend takes is averaged: it is told by
	// the second, and requests may take longer.
	capacityOver = 3 * time.Second
	// capacityTau is how slowly a measured capacity is forgotten, and laggingTau how slowly
	// while the backend lags, and shows what it takes.
	capacityTau = time.Hour
	laggingTau  = time.Minute

	// blamedFor is for how long behind a batch that is given back a lag may come of it.
	blamedFor = 10 * time.Second
	// caution is what the pace is multiplied by when giving back ended in lag, at worst down
	// to leastCaution, and it is multiplied by trust after each trustAfter without.
	caution      = 0.5
	leastCaution = 1.0 / 64
	trust        = 1.25
	trustAfter   = 30 * time.Second
)

// tempo is how fast may be given back.
type tempo struct {
	// taken is what the backend took lately, in samples a second, and capacity the most of
	// that; 0 is not known.
	taken, capacity float64
	// careful is the part of the pace that is used, from leastCaution to 1, and since is when
	// it changed, or when the backend lagged last.
	careful float64
	since   time.Time
	gave    time.Time // when a batch was given back last
	given   uint64    // samples given back by the last look
}

// look is how the backend did over some time.
type look struct {
	at    time.Time
	dt    time.Duration
	live  float64 // samples a second that it took of what is new
	given uint64  // samples given back so far
	lags  bool
}

// observe is told how the backend does. What it is given back counts too: it shows what it
// takes.
func (p *tempo) observe(o look) {
	back := float64(o.given-p.given) / o.dt.Seconds()
	p.given = o.given
	p.taken += (o.live + back - p.taken) * (1 - math.Exp(-o.dt.Seconds()/capacityOver.Seconds()))
	switch tau := capacityTau; {
	case p.taken > p.capacity:
		p.capacity = p.taken
	case o.live > 0: // else nothing is learnt about it
		if o.lags {
			tau = laggingTau
		}
		p.capacity -= (p.capacity - p.taken) * min(1, o.dt.Seconds()/tau.Seconds())
	}
	switch {
	case o.lags:
		p.since = o.at
	case o.at.Sub(p.since) >= trustAfter && p.careful < 1:
		p.careful, p.since = min(1, p.careful*trust), o.at
	}
}

// blame slows down where the backend began to lag while, or soon after, it was given
// something back.
func (p *tempo) blame(at time.Time, giving bool) {
	if giving || at.Sub(p.gave) < blamedFor {
		p.careful = max(leastCaution, p.careful*caution)
	}
}

// perSecond is how many samples a second may be given back, of a share of the capacity.
func (p *tempo) perSecond(share float64) float64 {
	if p.capacity == 0 {
		return unknownPace
	}
	return p.capacity * share * p.careful
}

// samplesPerBatch is about how many samples a batch holds at a pace.
func samplesPerBatch(perSecond float64) int {
	return int(min(max(perSecond*batchFor.Seconds(), fewestSamples), mostSamples))
}

// pace is how many samples a second may be given back.
func (t *Thinner) pace() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tempo.perSecond(t.o.Config.BackfillShare)
}
