package ha

import (
	"context"
	"slices"
	"sync"
	"time"
)

// cluster is what this gateway knows of one HA cluster.
type cluster struct {
	t    *Tracker
	name string
	// exchange is held during an exchange with the store, so that what is learnt of the
	// record is never older than what was known.
	exchange chan struct{}

	mu       sync.Mutex
	record   Record
	revision uint64
	known    bool
	used     time.Time // when it was received last
	// mark is the largest Accepted that was ever seen or is in force here: it does not go
	// back with a store that lost its data.
	mark int64
	// want is the newest sample that waits for the record to cover it. Requests that come
	// while the record is being written share the next write.
	want int64
	// wrote is when the write was sent by which this gateway last changed the record;
	// others count the elected replica's silence from a later moment.
	wroteAt time.Time
	seen    time.Time // when the record was last seen to change
	looked  time.Time // when it was last read or written
	// failing is set while the elected replica's samples cannot be appended: then the
	// record is not to say that they were received.
	failing bool
	// unreadable is set while the record is not one that can be decoded.
	unreadable bool
	// missed is how many looks in a row did not get the exchange. The look alone uses it.
	missed int
	// unsaved is set while the record lacks what was accepted without the store.
	unsaved  bool
	replicas map[string]*replica
	// handover is the elected replica while what was held back of it is being appended,
	// and handing is set while somebody does so.
	handover string
	handing  bool
}

func newCluster(t *Tracker, name string) *cluster {
	return &cluster{t: t, name: name, exchange: make(chan struct{}, 1), mark: noTime, want: noTime, replicas: map[string]*replica{}}
}

// replica is what this gateway observes of one replica.
type replica struct {
	last time.Time // when it was received last
	gaps [64]time.Duration
	n    int // of gaps ever
}

// note takes down a request.
func (r *replica) note(now time.Time) {
	if !r.last.IsZero() {
		r.gaps[r.n%len(r.gaps)] = now.Sub(r.last)
		r.n++
	}
	r.last = now
}

// interval is the time between two rounds of requests: among the longest gaps, without
// those few that were outages.
func (r *replica) interval() time.Duration {
	n := min(r.n, len(r.gaps))
	if n == 0 {
		return 0
	}
	gaps := slices.Clone(r.gaps[:n])
	slices.Sort(gaps)
	return gaps[n-1-n/8]
}

// refreshEvery is the age at which a confirmation by the store is not relied upon any more.
func (t *Tracker) refreshEvery() time.Duration {
	return min(time.Second, time.Duration(t.o.Config.FailoverTimeout)/6)
}

// patience is how long the elected replica may be silent. c.mu is held.
func (c *cluster) patience() time.Duration {
	return max(time.Duration(c.t.o.Config.FailoverTimeout), 3*c.interval())
}

// interval is the longest at which a replica sends. c.mu is held.
func (c *cluster) interval() time.Duration {
	var d time.Duration
	for _, r := range c.replicas {
		d = max(d, r.interval())
	}
	return d
}

// agreedPatience also counts what the elected replica's gateway asks for. c.mu is held.
func (c *cluster) agreedPatience() time.Duration {
	return max(c.patience(), time.Duration(c.record.PatienceMs)*time.Millisecond)
}

// lead is by how much the record runs ahead of the samples, so that not every request has
// to be written down. c.mu is held.
func (c *cluster) lead() time.Duration {
	return min(max(c.interval()/10, time.Duration(c.t.o.Config.FailoverTimeout)/100), time.Second)
}

func (c *cluster) touch(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used = now
}

func (c *cluster) idle(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Sub(c.used) > idleAfter
}

// note takes down that a replica was received.
func (c *cluster) note(name string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.replicas[name]
	if r == nil {
		// Replicas come and go with the names of containers.
		for other, o := range c.replicas {
			if now.Sub(o.last) > idleAfter {
				delete(c.replicas, other)
			}
		}
		r = &replica{}
		c.replicas[name] = r
	}
	r.note(now)
}

