package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	promtest "github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/local"
	"github.com/sluice-metrics/sluice/lock/locktest"
	"github.com/sluice-metrics/sluice/probe"
)

// server is a database that says what it is told to.
type server struct {
	name     string
	role     probe.Role
	position atomic.Uint64
	silent   atomic.Bool
	asked    atomic.Int64
}

func (s *server) Probe(context.Context) (probe.Reading, error) {
	s.asked.Add(1)
	if s.silent.Load() {
		return probe.Reading{}, errors.New("no answer")
	}
	stream := probe.Stream{History: "a"}
	if s.role == probe.RolePrimary {
		stream.Head = probe.Some(s.position.Load())
	} else {
		stream.Applied = probe.Some(s.position.Load())
	}
	return probe.Reading{Role: s.role, Unit: probe.UnitBytes, Streams: []probe.Stream{stream}}, nil
}

func (s *server) Target() string       { return s.name }
func (s *server) Engine() probe.Engine { return probe.EnginePostgres }
func (s *server) Close() error         { return nil }

// member is one of several gateways, as far as it leads.
type member struct {
	*Gateway
	store   *locktest.Faulty
	cluster *probe.Cluster
	reg     *prometheus.Registry
	stop    func()
}

// noRecords is a store of a kind that has no records.
type noRecords struct{ lock.Store }

type memberOptions struct {
	name      string
	store     *local.Store // shared by the members
	servers   []probe.Prober
	norecords bool
	blind     bool
	cut       bool // from the store, at first
}

// newMember runs what a gateway does about the cluster orders. The caller is in a bubble.
func newMember(t *testing.T, o memberOptions) *member {
	t.Helper()
	m := &member{store: locktest.NewFaulty(o.store), reg: prometheus.NewRegistry(), Gateway: &Gateway{}}
	locks, err := lock.NewMetrics(m.reg)
	require.NoError(t, err)
	if o.cut {
		m.store.SetAll(locktest.Cut)
	}
	var store lock.Store = m.store
	if o.norecords {
		store = noRecords{m.store}
	}
	l := &leaders{
		fence: lock.NewFence("probe_series", locks), clusters: map[string]*standing{}, now: time.Now, logger: slog.New(slog.DiscardHandler),
		config: &config.Lease{TTL: model.Duration(2 * time.Second), OnUnavailable: config.UnavailableStop},
		ended:  func(context.Context) error { return nil },
		locker: lock.New(store, lock.EngineOptions{Instance: o.name, Metrics: locks}),
	}
	if o.blind {
		l.config.OnUnavailable = config.UnavailableRun
	}
	if !o.norecords {
		l.records = o.store
	}
	m.leaders = l
	m.cluster = probe.New(probe.Options{
		Name: "orders", Interval: time.Second, Timeout: time.Second, MaxLag: 10 * time.Second,
		Probers: o.servers, Leader: l, Logger: slog.New(slog.DiscardHandler),
	})
	m.watching.Store(&[]*watched{{config: &config.Cluster{Config: probe.Config{Name: "orders"}}, cluster: m.cluster}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 3)
	go func() { l.campaign(ctx, "orders"); done <- nil }()
	go func() { l.share(ctx, m.cluster); done <- nil }()
	go func() { done <- m.cluster.Run(ctx) }()
	m.stop = func() {
		cancel()
		for range 3 {
			require.NoError(t, <-done)
		}
		require.NoError(t, l.close())
	}
	return m
}

func (m *member) leads() bool { return m.leaders.Leadership("orders").Leads }

func (m *member) rejections(t *testing.T) float64 {
	t.Helper()
	families, err := m.reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "dlock_fencing_rejections_total" {
			return f.Metric[0].GetCounter().GetValue()
		}
	}
	require.FailNow(t, "no rejections")
	return 0
}

