package redis_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/probetest"
	"github.com/sluice-metrics/sluice/probe/redis"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a primary with one replica, both watched.
type pair struct {
	primary, replica *testutil.Redis
	link             *testutil.Proxy // through which the replica follows the primary
	watch            *probetest.Watch
}

// startPair starts a pair whose replica has all there is.
func startPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{primary: testutil.StartRedis(t, testutil.RedisOptions{})}
	p.link = testutil.StartProxy(t, p.primary.Addr)
	p.replica = testutil.StartRedis(t, testutil.RedisOptions{ReplicaOf: p.link.Address()})
	p.replica.AwaitLink(t)
	p.watch = probetest.Start(t, newProber(t, p.primary.Addr), newProber(t, p.replica.Addr))
	p.watch.AwaitNoLag(t, p.replica.Addr)
	return p
}

// write changes a value on the primary and returns when that began.
func (p *pair) write(t *testing.T) time.Time {
	at := time.Now()
	if err := p.primary.Client().Incr(context.Background(), "counter").Err(); err != nil {
		t.Errorf("write to the primary: %v", err)
	}
	return at
}

// compare logs a row of the table that sets the customary signals beside ours, for the
// operator's documentation.
func (p *pair) compare(t *testing.T, state string, truth time.Duration) {
	t.Helper()
	fields := func(s *testutil.Redis, names ...string) (out []string) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		text, err := s.Client().Info(ctx, "replication").Result()
		if err != nil {
			return []string{"no answer"}
		}
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			if slices.Contains(names, name) {
				out = append(out, name+" "+value[max(0, strings.LastIndex(value, ",")+1):])
			}
		}
		return out
	}
	v := p.watch.View(t, p.replica.Addr)
	t.Logf("| Redis: %s | %.1f | %.1f (%s) | %s |", state, truth.Seconds(), v.Lag.Age.Seconds(), v.Lag.Source,
		strings.Join(append(fields(p.replica, "master_link_status"), fields(p.primary, "slave0")...), ", "))
}

func newProber(t testing.TB, addr string, streams ...redis.Stream) *redis.Prober {
	t.Helper()
	p, err := redis.New(redis.Target{DSN: redis.DSN("redis://" + addr)}, streams)
	require.NoError(t, err)
	return p
}

func once(t testing.TB, p probe.Prober) (probe.Reading, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return p.Probe(ctx)
}

func noLag(v *probe.TargetView) bool { return v.Lag.Known() && v.Lag.Age < probetest.Tolerance }
