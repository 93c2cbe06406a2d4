package lock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// EngineOptions are what an Engine gets besides its Store.
type EngineOptions struct {
	// Instance names this process to others that ask who holds a lock, such as the
	// address that it is reached at. Required.
	Instance string
	// Metrics are shared by all Engines of a process. Nil, in tests, makes metrics that
	// are not published.
	Metrics *Metrics
	// Logger is told when a lease is acquired, lost or cannot be released. Nil discards.
	Logger *slog.Logger
	// Tracer makes the spans dlock.acquire, dlock.release, and dlock.renew for renewals
	// that are slow or fail. Nil makes none.
	Tracer trace.Tracer
	// Now is the clock; nil is time.Now. It is to carry a monotonic reading, as
	// time.Now does.
	Now func() time.Time
}

// Engine is the Locker over a Store. It owns the time: when to renew, how long a call may
// take, when a lease is over. It starts one goroutine per lease.
type Engine struct {
	store    Store
	instance string
	metrics  *Metrics
	logger   *slog.Logger
	tracer   trace.Tracer
	now      func() time.Time

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	leases   map[*lease]struct{}
	settling []settlement
	settler  bool // settleAll runs
}

var _ Locker = (*Engine)(nil)

// New returns an Engine over the store, which it closes when it is closed.
func New(store Store, o EngineOptions) *Engine {
	e := &Engine{
		store: store, instance: o.Instance, metrics: o.Metrics, logger: o.Logger, tracer: o.Tracer, now: o.Now,
		leases: map[*lease]struct{}{},
	}
	if e.metrics == nil {
		e.metrics, _ = NewMetrics(nil) // fails only when registering
	}
	if e.logger == nil {
		e.logger = slog.New(slog.DiscardHandler)
	}
	if e.tracer == nil {
		e.tracer = noop.NewTracerProvider().Tracer("")
	}
	if e.now == nil {
		e.now = time.Now
	}
	e.ctx, e.stop = context.WithCancel(context.Background())
	return e
}

// Kind is the kind of the Store.
func (e *Engine) Kind() string { return e.store.Kind() }

// Acquire implements Locker.
func (e *Engine) Acquire(ctx context.Context, name string, o Options) (Lease, error) {
	return e.acquire(ctx, request{name: name, options: o, wait: true})
}

// TryAcquire implements Locker.
func (e *Engine) TryAcquire(ctx context.Context, name string, o Options) (Lease, error) {
	return e.acquire(ctx, request{name: name, options: o})
}

// Holder implements Locker.
func (e *Engine) Holder(ctx context.Context, name string) (HolderInfo, error) {
	ctx, end, err := e.begin(ctx)
	if err != nil {
		return HolderInfo{}, fmt.Errorf("who holds lock %q (%s): %w", name, e.Kind(), err)
	}
	defer end()
	info, err := e.store.Holder(ctx, name)
	if err != nil {
		return HolderInfo{}, fmt.Errorf("who holds lock %q (%s): %w", name, e.Kind(), err)
	}
	e.metrics.seen(lockLabels{e.Kind(), name}, info.Instance)
	return info, nil
}

// begin starts a call of a user, which Close ends and waits for. end is to be called when
// it is over.
func (e *Engine) begin(ctx context.Context) (_ context.Context, end func(), _ error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, nil, ErrClosed
	}
	e.wg.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(e.ctx, func() { cancel(ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		e.wg.Done()
	}, nil
}

// Close implements Locker.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.closed = true
	var held []*lease
	for l := range e.leases {
		held = append(held, l)
	}
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	errs := make([]error, len(held))
	var all sync.WaitGroup
	for i, l := range held {
		all.Go(func() { errs[i] = l.Release(ctx) })
	}
	all.Wait()
	e.stop()
	e.wg.Wait()
	return errors.Join(append(errs, e.store.Close())...)
}

// request is what a caller of Acquire or TryAcquire wants.
type request struct {
	name    string
	options Options
	wait    bool
}

