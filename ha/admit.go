package ha

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// ErrTooManyClusters is returned for a request of a cluster beyond Config.MaxClusters.
var ErrTooManyClusters = errors.New("more HA clusters than ha.max_clusters allows")

// ErrLater is returned for a request that cannot be judged at present; its sender is to
// send it again.
var ErrLater = errors.New("not possible at present")

// Request is what Admit judges.
type Request struct {
	Version series.Version
	Plain   []byte // decompressed; borrowed until the Admission is done with
	// Message is used for reading it; what it held before is void.
	Message *remotewrite.Message
	// Room is memory to write Admission.Body into, from its start. It may be nil.
	Room []byte
	// Settled is what Admit returned for the same request before, after its Settle. Nil at
	// first.
	Settled *Unsettled
}

// Admission is what may be accepted of a request. After a Check that returned nil it is
// ended with Done.
type Admission struct {
	// Body is the request to go on with, decompressed, without samples that are not to be
	// accepted and without replica labels. It may be in Request.Room.
	Body []byte
	// Deduplicated is what is not in it because another replica is believed.
	Deduplicated series.Counts

	t      *Tracker
	claims []claim
	held   []*entry
	drops  []drop
}

// claim is the right to accept samples of a cluster's elected replica.
type claim struct {
	cluster *cluster
	replica string
	after   int64     // samples up to it are not accepted, Unix ms
	until   time.Time // when it is over; zero is never
}

// drop is what was left out for good.
type drop struct {
	reason Reason
	counts series.Counts
}

// Admit judges every series of a request by what is known, and does not wait. It returns nil
// when none belongs to an HA cluster, and the request is to go on as it is. An error is
// ErrLater, ErrTooManyClusters, or an *Unsettled.
func (t *Tracker) Admit(r Request) (*Admission, error) {
	if !bytes.Contains(r.Plain, []byte(t.o.Config.ReplicaLabel)) {
		return nil, nil
	}
	if r.Message.Scan(r.Version, r.Plain) != nil {
		return nil, nil // it is refused for it
	}
	now := t.o.Now()
	if r.Settled != nil {
		now = r.Settled.now // the horizon, and what is asked for with it, stays what it was
	}
	sp := split{cluster: []byte(t.o.Config.ClusterLabel), replica: []byte(t.o.Config.ReplicaLabel), horizon: now.Add(time.Duration(t.o.Config.FailoverTimeout)).UnixMilli()}
	sp.read(r.Message)
	if len(sp.parts) == 0 {
		return nil, nil
	}
	a := &Admission{t: t}
	open := &Unsettled{t: t, now: now}
	claims := make([]*claim, len(sp.parts)) // nil: not elected
	for i := range sp.parts {
		cl, err := t.judge(&sp.parts[i], open, r.Settled)
		if err != nil {
			return nil, err
		}
		if cl != nil {
			a.claims = append(a.claims, *cl)
		}
		claims[i] = cl
	}
	if len(open.asks) > 0 {
		return nil, open
	}
	a.hold(&sp, claims, now)
	a.accept(&sp, claims, r)
	return a, nil
}

// judge returns the claim of an elected replica, and nil for another. What the store has to
// be asked for goes to open.
func (t *Tracker) judge(p *part, open, settled *Unsettled) (*claim, error) {
	c := t.cluster(p.cluster, open.now)
	if c == nil {
		return nil, fmt.Errorf("cluster %.100q: %w (%d)", p.cluster, ErrTooManyClusters, t.o.Config.MaxClusters)
	}
	if settled == nil {
		c.note(p.replica, open.now)
	} else if cl := settled.claims[p.member]; cl != nil && c.stillCovers(cl, p.mark) {
		return cl, nil
	}
	if cl, done, err := c.covered(p.replica, p.mark); done {
		return cl, err
	}
	if t.away(t.o.Now()) {
		return c.without(p.replica, p.mark, errUnavailable)
	}
	open.asks = append(open.asks, ask{cluster: c, replica: p.replica, upTo: p.mark})
	return nil, nil
}

// claim makes sure that the record says that the replica is elected and covers samples up
// to the time. It elects the replica of a cluster that has none. It returns nil when
// another one is elected.
func (t *Tracker) claim(ctx context.Context, c *cluster, replica string, upTo int64) (*claim, error) {
	if cl, done, err := c.covered(replica, upTo); done {
		return cl, err
	}
	if t.away(t.o.Now()) {
		return c.without(replica, upTo, errUnavailable)
	}
	if err := c.hold(ctx); err != nil {
		return nil, err
	}
	defer c.release()
	const tries = 4 // others write the record too
	for range tries {
		if t.away(t.o.Now()) { // as who had the exchange before has found out
			return c.without(replica, upTo, errUnavailable)
		}
		if cl, done, err := c.covered(replica, upTo); done {
			return cl, err
		}
		next, known := c.claiming(replica)
		if !known {
			if err := t.read(ctx, c); err != nil {
				return c.afterFailure(ctx, replica, upTo, err)
			}
			continue
		}
		swapped, err := t.swap(ctx, c, next)
		if err == nil && !swapped {
			err = t.read(ctx, c)
		}
		if err != nil {
			return c.afterFailure(ctx, replica, upTo, err)
		}
	}
	return nil, fmt.Errorf("the record of HA cluster %q is written by too many at once: %w", c.name, ErrLater)
}

