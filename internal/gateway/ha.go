package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/ha"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/receiver"
)

// pairs judges samples of HA pairs for the receiver.
type pairs struct {
	tracker *ha.Tracker
	store   ha.Store
}

// newPairs opens the store of the elections; nil where there are no HA pairs.
func (g *Gateway) newPairs(c *config.Config) (*pairs, error) {
	if !c.PairsEnabled() {
		return nil, nil
	}
	store, err := c.Lease.Records(config.LeaseOptions{Registerer: g.registry, HikariCP: c.Compat.HikariCP, Now: g.o.Now})
	if err != nil {
		return nil, err
	}
	t, err := ha.New(ha.Options{
		Config:     *c.HA,
		Store:      store,
		Append:     g.appendHeld,
		Logger:     g.o.Logger.With("component", "ha"),
		Registerer: g.registry,
		Now:        g.o.Now,
	})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &pairs{tracker: t, store: store}, nil
}

// judge is what the receiver asks; nil where there are no HA pairs.
func (p *pairs) judge() receiver.Pairs {
	if p == nil {
		return nil
	}
	return p
}

// run elects replicas until ctx ends.
func (p *pairs) run(ctx context.Context) {
	if p != nil {
		p.tracker.Run(ctx)
	}
}

// close ends the connection to the store. No request is under way.
func (p *pairs) close() error {
	if p == nil {
		return nil
	}
	if err := p.store.Close(); err != nil {
		return fmt.Errorf("closing the store of HA elections: %w", err)
	}
	return nil
}

// appendHeld brings in what was held back of a replica that was elected.
func (g *Gateway) appendHeld(ctx context.Context, v series.Version, body []byte) error {
	buf := series.NewBuffer(len(body))
	buf.B = append(buf.B, body...)
	_, err := g.ingester.Ingest(ctx, receiver.Request{Version: v, Body: buf})
	var refusal *receiver.Refusal
	if errors.As(err, &refusal) && refusal.Status == http.StatusBadRequest {
		return fmt.Errorf("%w: %w", ha.ErrRefused, err)
	}
	return err
}

// Admit implements receiver.Pairs.
func (p *pairs) Admit(r receiver.PairRequest) (receiver.PairAdmission, error) {
	var before *ha.Unsettled
	if u, ok := r.Settled.(unsettled); ok {
		before = u.Unsettled
	}
	a, err := p.tracker.Admit(ha.Request{Version: r.Version, Plain: r.Plain, Message: r.Message, Room: r.Room, Settled: before})
	var open *ha.Unsettled
	if errors.As(err, &open) {
		return nil, unsettled{open}
	}
	if err != nil {
		return nil, refusePair(err)
	}
	if a == nil {
		return nil, nil
	}
	return &pairAdmission{a}, nil
}

// unsettled is the receiver's view of a request about which the store has to be asked.
type unsettled struct{ *ha.Unsettled }

// Settle implements receiver.Unsettled.
func (u unsettled) Settle(ctx context.Context) error {
	if err := u.Unsettled.Settle(ctx); err != nil {
		return refusePair(err)
	}
	return nil
}

// refusePair tells the sender what to do about an error of package ha.
func refusePair(err error) error {
	switch {
	case errors.Is(err, ha.ErrTooManyClusters):
		return &receiver.Refusal{Status: http.StatusBadRequest, Err: err}
	case errors.Is(err, ha.ErrLater):
		return &receiver.Refusal{Status: http.StatusServiceUnavailable, Err: err}
	}
	return err
}

// pairAdmission is the receiver's view of an admission.
type pairAdmission struct{ a *ha.Admission }

func (p *pairAdmission) Body() []byte                { return p.a.Body }
func (p *pairAdmission) Deduplicated() series.Counts { return p.a.Deduplicated }
func (p *pairAdmission) Done(appended bool)          { p.a.Done(appended) }

func (p *pairAdmission) Check() error {
	if err := p.a.Check(); err != nil {
		return refusePair(err)
	}
	return nil
}
