package sampler

import (
	"math"
	"math/bits"
)

// Film is the pure part of the sampler: which scrapes of a target are frames, as a
// function of nothing but its fields, the time and the rate. Gateways that agree on these
// agree on the frames.
//
// The scrapes are numbered by time. Each number has a priority in [0, 1), and a scrape is
// a frame when its priority is below the rate. The priorities of any stretch of scrapes
// are spread evenly, so the frames are a share of the scrapes that is the rate, evenly
// spaced, and those of a lower rate are a subset of those of a higher one.
type Film struct {
	// Target is the hash of the scrape target; it sets the phase, so that targets do
	// not all have their frames at once.
	Target uint64
	// Cadence is the distance of two scrapes in ms, more than 0.
	Cadence int64
	// KeyPeriod is the smallest distance of key frames in ms.
	KeyPeriod int64
}

// Frame reports whether the scrape at t (Unix ms) is a frame at the rate, and whether it
// is a key frame when these are to be at most gap ms apart; see Gap. A key frame is a
// frame at any rate. A gap that is shorter than KeyPeriod counts as that.
func (f Film) Frame(t int64, rate float64, gap int64) (frame, key bool) {
	u := f.Priority(t)
	key = u < 1/float64(f.keyDistance(gap))
	return key || u < rate, key
}

// Priority is the rank of the scrape at t (Unix ms), in [0, 1).
func (f Film) Priority(t int64) float64 {
	period := f.period()
	k := f.number(t)
	a, b := k/period, k%period
	fine := float64(bits.Reverse32(uint32(a))) / (1 << 32)
	return (float64(rank(b, period)) + fine) / float64(period)
}

// Gap is the largest distance of key frames, in ms, at the rate in a class whose largest
// gap is maxGap: key frames get rarer as all frames do, and quicker.
func (f Film) Gap(rate float64, maxGap int64) int64 {
	return keyGap(f.KeyPeriod, rate, maxGap)
}

func keyGap(keyPeriod int64, rate float64, maxGap int64) int64 {
	if wide := float64(keyPeriod) / (rate * rate); wide < float64(maxGap) {
		return int64(wide)
	}
	return maxGap
}

// period is how many scrapes the smallest key period has.
func (f Film) period() uint64 { return uint64(max(1, f.KeyPeriod/f.Cadence)) }

// keyDistance is how many scrapes apart key frames are: the period, doubled as often as
// the gap allows.
func (f Film) keyDistance(gap int64) uint64 {
	distance := f.period()
	for 2*int64(distance)*f.Cadence <= gap {
		distance *= 2
	}
	return distance
}

const (
	usualCadence = 5000 // ms
	pace         = 0.75
)

// paced is the rate of frames of a target with a cadence (ms), where that of targets with
// the usual one is rate. The fewer scrapes a target has in the range of a query, the more
// each is worth: of those scraped slowly a larger share is sent. At rate 1 all is sent of
// all. It rises with rate for any cadence.
func paced(rate float64, cadence int64) float64 {
	factor := math.Pow(float64(cadence)/usualCadence, pace)
	if factor > 1 {
		return min(1, rate*factor)
	}
	return rate * math.Pow(factor, 1-rate)
}

// pacedRate is a rate that paced gave, and for what; zero for nothing.
type pacedRate struct {
	cadence int64
	rate    float64
	paced   float64
}

// paced is paced for the class' rate. Powers cost more than all else of a decision, and
// there are few cadences.
func (c *classState) paced(cadence int64) float64 {
	p := &c.paces[uint64(cadence)*0x9e3779b97f4a7c15>>60]
	if p.cadence != cadence || p.rate != c.rate {
		*p = pacedRate{cadence: cadence, rate: c.rate, paced: paced(c.rate, cadence)}
	}
	return p.paced
}

// number is the number of the scrape at t. The phase keeps the places where the number
// steps on apart from the times at which senders like to scrape.
func (f Film) number(t int64) uint64 {
	t += int64(mix(f.Target^phaseSalt) % uint64(f.Cadence))
	n := t / f.Cadence
	if t%f.Cadence < 0 {
		n--
	}
	return uint64(n) + mix(f.Target^numberSalt)%(1<<20)
}

// rank is the place of b when the numbers below n are ordered by their bits read
// backwards. Any stretch of numbers thus has low and high ranks well mixed.
func rank(b, n uint64) uint64 {
	var place uint64
	// Smaller than b are those that share its lowest bits up to one that is set in b
	// and not in them.
	for low, bit := uint64(0), uint64(1); bit < n; bit <<= 1 {
		if b&bit == 0 {
			continue
		}
		if low < n {
			place += (n - low + 2*bit - 1) / (2 * bit)
		}
		low |= bit
	}
	return place
}

// The salts keep hashes of one target for different purposes independent.
const (
	phaseSalt  = 0x5851f42d4c957f2d
	numberSalt = 0x14057b7ef767814f
	randomSalt = 0x2545f4914f6cdd1d
)

// mix scrambles the bits of x; it is a bijection (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
