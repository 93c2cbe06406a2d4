package sampler

import (
	"slices"
	"time"
)

// Need is the shortest range over which the rules of its class read a series, as one of a
// few steps: series of one target and class that share a step share their frames. The zero
// Need is none: nothing reads the series over a range.
type Need uint8

// needs is how many there are, with none.
const needs = 13

// needSteps are the ranges that a Need stands for. A range in between counts as the next
// shorter step, so that its series are sent rather more often than less.
func needSteps() [needs]time.Duration {
	const s, m = time.Second, time.Minute
	return [needs]time.Duration{0, 5 * s, 10 * s, 15 * s, 20 * s, 30 * s, 45 * s, 1 * m, 90 * s, 2 * m, 3 * m, 4 * m, 5 * m}
}

// needOf is the step of a range; 0 is none.
func needOf(within time.Duration) Need {
	if within <= 0 {
		return 0
	}
	steps := needSteps()
	i, found := slices.BinarySearch(steps[:], within)
	if !found {
		i--
	}
	return Need(max(1, i))
}

// Range is the step, in time; 0 is none.
func (n Need) Range() time.Duration { return needSteps()[n] }

// answeringGap is the largest distance of key frames at which any stretch as long as within
// has two samples, as rate needs them, even if one scrape is lost. Scrapes are cadence
// apart; more than all of them there is not. The unit is that of the arguments.
func answeringGap[T int64 | time.Duration](within, cadence T) T {
	return max(cadence, within/2-cadence)
}
