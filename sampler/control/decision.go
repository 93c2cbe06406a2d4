package control

import "fmt"

// Decision is what came of a Step.
type Decision struct {
	// Rate is the share that is to be sent from now on, Before the one until now.
	Rate, Before float64
	// MaxInFlight is how many samples are to be in flight at most; 0 is as many as there
	// may be. One request may always be.
	MaxInFlight float64
	// Direction is 1 where the rate rose, -1 where it fell, and else 0.
	Direction int
	// Pressure is the largest of the signals' pressures; from 1 on the backend lags.
	Pressure float64
	// Cause is the name of the signal that decides, the one with the largest pressure or
	// else memory; empty when no signal is on.
	Cause string
	// Signal is that signal.
	Signal Signal
	// Event says that the backend lags: to be counted with the cause. It is set in each
	// Step for as long as that lasts, so that a counter of it grows by one a tick.
	Event bool

	action  action
	unknown string // name of the first signal that counts and is not known
}

// action is what a Step did, or why it did nothing.
type action uint8

const (
	full     action = iota // nothing is wrong, and everything is sent that is to be
	watching               // nothing to do yet
	raised
	bursting
	wary // waits before a load that was too much lately
	fitted
	halved
	undone
	nudged
	draining
	lowest // there is no lower rung
	learning
	resting
	settling
	silent
	futile
	waitsForKnowledge
)

var doings = [...]string{
	full:              "nothing is withheld beyond the base rate",
	watching:          "waiting how it goes on",
	raised:            "raised by a step",
	bursting:          "what waits came in a burst and is gone before the next",
	wary:              "waiting before a rate that was too much lately",
	fitted:            "lowered to what the backend takes",
	halved:            "halved at once",
	undone:            "lowered again, since raising it was too much",
	draining:          "waiting, since the backlog shrinks",
	nudged:            "lowered by a step, since the backend falls behind although it should not",
	lowest:            "it cannot be lowered further",
	learning:          "waiting until it is known how much comes in",
	resting:           "waiting what the last step does",
	settling:          "waiting, since the lag falls by itself",
	silent:            "waiting until the backend takes anything again",
	futile:            "not lowered further for a backend that keeps up: sending less did not help",
	waitsForKnowledge: "not raised before that is known",
}

// Why is a sentence for people: the signal, its value and threshold, and what was done.
func (d Decision) Why() string {
	about := "no signal is on"
	switch {
	case d.unknown != "" && d.Pressure < red, d.Signal.Name != "" && !d.Signal.known():
		about = d.unknown + " is not known"
	case d.Signal.Name != "":
		about = d.Signal.String()
	}
	if d.Direction == 0 {
		return fmt.Sprintf("%s; the rate stays at %s: %s", about, number(d.Rate), doings[d.action])
	}
	return fmt.Sprintf("%s; the rate goes from %s to %s: %s", about, number(d.Before), number(d.Rate), doings[d.action])
}
