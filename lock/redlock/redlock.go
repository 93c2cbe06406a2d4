// Package redlock is the kind of lock on a majority of several independent Redis, by
// redsync. It is for efficiency only: it has no fencing token, because independent
// servers have no common counter, and it trusts the speed of their clocks. What must not
// be done twice needs another kind.
package redlock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-redsync/redsync/v4"
	syncredis "github.com/go-redsync/redsync/v4/redis"
	redsyncredis "github.com/go-redsync/redsync/v4/redis/goredis/v9"
	goredis "github.com/redis/go-redis/v9"

	"github.com/sluice-metrics/sluice/internal/fielderror"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/redis"
)

// Kind is the key of this kind in the configuration.
const Kind = "redlock"

// minNodes is the smallest number of which a minority may fail.
const minNodes = 3

// Config is the section `redlock` of a lease.
type Config struct {
	// Addresses of independent Redis, host:port: three or more, an odd number, none a
	// replica of another. Required.
	Addresses []string `yaml:"addresses"`
	// Prefix of the keys. Gateways that shall exclude each other have the same one.
	Prefix string `yaml:"prefix,omitempty"`
	// Client is how to log in and connect, the same for all: database, username, password,
	// password_file, tls_config, timeout.
	Client redis.ClientConfig `yaml:",inline"`
}

// SetDefaults sets what holds for keys that the file does not set.
func (c *Config) SetDefaults() {
	c.Prefix = redis.DefaultPrefix
	c.Client.SetDefaults()
}

// SetDirectory makes relative names of files relative to dir.
func (c *Config) SetDirectory(dir string) { c.Client.SetDirectory(dir) }

// Validate reports every bad value as a *fielderror.Error.
func (c *Config) Validate() error {
	var errs []error
	switch n := len(c.Addresses); {
	case n < minNodes:
		errs = append(errs, fielderror.Errorf("addresses", "has %d; list %d or more independent Redis, or use redis for one", n, minNodes))
	case n%2 == 0:
		errs = append(errs, fielderror.Errorf("addresses", "has %d, an even number: one of them adds nothing but another way to fail", n))
	}
	for i, a := range c.Addresses {
		path := fmt.Sprintf("addresses[%d]", i)
		errs = append(errs, redis.ValidateAddress(path, a))
		if slices.Index(c.Addresses, a) < i {
			errs = append(errs, fielderror.Errorf(path, "%q stands there twice; the servers have to be independent", a))
		}
	}
	return errors.Join(append(errs, c.Client.Validate())...)
}

// Store is a lock.Store on several Redis.
type Store struct {
	sync    *redsync.Redsync
	clients []*goredis.Client
	prefix  string
}

var _ lock.Store = (*Store)(nil)

// New returns a Store. The configuration is valid. It does not connect yet.
func New(c Config) (*Store, error) {
	s := &Store{prefix: c.Prefix}
	var pools []syncredis.Pool
	for _, address := range c.Addresses {
		client, err := redis.NewClient(address, c.Client)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.clients = append(s.clients, client)
		pools = append(pools, patient{redsyncredis.NewPool(client)})
	}
	s.sync = redsync.New(pools...)
	return s, nil
}

// Kind implements lock.Store.
func (*Store) Kind() string { return Kind }

// Close implements lock.Store.
func (s *Store) Close() error {
	var errs []error
	for _, c := range s.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// longestCommand bounds commands whose caller sets no bound.
const longestCommand = time.Second

// patient is a pool whose commands end with their deadline only. Redsync returns when a
// majority has answered, and cancels the others: a lock would then be on a bare majority
// of the servers and lost with the first one that fails, and keys left behind by
// releases, one here and one there, could be a majority against the next holder.
type patient struct{ syncredis.Pool }

func (p patient) Get(ctx context.Context) (syncredis.Conn, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(longestCommand)
	}
	detached, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	context.AfterFunc(detached, cancel)
	return p.Pool.Get(detached)
}

// callShare bounds what redsync waits for one server, as a share of the TTL.
const callShare = 1. / 6

// mutex is redsync's view of a claim. Without failing fast each call would wait for a
// server that is stopped.
func (s *Store) mutex(c lock.Claim) *redsync.Mutex {
	return s.sync.NewMutex(s.prefix+c.Name,
		redsync.WithExpiry(c.TTL), redsync.WithTries(1), redsync.WithFailFast(true), redsync.WithTimeoutFactor(callShare),
		redsync.WithGenValueFunc(func() (string, error) { return c.Holder, nil }), redsync.WithValue(c.Holder))
}

