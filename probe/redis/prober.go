package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/prometheus/common/config"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sluice-metrics/sluice/internal/redisclient"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/failure"
)

// Kinds of information that need a permission: keys of Reading.Privileged.
const (
	kindReplication = "replication"
	kindStreams     = "streams"
)

// Prober reads one Redis server over one connection.
type Prober struct {
	address string
	client  *redis.Client
	streams []Stream
}

var _ probe.Prober = (*Prober)(nil)

// New makes a Prober that watches the streams' groups while the server is primary. It
// opens no connection.
func New(t Target, streams []Stream) (*Prober, error) {
	d, err := format.Parse(string(t.DSN))
	if err != nil {
		return nil, fmt.Errorf("dsn: %w", err)
	}
	number, err := database(d)
	if err != nil {
		return nil, fmt.Errorf("dsn: %w", err)
	}
	section := t.TLS
	if section == nil && d.Scheme == schemeTLS {
		section = &config.TLSConfig{}
	}
	secure, err := d.TLSConfig(section)
	if err != nil {
		return nil, err
	}
	return &Prober{
		address: d.Address,
		streams: slices.Clone(streams),
		client: redisclient.New(options(d.Address, number, secure, func(context.Context) (string, string, error) {
			password, err := d.ReadPassword(t.PasswordFile)
			return d.User, password, err
		})),
	}, nil
}

// options are those of one connection that tries once and asks for nothing that a probe's
// account may not do.
func options(address string, number int, secure *tls.Config, account func(context.Context) (string, string, error)) *redis.Options {
	return &redis.Options{
		Addr:                       address,
		DB:                         number,
		CredentialsProviderContext: account,
		OnConnect:                  setName,
		Dialer:                     dialer(secure),
		PoolSize:                   1,
		MaxRetries:                 -1,
		DialerRetries:              1,
		DialTimeout:                dialTimeout,
		// Above any limit of a probe: the context's deadline is what counts.
		ReadTimeout:              time.Minute,
		WriteTimeout:             time.Minute,
		ContextTimeoutEnabled:    true,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// setName names the connection, for those who look at the server's clients. An account
// that may not do even that can probe all the same.
func setName(ctx context.Context, c *redis.Conn) error {
	_ = c.ClientSetName(ctx, "gateway-probe").Err()
	return nil
}

// connected returns the error of a pipe that none of its commands has: that of a server
// which refused the connection before it was asked anything.
func connected(commands []redis.Cmder, err error) error {
	for _, c := range commands {
		if c.Err() != nil {
			return nil
		}
	}
	return err
}

// late gives an answer that did not come in time one name. The library has two, depending
// on who noticed first.
func late(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w (%w)", context.DeadlineExceeded, err)
	}
	return err
}

// Target is host:port.
func (p *Prober) Target() string { return p.address }

// Engine is Redis.
func (p *Prober) Engine() probe.Engine { return probe.EngineRedis }

// Close drops the connection.
func (p *Prober) Close() error {
	if err := p.client.Close(); err != nil {
		return fmt.Errorf("close the connection: %w", err)
	}
	return nil
}

// Probe reads the server in one round trip, or two where there are consumer groups.
func (p *Prober) Probe(ctx context.Context) (probe.Reading, error) {
	start := time.Now()
	r, err := p.probe(ctx)
	if err != nil {
		return r, failure.Server{Name: "Redis", Address: p.address, Grants: "docs/probe/redis-acl.txt"}.Explain(err, failure.Finding{
			Within: time.Since(start), Denied: redis.IsAuthError(err) || redis.IsPermissionError(err),
		})
	}
	return r, nil
}

func (p *Prober) probe(ctx context.Context) (probe.Reading, error) {
	pipe := p.client.Pipeline()
	answer := pipe.Info(ctx, "replication", "clients")
	streams := askStreams(ctx, pipe, p.streams)
	if err := connected(pipe.Exec(ctx)); err != nil {
		return probe.Reading{}, fmt.Errorf("connect: %w", late(err))
	}
	text, err := answer.Result()
	if err != nil {
		return probe.Reading{}, fmt.Errorf("read the server's state: %w", late(err))
	}
	fields := parseInfo(text)
	r := probe.Reading{Privileged: map[string]bool{kindReplication: true}}
	if err := fields.replication(&r); err != nil {
		return probe.Reading{}, err
	}
	fields.sessions(&r)
	if r.Role == probe.RolePrimary && len(streams) > 0 {
		groups, allowed, err := p.readGroups(ctx, streams)
		if err != nil {
			return probe.Reading{}, err
		}
		r.StreamGroups, r.Privileged[kindStreams] = groups, allowed
	}
	return r, nil
}
