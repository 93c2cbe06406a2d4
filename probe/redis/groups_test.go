package redis_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	client "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/probetest"
	"github.com/sluice-metrics/sluice/probe/redis"
)

// fill adds entries to the stream s, some time apart, and returns their ids and when each
// was added.
func fill(t *testing.T, c *client.Client, n int, apart time.Duration) (ids []string, at []time.Time) {
	t.Helper()
	tick := time.NewTicker(apart)
	defer tick.Stop()
	for range n {
		at = append(at, time.Now())
		id, err := c.XAdd(context.Background(), &client.XAddArgs{Stream: "s", Values: []any{"k", "v"}}).Result()
		require.NoError(t, err)
		ids = append(ids, id)
		<-tick.C
	}
	return ids, at
}

func read(t *testing.T, c *client.Client, n int64) {
	t.Helper()
	got, err := c.XReadGroup(context.Background(), &client.XReadGroupArgs{
		Group: "g", Consumer: "c", Streams: []string{"s", ">"}, Count: n, Block: -1,
	}).Result()
	require.NoError(t, err)
	require.Len(t, got[0].Messages, int(n))
}

// 60 of 100 entries read; then entries deleted; then the stream trimmed.
func TestStreamGroup(t *testing.T) {
	t.Parallel()
	server := testutil.StartRedis(t, testutil.RedisOptions{})
	ctx, c := t.Context(), server.Client()
	require.NoError(t, c.XGroupCreateMkStream(ctx, "s", "g", "0").Err())
	watch := probetest.Start(t, newProber(t, server.Addr, redis.Stream{Key: "s"}, redis.Stream{Key: "not there"}))
	group := func(v *probe.TargetView) probe.StreamGroup {
		if v.Reading == nil || len(v.Reading.StreamGroups) != 1 {
			return probe.StreamGroup{}
		}
		return v.Reading.StreamGroups[0]
	}
	ids, at := fill(t, c, 100, 20*time.Millisecond)
	start := time.Now()
	read(t, c, 60)
	holds := func(oldest int, entries probe.Maybe[uint64]) {
		t.Helper()
		watch.Await(t, 3*time.Second, server.Addr, func(v *probe.TargetView) bool { return group(v).Entries == entries })
		watch.Holds(t, server.Addr, time.Second, func(v *probe.TargetView) bool {
			g := group(v)
			// 100 ids are 20 ms apart: the tolerance is smaller than in other tests, so
			// that the age of a wrong entry is seen.
			off := (time.Since(at[oldest]) - g.Lag.Value).Abs()
			return g.Stream == "s" && g.Group == "g" && g.Entries == entries && g.Lag.Known && off < probetest.Tick+200*time.Millisecond
		})
	}
	holds(60, probe.Some(uint64(40)))
	v := watch.View(t, server.Addr)
	require.Equal(t, probe.Some(uint64(60)), group(&v).Pending)
	require.InDelta(t, time.Since(start).Seconds(), group(&v).OldestPending.Value.Seconds(), 1)

	// Deletions among those that were not read: the server does not know how many.
	require.NoError(t, c.XDel(ctx, "s", ids[60], ids[61], ids[70]).Err())
	holds(62, probe.Maybe[uint64]{})

	// Trimmed to ten.
	require.NoError(t, c.XTrimMaxLen(ctx, "s", 10).Err())
	watch.Await(t, 3*time.Second, server.Addr, func(v *probe.TargetView) bool {
		return (time.Since(at[90]) - group(v).Lag.Value).Abs() < probetest.Tick+200*time.Millisecond
	})

	// Read to the end, and acknowledged.
	read(t, c, 10)
	require.NoError(t, c.XAck(ctx, "s", "g", ids...).Err())
	watch.Await(t, 3*time.Second, server.Addr, func(v *probe.TargetView) bool {
		g := group(v)
		return g.Entries == probe.Some(uint64(0)) && g.Lag == probe.Some(time.Duration(0)) &&
			g.Pending == probe.Some(uint64(0)) && g.OldestPending == probe.Some(time.Duration(0))
	})
}

// After trimming alone the server's count is too high.
func TestTrimmedStream(t *testing.T) {
	t.Parallel()
	server := testutil.StartRedis(t, testutil.RedisOptions{})
	ctx, c := t.Context(), server.Client()
	require.NoError(t, c.XGroupCreateMkStream(ctx, "s", "g", "0").Err())
	ids, _ := fill(t, c, 100, time.Millisecond)
	ms, _, _ := strings.Cut(ids[90], "-")
	added, err := strconv.ParseInt(ms, 10, 64)
	require.NoError(t, err)
	read(t, c, 60)
	require.NoError(t, c.XTrimMaxLen(ctx, "s", 10).Err())
	p := newProber(t, server.Addr, redis.Stream{Key: "s", Groups: []string{"g", "other"}})
	defer p.Close()
	least := time.Since(time.UnixMilli(added))
	r, err := once(t, p)
	most := time.Since(time.UnixMilli(added))
	require.NoError(t, err)
	require.Len(t, r.StreamGroups, 1)
	require.Equal(t, probe.Some(uint64(10)), r.StreamGroups[0].Entries)
	const coarse = 2 * time.Millisecond // of ids, which count milliseconds
	require.GreaterOrEqual(t, r.StreamGroups[0].Lag.Value, least-coarse)
	require.LessOrEqual(t, r.StreamGroups[0].Lag.Value, most+coarse)
}

