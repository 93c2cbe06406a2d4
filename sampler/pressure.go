package sampler

import "math"

// Pressure holds the kept share at the requested rate: a controller without a clock of
// its own. Its place x climbs a ladder. From 0 to 1 frames get rarer, to key frames alone
// at 1. Above, where the floor is shed, families of class low are left out one by one up
// to 2, the gaps of normal widen up to 3, families of normal are left out up to 4, and the
// gaps of critical widen up to 5.
type Pressure struct {
	x, top float64
	rate   float64
	// seen and kept are what came in and was sent lately, decayed. expected is kept as it
	// would have been, had each rate been the present one: a change of rate is no error
	// to correct.
	seen, kept, expected float64
	news                 bool // something came in since the last correction
}

const (
	holdTop = 1 // where the ladder ends that keeps every series alive
	shedTop = 5

	steepness = 5.5  // the rate of frames falls to exp(-steepness) before it is zero
	decay     = 0.7  // of what was counted, per correction
	gain      = 0.12 // of x per unit of error
)

// NewPressure returns the controller at rate 1, where there is no pressure. It climbs up
// to key frames alone, or beyond them when the floor may be shed.
func NewPressure(shed bool) Pressure {
	p := Pressure{rate: 1, top: holdTop}
	if shed {
		p.top = shedTop
	}
	return p
}

// At is the place on the ladder.
func (p *Pressure) At() float64 { return p.x }

// Rate is the requested share.
func (p *Pressure) Rate() float64 { return p.rate }

// Set puts the controller where a recorded step says.
func (p *Pressure) Set(s Step) { p.rate, p.x = s.Rate, s.Pressure }

// SetRate changes the requested share and at once moves to where that should be.
func (p *Pressure) SetRate(rate float64) {
	if rate == p.rate {
		return
	}
	if rate >= 1 {
		p.x = 0
	} else {
		p.move(math.Log(p.rate/rate) / steepness)
	}
	p.expected *= rate / p.rate
	p.rate = rate
}

// Add counts what came in and what was sent of it.
func (p *Pressure) Add(seen, kept uint64) {
	p.seen += float64(seen)
	p.kept += float64(kept)
	p.expected += float64(kept)
	p.news = p.news || seen > 0
}

// Correct moves by how far the share is off. It is called every 10 s.
func (p *Pressure) Correct() {
	if !p.news {
		return
	}
	if p.rate < 1 {
		// Not its logarithm: what is sent comes in waves, of frames that fall together, and
		// the share whose logarithms are right on average is too high, by half of their variance.
		deviation := 1 - p.expected/p.seen/p.rate
		p.move(-gain * min(max(deviation, -1), 1))
	}
	p.seen, p.kept, p.expected = p.seen*decay, p.kept*decay, p.expected*decay
	p.news = false
}

// Share is the share that was kept lately; 1 when nothing came in.
func (p *Pressure) Share() float64 {
	if p.seen == 0 {
		return 1
	}
	return p.kept / p.seen
}

// Bound reports that the ladder ends before the rate is reached: more is kept than was
// asked for, and no more can be given.
func (p *Pressure) Bound() bool {
	return p.x >= p.top && p.Share() > p.rate*1.06
}

func (p *Pressure) move(by float64) { p.x = min(max(p.x+by, 0), p.top) }

// frameRate is the rate of frames at x, before the weights of classes.
func frameRate(x float64) float64 {
	if x >= 1 {
		return 0
	}
	return math.Exp(-steepness * x)
}

// tier is what the ladder does with a class.
type tier uint8

const (
	tierNormal tier = iota
	tierLow
	tierCritical
)

// shedShare is the share of the families of a tier that is left out at x.
func shedShare(t tier, x float64) float64 {
	switch t {
	case tierLow:
		return min(max(x-1, 0), 1)
	case tierNormal:
		return min(max(x-3, 0), 1)
	}
	return 0
}

// widened is the gap at x of a tier whose gap is given: doubled step by step over its rung
// of the ladder, while it stays within limit.
func widened(t tier, x float64, gap, limit int64) int64 {
	var begin float64
	switch t {
	case tierNormal:
		begin = 2
	case tierCritical:
		begin = 4
	default:
		return gap
	}
	doublings := 0
	for g := gap; g > 0 && 2*g <= limit; g *= 2 {
		doublings++
	}
	climbed := min(max(x-begin, 0), 1)
	return gap << int(math.Ceil(climbed*float64(doublings)))
}
