package ha

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
)

// begin reports whether a handover is to be begun, which the caller does then.
func (c *cluster) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.handover == "" || c.handing {
		return false
	}
	c.handing = true
	return true
}

// ended lets another handover begin.
func (c *cluster) ended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handing = false
	c.t.rouse()
}

// handOver appends what was held back of the replica that was elected, in order. It was
// answered with success: the end of ctx lets it be finished, unless that takes long or fails.
func (t *Tracker) handOver(ctx context.Context, c *cluster) {
	work, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer context.AfterFunc(ctx, func() {
		select {
		case <-work.Done():
		case <-time.After(handoverGrace):
			end()
		}
	})()
	c.mu.Lock()
	key := member{c.name, c.handover}
	c.mu.Unlock()
	defer c.ended()
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		e := t.buffer.take(key)
		if e == nil && c.end(key.replica) {
			return
		}
		if e == nil {
			continue
		}
		reason, err := t.appendHeld(work, c, e)
		if err == nil {
			t.buffer.remove(e, reason)
			continue
		}
		t.buffer.leave(e)
		if c.lost(key.replica) || ctx.Err() != nil {
			return
		}
		t.o.Logger.Warn("Samples that were held back cannot be appended yet", "cluster", key.cluster, "replica", key.replica, "err", err)
		retry.Reset(handoverRetry)
		select {
		case <-ctx.Done():
			return
		case <-retry.C:
		}
	}
}

// handoverRetry is the pause after an attempt to append that failed.
const handoverRetry = 250 * time.Millisecond

// handoverGrace is how long a handover may go on at a stop.
const handoverGrace = 5 * time.Second

// end ends a handover if nothing is left of the replica, and if it is still the one.
func (c *cluster) end(replica string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.handover != replica {
		return true
	}
	if c.t.buffer.holds(member{c.name, replica}) {
		return false
	}
	c.handover = ""
	return true
}

// lost reports whether the replica is not the one to be handed over any more.
func (c *cluster) lost(replica string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handover != replica
}

// appendHeld appends what is newer than the last accepted sample. A reason says why
// nothing of the entry was appended.
func (t *Tracker) appendHeld(ctx context.Context, c *cluster, e *entry) (Reason, error) {
	c.mu.Lock()
	after := c.record.After
	elected := c.handover == e.key.replica && c.record.Replica == e.key.replica
	c.mu.Unlock()
	if !elected {
		return "", fmt.Errorf("replica %q is not elected any more", e.key.replica)
	}
	plain, err := s2.Decode(nil, e.body)
	if err != nil {
		panic(fmt.Sprintf("BUG: a held request cannot be decompressed: %v", err))
	}
	var m remotewrite.Message
	scan(&m, e.version, plain)
	body, dropped := later(nil, &m, func(int) int64 { return after })
	if dropped == e.counts && !dropped.Zero() {
		return ReasonBeforeElection, nil
	}
	compressed := e.body
	if !dropped.Zero() {
		compressed = s2.EncodeSnappy(nil, body)
	}
	upTo := e.maxTime
	if horizon := t.o.Now().Add(time.Duration(t.o.Config.FailoverTimeout)).UnixMilli(); upTo > horizon {
		upTo = noTime
	}
	if err := t.confirm(ctx, c, e.key.replica, upTo); err != nil {
		return "", err
	}
	err = t.o.Append(ctx, e.version, compressed)
	switch {
	case errors.Is(err, ErrRefused):
		return ReasonRefused, nil
	case err != nil:
		return "", err
	}
	if !dropped.Zero() {
		t.metrics.drop(ReasonBeforeElection, dropped)
	}
	return "", nil
}

// confirm makes the record cover samples that are being handed over.
func (t *Tracker) confirm(ctx context.Context, c *cluster, replica string, upTo int64) error {
	if err := c.hold(ctx); err != nil {
		return err
	}
	defer c.release()
	c.mu.Lock()
	c.want = max(c.want, upTo)
	fresh := c.record.Replica == replica && upTo <= c.record.Accepted && t.o.Now().Sub(c.wroteAt) < c.t.refreshEvery()
	next := c.next(t.o.Now())
	c.mu.Unlock()
	if fresh {
		return nil
	}
	swapped, err := t.swap(ctx, c, next)
	if err == nil && !swapped {
		if err = t.read(ctx, c); err == nil {
			err = errors.New("another gateway wrote the record")
		}
	}
	return err
}
