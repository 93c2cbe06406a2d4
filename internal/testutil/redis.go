package testutil

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// RedisOptions configure a real Redis.
type RedisOptions struct {
	// ReplicaOf is the address (host:port) of the server to replicate; empty is a
	// primary.
	ReplicaOf string
	// Args are further arguments ("--maxmemory", "50mb"); they win over the
	// harness' own.
	Args []string
}

// Redis is a running redis-server without persistence. Pause and Resume freeze and
// thaw it, Kill ends it for good.
type Redis struct {
	*Process
	Addr   string // host:port
	opts   RedisOptions
	dir    string
	client *redis.Client
}

// StartRedis starts a redis-server and waits until it answers. A replica answers before
// its first copy is complete; AwaitLink waits for that.
func StartRedis(t testing.TB, opts RedisOptions) *Redis {
	t.Helper()
	r := &Redis{Addr: FreeAddress(t), opts: opts, dir: t.TempDir()}
	r.client = redis.NewClient(&redis.Options{
		Addr: r.Addr, DialTimeout: 2 * time.Second, ReadTimeout: 5 * time.Second, MaxRetries: -1,
		ContextTimeoutEnabled: true,
	})
	t.Cleanup(func() { _ = r.client.Close() })
	r.start(t)
	return r
}

func (r *Redis) start(t testing.TB) {
	t.Helper()
	host, port, err := net.SplitHostPort(r.Addr)
	require.NoError(t, err)
	args := []string{
		"--port", port, "--bind", host, "--dir", r.dir, "--save", "", "--appendonly", "no",
		"--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0",
		"--repl-ping-replica-period", "2", "--repl-timeout", "6",
	}
	if r.opts.ReplicaOf != "" {
		host, port, err := net.SplitHostPort(r.opts.ReplicaOf)
		require.NoError(t, err)
		args = append(args, "--replicaof", host+" "+port)
	}
	r.Process = StartProcess(t, Command{
		Name: "redis-server", Path: Program(t, "redis-server"), Args: append(args, r.opts.Args...), Dir: r.dir,
	})
	awaitServer(t, r.Process, 20*time.Second, func(ctx context.Context) error { return r.client.Ping(ctx).Err() })
}

// Client is a connection pool of the harness to the server, closed with the test.
func (r *Redis) Client() *redis.Client { return r.client }

// Do runs one command and fails the test when the server refuses it.
func (r *Redis) Do(t testing.TB, args ...any) any {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	answer, err := r.client.Do(ctx, args...).Result()
	require.NoError(t, err, "redis %s: %v", r.Addr, args)
	return answer
}

// Restart kills the server and starts it at the same address with nothing in it.
func (r *Redis) Restart(t testing.TB) {
	t.Helper()
	r.Kill()
	r.past = true
	r.start(t)
}

// AwaitLink waits until the replica has its first copy and follows its primary.
func (r *Redis) AwaitLink(t testing.TB) {
	t.Helper()
	awaitServer(t, r.Process, 20*time.Second, func(ctx context.Context) error {
		info, err := r.client.Info(ctx, "replication").Result()
		if err == nil && !strings.Contains(info, "master_link_status:up") {
			err = errors.New("the link to its primary is down")
		}
		return err
	})
}
