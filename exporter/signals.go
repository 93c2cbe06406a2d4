package exporter

import (
	"slices"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Signals is how a lane is doing: what a Sampling steers by.
type Signals struct {
	At      time.Time
	State   string        // see Lane.State
	Batches int64         // records that are not settled
	Age     time.Duration // of the oldest of them, by receipt; 0 when there is none
	Waiting series.Counts // what they hold, at full resolution
	// Routed and Settled are what was appended for the backend since the lane was made,
	// and what of it, withheld samples included, is settled; Delivered is what the
	// backend has acknowledged, samples given back later not included.
	Routed, Settled, Delivered series.Counts
	// InFlight is how many samples are in requests that are not answered yet.
	InFlight int
	// Latency is how long attempts took that ended lately, on the average, or how long
	// the oldest attempt in flight takes already, if that is more. What is sent beside the
	// order of the journal does not count: its requests are of another size.
	Latency time.Duration
	// Attempts, Failed and Throttled count the attempts that ended lately.
	Attempts, Failed, Throttled int
	// RetryAfter is how long the backend asked to be left alone from now on.
	RetryAfter time.Duration
	// Idle says that there was nothing to send lately.
	Idle bool
}

// recently is what counts as lately.
const recently = 10 * time.Second

// latencyOver is over how many of the newest seconds the latency is averaged.
const latencyOver = 3

// second is what attempts that ended in one second came to.
type second struct {
	at                          int64 // Unix
	attempts, failed, throttled int
	timed                       int // of the attempts
	took                        time.Duration
}

// stopwatch times the attempts of a lane.
type stopwatch struct {
	mu      sync.Mutex
	running []time.Time // starts of the attempts in flight that are timed
	beside  int         // attempts in flight that are not
	seconds [recently / time.Second]second
	// since is the start of the oldest attempt of those that were in flight, or began,
	// without a success since; zero when there is none.
	since  time.Time
	outage time.Duration // longest time without success that ended since it was taken
}

// begin notes the start of an attempt. Where it is not timed, its latency does not count.
func (s *stopwatch) begin(now time.Time, timed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if timed {
		s.running = append(s.running, now)
	} else {
		s.beside++
	}
	if s.since.IsZero() {
		s.since = now
	}
}

// attempt is one that ended.
type attempt struct {
	began time.Time
	timed bool
	err   *Error // nil: the backend took it
}

// end notes the end of an attempt.
func (s *stopwatch) end(a attempt, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !a.timed {
		s.beside--
	} else if i := slices.Index(s.running, a.began); i >= 0 {
		s.running = slices.Delete(s.running, i, i+1)
	}
	err := a.err
	at := now.Unix()
	sec := &s.seconds[at%int64(len(s.seconds))]
	if sec.at != at {
		*sec = second{at: at}
	}
	sec.attempts++
	if a.timed {
		sec.timed++
		sec.took += now.Sub(a.began)
	}
	switch {
	case err == nil || err.Class == Rejected && err.Status != 0:
		s.outage = max(s.outage, now.Sub(s.since))
		s.since = time.Time{}
		if len(s.running)+s.beside > 0 {
			s.since = now
		}
	case err.Class == Throttled:
		sec.throttled++
	case err.Class != Rejected && err.Class != Renegotiate:
		sec.failed++
	}
}

// takeOutage returns, once, for how long the backend took nothing before it took something
// again.
func (s *stopwatch) takeOutage() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.outage
	s.outage = 0
	return d
}

func (s *stopwatch) read(now time.Time, to *Signals) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var took time.Duration
	n := 0
	for _, sec := range s.seconds {
		age := now.Unix() - sec.at
		if age >= int64(len(s.seconds)) {
			continue
		}
		to.Attempts += sec.attempts
		to.Failed += sec.failed
		to.Throttled += sec.throttled
		if age < latencyOver {
			took += sec.took
			n += sec.timed
		}
	}
	if n > 0 {
		to.Latency = took / time.Duration(n)
	}
	for _, began := range s.running {
		to.Latency = max(to.Latency, now.Sub(began))
	}
	to.Idle = to.Attempts == 0 && len(s.running)+s.beside == 0
}

// signals is how the lane is doing now.
func (l *Lane) signals(now time.Time) Signals {
	b := l.Balance()
	s := Signals{
		At:      now,
		State:   l.pace.current(),
		Batches: b.Batches,
		Waiting: b.InJournal,
		Routed:  l.routed(),
		Settled: b.Totals.Settled(),
	}
	l.mu.Lock()
	s.Settled.Sub(l.base)
	s.Settled.Add(l.backlog)
	s.Delivered = l.progress.live.Delivered // at the moment of givenBack
	s.Delivered.Sub(l.givenBack)
	s.InFlight = l.flying
	l.mu.Unlock()
	if !b.Oldest.IsZero() {
		s.Age = max(0, now.Sub(b.Oldest))
	}
	s.RetryAfter = l.pace.leftAlone(now)
	l.pace.watch.read(now, &s)
	s.Idle = s.Idle && s.Batches == 0
	return s
}
