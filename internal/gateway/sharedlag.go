package gateway

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/probe"
)

// Only one gateway probes a cluster, but each steers by its lag: the one that probes writes
// it into a record beside the lease, the others read it there.
const (
	sharePeriod = time.Second
	// shareLimit is how old what was read may be: a leader that died is not believed for
	// longer. Its successor writes within that time.
	shareLimit = 5 * time.Second
	shareCall  = 500 * time.Millisecond // limit of one call of the store
)

// sharedLag is the record.
type sharedLag struct {
	// Token is the fencing token of the gateway that wrote it.
	Token uint64 `json:"token"`
	// Lag is probe.Cluster.Lag; it means nothing without Known.
	Lag   float64 `json:"lag_seconds"`
	Known bool    `json:"known"`
	// Time is when it was written, Unix ms by the writer's clock: for people alone.
	Time int64 `json:"time"`
}

// shareRecord is the name of the record of a cluster.
func shareRecord(cluster string) string { return "lag/" + cluster }

// lagRecord is the record as this gateway knows it.
type lagRecord struct {
	calls sync.Mutex // held during calls of the store; before leaders.mu

	known    bool   // the revision is that of the store, as far as is known
	revision uint64 // as last read or written
	content  sharedLag
	changed  time.Time // when the revision was first seen; zero: never
}

func (p *lagRecord) unread() { p.known = false }

// share writes or reads the record of the cluster until ctx ends.
func (l *leaders) share(ctx context.Context, c *probe.Cluster) {
	if l.records == nil {
		return
	}
	for ctx.Err() == nil {
		lease, _ := l.held(c.Name())
		switch {
		case lease != nil:
			l.publish(ctx, c, lease)
		case l.Leadership(c.Name()).Known(): // else the store does not answer: the campaign asks it
			l.read(ctx, c.Name())
		}
		wait(ctx, jitter(sharePeriod))
	}
}

// record is the record of the cluster.
func (l *leaders) record(cluster string) *lagRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &l.standing(cluster).record
}

// publish writes the lag, unless a higher token was there before. Each writing compares: a
// gateway that was overtaken finds another revision, reads it, and with it the other's token.
func (l *leaders) publish(ctx context.Context, c *probe.Cluster, lease lock.Lease) {
	if l.records == nil {
		return
	}
	p := l.record(c.Name())
	p.calls.Lock()
	defer p.calls.Unlock()
	for range 2 {
		l.mu.Lock()
		known, revision := p.known, p.revision
		l.mu.Unlock()
		if !known {
			if !l.readInto(ctx, c.Name(), p) {
				return
			}
			continue
		}
		if !lease.Valid() || lease.Token() < l.fence.Highest(c.Name()) {
			return
		}
		lag, lagKnown := c.Lag()
		content := sharedLag{Token: lease.Token(), Lag: lag.Seconds(), Known: lagKnown, Time: l.now().UnixMilli()}
		text, _ := json.Marshal(content) // numbers and a bool
		limited, cancel := context.WithTimeout(ctx, shareCall)
		written, swapped, err := l.records.SwapRecord(limited, shareRecord(c.Name()), revision, text)
		cancel()
		l.mu.Lock()
		p.known = err == nil && swapped
		if p.known {
			p.revision, p.content, p.changed = written, content, l.now()
		}
		l.mu.Unlock()
		if p.known || err != nil {
			return
		}
	}
}

// read reads the record of the cluster.
func (l *leaders) read(ctx context.Context, cluster string) {
	p := l.record(cluster)
	p.calls.Lock()
	defer p.calls.Unlock()
	l.readInto(ctx, cluster, p)
}

// readInto reads the record; false when the store did not answer. The caller holds p.calls.
func (l *leaders) readInto(ctx context.Context, cluster string, p *lagRecord) bool {
	limited, cancel := context.WithTimeout(ctx, shareCall)
	defer cancel()
	text, revision, err := l.records.ReadRecord(limited, shareRecord(cluster))
	if err != nil {
		return false
	}
	var content sharedLag
	if len(text) > 0 && json.Unmarshal(text, &content) != nil {
		content = sharedLag{} // of something else, or of another version: nothing is known
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if revision < p.revision {
		// Revisions only grow: the store has lost its data, and counts tokens anew.
		l.logger.Warn("The store of the leases has lost its data; fencing tokens begin anew", "cluster", cluster)
		l.fence.Reset(cluster)
	}
	l.fence.Learn(cluster, content.Token)
	if revision != p.revision {
		p.changed = l.now()
	}
	p.known, p.revision, p.content = true, revision, content
	return true
}

// lag is what the gateway that probes a cluster has written last.
func (l *leaders) lag(cluster string) (seconds float64, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &l.standing(cluster).record
	if p.changed.IsZero() || l.now().Sub(p.changed) > shareLimit {
		return 0, false
	}
	return p.content.Lag, p.content.Known
}