// Ids that are no times have no age.
func TestOwnIDs(t *testing.T) {
	t.Parallel()
	server := testutil.StartRedis(t, testutil.RedisOptions{})
	server.Do(t, "XADD", "s", "7-1", "k", "v")
	server.Do(t, "XGROUP", "CREATE", "s", "g", "0")
	p := newProber(t, server.Addr, redis.Stream{Key: "s"})
	defer p.Close()
	r, err := once(t, p)
	require.NoError(t, err)
	require.Equal(t, probe.Some(uint64(1)), r.StreamGroups[0].Entries)
	require.False(t, r.StreamGroups[0].Lag.Known)
}

// The published rules are enough, and what is missing is named.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	server := testutil.StartRedis(t, testutil.RedisOptions{})
	server.Do(t, "XADD", "s", "*", "k", "v")
	server.Do(t, "XGROUP", "CREATE", "s", "g", "0")
	for _, rule := range rules(t, "s3cret") {
		server.Do(t, rule...)
	}
	server.Do(t, "ACL", "SETUSER", "weak", "on", ">s3cret", "-@all", "+info")
	server.Do(t, "ACL", "SETUSER", "none", "on", ">s3cret", "-@all")
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte("s3cret\n"), 0o600))
	as := func(user string) (probe.Reading, error) {
		p, err := redis.New(redis.Target{
			DSN: redis.DSN("redis://" + user + "@" + server.Addr), PasswordFile: password,
		}, []redis.Stream{{Key: "s"}})
		require.NoError(t, err)
		defer p.Close()
		return once(t, p)
	}
	r, err := as("gateway_probe")
	require.NoError(t, err)
	require.Equal(t, map[string]bool{"replication": true, "streams": true}, r.Privileged)
	require.Equal(t, probe.Some(uint64(1)), r.StreamGroups[0].Entries)
	require.True(t, r.StreamGroups[0].Lag.Known)

	server.Do(t, "SET", "text", "no stream")
	p := newProber(t, server.Addr, redis.Stream{Key: "text"}, redis.Stream{Key: "s"})
	defer p.Close()
	r, err = once(t, p)
	require.NoError(t, err)
	require.Equal(t, probe.RolePrimary, r.Role)
	require.Len(t, r.StreamGroups, 1, "a key of another type costs its own groups only")

	r, err = as("weak")
	require.NoError(t, err)
	require.Equal(t, map[string]bool{"replication": true, "streams": false}, r.Privileged)
	require.Empty(t, r.StreamGroups)

	_, err = as("none")
	require.ErrorContains(t, err, "NOPERM")

	account := client.NewClient(&client.Options{Addr: server.Addr, Username: "gateway_probe", Password: "s3cret", MaxRetries: -1})
	defer account.Close()
	for _, command := range [][]any{
		{"SET", "k", "v"}, {"GET", "k"}, {"KEYS", "*"}, {"CONFIG", "GET", "*"}, {"XADD", "s", "*", "a", "b"}, {"XACK", "s", "g", "1-1"},
	} {
		require.ErrorContains(t, account.Do(t.Context(), command...).Err(), "NOPERM", "%v", command)
	}
}

// rules are the commands of docs/probe/redis-acl.txt with the password filled in.
func rules(t *testing.T, password string) (commands [][]any) {
	t.Helper()
	root, err := testutil.Root()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root, "docs", "probe", "redis-acl.txt"))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "ACL ") {
			continue
		}
		var command []any
		for _, word := range strings.Fields(strings.ReplaceAll(line, "change-me", password)) {
			command = append(command, word)
		}
		commands = append(commands, command)
	}
	require.NotEmpty(t, commands)
	return commands
}

// What is set up wrongly gives one clear error, without the password.
func TestBadSetups(t *testing.T) {
	t.Parallel()
	server := testutil.StartRedis(t, testutil.RedisOptions{})
	server.Do(t, "CONFIG", "SET", "requirepass", "right")
	silent := testutil.StartProxy(t, server.Addr)
	silent.Set(testutil.Network{HalfOpen: true})
	other := testutil.StartPostgres(t, testutil.PostgresOptions{})
	for name, c := range map[string]struct{ dsn, want string }{
		"wrong password": {"redis://:hush@" + server.Addr, "see password_file and docs/probe/redis-acl.txt"},
		"no password":    {"redis://" + server.Addr, "NOAUTH"},
		"no server":      {"redis://:hush@" + testutil.FreeAddress(t), "connection refused: does the server run"},
		"no such host":   {"redis://:hush@db.invalid:6379", "the name has no address"},
		"silent network": {"redis://:hush@" + silent.Address(), "from " + silent.Address() + ": is a firewall dropping packets"},
		"no TLS there":   {"rediss://:hush@" + server.Addr, "TLS at one end only"},
		"PostgreSQL":     {"redis://:hush@" + other.Addr, "is it a Redis"},
	} {
		p, err := redis.New(redis.Target{DSN: redis.DSN(c.dsn)}, nil)
		require.NoError(t, err, name)
		start := time.Now()
		_, err = once(t, p)
		require.ErrorContains(t, err, c.want, name)
		require.ErrorContains(t, err, "Redis at "+p.Target()+": ", name)
		require.NotContains(t, err.Error(), "\n", name)
		require.Equal(t, strings.HasSuffix(name, "password"), errors.Is(err, probe.ErrDenied), name)
		require.NotContains(t, err.Error(), "hush", name)
		t.Log(err)
		require.Less(t, time.Since(start), 3*time.Second, name)
		require.NoError(t, p.Close(), name)
	}
}
