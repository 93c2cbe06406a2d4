package control

import (
	"fmt"
	"math"
	"strconv"
)

// Names of signals, which are the values of the label cause of
// remote_write_backpressure_events_total.
const (
	// QueueLength is how many batches wait for the backend, those in flight included.
	QueueLength = "queue_length"
	// QueueAge is the age in seconds of the oldest of them.
	QueueAge = "queue_age"
	// WriteLatency is how many milliseconds writes take, and at least the age of the
	// oldest one in flight. With nothing in flight and nothing to send it is known to
	// be 0.
	WriteLatency = "write_latency"
	// Errors is the share of writes that failed lately, 0 to 1.
	Errors = "errors"
	// Throttled is the share of writes that the backend refused as too many.
	Throttled = "throttled"
	// RetryAfter is for how many seconds the backend asked to be left alone. It pauses
	// the sender, so that the queue tells; its threshold is 0 as a rule.
	RetryAfter = "retry_after"
	// ReplicaLag is how many seconds the replicas of the backend's database are behind.
	ReplicaLag = "replica_lag"
	// Memory is the used share of the gateway's own memory budget, 0 to 1.
	Memory = "memory"
)

// Signal is one measure of how a backend is doing.
type Signal struct {
	Name string
	// Value and Threshold are in the unit of the name. A threshold of 0 is off: the
	// signal is for show alone, also when it is not known.
	Value, Threshold float64
	// Known is false when there was no measurement, and Value means nothing then.
	Known bool
}

// maxPressure bounds pressures, so that sums of them stay finite.
const maxPressure = 1e6

// Pressure is the value as a share of the threshold, from which on it counts as lag: 0 or
// more, and 0 for a signal that is off or not known.
func (s Signal) Pressure() float64 {
	if s.off() || !s.known() {
		return 0
	}
	return min(max(s.Value/s.Threshold, 0), maxPressure)
}

func (s Signal) off() bool { return !(s.Threshold > 0) }

func (s Signal) known() bool { return s.Known && !math.IsNaN(s.Value) }

// queue reports whether the signal measures what waits.
func (s Signal) queue() bool { return s.Name == QueueLength || s.Name == QueueAge }

// String is the signal in words: "queue_age is 12.4 s of 10 s".
func (s Signal) String() string {
	if !s.known() {
		return s.Name + " is not known"
	}
	return fmt.Sprintf("%s is %s of %s", s.Name, s.text(s.Value), s.text(s.Threshold))
}

func (s Signal) text(v float64) string {
	switch s.Name {
	case QueueLength:
		return number(v) + " batches"
	case QueueAge, RetryAfter, ReplicaLag:
		return number(v) + " s"
	case WriteLatency:
		return number(v) + " ms"
	case Errors, Throttled, Memory:
		return number(100*v) + " %"
	}
	return number(v)
}

// number is v with three digits, and without an exponent.
func number(v float64) string {
	if a := math.Abs(v); a >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	r, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64)
	return strconv.FormatFloat(r, 'f', -1, 64)
}

// Inputs is how a backend is doing at the end of a tick.
type Inputs struct {
	// Signals are in any order, each name once. What is not there is off.
	Signals []Signal
	// Offered is how many samples a second came in for the backend during the tick, at
	// full resolution.
	Offered float64
	// Acknowledged is how many samples a second the backend took of the live data
	// during the tick; what is given back later is not part of it.
	Acknowledged      float64
	AcknowledgedKnown bool
	// Backlog is how many samples wait, at full resolution, those in flight included.
	Backlog float64
	// InFlight is how many samples are in requests that are not answered, as they are
	// sent.
	InFlight float64
}