// acquire makes attempts until one succeeds, or one only.
func (e *Engine) acquire(ctx context.Context, r request) (Lease, error) {
	options, err := r.options.withDefaults()
	if err == nil && r.name == "" {
		err = errors.New("a lock needs a name")
	}
	if err != nil {
		return nil, fmt.Errorf("acquire lock %q: %w", r.name, err)
	}
	r.options = options
	ctx, end, err := e.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("acquire lock %q (%s): %w", r.name, e.Kind(), err)
	}
	defer end()
	labels := lockLabels{e.Kind(), r.name}
	e.metrics.present(labels)
	caller := ctx
	ctx, span := e.tracer.Start(caller, "dlock.acquire", trace.WithAttributes(
		attribute.String("lock", r.name), attribute.String("backend", e.Kind())))
	defer span.End()
	start := e.now()
	g, outcome, err := e.attempts(ctx, r)
	waited := e.now().Sub(start)
	span.SetAttributes(attribute.String("outcome", outcome), attribute.Float64("wait", waited.Seconds()))
	if err != nil {
		if outcome != outcomeHeld {
			span.SetStatus(codes.Error, err.Error())
		}
		return nil, fmt.Errorf("acquire lock %q (%s): %w", r.name, e.Kind(), err)
	}
	span.SetAttributes(attribute.Int64("token", int64(g.Token)))
	e.metrics.wait.WithLabelValues(labels.kind, labels.lock).Observe(waited.Seconds())
	l, err := e.hold(caller, g, r.options) // not with the span's context: it ends now
	if err != nil {
		return nil, fmt.Errorf("acquire lock %q (%s): %w", r.name, e.Kind(), err)
	}
	return l, nil
}

// attempts makes them, and says how the last one went.
func (e *Engine) attempts(ctx context.Context, r request) (Grant, string, error) {
	a := e.newAttempt(r)
	defer func() { a.withdraw() }() // of the attempt that is the last one then
	failures := 0
	var before error // how the attempt before went
	for {
		g, outcome, err := a.try(ctx)
		cutOff := ctx.Err() != nil
		if err == nil {
			a.done = true
			return g, outcome, nil
		}
		if outcome == outcomeLate {
			e.settle(g)
		}
		if !r.wait {
			return Grant{}, outcome, err
		}
		if a.over(outcome, err) {
			a = e.newAttempt(r)
		}
		if outcome == outcomeHeld {
			failures = 0
		} else {
			failures++
		}
		if stop := a.pause(ctx, failures, errors.Is(err, ErrRefused)); stop != nil {
			if before != nil && cutOff && outcome == outcomeError {
				err = before // this one was cut off, and knows nothing
			}
			return Grant{}, outcome, fmt.Errorf("%w; the last attempt: %w", stop, err)
		}
		before = err
	}
}

// attempt is one claim and what is known of it.
type attempt struct {
	engine  *Engine
	claim   Claim
	labels  lockLabels
	unknown bool // the last Grant got no answer and was not read back yet
	done    bool // the claim came into force, or never can
}

func (e *Engine) newAttempt(r request) *attempt {
	return &attempt{
		engine: e,
		claim:  Claim{Name: r.name, Holder: e.instance + instanceSeparator + rand.Text(), TTL: r.options.TTL},
		labels: lockLabels{e.Kind(), r.name},
	}
}

// over reports whether nothing can come of the claim any more, and the next attempt needs
// another one. Where it can, the next attempt has to be with the same.
func (a *attempt) over(outcome string, err error) bool {
	a.done = outcome == outcomeLate || errors.Is(err, ErrWithdrawn) || outcome == outcomeHeld && !a.claim.Unsure
	return a.done
}

// try makes one attempt. What became of an attempt without an answer is read back, before
// the next one, or at once.
func (a *attempt) try(ctx context.Context) (Grant, string, error) {
	if a.unknown {
		g, outcome, err := a.once(ctx, a.readBack)
		if err == nil || !errors.Is(err, ErrNotHeld) {
			return g, outcome, err
		}
		a.unknown = false
	}
	g, outcome, err := a.once(ctx, a.engine.store.Grant)
	if outcome != outcomeError || errors.Is(err, ErrWithdrawn) || void(err) {
		return g, outcome, err
	}
	a.unknown, a.claim.Unsure = true, true
	if g, outcome, found := a.once(ctx, a.readBack); found == nil {
		return g, outcome, nil
	} else if errors.Is(found, ErrNotHeld) {
		a.unknown = false
	}
	return Grant{}, outcomeError, err
}

