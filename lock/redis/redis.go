// Package redis is the kind of lock on one Redis: a key with an expiry, and beside it a
// counter that gives the fencing tokens. Both are changed by one script, so that no token
// is given twice.
//
// The counter is as durable as the Redis. After a restart without data, or a failover to
// a replica that was behind, it may begin below what was seen: then a fence refuses
// everything until somebody resets it.
package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-metrics/sluice/lock"
)

// Kind is the key of this kind in the configuration.
const Kind = "redis"

// Store is a lock.Store on one Redis.
type Store struct {
	client *redis.Client
	prefix string
}

var (
	_ lock.Store    = (*Store)(nil)
	_ lock.Recorder = (*Store)(nil)
)

// New returns a Store. The configuration is valid. It does not connect yet.
func New(c Config) (*Store, error) {
	client, err := NewClient(c.Address, c.Client)
	if err != nil {
		return nil, err
	}
	return &Store{client: client, prefix: c.Prefix}, nil
}

// The key holds "<token> <holder>".
const held = `
local value = redis.call('GET', KEYS[1])
local mine = value and string.match(value, '^%d+ (.*)$') == ARGV[1]
`

var (
	grant = redis.NewScript(held + `
if value and not mine then
  return {0, value}
end
if mine then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {1, value}
end
value = redis.call('INCR', KEYS[2]) .. ' ' .. ARGV[1]
redis.call('SET', KEYS[1], value, 'NX', 'PX', ARGV[2])
return {1, value}
`)
	renew = redis.NewScript(held + `
if mine then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
`)
	release = redis.NewScript(held + `
if mine then
  redis.call('DEL', KEYS[1])
end
return 0
`)
)

// keys are the lock's and the counter's. The braces keep both in one slot of a cluster.
func (s *Store) keys(name string) []string {
	key := s.prefix + "{" + name + "}"
	return []string{key, key + ":fence"}
}

// Kind implements lock.Store.
func (*Store) Kind() string { return Kind }

// Close implements lock.Store.
func (s *Store) Close() error { return s.client.Close() }

// Grant implements lock.Store.
func (s *Store) Grant(ctx context.Context, c lock.Claim) (lock.Grant, error) {
	answer, err := grant.Run(ctx, s.client, s.keys(c.Name), c.Holder, c.TTL.Milliseconds()).Slice()
	if err != nil {
		return lock.Grant{}, s.failed("grant", err)
	}
	if len(answer) != 2 {
		return lock.Grant{}, fmt.Errorf("BUG: the script of grant answered %v", answer)
	}
	value, _ := answer[1].(string)
	token, holder, err := parse(value)
	if err != nil {
		return lock.Grant{}, s.failed("grant", err)
	}
	if granted, _ := answer[0].(int64); granted != 1 {
		return lock.Grant{}, &lock.HeldError{By: lock.HolderInfo{Held: true, Instance: lock.InstanceOf(holder), Token: token}}
	}
	return lock.Grant{Claim: c, Token: token}, nil
}

// Find implements lock.Store.
func (s *Store) Find(ctx context.Context, c lock.Claim) (lock.Grant, error) {
	value, err := s.client.Get(ctx, s.keys(c.Name)[0]).Result()
	if errors.Is(err, redis.Nil) {
		return lock.Grant{}, lock.ErrNotHeld
	}
	if err != nil {
		return lock.Grant{}, s.failed("read back", err)
	}
	token, holder, err := parse(value)
	if err != nil || holder != c.Holder {
		return lock.Grant{}, lock.ErrNotHeld
	}
	return lock.Grant{Claim: c, Token: token}, nil
}

// Renew implements lock.Store.
func (s *Store) Renew(ctx context.Context, g lock.Grant) (lock.Grant, error) {
	extended, err := renew.Run(ctx, s.client, s.keys(g.Name)[:1], g.Holder, g.TTL.Milliseconds()).Int()
	if err != nil {
		return g, s.failed("renew", err)
	}
	if extended != 1 {
		return g, lock.ErrLost
	}
	return g, nil
}

// Release implements lock.Store.
func (s *Store) Release(ctx context.Context, g lock.Grant) error {
	if err := release.Run(ctx, s.client, s.keys(g.Name)[:1], g.Holder).Err(); err != nil {
		return s.failed("release", err)
	}
	return nil
}

// Holder implements lock.Store.
func (s *Store) Holder(ctx context.Context, name string) (lock.HolderInfo, error) {
	key := s.keys(name)[0]
	pipe := s.client.Pipeline()
	get, ttl := pipe.Get(ctx, key), pipe.PTTL(ctx, key)
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return lock.HolderInfo{}, s.failed("read", err)
	}
	if errors.Is(get.Err(), redis.Nil) {
		return lock.HolderInfo{}, nil
	}
	token, holder, err := parse(get.Val())
	if err != nil {
		return lock.HolderInfo{}, s.failed("read", err)
	}
	return lock.HolderInfo{Held: true, Instance: lock.InstanceOf(holder), Token: token, Remaining: max(0, ttl.Val().Round(time.Millisecond))}, nil
}

// parse takes the value of a lock's key apart.
func parse(value string) (token uint64, holder string, err error) {
	number, holder, ok := strings.Cut(value, " ")
	token, err = strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		return 0, "", lock.Marked(lock.ErrRefused, fmt.Errorf("the key holds %q, which no lock wrote: is its prefix used by something else?", value))
	}
	return token, holder, nil
}

func (s *Store) failed(what string, err error) error {
	return Explain(what, s.client.Options().Addr, err)
}
