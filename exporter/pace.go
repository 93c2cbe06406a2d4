package exporter

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// growAfter is how long all shards have to be busy before there is one more.
const growAfter = 100 * time.Millisecond

// shrinkAfter is how many looks in a row half of the shards have to do before there are
// only as many.
const shrinkAfter = 30

// grow doubles the shards while there is a backlog and the backend takes what it is
// sent. l.mu is held.
func (l *Lane) grow() bool {
	if l.shards >= l.o.Config.MaxShards || !l.pace.healthy() {
		return false
	}
	l.setShards(min(l.shards*2, l.o.Config.MaxShards))
	return true
}

// fit shrinks the shards that are not used.
func (l *Lane) fit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pace.takeThrottle() {
		l.setShards(max(l.shards/2, l.o.Config.MinShards))
		return
	}
	if l.peak > l.shards/2 {
		l.idle = 0
	} else if l.idle++; l.idle >= shrinkAfter {
		l.idle = 0
		l.setShards(max(l.shards/2, l.o.Config.MinShards))
	}
	l.peak = l.busy
}

func (l *Lane) setShards(n int) {
	l.shards = n
	l.o.Metrics.shards.WithLabelValues(l.o.Name).Set(float64(n))
}

// pace is what the senders of a lane know together about the backend: whether it fails,
// how long it asked to be left alone, and whether it denies everything.
type pace struct {
	o   Options
	log *slog.Logger

	mu        sync.Mutex
	state     string
	since     time.Time     // of state
	until     time.Time     // nothing is sent before
	probing   bool          // a sender probes a backend that denies everything
	throttled bool          // since the last takeThrottle
	lastOK    time.Time     // last success
	wake      chan struct{} // closed when waiting has become pointless
	stopped   bool
	maxBytes  int64 // largest decoded request the backend was found to take; 0: not known
}

const (
	stateOK        = "ok"
	stateFailing   = "failing"
	stateThrottled = "throttled"
	stateDenied    = "denied"
)

func newPace(o Options) *pace {
	p := &pace{o: o, log: o.Logger, wake: make(chan struct{}), since: o.Now(), lastOK: o.Now()}
	p.enter(stateOK)
	return p
}

// enter changes the state; p.mu is held or p is new.
func (p *pace) enter(state string) (from string, lasted time.Duration) {
	from, lasted = p.state, p.o.Now().Sub(p.since)
	if from == state {
		return from, lasted
	}
	p.state, p.since = state, p.o.Now()
	for _, s := range []string{stateOK, stateFailing, stateThrottled, stateDenied} {
		v := 0.0
		if s == state {
			v = 1
		}
		p.o.Metrics.state.WithLabelValues(p.o.Name, s).Set(v)
	}
	return from, lasted
}

func (p *pace) healthy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state == stateOK
}

func (p *pace) takeThrottle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.throttled
	p.throttled = false
	return t
}

// ok notes a success. It ends all waiting when the backend had taken nothing for a
// second, so that the lane is back as soon as one sender finds the backend back.
func (p *pace) ok() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.o.Now()
	if now.Sub(p.lastOK) > time.Second || p.state == stateDenied {
		p.rouse()
		p.until = time.Time{}
	}
	p.lastOK = now
	if p.state == stateOK {
		return
	}
	if from, lasted := p.enter(stateOK); from != "" {
		p.log.Info("The backend takes data again", "was", from, "for", lasted.Round(time.Millisecond))
	}
}

func (p *pace) rouse() {
	if !p.stopped {
		close(p.wake)
		p.wake = make(chan struct{})
	}
}

// stop ends all waiting for good.
func (p *pace) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopped {
		p.stopped = true
		close(p.wake)
	}
}

// failed notes a failed attempt; one line is logged for each change of state.
func (p *pace) failed(err *Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	state, text := stateFailing, "The backend fails; everything stays in the journal and is tried again"
	switch err.Class {
	case Throttled:
		state, text = stateThrottled, "The backend asks for less; everything stays in the journal"
		p.throttled = true
		if until := p.o.Now().Add(err.After); until.After(p.until) {
			p.until = until
		}
	case Denied:
		state, text = stateDenied, "The backend takes nothing from us; everything is held in the journal, and the backend is probed"
	}
	if p.state == state || p.state == stateDenied && state != stateDenied {
		return
	}
	p.enter(state)
	p.log.Warn(text, "status", err.Status, "err", err)
}

// ready waits until sending makes sense: not before a pause that the backend asked for
// has passed, and not while it denies everything and another sender probes it.
func (p *pace) ready(ctx context.Context) error {
	for {
		p.mu.Lock()
		d, wake, denied, stopped := p.until.Sub(p.o.Now()), p.wake, p.state == stateDenied && p.probing, p.stopped
		p.mu.Unlock()
		switch {
		case stopped:
			return errStopped
		case denied:
			d = time.Hour
		case d <= 0:
			return context.Cause(ctx)
		}
		if err := wait(ctx, d, wake); err != nil {
			return err
		}
	}
}

// becomeProber makes the caller the one that probes, if nobody does; done gives that up
// and lets the others try.
func (p *pace) becomeProber() (done func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.probing {
		return nil, false
	}
	p.probing = true
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.probing = false
		p.rouse()
	}, true
}

// pause waits before the attempt after the n-th failure (from 0), half to the whole of an
// exponential back-off, or until the backend is found back.
func (p *pace) pause(ctx context.Context, n int, limit time.Duration) error {
	d := limit
	if first := time.Duration(p.o.Config.MinBackoff); n < 30 && first<<n < limit {
		d = first << n
	}
	d = d/2 + rand.N(d/2+1)
	p.mu.Lock()
	wake, stopped := p.wake, p.stopped
	p.mu.Unlock()
	if stopped {
		return errStopped
	}
	return wait(ctx, d, wake)
}

// tooLarge notes that a request of n decoded bytes was too large for the backend.
func (p *pace) tooLarge(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if half := max(n/2, 64<<10); p.maxBytes == 0 || half < p.maxBytes {
		p.maxBytes = half
		p.log.Warn("A request was too large for the backend; smaller ones are sent from now on", "bytes", n, "limit", half)
	}
}

// limitBytes is the size of requests to aim at, at most n.
func (p *pace) limitBytes(n int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.maxBytes != 0 {
		n = min(n, p.maxBytes)
	}
	return n
}

// wait waits for d, for wake, or for the end of ctx, whose cause it returns.
func wait(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-ctx.Done():
	}
	return context.Cause(ctx)
}

func sleep(ctx context.Context, d time.Duration) error { return wait(ctx, d, nil) }