// at is the revision that is known.
func (c *cluster) at() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.revision
}

// lookedAt is when the record was last read or written.
func (c *cluster) lookedAt() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.looked
}

// learn takes over what was read.
func (c *cluster) learn(r Record, revision uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.t.o.Now()
	if revision == 0 && c.known && c.record.Replica != "" {
		// The store lost it. The next write puts it there again.
		c.revision, c.looked = 0, now
		return
	}
	unseen := now.Sub(c.looked) > storeTimeout+3*c.t.tick()+c.t.spread()
	if !c.known || unseen || r.Replica != c.record.Replica || r.ReceivedAt != c.record.ReceivedAt || r.Accepted != c.record.Accepted {
		// Silence counts only while it was listened to: after an outage of the store the
		// elected replica's gateway needs time to write down what it accepted.
		c.seen = now
	}
	if c.unsaved && r.Replica != c.record.Replica {
		c.unsaved = false
		c.t.o.Logger.Warn("Another replica was elected while this gateway was cut off from the store: samples of both were accepted",
			"cluster", c.name, "accepted_here", c.record.Replica, "elected", r.Replica)
	}
	c.take(r, revision, now)
}

// cannotDecode notes why the record says nothing.
func (c *cluster) cannotDecode(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.unreadable {
		c.t.o.Logger.Warn("The record of an HA cluster cannot be read; no replica of it can be elected", "cluster", c.name, "record", recordName(c.name), "err", err)
	}
	c.unreadable = true
}

// wrote takes over what was written.
func (c *cluster) wrote(r Record, revision uint64, sent time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.t.o.Now()
	if r.Replica != c.record.Replica || r.ReceivedAt != c.record.ReceivedAt || r.Accepted != c.record.Accepted {
		c.wroteAt, c.seen = sent, now
	}
	if r.Replica != c.record.Replica {
		c.t.metrics.elections.WithLabelValues(c.name).Inc()
		c.t.o.Logger.Info("Elected a replica", "cluster", c.name, "replica", r.Replica, "before", c.record.Replica, "accepted_until", time.UnixMilli(max(r.Accepted, 0)))
	}
	c.unsaved = false
	c.take(r, revision, now)
}

// take sets the record. c.mu is held.
func (c *cluster) take(r Record, revision uint64, now time.Time) {
	if r.Replica != c.record.Replica {
		c.failing = false
		c.handover = ""
	}
	if revision != 0 {
		c.t.metrics.show(c.name, c.record, r)
		c.mark = max(c.mark, r.Accepted)
	}
	c.record, c.revision, c.known, c.looked, c.unreadable = r, revision, true, now, false
	c.handOverHeld()
}

// handOverHeld has what is held back of the elected replica appended. Until that is done,
// requests of it are not accepted, or they would overtake. c.mu is held.
func (c *cluster) handOverHeld() {
	if c.handover != "" || c.record.Replica == "" || !c.t.buffer.holds(member{c.name, c.record.Replica}) {
		return
	}
	c.handover = c.record.Replica
	c.t.rouse()
}

// rouse makes Run look for handovers.
func (t *Tracker) rouse() {
	select {
	case t.wake <- struct{}{}:
	default: // it is awake
	}
}

// next is the record to write for its replica. c.mu is held.
func (c *cluster) next(now time.Time) Record {
	r := c.record
	r.Accepted = max(r.Accepted, c.mark)
	if c.want > r.Accepted {
		r.Accepted = c.want + c.lead().Milliseconds()
	}
	r.PatienceMs = c.patience().Milliseconds()
	if !c.failing || c.mayRepeat(now) {
		r.ReceivedAt = now.UnixMilli()
	}
	return r
}

// mayRepeat reports whether others had the time to take over from a gateway that could not
// append; where none did, it may claim its replica again. c.mu is held.
func (c *cluster) mayRepeat(now time.Time) bool {
	return now.Sub(c.wroteAt) > 3*c.agreedPatience()/2+c.t.spread()
}

