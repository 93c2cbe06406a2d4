package ha

import (
	"context"
	"time"
)

// Unsettled is the error of Admit for a request about which the store has to be asked
// first. Settle does that; then Admit is called again, with Request.Settled.
type Unsettled struct {
	t      *Tracker
	now    time.Time // of the first Admit
	asks   []ask
	claims map[member]*claim // what Settle got
}

// ask is that the record is to cover a replica's samples up to a time, Unix ms.
type ask struct {
	cluster *cluster
	replica string
	upTo    int64
}

func (u *Unsettled) Error() string {
	return "the store of HA elections has to be asked about HA cluster " + u.asks[0].cluster.name
}

// Settle asks the store. It takes as long as that does, some seconds at most, and needs
// nothing of the request. Call it once. An error is ErrLater or that of ctx, and ends the
// request.
func (u *Unsettled) Settle(ctx context.Context) error {
	u.claims = make(map[member]*claim, len(u.asks))
	for _, a := range u.asks {
		cl, err := u.t.claim(ctx, a.cluster, a.replica, a.upTo)
		if err != nil {
			return err
		}
		// What was judged without the store is judged again, because it may be back.
		if cl != nil && !cl.until.IsZero() {
			u.claims[member{a.cluster.name, a.replica}] = cl
		}
	}
	return nil
}

// stillCovers reports whether a claim that was got a moment ago is in force. How long it may
// be relied upon is in the claim.
func (c *cluster) stillCovers(cl *claim, upTo int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return cl.cluster == c && c.record.Replica == cl.replica && c.handover == "" && upTo <= c.record.Accepted
}