// covered judges by what is known; done is false when the store has to be asked.
func (c *cluster) covered(replica string, upTo int64) (cl *claim, done bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.t.o.Now()
	switch {
	case !c.known || c.record.Replica == "":
		c.want = max(c.want, upTo)
		return nil, false, nil
	case c.record.Replica != replica:
		return nil, true, nil
	case c.handover != "":
		return nil, true, fmt.Errorf("replica %q of HA cluster %q was just elected, and its samples that were held back are being appended: %w", replica, c.name, ErrLater)
	case upTo > c.record.Accepted:
		c.want = max(c.want, upTo)
		return nil, false, nil
	}
	// Others count the silence from when they saw this gateway's write, and wait for what
	// it said at least.
	until := c.wroteAt.Add(time.Duration(c.record.PatienceMs) * time.Millisecond * 19 / 20)
	switch {
	case c.failing && now.Before(until):
	case c.failing && !c.mayRepeat(now):
		return nil, true, fmt.Errorf("samples of HA cluster %q cannot be appended here, and another gateway may take over: %w", c.name, ErrLater)
	case now.Sub(c.wroteAt) > c.t.refreshEvery():
		return nil, false, nil
	}
	return &claim{cluster: c, replica: replica, after: c.record.After, until: until}, true, nil
}

// claiming is the record to write for the replica; known is false when it has to be read
// first.
func (c *cluster) claiming(replica string) (next Record, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.t.o.Now()
	if c.record.Replica == "" && c.known {
		return c.first(replica, now), true
	}
	return c.next(now), c.known
}

// afterFailure is without, for a request whose sender is still there.
func (c *cluster) afterFailure(ctx context.Context, replica string, upTo int64, cause error) (*claim, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return c.without(replica, upTo, cause)
}

// without judges without the store: the elected replica stays the elected one, or waits.
func (c *cluster) without(replica string, upTo int64, cause error) (*claim, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.known || c.record.Replica == "":
		return nil, fmt.Errorf("which replica of HA cluster %q is elected is not known: %w: %w", c.name, ErrLater, cause)
	case c.record.Replica != replica:
		return nil, nil
	case c.handover != "" || c.t.o.Config.OnStoreUnavailable != UnavailableKeep:
		return nil, fmt.Errorf("whether replica %q of HA cluster %q is still elected is not known: %w: %w", replica, c.name, ErrLater, cause)
	}
	c.unsaved = true
	c.mark = max(c.mark, upTo)
	return &claim{cluster: c, replica: replica, after: c.record.After}, nil
}

// hold makes the entries of replicas that are not elected.
func (a *Admission) hold(sp *split, claims []*claim, now time.Time) {
	var plain []byte
	for i := range sp.parts {
		p := &sp.parts[i]
		if claims[i] != nil {
			continue
		}
		a.Deduplicated.Add(p.counts)
		// Metadata of RW 1.0 goes on with what is accepted.
		plain = sp.appendRequest(plain[:0], sp.m.Version == series.V2, func(of int) bool { return of == i+1 })
		a.held = append(a.held, &entry{
			key: p.member, version: sp.m.Version, counts: p.counts, maxTime: p.maxTime, received: now,
			body: bytes.Clone(s2.EncodeSnappy(nil, plain)),
		})
	}
}

// accept writes the body.
func (a *Admission) accept(sp *split, claims []*claim, r Request) {
	a.Body = sp.appendRequest(r.Room[:0], true, func(of int) bool { return of == 0 || claims[of-1] != nil })
	reaches := false
	for i := range sp.parts {
		reaches = reaches || claims[i] != nil && sp.parts[i].minTime <= claims[i].after
	}
	if !reaches {
		return
	}
	after := make([]int64, 0, len(sp.of)) // of the series that are left
	for _, of := range sp.of {
		switch {
		case of == 0:
			after = append(after, math.MinInt64)
		case claims[of-1] != nil:
			after = append(after, claims[of-1].after)
		}
	}
	scan(r.Message, r.Version, a.Body)
	body, dropped := later(nil, r.Message, func(i int) int64 { return after[i] })
	if dropped.Zero() {
		return
	}
	a.Body = body
	a.Deduplicated.Add(dropped)
	a.drops = append(a.drops, drop{ReasonBeforeElection, dropped})
}

// Check reports whether what is in Body may still be appended; the caller asks right
// before. An error is ErrLater.
func (a *Admission) Check() error {
	now := a.t.o.Now()
	for i := range a.claims {
		if cl := &a.claims[i]; !cl.until.IsZero() && !now.Before(cl.until) {
			return fmt.Errorf("replica %q of HA cluster %q may have lost its election meanwhile: %w", cl.replica, cl.cluster.name, ErrLater)
		}
	}
	return nil
}

// Done ends the admission: appended says that Body is in the journal, or that nothing was
// in it. Otherwise nothing is kept, and the sender sends the request again.
func (a *Admission) Done(appended bool) {
	for i := range a.claims {
		a.claims[i].cluster.appended(a.claims[i].replica, appended)
	}
	if !appended {
		return
	}
	for _, d := range a.drops {
		a.t.metrics.drop(d.reason, d.counts)
	}
	for _, e := range a.held {
		a.t.keep(e)
	}
}

// appended notes whether samples of the elected replica could be appended.
func (c *cluster) appended(replica string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.record.Replica == replica {
		c.failing = !ok
	}
}

// keep holds an entry back. Its replica may have been elected since it was judged.
func (t *Tracker) keep(e *entry) {
	c := t.cluster(e.key.cluster, e.received)
	if c == nil {
		t.metrics.drop(ReasonExpired, e.counts)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t.buffer.push(e)
	c.handOverHeld()
}
