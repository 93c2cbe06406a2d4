// Package local is the kind of lock for one process: it keeps a single gateway's
// configuration the same as that of several, and coordinates nothing beyond the process.
package local

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/lock"
)

// Kind is the key of this kind in the configuration.
const Kind = "local"

// Config is the section `local` of a lease. It has no keys: leases are known in this
// process alone, and two gateways that are configured so both hold every lock.
type Config struct {
	_ struct{} `yaml:"-"` // says that this is a section
}

// SetDefaults is here so that all kinds have it.
func (*Config) SetDefaults() {}

// Validate finds nothing wrong.
func (*Config) Validate() error { return nil }

// Store is a lock.Store in memory.
type Store struct {
	now func() time.Time

	mu     sync.Mutex
	tokens map[string]uint64
	leases map[string]record
	values map[string]value
}

// value is a record that does not expire.
type value struct {
	text     string
	revision uint64
}

type record struct {
	holder  string
	token   uint64
	expires time.Time
}

var (
	_ lock.Store    = (*Store)(nil)
	_ lock.Recorder = (*Store)(nil)
)

// New returns an empty Store on the clock; nil is time.Now.
func New(now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	return &Store{now: now, tokens: map[string]uint64{}, leases: map[string]record{}, values: map[string]value{}}
}

// Kind implements lock.Store.
func (*Store) Kind() string { return Kind }

// Close implements lock.Store. A Store may be used on, by another Engine.
func (*Store) Close() error { return nil }

// live is the record of a name that has not expired. The caller holds mu.
func (s *Store) live(name string) (record, bool) {
	r, ok := s.leases[name]
	return r, ok && s.now().Before(r.expires)
}

// Grant implements lock.Store.
func (s *Store) Grant(ctx context.Context, c lock.Claim) (lock.Grant, error) {
	if err := ctx.Err(); err != nil {
		return lock.Grant{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, held := s.live(c.Name)
	if held && r.holder != c.Holder {
		return lock.Grant{}, &lock.HeldError{By: s.info(r)}
	}
	if !held {
		s.tokens[c.Name]++
		r = record{holder: c.Holder, token: s.tokens[c.Name]}
	}
	r.expires = s.now().Add(c.TTL)
	s.leases[c.Name] = r
	return lock.Grant{Claim: c, Token: r.token}, nil
}

// Find implements lock.Store.
func (s *Store) Find(ctx context.Context, c lock.Claim) (lock.Grant, error) {
	if err := ctx.Err(); err != nil {
		return lock.Grant{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, held := s.live(c.Name); held && r.holder == c.Holder {
		return lock.Grant{Claim: c, Token: r.token}, nil
	}
	return lock.Grant{}, lock.ErrNotHeld
}

// Renew implements lock.Store.
func (s *Store) Renew(ctx context.Context, g lock.Grant) (lock.Grant, error) {
	if err := ctx.Err(); err != nil {
		return g, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, held := s.live(g.Name)
	if !held || r.holder != g.Holder {
		return g, lock.ErrLost
	}
	r.expires = s.now().Add(g.TTL)
	s.leases[g.Name] = r
	return g, nil
}

// Release implements lock.Store.
func (s *Store) Release(ctx context.Context, g lock.Grant) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.leases[g.Name]; ok && r.holder == g.Holder {
		delete(s.leases, g.Name)
	}
	return nil
}

// Holder implements lock.Store.
func (s *Store) Holder(ctx context.Context, name string) (lock.HolderInfo, error) {
	if err := ctx.Err(); err != nil {
		return lock.HolderInfo{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, held := s.live(name); held {
		return s.info(r), nil
	}
	return lock.HolderInfo{}, nil
}

func (s *Store) info(r record) lock.HolderInfo {
	return lock.HolderInfo{Held: true, Instance: lock.InstanceOf(r.holder), Token: r.token, Remaining: r.expires.Sub(s.now())}
}

// ReadRecord implements lock.Recorder.
func (s *Store) ReadRecord(ctx context.Context, name string) (text []byte, revision uint64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.values[name]
	return []byte(v.text), v.revision, nil
}

// SwapRecord implements lock.Recorder.
func (s *Store) SwapRecord(ctx context.Context, name string, revision uint64, text []byte) (written uint64, swapped bool, err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values[name].revision != revision {
		return 0, false, nil
	}
	s.values[name] = value{string(text), revision + 1}
	return revision + 1, true, nil
}
