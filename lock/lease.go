package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// lease is a Lease of an Engine. A goroutine renews it; a timer of its own ends it at the
// deadline, so that not even a call which ignores its context keeps Done open.
type lease struct {
	engine  *Engine
	labels  lockLabels
	token   uint64
	every   time.Duration // between renewals
	started time.Time
	done    chan struct{}
	told    chan struct{} // closed when Release has finished with the backend
	ctx     context.Context
	cancel  context.CancelCauseFunc

	mu       sync.Mutex
	grant    Grant
	deadline time.Time
	watchdog *time.Timer
	failure  error // of the last renewal, nil when it succeeded
	err      error // not nil when the lease has ended
	tellErr  error // what became of Release; set before told closes
}

var _ Lease = (*lease)(nil)

// hold makes a lease of the grant and starts to renew it.
func (e *Engine) hold(ctx context.Context, g Grant, o Options) (*lease, error) {
	l := &lease{
		engine: e, labels: lockLabels{e.Kind(), g.Name}, token: g.Token, every: o.every(g.Granted), started: e.now(),
		done: make(chan struct{}), told: make(chan struct{}),
		grant: g, deadline: g.deadline(),
	}
	l.ctx, l.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if !e.keep(l) {
		l.cancel(ErrClosed)
		return nil, errors.Join(ErrClosed, e.releaseOnce(context.WithoutCancel(ctx), g))
	}
	e.logger.Info("Acquired a lock", "lock", g.Name, "kind", l.labels.kind, "token", g.Token, "ttl", g.Granted)
	return l, nil
}

// keep starts what keeps the lease; false when the Engine is closed.
func (e *Engine) keep(l *lease) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.leases[l] = struct{}{}
	m, kind, name := e.metrics, l.labels.kind, l.labels.lock
	m.held.WithLabelValues(kind, name).Set(1)
	m.seen(l.labels, e.instance)
	m.remaining.add(l)
	if l.token != 0 {
		m.token.WithLabelValues(kind, name).Set(float64(l.token))
	}
	l.mu.Lock()
	l.watchdog = time.AfterFunc(l.deadline.Sub(e.now()), l.watch)
	l.mu.Unlock()
	e.wg.Add(1) // until told is closed: Close waits for a Release that is under way
	e.wg.Go(l.keep)
	return true
}

func (l *lease) Done() <-chan struct{}    { return l.done }
func (l *lease) Context() context.Context { return l.ctx }

func (l *lease) Token() uint64 { return l.token }

func (l *lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *lease) Deadline() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deadline
}

func (l *lease) Valid() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err == nil && l.engine.now().Before(l.deadline)
}

// Release implements Lease.
func (l *lease) Release(ctx context.Context) error {
	if l.end(fmt.Errorf("lock %q: %w", l.labels.lock, ErrReleased)) {
		return l.tell(ctx)
	}
	select {
	case <-l.told: // by an earlier call, or there was nothing to tell
	case <-ctx.Done():
		select {
		case <-l.told:
		default:
			return fmt.Errorf("release lock %q: waiting for the release under way: %w", l.labels.lock, context.Cause(ctx))
		}
	}
	return l.tellErr
}

// tell tells the backend of a release.
func (l *lease) tell(ctx context.Context) error {
	e := l.engine
	ctx, span := e.tracer.Start(ctx, "dlock.release", l.attributes())
	defer span.End()
	g := l.current()
	limited, cancel := context.WithTimeout(ctx, max(g.expiry().Sub(e.now()), callLimit(g.Granted)))
	defer cancel()
	stop := context.AfterFunc(e.ctx, cancel)
	defer stop()
	if err := e.release(limited, g); err != nil {
		span.SetStatus(codes.Error, err.Error())
		e.metrics.releaseFailures.WithLabelValues(l.labels.kind, l.labels.lock).Inc()
		e.logger.Warn("A lock could not be given back; others wait for its expiry", "lock", g.Name, "kind", l.labels.kind, "ttl", g.Granted, "err", err)
		l.tellErr = fmt.Errorf("release lock %q (%s): the backend was not told, others wait up to %v: %w", g.Name, l.labels.kind, g.Granted, err)
		e.settle(g)
	}
	l.finish()
	return l.tellErr
}

// finish says that there is nothing more to tell the backend.
func (l *lease) finish() {
	close(l.told)
	l.engine.wg.Done()
}

// keep renews until the lease has ended.
func (l *lease) keep() {
	timer := time.NewTimer(l.current().Since.Add(l.every).Sub(l.engine.now()))
	defer timer.Stop()
	for {
		select {
		case <-l.done:
			return
		case <-timer.C:
			timer.Reset(l.renew())
		}
	}
}

