package sampler

import (
	"slices"
	"time"
)

// Need is the shortest range over which the rules of its class read a series, as one of a
// few steps: series of one target and class that share a step share their frames. The zero
// Need is none: no rule reads the series over a range.
type Need uint8

const needs = 15 // with none

// needSteps are the ranges that a Need stands for. A range in between counts as the next
// shorter step, so that its series are sent rather more often than less.
func needSteps() [needs]time.Duration {
	const s, m = time.Second, time.Minute
	return [needs]time.Duration{
		0, 1 * s, 10 * s, 15 * s, 20 * s, 30 * s, 45 * s,
		1 * m, 90 * s, 2 * m, 3 * m, 4 * m, 5 * m, 10 * m, 30 * m,
	}
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

// answeringGap is the largest distance of key frames with which every stretch as long as
// within has the two samples that rate needs. It leaves room for a scrape that is lost,
// unless that would mean to thin nothing: of [1m] scraped every 15 s every other scrape is
// enough for two samples as long as none is lost. No distance is below the cadence, which
// is that of the scrapes. Arguments and result have one unit.
func answeringGap[T int64 | time.Duration](within, cadence T) T {
	gap := within/2 - cadence
	if gap < 2*cadence {
		gap = within / 2
	}
	return max(cadence, gap)
}