func newServers() (primary, replica *server, probers []probe.Prober) {
	primary, replica = &server{name: "p:1", role: probe.RolePrimary}, &server{name: "r:1", role: probe.RoleReplica}
	primary.position.Store(100)
	replica.position.Store(100)
	return primary, replica, []probe.Prober{primary, replica}
}

// A gateway that does not probe steers by the lag that the one which does has found.
func TestFollowersKnowTheLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := local.New(nil)
		primary, replica, servers := newServers()
		one := newMember(t, memberOptions{name: "one", store: store, servers: servers})
		time.Sleep(time.Second)
		two := newMember(t, memberOptions{name: "two", store: store, servers: servers})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.True(t, one.leads())
		require.Equal(t, probe.Leadership{By: "one"}, two.leaders.Leadership("orders"))
		lag, known := two.replicaLag("orders")
		require.True(t, known, "it does not hold its rate for want of an answer")
		require.Zero(t, lag)

		primary.position.Store(200)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		lag, known = two.replicaLag("orders")
		require.True(t, known)
		require.InDelta(t, 20, lag, 3)
		own, _ := one.replicaLag("orders")
		require.InDelta(t, own, lag, 2.5, "they agree, but for two ticks")

		replica.silent.Store(true)
		time.Sleep(4 * time.Second)
		_, known = one.replicaLag("orders")
		require.False(t, known)
		_, known = two.replicaLag("orders")
		require.False(t, known, "what the leader does not know nobody does")
		replica.silent.Store(false)
		replica.position.Store(200)
		time.Sleep(5 * time.Second)
		_, known = two.replicaLag("orders")
		require.True(t, known)

		// The leader's store is out of its reach: it stops. What it wrote is believed for
		// a while only, and then the other one knows better.
		one.store.SetAll(locktest.Cut)
		time.Sleep(4 * time.Second)
		require.False(t, one.leads())
		require.True(t, two.leads())
		time.Sleep(3 * time.Second)
		_, known = one.replicaLag("orders")
		require.False(t, known)
		one.store.SetAll(locktest.None)
		time.Sleep(4 * time.Second)
		_, known = one.replicaLag("orders")
		require.True(t, known, "now it is the one that is told")
		one.stop()
		two.stop()
	})
}

// Where leases are of a kind without records the lag of another's cluster is no signal; it
// is unknown while nobody says who probes.
func TestFollowersWithoutRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := local.New(nil)
		_, _, servers := newServers()
		one := newMember(t, memberOptions{name: "one", store: store, servers: servers, norecords: true})
		time.Sleep(time.Second)
		two := newMember(t, memberOptions{name: "two", store: store, servers: servers, norecords: true, cut: true})
		time.Sleep(time.Second)
		_, known := two.replicaLag("orders")
		require.False(t, known, "nobody has said yet who leads")
		two.store.SetAll(locktest.None)
		time.Sleep(10 * time.Second) // it waits longer after each failure
		lag, known := two.replicaLag("orders")
		require.True(t, known)
		require.Zero(t, lag)
		two.store.SetAll(locktest.Cut)
		time.Sleep(2 * time.Second)
		_, known = two.replicaLag("orders")
		require.False(t, known)
		two.store.SetAll(locktest.None)
		one.stop()
		two.stop()
	})
}

// A store that does not answer, or refuses, is said to; it is not asked without end, and
// nobody claims that another gateway probes.
func TestUnusableStore(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		most int // calls in 20 s
	}{
		"no answer, which leaves the outcome unknown": {locktest.ErrInjected, 150},
		"not reached":    {lock.Marked(lock.ErrUnsent, errors.New("connection refused")), 35},
		"wrong password": {lock.Marked(lock.ErrRefused, errors.New("WRONGPASS")), 12},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, _, servers := newServers()
				m := newMember(t, memberOptions{name: "one", store: local.New(nil), servers: servers})
				time.Sleep(3 * time.Second)
				require.True(t, m.leads())
				m.store.FailWith(test.err)
				m.store.SetAll(locktest.Cut)
				time.Sleep(10 * time.Second) // the lease is gone by now, and all that was tried to keep it
				before := m.store.AllCalls()
				time.Sleep(20 * time.Second)
				calls := m.store.AllCalls() - before
				t.Log(calls, "calls in 20 s")
				require.LessOrEqual(t, calls, test.most)
				require.Positive(t, calls)
				who := m.leaders.Leadership("orders")
				require.False(t, who.Leads || who.Known())
				require.Contains(t, who.Why, test.err.Error())
				require.InDelta(t, 28, time.Since(who.UnknownSince).Seconds(), 1)
				require.Equal(t, 0., up(t, m.reg))
				m.store.SetAll(locktest.None)
				time.Sleep(11 * time.Second)
				require.True(t, m.leads())
				require.Equal(t, 1., up(t, m.reg))
				m.stop()
			})
		})
	}
}

