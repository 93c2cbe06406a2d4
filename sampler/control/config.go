package control

import (
	"errors"
	"math"
	"time"

	"github.com/sluice-metrics/sluice/internal/fielderror"
)

// OnUnknown is what a signal does that is not known and not off.
type OnUnknown string

const (
	// Hold keeps the rate from rising.
	Hold OnUnknown = "hold"
	// Lower takes the signal for one at its threshold: the rate goes down a rung at a
	// time.
	Lower OnUnknown = "lower"
)

// Config is what the controller keeps to. Its fields stand in the section
// adaptive_sampling.
type Config struct {
	// BaseRate is the share that is sent while nothing lags: above 0, at most 1.
	BaseRate float64
	// MinRate is the smallest share: above 0, at most BaseRate.
	MinRate float64
	// OnUnknown is Hold or Lower.
	OnUnknown OnUnknown
}

// Validate reports every value that is out of range.
func (c *Config) Validate() error {
	var errs []error
	if !(c.BaseRate > 0 && c.BaseRate <= 1) {
		errs = append(errs, fielderror.Errorf("base_rate", "must be above 0 and at most 1"))
	}
	if !(c.MinRate > 0 && c.MinRate <= c.BaseRate) {
		errs = append(errs, fielderror.Errorf("min_rate", "must be above 0 and at most base_rate"))
	}
	if c.OnUnknown != Hold && c.OnUnknown != Lower {
		errs = append(errs, fielderror.Errorf("backpressure_thresholds.on_unknown", "must be %s or %s, not %q", Hold, Lower, string(c.OnUnknown)))
	}
	return errors.Join(errs...)
}

// The ladder and the times of the controller.
const (
	rungFactor = 0.8 // from one rung to the next below
	halfRungs  = 3   // 0.8 to the third is about half: the longest step down

	red   = 1.0 // pressure from which on a backend lags
	amber = 0.5 // pressure from which on it is not well

	downEvery  = 3 * time.Second  // between steps down
	nudgeEvery = 5 * time.Second  // between rungs down where no lack of capacity is seen
	nudgeAfter = 3 * time.Second  // in red, before the first of them
	settleIn   = 20 * time.Second // falling pressure that is in the band by then is left alone
	drainIn    = 10 * time.Second // what waits in excess is to be gone by then

	learnFor   = 15 * time.Second // what comes in is measured before anything is made of it
	greenFor   = 5 * time.Second  // before the rate rises
	upEvery    = 2 * time.Second  // between rungs up
	slowUp     = 6 * time.Second  // the same, in amber
	unevenUp   = 4 * time.Second  // the same, where the load comes in bursts
	calmFor    = 9 * time.Second
	probeFirst = 20 * time.Second // before a load that was too much lately
	probeMost  = 22 * time.Second
	forget     = 60 * time.Second // after which no load counts as too much

	// silence is how long a backend that takes data goes without an acknowledgement at
	// most.
	silence = 5 * time.Second

	undoWithin = 10 * time.Second // red this soon after the rate rose comes of that

	steady = 0.05 // of pressure a second, that count as none
	calm   = 0.25 // pressure that is nothing to look after

	backlogged = 0.25 // pressure of the queue from which on the backend is the bottleneck
	fewSeconds = 0.15 // of what comes in, which wait with any backend
	lean       = 0.1  // of what comes in, by which a backlog that changes does so a second
	lacking    = 0.9  // of the rate, below which what fits is clearly less
	gentle     = 0.65 // of the rate that the capacity allows, down to which it goes before the queue lags
	headroom   = 0.92 // of the capacity that is planned with
)

// bottom is the number of the lowest rung.
func (c *Config) bottom() int {
	if !(c.MinRate > 0) || c.MinRate >= c.BaseRate {
		return 0
	}
	return int(math.Ceil(math.Log(c.MinRate/c.BaseRate)/math.Log(rungFactor) - 1e-9))
}

// rate is the share at a rung.
func (c *Config) rate(rung int) float64 {
	if rung <= 0 {
		return c.BaseRate
	}
	return max(c.MinRate, c.BaseRate*math.Pow(rungFactor, float64(rung)))
}

// rungFor is the highest rung whose rate is at most the given one, or else the lowest.
func (c *Config) rungFor(rate float64) int {
	switch {
	case rate >= c.BaseRate:
		return 0
	case rate <= c.MinRate:
		return c.bottom()
	}
	return min(c.bottom(), int(math.Ceil(math.Log(rate/c.BaseRate)/math.Log(rungFactor)-1e-9)))
}