// once makes one call for a grant and checks that the grant is of use.
func (a *attempt) once(ctx context.Context, call func(context.Context, Claim) (Grant, error)) (g Grant, outcome string, err error) {
	e := a.engine
	defer func() { e.answered(ctx, a.labels, err) }()
	limited, cancel := context.WithTimeout(ctx, attemptLimit(a.claim.TTL))
	defer cancel()
	sent := e.now()
	g, err = call(limited, a.claim)
	took := e.now().Sub(sent)
	g = g.sentAt(sent)
	outcome = outcomeAcquired
	switch {
	case err == nil && e.now().Before(g.deadline()):
	case err == nil:
		outcome, err = outcomeLate, fmt.Errorf("%w: it took %v of a TTL of %v", ErrLate, e.now().Sub(g.Since), g.Granted)
		e.logger.Warn("A lock was granted too late to be used; it is given back", "lock", a.claim.Name, "kind", e.Kind(), "took", took, "ttl", g.Granted)
	case errors.Is(err, ErrHeld):
		outcome = outcomeHeld
		e.metrics.contention.WithLabelValues(a.labels.kind, a.labels.lock).Inc()
		var held *HeldError
		if errors.As(err, &held) && held.By.Instance != "" {
			e.metrics.seen(a.labels, held.By.Instance)
		}
	case errors.Is(err, ErrNotHeld):
		return g, outcomeError, err // an answer about an attempt that is counted already
	default:
		outcome = outcomeError
	}
	e.metrics.acquire.WithLabelValues(a.labels.kind, a.labels.lock, outcome).Observe(took.Seconds())
	return g, outcome, err
}

// answered publishes whether the backend gave an answer that an Engine can work with. A
// call that the caller cut off says nothing.
func (e *Engine) answered(ctx context.Context, l lockLabels, err error) {
	up := 0.
	switch {
	case err == nil, errors.Is(err, ErrHeld), errors.Is(err, ErrLate), errors.Is(err, ErrLost), errors.Is(err, ErrNotHeld):
		up = 1
	case ctx.Err() != nil:
		return
	}
	e.metrics.up.WithLabelValues(l.kind, l.lock).Set(up)
}

// readBack finds the claim and renews it, so that the time which it lasts is known.
func (a *attempt) readBack(ctx context.Context, c Claim) (Grant, error) {
	g, err := a.engine.store.Find(ctx, c)
	if err != nil {
		return Grant{}, err
	}
	g, err = a.engine.renewOnce(ctx, g)
	if errors.Is(err, ErrLost) {
		return Grant{}, fmt.Errorf("%w: %w", ErrNotHeld, err)
	}
	return g, err
}

// renewOnce is Store.Renew with the time that it was sent at.
func (e *Engine) renewOnce(ctx context.Context, g Grant) (Grant, error) {
	sent := e.now()
	g.Since = time.Time{}
	g, err := e.store.Renew(ctx, g)
	return g.sentAt(sent), err
}

// sentAt fills in what a store leaves open.
func (g Grant) sentAt(t time.Time) Grant {
	if g.Since.IsZero() {
		g.Since = t
	}
	if g.Granted == 0 {
		g.Granted = g.TTL
	}
	return g
}

// deadline is the time until which the grant is safe to use.
func (g Grant) deadline() time.Time { return g.Since.Add(g.Granted - margin(g.Granted)) }

// expiry is the time at which the backend has let go, if no renewal was confirmed after
// Since and none that was sent has had an effect.
func (g Grant) expiry() time.Time { return g.Since.Add(g.Granted) }