// renew makes one call and returns the pause before the next.
func (l *lease) renew() time.Duration {
	e, g := l.engine, l.current()
	start := e.now()
	if !start.Before(l.Deadline()) {
		l.expire()
		return 0
	}
	limit := callLimit(g.Granted)
	ctx, cancel := context.WithTimeout(l.ctx, limit)
	renewed, err := e.renewOnce(ctx, g)
	cancel()
	e.answered(l.ctx, l.labels, err)
	end := e.now()
	if l.Err() != nil {
		return 0 // ended meanwhile; its answer is of no interest
	}
	kind, name := l.labels.kind, l.labels.lock
	e.metrics.renewal.WithLabelValues(kind, name).Observe(end.Sub(start).Seconds())
	if err == nil {
		if end.Sub(start) > limit/2 {
			l.traceRenewal(start, nil)
		}
		e.metrics.renewals.WithLabelValues(kind, name).Inc()
		l.extend(renewed)
		return max(0, renewed.Since.Add(l.every).Sub(end))
	}
	reason := reasonError
	switch {
	case errors.Is(err, ErrLost):
		reason = reasonGone
	case errors.Is(err, context.DeadlineExceeded):
		reason = reasonTimeout
	}
	e.metrics.renewalFailures.WithLabelValues(kind, name, reason).Inc()
	l.mu.Lock()
	l.failure = err
	l.mu.Unlock()
	l.traceRenewal(start, err)
	if reason == reasonGone {
		l.end(fmt.Errorf("lock %q: %w (%w)", name, ErrLost, err))
		return 0
	}
	return retryPause
}

// extend takes over a renewal that was confirmed, unless it is too late for it: what has
// been invalid once stays so.
func (l *lease) extend(g Grant) {
	l.mu.Lock()
	late := !l.engine.now().Before(l.deadline)
	if !late && l.err == nil {
		l.grant, l.failure = g, nil
		l.deadline = g.deadline()
		l.watchdog.Reset(l.deadline.Sub(l.engine.now()))
	}
	l.mu.Unlock()
	if late {
		l.expire()
	}
}

// watch is what the timer calls at the deadline.
func (l *lease) watch() {
	l.mu.Lock()
	left := l.deadline.Sub(l.engine.now())
	if left > 0 { // a renewal was confirmed while the timer fired
		l.watchdog.Reset(left)
	}
	l.mu.Unlock()
	if left <= 0 {
		l.expire()
	}
}

// expire ends the lease at its deadline. The backend may have it for a while yet; that it
// is told shortens the wait of the others.
func (l *lease) expire() {
	l.mu.Lock()
	err := fmt.Errorf("lock %q: %w: the last one was sent %v ago", l.labels.lock, ErrExpired, l.engine.now().Sub(l.grant.Since).Round(time.Millisecond))
	if l.failure != nil {
		err = fmt.Errorf("%w, the next one failed: %w", err, l.failure)
	}
	l.mu.Unlock()
	if l.end(err) {
		l.engine.settle(l.current())
	}
}

// end closes Done, unless it is closed.
func (l *lease) end(err error) bool {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return false
	}
	l.err = err
	l.watchdog.Stop()
	l.cancel(err) // before Done: who sees that closed finds the context ended
	close(l.done)
	l.mu.Unlock()

	e := l.engine
	e.mu.Lock()
	delete(e.leases, l)
	e.mu.Unlock()
	m, kind, name := e.metrics, l.labels.kind, l.labels.lock
	m.remaining.remove(l)
	m.held.WithLabelValues(kind, name).Set(0)
	m.heldDuration.WithLabelValues(kind, name).Observe(e.now().Sub(l.started).Seconds())
	m.leaves(l.labels, e.instance)
	if errors.Is(err, ErrReleased) {
		return true
	}
	reason := lostExpired
	if errors.Is(err, ErrLost) {
		reason = lostGone
	}
	m.lost.WithLabelValues(kind, name, reason).Inc()
	l.traceLoss(err)
	e.logger.Warn("Lost a lock", "lock", name, "kind", kind, "token", l.token, "err", err)
	l.finish()
	return true
}

func (l *lease) current() Grant {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.grant
}

func (l *lease) attributes() trace.SpanStartEventOption {
	return trace.WithAttributes(
		attribute.String("lock", l.labels.lock), attribute.String("backend", l.labels.kind),
		attribute.Int64("token", int64(l.Token())))
}

// traceRenewal makes a span of a renewal that was slow or failed.
func (l *lease) traceRenewal(start time.Time, err error) {
	_, span := l.engine.tracer.Start(l.ctx, "dlock.renew", l.attributes(), trace.WithTimestamp(start))
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End(trace.WithTimestamp(l.engine.now()))
}

// traceLoss makes the event dlock.lost, on a span from the last confirmed renewal to the
// end.
func (l *lease) traceLoss(err error) {
	_, span := l.engine.tracer.Start(l.ctx, "dlock.renew", l.attributes(), trace.WithTimestamp(l.current().Since))
	span.SetStatus(codes.Error, err.Error())
	span.AddEvent("dlock.lost", trace.WithAttributes(attribute.String("reason", err.Error())))
	span.End()
}