func up(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	require.Equal(t, 1, promtest.CollectAndCount(reg, "dlock_backend_up"))
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "dlock_backend_up" {
			return f.Metric[0].GetGauge().GetValue()
		}
	}
	return -1
}

// With on_lock_unavailable: run it is probed all the same, and the series are written.
func TestBlind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, servers := newServers()
		m := newMember(t, memberOptions{name: "one", store: local.New(nil), servers: servers, blind: true})
		time.Sleep(time.Second)
		m.store.SetAll(locktest.Cut)
		time.Sleep(10 * time.Second)
		require.True(t, m.leads())
		require.NoError(t, m.leaders.admit(t.Context(), m.cluster))
		m.store.SetAll(locktest.None)
		m.stop()
	})
}

// paused is a lease whose holder does not notice that time passed, as on a machine that was
// suspended with its clock.
type paused struct{ lock.Lease }

func (paused) Valid() bool         { return true }
func (paused) Deadline() time.Time { return time.Now().Add(time.Second) }

// A former leader must not write when another has led since, even if it takes its lease for
// good: the record tells.
func TestFormerLeadersAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := local.New(nil)
		_, _, servers := newServers()
		one := newMember(t, memberOptions{name: "one", store: store, servers: servers})
		time.Sleep(3 * time.Second)
		lease, _ := one.leaders.held("orders")
		require.NotNil(t, lease)
		require.NoError(t, one.leaders.admit(t.Context(), one.cluster))
		require.Zero(t, one.rejections(t))

		two := newMember(t, memberOptions{name: "two", store: store, servers: servers})
		one.store.SetAll(locktest.Cut)
		time.Sleep(4 * time.Second)
		require.True(t, two.leads())
		require.ErrorIs(t, one.leaders.admit(t.Context(), one.cluster), errNotLeading, "it knows that it has no lease")
		for name, l := range map[string]lock.Lease{"ended": lease, "paused": paused{lease}} {
			before := one.rejections(t)
			one.leaders.change("orders", func(o *standing) { o.lease = l; o.record.unread() })
			require.ErrorIs(t, one.leaders.admit(t.Context(), one.cluster), errOvertaken, name)
			require.Equal(t, before+1, one.rejections(t), name)
		}
		one.leaders.change("orders", func(o *standing) { o.lease = nil })
		require.NoError(t, two.leaders.admit(t.Context(), two.cluster))
		require.Zero(t, two.rejections(t))
		one.store.SetAll(locktest.None)
		one.stop()
		two.stop()
	})
}

// A store that lost its data counts tokens anew; that stops nobody for good.
func TestStoreWithoutItsData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, servers := newServers()
		m := newMember(t, memberOptions{name: "one", store: local.New(nil), servers: servers})
		time.Sleep(3 * time.Second)
		m.leaders.fence.Learn("orders", 1000)
		require.ErrorIs(t, m.leaders.admit(t.Context(), m.cluster), errOvertaken)
		m.leaders.change("orders", func(o *standing) { o.record.revision, o.record.known = 1000, false })
		require.NoError(t, m.leaders.admit(t.Context(), m.cluster), "the revision went back")
		m.stop()
	})
}