// pollLimits bound the pauses between attempts at a lock that another holds.
const (
	pollShortest = 20 * time.Millisecond
	pollLongest  = 100 * time.Millisecond
)

// pause waits until the next attempt makes sense, after so many failures in a row, the
// last of them a refusal or not; 0 says that another holds the lock. It returns an error
// when there shall be no attempt.
func (a *attempt) pause(ctx context.Context, failures int, refused bool) error {
	e := a.engine
	wait := max(pollShortest, min(a.claim.TTL/20, pollLongest))
	if failures > 0 {
		longest := longestPause
		if refused {
			longest = refusedPause
		}
		wait = min(retryPause<<min(failures-1, 8), longest)
	}
	if w, ok := e.store.(Awaiter); ok && failures == 0 && a.await(ctx, w) {
		wait = 0
	}
	// Contenders that found the lock held at the same time shall not all return at the
	// same time.
	timer := time.NewTimer(wait/2 + time.Duration(mathrand.Int64N(int64(wait)+1)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return context.Cause(ctx)
}

// await reports whether the name became free. Each watch is bounded, for the case that it
// is dead and nobody knows; the next one begins with a look, which costs the backend less
// than an attempt.
func (a *attempt) await(ctx context.Context, w Awaiter) bool {
	for {
		limited, cancel := context.WithTimeout(ctx, a.claim.TTL/2)
		err := w.Await(limited, a.claim.Name)
		expired := limited.Err() != nil
		cancel()
		if err == nil || !expired || ctx.Err() != nil {
			return err == nil
		}
	}
}

// withdraw sees to it that an attempt which was given up does not hold the lock: one that
// had no answer may have come into force, or still may.
func (a *attempt) withdraw() {
	if a.done || !a.claim.Unsure {
		return
	}
	a.done = true
	a.engine.settle(Grant{Claim: a.claim}.sentAt(a.engine.now()))
}

// settlement is a grant that is to be given back, nobody waits for it.
type settlement struct {
	grant Grant
	until time.Time
}

// settle gives the grant back in the background. It tries for three times its TTL: a
// backend that changes its leader may prolong a lease on its own. However many there are,
// one call is under way at a time: a backend that does not answer is not asked more often.
func (e *Engine) settle(g Grant) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	e.settling = append(e.settling, settlement{g, e.now().Add(3 * g.Granted)})
	if !e.settler {
		e.settler = true
		e.wg.Go(e.settleAll)
	}
}

// settleAll ends when nothing is left, or with the Engine.
func (e *Engine) settleAll() {
	pause := retryPause
	for {
		s, ok := e.nextSettlement()
		if !ok {
			return
		}
		err := e.releaseOnce(e.ctx, s.grant)
		if err == nil {
			pause = retryPause
			continue
		}
		e.mu.Lock()
		e.settling = append(e.settling, s) // the others' turn
		e.mu.Unlock()
		if !sleep(e.ctx, pause) {
			return
		}
		pause = nextPause(pause, s.grant)
	}
}

// nextSettlement takes the first one that is not out of date.
func (e *Engine) nextSettlement() (settlement, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.settling) > 0 {
		s := e.settling[0]
		e.settling = e.settling[1:]
		if e.now().Before(s.until) {
			return s, true
		}
	}
	e.settler = false // the expiry is what remains
	return settlement{}, false
}

// nextPause follows a pause between calls that release: they double up to a quarter of the
// TTL.
func nextPause(pause time.Duration, g Grant) time.Duration {
	return min(2*pause, max(retryPause, g.Granted/4))
}

// release tells the backend until it answers or the context ends.
func (e *Engine) release(ctx context.Context, g Grant) error {
	for pause := retryPause; ; pause = nextPause(pause, g) {
		err := e.releaseOnce(ctx, g)
		if err == nil || !sleep(ctx, pause) {
			return err
		}
	}
}

func (e *Engine) releaseOnce(ctx context.Context, g Grant) error {
	limited, cancel := context.WithTimeout(ctx, max(callLimit(g.Granted), pollLongest))
	defer cancel()
	return e.store.Release(limited, g)
}

// sleep is false when the context ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
