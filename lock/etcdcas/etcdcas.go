// Package etcdcas is the kind of lock on etcd with an etcd lease per acquisition: one call
// for the lease, one compare-and-swap for the key. It costs twice what package etcd does,
// and leaves nothing to keep alive between acquisitions.
package etcdcas

import (
	"context"
	"errors"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/etcd"
)

// Kind is the key of this kind in the configuration.
const Kind = "etcdcas"

// Config is the section `etcdcas` of a lease. Its keys are those of `etcd`.
type Config struct {
	etcd.Config `yaml:",inline"`
}

// Store is a lock.Store on etcd.
type Store struct{ client *etcd.Client }

var (
	_ lock.Store    = (*Store)(nil)
	_ lock.Awaiter  = (*Store)(nil)
	_ lock.Recorder = (*Store)(nil)
)

// New returns a Store. The configuration is valid. It does not connect yet.
func New(c Config) *Store { return &Store{client: etcd.NewClient(c.Config)} }

// Kind implements lock.Store.
func (*Store) Kind() string { return Kind }

// Close implements lock.Store.
func (s *Store) Close() error { return s.client.Close() }

// Grant implements lock.Store.
func (s *Store) Grant(ctx context.Context, c lock.Claim) (lock.Grant, error) {
	id, granted, err := s.client.GrantLease(ctx, c.TTL)
	if err != nil {
		return lock.Grant{}, etcd.Unsent(err)
	}
	g, err := s.client.Create(ctx, c, id)
	if errors.Is(err, lock.ErrHeld) {
		_ = s.client.RevokeLease(ctx, id) // or it expires
	}
	if err != nil {
		// With an unknown outcome nothing is revoked: the key may be found to be there,
		// and a revocation that comes late would take it away.
		return lock.Grant{}, err
	}
	g.Granted = granted
	return g, nil
}

// Find implements lock.Store.
func (s *Store) Find(ctx context.Context, c lock.Claim) (lock.Grant, error) {
	return s.client.Find(ctx, c)
}

// Renew implements lock.Store.
func (s *Store) Renew(ctx context.Context, g lock.Grant) (lock.Grant, error) {
	granted, err := s.client.KeepAlive(ctx, clientv3.LeaseID(g.Handle))
	if err != nil {
		return g, err
	}
	g.Granted = granted
	return g, s.client.Check(ctx, g)
}

// Release implements lock.Store.
func (s *Store) Release(ctx context.Context, g lock.Grant) error {
	if g.Handle != 0 {
		return s.client.RevokeLease(ctx, clientv3.LeaseID(g.Handle))
	}
	return s.client.Delete(ctx, g.Claim)
}

// Holder implements lock.Store.
func (s *Store) Holder(ctx context.Context, name string) (lock.HolderInfo, error) {
	return s.client.Holder(ctx, name)
}

// Await implements lock.Awaiter.
func (s *Store) Await(ctx context.Context, name string) error { return s.client.Await(ctx, name) }

// ReadRecord implements lock.Recorder.
func (s *Store) ReadRecord(ctx context.Context, name string) (value []byte, revision uint64, err error) {
	return s.client.ReadRecord(ctx, name)
}

// SwapRecord implements lock.Recorder.
func (s *Store) SwapRecord(ctx context.Context, name string, revision uint64, value []byte) (written uint64, swapped bool, err error) {
	return s.client.SwapRecord(ctx, name, revision, value)
}