// Grant implements lock.Store.
func (s *Store) Grant(ctx context.Context, c lock.Claim) (lock.Grant, error) {
	m := s.mutex(c)
	if c.Unsure {
		// What an earlier attempt left behind on a minority would count as another's.
		if err := s.Release(ctx, lock.Grant{Claim: c}); err != nil {
			return lock.Grant{}, err
		}
	}
	err := m.TryLockContext(ctx)
	var taken *redsync.ErrTaken
	switch {
	case errors.As(err, &taken):
		return lock.Grant{}, &lock.HeldError{}
	case err != nil:
		// Redsync has sent releases, which may arrive after another attempt.
		return lock.Grant{}, fmt.Errorf("%w: %w", lock.ErrWithdrawn, s.noMajority(err))
	}
	return lock.Grant{Claim: c}, nil
}

// Find implements lock.Store.
func (s *Store) Find(ctx context.Context, c lock.Claim) (lock.Grant, error) {
	holder, err := s.majority(ctx, c.Name)
	switch {
	case err != nil:
		return lock.Grant{}, err
	case holder != c.Holder:
		return lock.Grant{}, lock.ErrNotHeld
	}
	return lock.Grant{Claim: c}, nil
}

// Renew implements lock.Store.
func (s *Store) Renew(ctx context.Context, g lock.Grant) (lock.Grant, error) {
	extended, err := s.mutex(g.Claim).ExtendContext(ctx)
	var taken *redsync.ErrTaken
	switch {
	case errors.As(err, &taken):
		return g, fmt.Errorf("%w: %w", lock.ErrLost, err)
	case err != nil:
		return g, s.noMajority(err)
	case !extended:
		return g, fmt.Errorf("BUG: redsync extended nothing and says no reason")
	}
	return g, nil
}

// Release implements lock.Store. It returns when a majority has answered.
func (s *Store) Release(ctx context.Context, g lock.Grant) error {
	_, err := s.mutex(g.Claim).UnlockContext(ctx)
	var failed *redsync.RedisError
	if errors.As(err, &failed) {
		return s.noMajority(err)
	}
	return nil // what is left are answers that the key is not there, or another's
}

// Holder implements lock.Store.
func (s *Store) Holder(ctx context.Context, name string) (lock.HolderInfo, error) {
	holder, err := s.majority(ctx, name)
	if err != nil || holder == "" {
		return lock.HolderInfo{}, err
	}
	return lock.HolderInfo{Held: true, Instance: lock.InstanceOf(holder)}, nil
}

// majority is the holder whom a majority of the servers names; empty when there is none.
func (s *Store) majority(ctx context.Context, name string) (string, error) {
	values, errs := make([]string, len(s.clients)), make([]error, len(s.clients))
	var all sync.WaitGroup
	for i, c := range s.clients {
		all.Go(func() {
			values[i], errs[i] = c.Get(ctx, s.prefix+name).Result()
			if errors.Is(errs[i], goredis.Nil) {
				errs[i] = nil
			}
		})
	}
	all.Wait()
	quorum := len(s.clients)/2 + 1
	votes, answers := map[string]int{}, 0
	for i, v := range values {
		if errs[i] != nil {
			continue
		}
		answers++
		if votes[v]++; v != "" && votes[v] >= quorum {
			return v, nil
		}
	}
	if answers < quorum {
		return "", s.noMajority(errors.Join(errs...))
	}
	return "", nil
}

// noMajority says in one line why there was none. It is a lock.ErrRefused where a server did
// not let the account do what it has to.
func (s *Store) noMajority(err error) error {
	var said []string
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "*"))
		if line != "" && !strings.HasSuffix(line, "occurred:") && !slices.Contains(said, line) {
			said = append(said, line)
		}
	}
	var addresses []string
	for _, c := range s.clients {
		addresses = append(addresses, c.Options().Addr)
	}
	out := lock.Marked(err, fmt.Errorf("no majority of the %d Redis %s: %s", len(s.clients), strings.Join(addresses, ", "), strings.Join(said, "; ")))
	if goredis.IsAuthError(err) || goredis.IsPermissionError(err) || goredis.IsReadOnlyError(err) {
		return lock.Marked(lock.ErrRefused, out)
	}
	return out
}