// first is the record of a cluster that has none, for its first replica. c.mu is held.
func (c *cluster) first(replica string, now time.Time) Record {
	c.record = Record{After: noTime, Accepted: noTime}
	r := c.next(now)
	r.Replica, r.ElectedAt, r.ReceivedAt = replica, now.UnixMilli(), now.UnixMilli()
	return r
}

// hold locks the exchange; release unlocks it.
func (c *cluster) hold(ctx context.Context) error {
	select {
	case c.exchange <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tryHold locks the exchange if nobody has it.
func (c *cluster) tryHold() bool {
	select {
	case c.exchange <- struct{}{}:
		return true
	default:
		return false
	}
}

// insist waits for the exchange after some looks that did not get it: requests that queue for
// it are not to keep a cluster from failing over, nor to hold up the look at all others.
func (c *cluster) insist(ctx context.Context) bool {
	if c.missed++; c.missed < missedLooks {
		return false
	}
	limited, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return c.hold(limited) == nil
}

func (c *cluster) release() { <-c.exchange }

// visit does for a cluster what is done at each look.
func (t *Tracker) visit(ctx context.Context, c *cluster) error {
	if !c.tryHold() && !c.insist(ctx) {
		return nil // requests read or write the record
	}
	c.missed = 0
	defer c.release()
	if err := t.refresh(ctx, c); err != nil {
		return err
	}
	return t.failOver(ctx, c)
}

// refresh reads the record, and writes down what it lacks. The caller holds the exchange.
func (t *Tracker) refresh(ctx context.Context, c *cluster) error {
	if err := t.read(ctx, c); err != nil {
		return err
	}
	c.mu.Lock()
	next, unsaved := c.next(t.o.Now()), c.unsaved
	c.mu.Unlock()
	if !unsaved {
		return nil
	}
	_, err := t.swap(ctx, c, next) // the next look repeats what another was faster than
	return err
}

// failOver elects another replica if the elected one has been silent for long. The caller
// holds the exchange.
func (t *Tracker) failOver(ctx context.Context, c *cluster) error {
	c.mu.Lock()
	next, due := c.candidate(t.o.Now())
	c.mu.Unlock()
	if !due {
		return nil
	}
	_, err := t.swap(ctx, c, next)
	return err
}

// candidate is the record by which another replica would be elected; due says that it is
// time. c.mu is held.
func (c *cluster) candidate(now time.Time) (next Record, due bool) {
	patience := c.agreedPatience()
	// As long as may have passed unseen between two reads does not count as silence.
	if c.record.Replica == "" || now.Sub(c.seen) < patience+c.t.spread() {
		return next, false
	}
	var best string
	var last time.Time
	for name, r := range c.replicas {
		if name != c.record.Replica && now.Sub(r.last) < patience && r.last.After(last) {
			best, last = name, r.last
		}
	}
	if best == "" {
		return next, false
	}
	next = c.record
	next.Accepted = max(next.Accepted, c.mark)
	next.Replica, next.After, next.ElectedAt = best, next.Accepted, now.UnixMilli()
	next.ReceivedAt, next.PatienceMs = last.UnixMilli(), c.patience().Milliseconds()
	return next, true
}

// need is what is to be held back of a cluster.
type need struct {
	mark     int64     // what a failover would append is newer
	since    time.Time // what was received before is older than a failover takes
	handover string    // the replica that everything is needed of
}

func (c *cluster) need(now time.Time) need {
	c.mu.Lock()
	defer c.mu.Unlock()
	return need{mark: c.mark, since: now.Add(-2*c.agreedPatience() - 2*c.interval() - c.t.spread()), handover: c.handover}
}

// outdated says whether, and why, a held entry is not needed any more.
func (n need) outdated(e *entry) (Reason, bool) {
	switch {
	case e.taken || n.handover == e.key.replica:
		return "", false
	case e.maxTime <= n.mark && e.maxTime != noTime:
		return ReasonNotElected, true
	}
	return ReasonExpired, e.received.Before(n.since)
}
