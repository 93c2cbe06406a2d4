package remotewrite

import (
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
)

const (
	// trialInterval is how often a backend that was found to speak only 1.0 is asked
	// again (H9).
	trialInterval = time.Hour
	// trialRetry is the pause after a trial that told nothing, and the least pause
	// between two trials that lost connections give reason for.
	trialRetry = time.Minute
)

// refusal is a way in which a backend refuses an encoding rather than a content.
type refusal string

const (
	refusedType      refusal = "415"                // another content type is wanted (H9)
	refusedBad       refusal = "400"                // what a 1.0 receiver says to a 2.0 message (H9)
	refusedNoWritten refusal = "no_written_headers" // accepted, and silently decoded nothing (H10)
)

// choice is the protocol of one delivery. The generation tells a verdict about the
// present choice from a late one about an earlier choice, so that requests in flight
// during a change cannot change it again.
type choice struct {
	version    series.Version
	generation uint64
}

// negotiation decides the protocol of one backend. With protocol auto:
//
//   - It begins with 2.0, which is proven by the first accepted request.
//   - 2.0 refused by 415, by 400 while unproven, or by a 2xx without Written headers
//     turns to 1.0. A 400 may have meant the content, so a trial is due at once then.
//   - On 1.0 a trial, an empty 2.0 request that has no content to be refused for, is due
//     hourly and after a lost connection. If it is accepted as 2.0 answers, 2.0 is the
//     proven choice.
//
// A turn to 1.0 needs a refused 2.0 request, a turn to 2.0 an accepted trial, and trials
// are spaced, so turns are bounded in number.
type negotiation struct {
	auto bool
	// changed is called under the lock with each new choice and what led to it.
	changed func(to series.Version, why string)

	mu        sync.Mutex
	current   choice
	proven    bool // a 2.0 request was accepted since the connection was last lost
	lost      bool // the connection was lost since a request was last accepted
	trying    bool // a trial is in flight
	nextTrial time.Time
	lastTrial time.Time
}

func newNegotiation(p Protocol, changed func(to series.Version, why string)) *negotiation {
	n := &negotiation{auto: p == ProtocolAuto, changed: changed, current: choice{version: series.V2}}
	if p == ProtocolRW1 {
		n.current.version = series.V1
	}
	return n
}

// choose returns the protocol for the next delivery.
func (n *negotiation) choose() choice {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.current
}

// turn must be called with the lock held.
func (n *negotiation) turn(to series.Version, why string) {
	n.current = choice{version: to, generation: n.current.generation + 1}
	n.changed(to, why)
}

// accepted is called after a request of this choice was accepted in its own terms.
func (n *negotiation) accepted(c choice, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c != n.current {
		return
	}
	n.proven = n.proven || c.version == series.V2
	if n.lost && n.auto && c.version == series.V1 {
		// Whoever answers now need not be who answered before.
		if soon := n.lastTrial.Add(trialRetry); soon.Before(n.nextTrial) {
			n.nextTrial = soon
		}
	}
	n.lost = false
}

// disconnected is called after a request got no answer.
func (n *negotiation) disconnected() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost, n.proven = true, false
}

// refused says what a lane is to do about a delivery whose encoding was, or may have
// been, refused: Renegotiate, Denied (no encoding is left), or Rejected (it was the
// content).
func (n *negotiation) refused(c choice, how refusal, now time.Time) exporter.Class {
	n.mu.Lock()
	defer n.mu.Unlock()
	final := exporter.Denied
	if how == refusedBad {
		final = exporter.Rejected
	}
	switch {
	case !n.auto, c.version == series.V1 && how == refusedBad:
		return final
	case c != n.current:
		return exporter.Renegotiate
	case c.version == series.V1:
		n.nextTrial = now
		return exporter.Denied
	case how == refusedBad && n.proven:
		return exporter.Rejected
	}
	n.proven = false
	n.nextTrial = now.Add(trialInterval)
	if how == refusedBad {
		n.nextTrial = now
	}
	n.turn(series.V1, string(how))
	return exporter.Renegotiate
}

// startTrial reports whether the caller is to make a trial now and then report it by
// endTrial. One trial is made at a time.
func (n *negotiation) startTrial(now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.auto || n.trying || n.current.version != series.V1 || now.Before(n.nextTrial) {
		return false
	}
	n.trying = true
	return true
}

// verdict is what a trial told.
type verdict uint8

const (
	verdictNone  verdict = iota // nothing: no answer, overload, no permission
	verdictTakes                // the backend speaks 2.0
	verdictNot                  // the backend does not speak 2.0
)

func (n *negotiation) endTrial(v verdict, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.trying = false
	n.lastTrial = now
	switch v {
	case verdictNone:
		n.nextTrial = now.Add(trialRetry)
	case verdictNot:
		n.nextTrial = now.Add(trialInterval)
	case verdictTakes:
		if n.current.version == series.V1 {
			n.proven = true
			n.turn(series.V2, "trial accepted")
		}
	}
}
