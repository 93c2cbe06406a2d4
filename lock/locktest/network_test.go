package locktest_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/etcd"
	"github.com/sluice-metrics/sluice/lock/postgres"
	"github.com/sluice-metrics/sluice/lock/redis"
)

// convergence is how long it may take after a partition has healed until there is one
// holder whom everybody knows.
const convergence = 1800 * time.Millisecond

// behind puts a proxy before each address of the place.
func (p place) behind(t testing.TB) (place, []*testutil.Proxy) {
	t.Helper()
	through := place{Kind: p.Kind}
	var proxies []*testutil.Proxy
	for _, a := range p.Addresses {
		host := a
		if u, err := url.Parse(a); err == nil && u.Host != "" {
			host = u.Host
		}
		proxy := testutil.StartProxy(t, host)
		proxies = append(proxies, proxy)
		through.Addresses = append(through.Addresses, strings.Replace(a, host, proxy.Address(), 1))
	}
	return through, proxies
}

func set(proxies []*testutil.Proxy, n testutil.Network) {
	for _, p := range proxies {
		p.Set(n)
	}
}

// The holder's network stalls: it knows that it has lost the lock before another has it,
// each time; and when the network is back, both say the same.
func TestHolderBehindStalledNetwork(t *testing.T) {
	t.Parallel()
	const rounds = 20
	for _, p := range allPlaces(t) {
		t.Run(p.Kind, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()
			heir := p.engine(t, "heir")
			gaps, heals := make([]time.Duration, rounds), make([]time.Duration, rounds)
			var all sync.WaitGroup
			for i := range rounds {
				through, proxies := p.behind(t)
				e := through.engine(t, "holder")
				all.Go(func() {
					name := fmt.Sprintf("%s-job-%d", p.Kind, i) // etcd and etcdcas share a cluster
					l, err := e.Acquire(ctx, name, lock.Options{TTL: time.Second})
					if err != nil {
						t.Errorf("round %d: %v", i, err)
						return
					}
					ended := make(chan time.Time, 1)
					go func() { <-l.Done(); ended <- time.Now() }()
					time.Sleep(time.Duration(i) * 17 * time.Millisecond) // at any phase of the renewals
					set(proxies, testutil.Network{HalfOpen: true})
					if _, err := heir.Acquire(ctx, name, lock.Options{TTL: time.Second}); err != nil {
						t.Errorf("round %d: %v", i, err)
						return
					}
					acquired := time.Now()
					if l.Valid() {
						t.Errorf("round %d: two hold the lock", i)
					}
					gaps[i] = acquired.Sub(<-ended)
					set(proxies, testutil.Network{})
					healed := time.Now()
					for _, p := range proxies {
						p.CutAll() // TCP's own repetitions would take their time
					}
					for ctx.Err() == nil && !agree(ctx, e, heir, name) {
						time.Sleep(2 * time.Millisecond) // twenty of these are a load
					}
					heals[i] = time.Since(healed)
				})
			}
			all.Wait()
			require.NoError(t, ctx.Err())
			least, longest := gaps[0], heals[0]
			for i := range rounds {
				least, longest = min(least, gaps[i]), max(longest, heals[i])
				require.Positive(t, gaps[i], "round %d: Done closed after another had the lock", i)
			}
			t.Logf("%s: Done closed at least %v before another had the lock, %d of %d; agreed %v after the network was back",
				p.Kind, least.Round(time.Millisecond), rounds, rounds, longest.Round(time.Millisecond))
			require.LessOrEqual(t, longest, convergence)
		})
	}
}

// agree reports whether both see the same holder, and not the former one. On a machine that
// is too busy the heir may have lost a lease as short as this, too: then it is nobody.
func agree(ctx context.Context, former, heir *lock.Engine, name string) bool {
	one, errOne := former.Holder(ctx, name)
	two, errTwo := heir.Holder(ctx, name)
	return errOne == nil && errTwo == nil && one.Instance == two.Instance && one.Instance != "holder"
}

// A network with a delay of 20 ms in each direction costs time and no lease.
func TestSlowNetwork(t *testing.T) {
	t.Parallel()
	for _, p := range allPlaces(t) {
		t.Run(p.Kind, func(t *testing.T) {
			t.Parallel()
			through, proxies := p.behind(t)
			e := through.engine(t, "holder")
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			l, err := e.Acquire(ctx, p.Kind+"-slow", lock.Options{TTL: 1500 * time.Millisecond})
			require.NoError(t, err)
			set(proxies, testutil.Network{Delay: 20 * time.Millisecond})
			select {
			case <-l.Done():
				require.FailNow(t, "the lease ended", "%v", l.Err())
			case <-time.After(4 * time.Second):
			}
			require.NoError(t, l.Release(ctx))
		})
	}
}

// The whole backend stops for longer than the TTL and comes back with its data.
func TestBackendFrozen(t *testing.T) {
	t.Parallel()
	server := startRedis(t, 1)[0]
	database := testutil.StartPostgres(t, testutil.PostgresOptions{})
	members := testutil.StartEtcd(t, testutil.EtcdOptions{Members: 3})
	for _, test := range []struct {
		place          place
		freeze, resume func()
	}{
		{place{redis.Kind, []string{server.Addr}}, func() { server.Pause(t) }, func() { server.Resume(t) }},
		{place{postgres.Kind, []string{database.DSN("postgres")}}, func() { database.Pause(t) }, func() { database.Resume(t) }},
		{
			place{etcd.Kind, members.Endpoints()},
			func() { eachMember(members, func(m *testutil.EtcdMember) { m.Pause(t) }) },
			func() { eachMember(members, func(m *testutil.EtcdMember) { m.Resume(t) }) },
		},
	} {
		t.Run(test.place.Kind, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			one, two := test.place.engine(t, "one"), test.place.engine(t, "two")
			l, err := one.Acquire(ctx, "job", lock.Options{TTL: time.Second})
			require.NoError(t, err)
			test.freeze()
			frozen := time.Now()
			<-l.Done()
			require.LessOrEqual(t, time.Since(frozen), 1100*time.Millisecond)
			acquired := acquireLater(ctx, two)
			time.Sleep(2 * time.Second) // the schedule of the fault
			require.Empty(t, acquired)
			test.resume()
			resumed := time.Now()
			require.NoError(t, <-acquired)
			took := time.Since(resumed)
			t.Logf("%s: a holder again %v after the backend was back", test.place.Kind, took.Round(time.Millisecond))
			require.LessOrEqual(t, took, convergence)
		})
	}
}

func acquireLater(ctx context.Context, e *lock.Engine) <-chan error {
	acquired := make(chan error, 1)
	go func() {
		_, err := e.Acquire(ctx, "job", lock.Options{TTL: time.Second})
		acquired <- err
	}()
	return acquired
}

func eachMember(e *testutil.Etcd, f func(*testutil.EtcdMember)) {
	for _, m := range e.Members {
		f(m)
	}
}
