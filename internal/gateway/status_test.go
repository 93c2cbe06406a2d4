package gateway

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/local"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/router"
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/web"
)

// selecting is a page of a gateway with these backends.
func selecting(t *testing.T, text string) *page {
	t.Helper()
	c, err := config.Parse("sluice.yaml", []byte(text))
	require.NoError(t, err)
	var lines []*line
	for i := range c.Backends {
		l := &line{config: &c.Backends[i]}
		if s := c.Sampling(l.config); s != nil {
			l.resolved, err = sampler.Resolve(*s)
			require.NoError(t, err)
		}
		lines = append(lines, l)
	}
	g := &Gateway{lines: atomic.Pointer[[]*line]{}, router: router.New(series.NewTable(10), 1)}
	g.lines.Store(&lines)
	return &page{gateway: g}
}

func TestExplain(t *testing.T) {
	p := selecting(t, `
adaptive_sampling:
  protect: ['{job="billing"}']
backends:
  - name: main
    remote_write: {url: "http://127.0.0.1:1/w"}
  - name: plain
    match: ['{job=~"node|api"}', '{__name__="up"}', '{team=""}']
    adaptive_sampling: {enabled: false}
    remote_write: {url: "http://127.0.0.1:1/w"}
`)
	tests := map[string]struct {
		text   string
		series string
		main   web.Route
		plain  web.Route
	}{
		"by the second selector": {
			`up{job="x",team="a"}`, `{__name__="up", job="x", team="a"}`,
			web.Route{Backend: "main", Takes: true, Sampling: true, Class: "critical", Rule: `match: {__name__=~"up|ALERTS.*"}`},
			web.Route{Backend: "plain", Takes: true, Selector: `{__name__="up"}`},
		},
		"the other spelling, and a label that is not there": {
			`{__name__="node_load1",job="x"}`, `{__name__="node_load1", job="x"}`,
			web.Route{Backend: "main", Takes: true, Sampling: true, Class: "normal", Rule: "everything else"},
			web.Route{Backend: "plain", Takes: true, Selector: `{team=""}`},
		},
		"not selected, protected": {
			`m{job="billing",team="a"}`, `{__name__="m", job="billing", team="a"}`,
			web.Route{Backend: "main", Takes: true, Sampling: true, Class: "protected", Rule: `protect: {job="billing"}`, Protected: true},
			web.Route{Backend: "plain"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e, err := p.explain(test.text)
			require.NoError(t, err)
			require.Equal(t, web.Explanation{Series: test.series, Routes: []web.Route{test.main, test.plain}}, e)
		})
	}
	for text, complaint := range map[string]string{
		`up{job=~"x"}`:  "use = only",
		`up{`:           "not a series selector",
		`rate(up[5m])`:  "not a series selector",
		`{job="x"}`:     "such a series is refused",
		`{job=""}`:      "such a series is refused",
		`{}`:            "at least one label",
		` `:             "at least one label",
		`up{a="",a="b"`: "not a series selector",
	} {
		_, err := p.explain(text)
		require.ErrorContains(t, err, complaint, text)
	}
}

