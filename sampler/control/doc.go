// Package control turns lag into a rate: given how a backend is doing, it says which share
// of the samples is to be sent to it. Which samples that share consists of is decided by
// package sampler.
//
// Step is a pure function. It has no clock, no goroutine and does no I/O; whoever calls it
// about once a second, with what was measured no longer than two seconds ago, is a
// controller.
//
// The rate is a rung of a ladder: the base rate, 0.8 times that, and so on down to the
// smallest rate. The largest of all signals, each as a share of its threshold, is the
// pressure, and tells three zones apart:
//
//   - Red, from 1 on: the rate goes down to where what arrives and a part of what waits fit
//     into what the backend takes, at most by half and at most every three seconds. It
//     stays while the pressure falls into the band by itself. Memory halves at once.
//   - Amber, from 0.5: the rate stays, or goes down before the backlog has grown to red.
//     A pressure that stays here without any backlog lets the rate rise slowly.
//   - Green, for five seconds: a rung up every two seconds. Before a load under which the
//     backend fell behind lately, the wait is longer, and longer still after each failure.
//
// While the backend lags, the samples in flight are bounded too, so that what waits does so
// before it is thinned and the throughput of the backend is its capacity. Below red the rate
// then follows what waits, instead of the zones.
//
// While the backend takes nothing at all the rate is set by what it took before: how little
// arrives at a backend that is down makes no difference to it, and what it is to be brought
// up to date with afterwards is its own capacity.
//
// A signal that is not known never raises a rate.
package control
