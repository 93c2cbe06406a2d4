package exporter

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// growAfter is how long a lane has to be behind, with all shards busy, before it gets more.
const growAfter = 100 * time.Millisecond

// shrinkAfter is how many looks in a row half of the shards have to do before there are
// only as many.
const shrinkAfter = 30

// late is told that all shards are busy. It doubles them, and reports that it did, where
// the lane has been behind for a while and the backend takes what it is sent. The reader
// calls it, with l.mu held.
func (l *Lane) late() bool {
	now := l.o.Now()
	if l.behind.IsZero() {
		l.behind = now
	}
	if now.Sub(l.behind) < growAfter || l.shards >= l.o.Config.MaxShards || !l.pace.healthy() || l.thinned() {
		return false
	}
	l.behind = now
	l.setShards(min(l.shards*2, l.o.Config.MaxShards))
	return true
}

// thinned reports whether less than everything is sent, without a bound of what is in
// flight. More requests would only hold more that was gathered before: the backend is what
// is slow.
func (l *Lane) thinned() bool {
	return l.o.Sampling != nil && l.o.Sampling.Kept() < 1 && l.o.Sampling.MaxInFlight() == 0
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
	until     time.Time     // nothing is sent before
	probing   bool          // a sender probes a backend that denies everything
	probes    int           // since it does
	throttled bool          // since the last takeThrottle
	lastOK    time.Time     // last success
	wake      chan struct{} // closed when waiting has become pointless
	stopped   bool
	maxBytes  int64 // largest decoded request the backend was found to take; 0: not known

	watch stopwatch

	told      string    // the state that the log told last
	toldAt    time.Time // when, for a state other than ok
	troubleAt time.Time // since when the state is not ok
}

const (
	stateOK        = "ok"
	stateFailing   = "failing"
	stateThrottled = "throttled"
	stateDenied    = "denied"
)

// tellAgain is how long after trouble was logged the next trouble is logged at the
// earliest: a backend that fails now and then is not to fill the log. Trouble that lasts
// is logged with the first failure after that time.
const tellAgain = 10 * time.Second

func newPace(o Options) *pace {
	p := &pace{o: o, log: o.Logger, wake: make(chan struct{}), lastOK: o.Now(), told: stateOK}
	p.enter(stateOK)
	return p
}

// enter changes the state; p.mu is held or p is new.
func (p *pace) enter(state string) {
	if p.state == state {
		return
	}
	p.state, p.probes = state, 0
	for _, s := range []string{stateOK, stateFailing, stateThrottled, stateDenied} {
		v := 0.0
		if s == state {
			v = 1
		}
		p.o.Metrics.state.WithLabelValues(p.o.Name, s).Set(v)
	}
}

func (p *pace) healthy() bool { return p.current() == stateOK }

func (p *pace) current() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

func (p *pace) takeThrottle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.throttled
	p.throttled = false
	return t
}

// ok notes a success. It ends the pauses of all senders when the backend had taken
// nothing for a second, so that the lane is back as soon as one finds the backend back.
func (p *pace) ok() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.o.Now()
	if now.Sub(p.lastOK) > time.Second || p.state == stateDenied {
		p.rouse()
	}
	p.lastOK = now
	if p.state == stateThrottled && now.Before(p.until) {
		return // it was sent before the backend asked to be left alone
	}
	p.enter(stateOK)
	if p.told != stateOK {
		p.log.Info("The backend takes data again", "was", p.told, "for", now.Sub(p.troubleAt).Round(time.Millisecond))
		p.told = stateOK
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

// failed notes a failed attempt. While the backend denies everything only the prober can
// find out anything else.
func (p *pace) failed(err *Error, prober bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.o.Now()
	state, text := stateFailing, "The backend fails; everything stays in the journal and is tried again"
	switch err.Class {
	case Throttled:
		state, text = stateThrottled, "The backend asks for less; everything stays in the journal"
		p.throttled = true
		if until := now.Add(err.After); until.After(p.until) {
			p.until = until
		}
	case Denied:
		state, text = stateDenied, "The backend takes nothing from us; everything is held in the journal, and the backend is probed"
	}
	if p.state == stateDenied && state != stateDenied && !prober {
		return
	}
	if p.state == stateOK {
		p.troubleAt = now
	}
	p.enter(state)
	if p.told == state || state != stateDenied && !p.toldAt.IsZero() && now.Sub(p.toldAt) < tellAgain {
		return
	}
	p.told, p.toldAt = state, now
	args := []any{"answer", err.text()}
	if err.Status != 0 {
		args = append(args, "status", err.Status)
	}
	if hint := err.hint(); hint != "" {
		args = append(args, "check", hint)
	}
	p.log.Warn(text, args...)
}

// hint is where to look first when a backend denies everything.
func (e *Error) hint() string {
	if e.Class != Denied {
		return ""
	}
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return "the credentials in the backend's section: basic_auth, authorization, oauth2, headers, tls_config"
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return "the path of the backend's url, mostly /api/v1/write"
	case http.StatusProxyAuthRequired:
		return "the proxy in the backend's section: proxy_url, proxy_connect_header"
	}
	return ""
}

// ready waits until sending makes sense: not before a pause that the backend asked for
// has passed. While the backend denies everything one sender gets the role of the prober,
// and the others wait.
func (p *pace) ready(ctx context.Context) (prober bool, err error) {
	for {
		if err := context.Cause(ctx); err != nil {
			return false, err
		}
		prober, d, wake, err := p.turn()
		if err != nil || d <= 0 {
			return prober, err
		}
		if err := wait(ctx, d, wake); err != nil {
			return false, err
		}
	}
}

// turn gives the caller leave to send, with d 0, or says how long to wait at most.
func (p *pace) turn() (prober bool, d time.Duration, wake <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d = p.until.Sub(p.o.Now())
	switch {
	case p.stopped:
		return false, 0, nil, errStopped
	case p.state == stateDenied && p.probing:
		return false, time.Hour, p.wake, nil
	case d > 0:
		return false, d, p.wake, nil
	case p.state == stateDenied:
		p.probing, prober = true, true
	}
	return prober, 0, nil, nil
}

// endProbing gives up the role of the prober.
func (p *pace) endProbing() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.probing = false
	p.rouse()
}

// nextProbe counts the probes since the backend began to deny everything, whoever makes
// them; from 0.
func (p *pace) nextProbe() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.probes++
	return p.probes - 1
}

// roused returns a channel that is closed when the backend is found back. Whoever makes
// an attempt takes it before, so as not to sleep over what happens meanwhile.
func (p *pace) roused() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wake
}

// pause waits for the half to the whole of d, or until roused is closed.
func (p *pace) pause(ctx context.Context, roused <-chan struct{}, d time.Duration) error {
	if err := wait(ctx, d/2+rand.N(d/2+1), roused); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return errStopped
	}
	return nil
}

// leftAlone is how long the backend is not to be sent anything from now on.
func (p *pace) leftAlone(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, p.until.Sub(now))
}

// backoff doubles first n times, up to limit.
func backoff(first, limit time.Duration, n int) time.Duration {
	if n >= 62 || first > limit>>n {
		return limit
	}
	return first << n
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