func TestPageOfACluster(t *testing.T) {
	s := &probe.Snapshot{Cluster: "orders", Leading: true, Primaries: 1, Primary: "a:1", MaxLag: 3 * time.Second, Targets: []probe.TargetView{
		{
			Target: "a:1", Probed: true, Success: true, Role: probe.RolePrimary,
			Graph: probe.Graph{Waiting: 2},
			Reading: &probe.Reading{Locks: &probe.Locks{
				Waiting: []probe.LockWaiting{{Oldest: probe.Some(4 * time.Second)}, {Oldest: probe.Some(time.Second)}, {}},
				Blocked: []probe.Blocked{{Session: 2, Blockers: []uint64{1}}, {Session: 3}},
			}},
		},
		{Target: "b:1", Probed: true, Success: true, Role: probe.RoleReplica, Replica: true, Lag: probe.Lag{Age: 1500 * time.Millisecond, LowerBound: true}, Circuit: probe.CircuitClosed, Weight: 40},
		{Target: "c:1", Probed: true, Error: "refused", Replica: true, Lag: probe.Lag{Unknown: probe.ReasonUnreachable}, Circuit: probe.CircuitOpen},
		{Target: "d:1", Replica: true, Lag: probe.Lag{Unknown: probe.ReasonStarting}},
		{Target: "e:1", Engine: probe.EnginePostgres, Probed: true, Success: true, Reading: &probe.Reading{Privileged: map[string]bool{"locks": false, "transactions": false, "replication": true}}},
		{Target: "f:1", Probed: true, Success: true, Reading: &probe.Reading{Locks: &probe.Locks{}}},
	}}
	lag := 1.5
	require.Equal(t, web.Cluster{
		Name: "orders", Kind: "postgres", Leading: true, Primaries: new(1), Primary: "a:1", MaxLagSeconds: 3,
		Targets: []web.Target{
			{Name: "a:1", Role: "primary", Up: true, Waiting: new(2), LongestWaitSeconds: new(4.0), Waits: []web.Wait{{Session: 2, Blockers: []uint64{1}}, {Session: 3}}},
			{Name: "b:1", Role: "replica", Up: true, Replica: true, LagSeconds: &lag, AtLeast: true, Circuit: "closed", Weight: new(40)},
			{Name: "c:1", Error: "refused", Replica: true, Unknown: "unreachable", Circuit: "open", Weight: new(0)},
			{Name: "d:1", Up: true, Replica: true, Unknown: "starting", Weight: new(0)},
			{Name: "e:1", Up: true, Note: "lacks rights for locks, transactions: see docs/probe/postgres-grants.sql"},
			{Name: "f:1", Up: true, Waiting: new(0)},
		},
	}, clusterOf(s, "postgres"))
}

// Who else probes a cluster is passed on, and since when that is not known.
func TestPageOfAClusterElsewhere(t *testing.T) {
	since := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	require.Equal(t, web.Cluster{Name: "orders", Kind: "etcd", Leader: "b:9201", Targets: []web.Target{}},
		clusterOf(&probe.Snapshot{Cluster: "orders", Leadership: probe.Leadership{By: "b:9201"}}, "etcd"))
	require.Equal(t, web.Cluster{Name: "orders", Kind: "etcd", UnknownSince: &since, Why: "connection refused", Targets: []web.Target{}},
		clusterOf(&probe.Snapshot{Cluster: "orders", Leadership: probe.Leadership{UnknownSince: since, Why: "connection refused"}}, "etcd"))
}

// What is not exported has no value, not even 0.
func TestReadingsOfNothing(t *testing.T) {
	reg := prometheus.NewRegistry()
	require.False(t, read(reg).is("sluice_test", 0))
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "sluice_test", Help: "Of a test."})
	reg.MustRegister(g)
	require.True(t, read(reg).is("sluice_test", 0))
	g.Set(1)
	require.False(t, read(reg).is("sluice_test", 0))
}

// Leases are read off the metrics of the Engines, whoever made them.
func TestPageOfLeases(t *testing.T) {
	reg := prometheus.NewRegistry()
	m, err := lock.NewMetrics(reg)
	require.NoError(t, err)
	store := local.New(nil)
	here := lock.New(store, lock.EngineOptions{Instance: "here", Metrics: m, Logger: slog.New(slog.DiscardHandler)})
	there := lock.New(store, lock.EngineOptions{Instance: "there"})
	t.Cleanup(func() {
		require.NoError(t, here.Close())
		require.NoError(t, there.Close())
	})
	held, err := here.TryAcquire(t.Context(), "probe/a", lock.Options{TTL: time.Minute})
	require.NoError(t, err)
	_, err = there.TryAcquire(t.Context(), "probe/b", lock.Options{TTL: time.Minute})
	require.NoError(t, err)
	_, err = here.TryAcquire(t.Context(), "probe/b", lock.Options{TTL: time.Minute})
	require.ErrorIs(t, err, lock.ErrHeld)

	list := leasesOf(read(reg))
	require.Len(t, list, 2)
	require.InDelta(t, 57, list[0].RemainingSeconds, 5)
	list[0].RemainingSeconds = 0
	require.Equal(t, web.Lease{Name: "probe/a", Kind: "local", Here: true, Holder: "here", Token: held.Token()}, list[0])
	require.Equal(t, web.Lease{Name: "probe/b", Kind: "local", Holder: "there"}, list[1])
}
