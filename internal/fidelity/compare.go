package fidelity

import (
	"math"
	"slices"
)

const (
	// MaxError is the largest error that counts: ten times the value.
	MaxError = 10
	// BadError is the error above which a step is bad.
	BadError = 0.1
	// MaxSteps is for how many steps a query counts at most, picked evenly.
	MaxSteps = 4000
)

// differences is how far thinned answers are from full ones.
type differences struct {
	steps   int // at which the full answer has a value
	missing int
	extra   int
	large   int // with an error above BadError
	errors  []float64
}

// add compares the two answers to one query.
func (d *differences) add(full, thinned answer) {
	type step struct{ pair, at int }
	var steps []step
	both := pairs(full, thinned)
	for i, p := range both {
		for j := range max(len(p.full), len(p.thinned)) {
			_, a := at(p.full, j)
			_, b := at(p.thinned, j)
			if a || b {
				steps = append(steps, step{i, j})
			}
		}
	}
	scales := make([]float64, len(both))
	for i, p := range both {
		scales[i] = meanAbs(p.full)
	}
	n := min(len(steps), MaxSteps)
	for i := range n {
		s := steps[i*len(steps)/n]
		d.addStep(both[s.pair], s.at, scales[s.pair])
	}
}

func (d *differences) addStep(p pair, i int, scale float64) {
	a, inFull := at(p.full, i)
	b, inThinned := at(p.thinned, i)
	if !inFull {
		d.extra++
		return
	}
	d.steps++
	if !inThinned {
		d.missing++
		return
	}
	e := relativeError(a, b, scale)
	d.errors = append(d.errors, e)
	if e > BadError {
		d.large++
	}
}

// meanAbs is the mean of |v| over the finite values, 0 when there is none.
func meanAbs(values []float64) float64 {
	sum, n := 0.0, 0
	for _, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			sum += math.Abs(v)
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}

func relativeError(a, b, scale float64) float64 {
	if a == b {
		return 0
	}
	e := math.Abs(a-b) / max(math.Abs(a), scale)
	if math.IsNaN(e) { // infinite against something else
		return MaxError
	}
	return min(e, MaxError)
}

// share is n of the steps of the full answers.
func (d *differences) share(n int) float64 {
	if d.steps == 0 {
		return 0
	}
	return float64(n) / float64(d.steps)
}

// quantiles sorts the errors and gives the smallest that at least the share q of them
// does not exceed, for each q.
func (d *differences) quantiles(qs ...float64) []float64 {
	slices.Sort(d.errors)
	out := make([]float64, len(qs))
	for i, q := range qs {
		if n := len(d.errors); n > 0 {
			out[i] = d.errors[max(0, int(math.Ceil(q*float64(n)))-1)]
		}
	}
	return out
}
