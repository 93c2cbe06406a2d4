package etcd_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/etcd"
	"github.com/sluice-metrics/sluice/probe/probetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func address(m *testutil.EtcdMember) string { return strings.TrimPrefix(m.Endpoint, "http://") }

func newProber(t testing.TB, dsn string) *etcd.Prober {
	t.Helper()
	p, err := etcd.New(etcd.Target{DSN: etcd.DSN(dsn)})
	require.NoError(t, err)
	return p
}

func once(t testing.TB, p probe.Prober) (probe.Reading, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return p.Probe(ctx)
}

func watch(t *testing.T, cluster *testutil.Etcd) *probetest.Watch {
	t.Helper()
	var probers []probe.Prober
	for _, m := range cluster.Members {
		probers = append(probers, newProber(t, m.Endpoint))
	}
	return probetest.Start(t, probers...)
}

// write puts n keys through the member, of which each is an entry of the log.
func write(t *testing.T, m *testutil.EtcdMember, n int) {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{m.Endpoint}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	require.NoError(t, err)
	defer c.Close()
	for i := range n {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := c.Put(ctx, fmt.Sprintf("k%d", i), "v")
		cancel()
		require.NoError(t, err)
	}
}

func leads(v *probe.TargetView) bool { return v.Success && v.Reading.Member.IsLeader }

func TestMembers(t *testing.T) {
	t.Parallel()
	cluster := testutil.StartEtcd(t, testutil.EtcdOptions{Members: 3})
	w := watch(t, cluster)
	leader := cluster.Leader(t)
	w.Await(t, 5*time.Second, address(leader), leads)
	write(t, leader, 20)
	for _, m := range cluster.Members {
		w.Await(t, 5*time.Second, address(m), func(v *probe.TargetView) bool {
			lag, known := v.MemberLag.Get()
			return v.Success && known && lag == 0 && v.Reading.Member.HasLeader && v.Reading.Member.Index >= 20
		})
		v := w.View(t, address(m))
		require.Equal(t, m == leader, v.Reading.Member.IsLeader)
		require.False(t, v.Replica, "members have no replica lag")
	}

	// A follower that is frozen is absent, and catches up afterwards.
	slow := cluster.Followers(t)[0]
	slow.Pause(t)
	write(t, leader, 50)
	w.Await(t, 8*time.Second, address(slow), func(v *probe.TargetView) bool { return !v.Success && !v.MemberLag.Known })
	slow.Resume(t)
	w.Await(t, 10*time.Second, address(slow), func(v *probe.TargetView) bool {
		lag, known := v.MemberLag.Get()
		return v.Success && known && lag == 0
	})

	// The leader dies: another one leads, in a later term.
	term := w.View(t, address(leader)).Reading.Member.Term
	leader.Kill()
	next := cluster.Leader(t)
	w.Await(t, 5*time.Second, address(next), func(v *probe.TargetView) bool { return leads(v) && v.Reading.Member.Term > term })
	w.Await(t, 5*time.Second, address(leader), func(v *probe.TargetView) bool { return !v.Success })
	require.Contains(t, w.View(t, address(leader)).Error, "connection refused")

	// One of three is left: it knows no leader, and says so.
	next.Kill()
	for _, m := range cluster.Members {
		if m.Running() {
			w.Await(t, 8*time.Second, address(m), func(v *probe.TargetView) bool { return v.Success && !v.Reading.Member.HasLeader })
		}
	}

	// Back from its data.
	leader.Restart(t)
	w.Await(t, 15*time.Second, address(leader), func(v *probe.TargetView) bool {
		lag, known := v.MemberLag.Get()
		return v.Success && v.Reading.Member.HasLeader && known && lag == 0
	})
}

// The published roles are enough.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	cluster := testutil.StartEtcd(t, testutil.EtcdOptions{})
	ctx, c := t.Context(), cluster.Client()
	for _, user := range []string{"root", "gateway_probe"} {
		_, err := c.UserAdd(ctx, user, "s3cret")
		require.NoError(t, err)
	}
	_, err := c.UserGrantRole(ctx, "root", "root")
	require.NoError(t, err)
	_, err = c.AuthEnable(ctx)
	require.NoError(t, err)

	addr := address(cluster.Members[0])
	p := newProber(t, "http://gateway_probe:s3cret@"+addr)
	defer p.Close()
	r, err := once(t, p)
	require.NoError(t, err)
	require.Equal(t, map[string]bool{"members": true}, r.Privileged)
	require.True(t, r.Member.IsLeader)

	account, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + addr}, Username: "gateway_probe", Password: "s3cret", DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	require.NoError(t, err)
	defer account.Close()
	_, err = account.Get(ctx, "harness")
	require.ErrorContains(t, err, "permission denied")
	_, err = account.Put(ctx, "harness", "x")
	require.ErrorContains(t, err, "permission denied")

	wrong := newProber(t, "http://gateway_probe:hush@"+addr)
	defer wrong.Close()
	_, err = once(t, wrong)
	require.ErrorContains(t, err, "authentication failed")
	require.ErrorContains(t, err, "see password_file and docs/probe/etcd-roles.txt")
	require.ErrorIs(t, err, probe.ErrDenied)
	require.NotContains(t, err.Error(), "hush")
}

// What is set up wrongly gives one clear error.
func TestBadSetups(t *testing.T) {
	t.Parallel()
	cluster := testutil.StartEtcd(t, testutil.EtcdOptions{})
	addr := address(cluster.Members[0])
	silent := testutil.StartProxy(t, addr)
	silent.Set(testutil.Network{HalfOpen: true})
	other := testutil.StartPostgres(t, testutil.PostgresOptions{})
	for name, c := range map[string]struct{ dsn, want string }{
		"no server":      {"http://" + testutil.FreeAddress(t), ": connection refused"},
		"no such host":   {"http://db.invalid:2379", "lookup db.invalid"},
		"silent network": {"http://" + silent.Address(), "it takes the connection and does not answer"},
		"PostgreSQL":     {"http://" + other.Addr, "is it an etcd"},
		"no TLS there":   {"https://" + addr, "handshake"},
	} {
		p := newProber(t, c.dsn)
		start := time.Now()
		_, err := once(t, p)
		require.ErrorContains(t, err, c.want, name)
		require.ErrorContains(t, err, "etcd at "+p.Target()+": ", name)
		require.NotContains(t, err.Error(), "\n", name)
		t.Log(err)
		require.Less(t, time.Since(start), 2*time.Second, name)
		require.NoError(t, p.Close(), name)
	}
}
