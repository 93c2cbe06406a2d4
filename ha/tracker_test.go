package ha

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFailover_ElectedPrometheusDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		time.Sleep(time.Minute)
		first := w.elected(t)
		w.proms[first].set(false)
		time.Sleep(time.Minute)
		require.Equal(t, 1-first, w.elected(t))
		w.proms[first].set(true)
		time.Sleep(time.Minute)
		require.Equal(t, 1-first, w.elected(t), "who comes back is not elected for that")
		w.requireSound(t)
		g := w.gateways[1-first]
		require.Equal(t, 1.0, g.metric("ha_elections_total", "cluster", "x"))
		require.Equal(t, 1.0, g.metric("ha_elected_replica_info", "cluster", "x", "replica", w.proms[1-first].replica))
		require.Zero(t, g.metric("ha_elected_replica_info", "replica", w.proms[first].replica))
		require.Positive(t, g.metric("ha_dropped_samples_total", "reason", string(ReasonNotElected)))
		require.Zero(t, g.metric("ha_buffer_overflow_total"))
		require.InDelta(t, float64(time.Now().Unix()), g.metric("ha_last_accepted_timestamp_seconds"), 6)
	})
}

func TestFailover_GatewayDiesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		time.Sleep(time.Minute)
		first := w.elected(t)
		w.gateways[first].stop()
		time.Sleep(time.Minute)
		require.Equal(t, 1-first, w.elected(t))
		w.gateways[first].start()
		time.Sleep(time.Minute)
		require.Equal(t, 1-first, w.elected(t))
		w.requireSound(t)
	})
}

// A gateway that is restarted at once goes on with its replica.
func TestRestart_ReadsTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		time.Sleep(time.Minute)
		first := w.elected(t)
		w.gateways[first].stop()
		time.Sleep(7 * time.Second)
		w.gateways[first].start()
		time.Sleep(time.Minute)
		require.Equal(t, first, w.elected(t))
		w.requireSound(t)
	})
}

// A gateway whose journal takes nothing does not keep its replica elected.
func TestFailover_GatewayCannotAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		time.Sleep(time.Minute)
		first := w.elected(t)
		w.gateways[first].broken.Store(true)
		time.Sleep(time.Minute)
		require.Equal(t, 1-first, w.elected(t))
		w.gateways[first].broken.Store(false)
		time.Sleep(time.Minute)
		w.requireSound(t)
	})
}

func TestStoreAway_KeepsTheElected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		time.Sleep(time.Minute + scrape*7/10) // all gateways have seen the last write
		first := w.elected(t)
		w.stores[0].cut(true)
		w.stores[1].cut(true)
		before := w.backend.count()
		time.Sleep(2 * time.Minute)
		require.Greater(t, w.backend.count(), before+60, "accepted without the store")
		// Who sees the store first sees an old record, and must not act on it at once.
		w.stores[1-first].cut(false)
		time.Sleep(10 * time.Second)
		w.stores[first].cut(false)
		time.Sleep(2 * time.Minute)
		require.Equal(t, first, w.elected(t))
		w.requireSound(t)
		require.LessOrEqual(t, w.backend.gap(), scrape+time.Second)
	})
}

func TestStoreAway_Waits(t *testing.T) {
	for name, alone := range map[string]bool{"for all": false, "for the elected's gateway": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := testConfig()
				c.OnStoreUnavailable = UnavailableWait
				w := newWorld(t, c)
				time.Sleep(time.Minute)
				first := w.elected(t)
				w.stores[first].cut(true)
				w.stores[1-first].cut(!alone)
				time.Sleep(time.Minute)
				w.stores[0].cut(false)
				w.stores[1].cut(false)
				time.Sleep(2 * time.Minute)
				require.Equal(t, alone, first != w.elected(t))
				w.requireSound(t)
			})
		})
	}
}

// Whatever is killed when: no duplicate, no disorder, no false reset, no more than one
// scrape missing, as long as one pair of Prometheus and gateway works.
func TestFailover_RandomKills(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				w := newWorld(t, testConfig())
				time.Sleep(time.Minute)
				for range 15 {
					victim := rng.IntN(2)
					if rng.IntN(3) > 0 {
						victim = w.elected(t)
					}
					outage := time.Duration(rng.Int64N(int64(90 * time.Second)))
					switch rng.IntN(4) {
					case 0:
						w.proms[victim].set(false)
						// One that is back before it was replaced leaves the gap of its absence.
						time.Sleep(40*time.Second + outage)
						w.proms[victim].set(true)
					case 1:
						w.gateways[victim].stop()
						time.Sleep(outage)
						w.gateways[victim].start()
					case 2:
						w.gateways[victim].broken.Store(true)
						time.Sleep(outage)
						w.gateways[victim].broken.Store(false)
					default:
						for _, s := range w.stores {
							s.cut(true)
						}
						time.Sleep(outage)
						for _, s := range w.stores {
							s.cut(false)
						}
					}
					// The other one needs to have been seen for a failover to find it.
					time.Sleep(100 * time.Second)
				}
				w.requireSound(t)
			})
		})
	}
}

// A gateway that was stopped between the judgement and the journal does not append what
// another's replica may stand for by then.
func TestCheck_RightIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gateway{t: t, config: testConfig(), store: NewMemory(), backend: &backend{points: map[string][]point{}}}
		g.start()
		defer func() { g.stop() }()
		plain := requestV1(t, row{labels: []string{"__name__", "c", "__replica__", "a", "cluster", "x"}, samples: []int64{time.Now().UnixMilli()}})
		a, err := admit(t.Context(), g.tracker.Load(), Request{Version: series.V1, Plain: plain, Message: &remotewrite.Message{}})
		require.NoError(t, err)
		time.Sleep(28 * time.Second)
		require.NoError(t, a.Check())
		time.Sleep(time.Second)
		require.ErrorIs(t, a.Check(), ErrLater)
		a.Done(false)
	})
}

// Both replicas at one gateway, in one request even.
func TestOneGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{points: map[string][]point{}}
		g := &gateway{t: t, name: "g", config: testConfig(), store: NewMemory(), backend: b}
		g.start()
		defer func() { g.stop() }()
		send := func(replicas ...string) {
			t.Helper()
			at := time.Now().UnixMilli()
			rows := []row{{labels: []string{"__name__", "other"}, samples: []int64{at}}}
			for _, r := range replicas {
				rows = append(rows, row{labels: []string{"__name__", "c", "__replica__", r, "cluster", "x"}, samples: []int64{at}})
			}
			deduplicated, err := g.write(series.V2, requestV2(t, rows...))
			require.NoError(t, err)
			require.Equal(t, uint64(len(replicas)-1), deduplicated.Samples)
		}
		for range 10 {
			send("a", "b")
			time.Sleep(scrape)
		}
		require.Len(t, b.points["__name__=c,cluster=x,"], 10)
		for range 10 {
			rows := row{labels: []string{"__name__", "c", "__replica__", "b", "cluster", "x"}, samples: []int64{time.Now().UnixMilli()}}
			_, err := g.write(series.V1, requestV1(t, rows))
			for errors.Is(err, ErrLater) {
				time.Sleep(time.Second)
				_, err = g.write(series.V1, requestV1(t, rows))
			}
			require.NoError(t, err)
			time.Sleep(scrape)
		}
		require.Empty(t, b.trouble)
		require.Len(t, b.points["__name__=c,cluster=x,"], 20, "the other's samples of the failover's time too")
	})
}

// A replica that is elected while it has a backlog begins where its predecessor ended,
// within a request even.
func TestFailover_ToOneThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{points: map[string][]point{}}
		g := &gateway{t: t, name: "g", config: testConfig(), store: NewMemory(), backend: b}
		g.start()
		defer func() { g.stop() }()
		send := func(replica string, back time.Duration) {
			t.Helper()
			at := time.Now().Add(-back).UnixMilli()
			plain := requestV2(t, row{labels: []string{"__name__", "c", "__replica__", replica, "cluster", "x"}, samples: []int64{at - 2500, at}})
			_, err := g.write(series.V2, plain)
			for errors.Is(err, ErrLater) {
				time.Sleep(time.Second)
				_, err = g.write(series.V2, plain)
			}
			require.NoError(t, err)
		}
		const back = 101 * time.Second
		for range 10 {
			send("a", 0)
			send("b", back)
			time.Sleep(scrape)
		}
		for range 40 {
			send("b", back)
			time.Sleep(scrape)
		}
		require.Empty(t, b.trouble)
		require.Equal(t, 1.0, g.metric("ha_elected_replica_info", "replica", "b"))
		require.Positive(t, g.metric("ha_dropped_samples_total", "reason", string(ReasonBeforeElection)))
		require.LessOrEqual(t, b.gap(), scrape)
	})
}

func TestBuffer_IsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testConfig()
		c.BufferBytes = 1000
		w := newWorld(t, c)
		time.Sleep(time.Minute)
		first := w.elected(t)
		w.proms[first].set(false)
		time.Sleep(20 * time.Second)
		g := w.gateways[1-first]
		require.Positive(t, g.metric("ha_buffer_overflow_total"))
		require.LessOrEqual(t, g.metric("ha_buffer_bytes"), 1000.0)
		require.Positive(t, g.metric("ha_buffer_bytes"))
		require.Positive(t, g.metric("ha_dropped_samples_total", "reason", string(ReasonBufferFull)))
		time.Sleep(time.Minute)
		require.Empty(t, w.backend.trouble)
		require.Zero(t, g.metric("ha_buffer_bytes"))
	})
}

func TestTooManyClusters(t *testing.T) {
	c := testConfig()
	c.MaxClusters = 2
	g := &gateway{t: t, config: c, store: NewMemory(), backend: &backend{points: map[string][]point{}}}
	g.start()
	defer func() { g.stop() }()
	for i := range 3 {
		_, err := g.write(series.V1, requestV1(t, row{labels: []string{"__name__", "c", "__replica__", "a", "cluster", fmt.Sprint(i)}, samples: []int64{1}}))
		if i < 2 {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, ErrTooManyClusters)
		}
	}
}

// A replica's own clock that is far ahead, or a sample that is, does not lock out the
// others.
func TestFarFutureDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gateway{t: t, config: testConfig(), store: NewMemory(), backend: &backend{points: map[string][]point{}}}
		g.start()
		defer func() { g.stop() }()
		now := time.Now()
		_, err := g.write(series.V1, requestV1(t,
			row{labels: []string{"__name__", "c", "__replica__", "a", "cluster", "x"}, samples: []int64{now.UnixMilli()}},
			row{labels: []string{"__name__", "f", "__replica__", "a", "cluster", "x"}, samples: []int64{now.Add(time.Hour).UnixMilli()}}))
		require.NoError(t, err)
		require.InDelta(t, float64(now.UnixMilli())/1000, g.metric("ha_last_accepted_timestamp_seconds"), 1)
	})
}

// Requests that wait for the record share a write of it.
func TestManyRequestsFewWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{points: map[string][]point{}}
		g := &gateway{t: t, config: testConfig(), store: &failing{Store: NewMemory()}, backend: b}
		g.start()
		defer func() { g.stop() }()
		var wg sync.WaitGroup
		for shard := range 50 {
			wg.Go(func() {
				for range 100 {
					_, err := g.write(series.V1, requestV1(t, row{labels: []string{"__name__", "c", "__replica__", "a", "cluster", "x", "shard", fmt.Sprint(shard)}, samples: []int64{time.Now().UnixMilli()}}))
					require.NoError(t, err)
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 5000, b.count())
		require.Less(t, g.metric("ha_kv_cas_total", "outcome", casSuccess), 100.0)
		require.Zero(t, g.metric("ha_kv_cas_total", "outcome", casConflict))
	})
}

// slow is a Store that does not answer before the context ends.
type slow struct{ *failing }

func (s slow) SwapRecord(ctx context.Context, name string, revision uint64, value []byte) (uint64, bool, error) {
	if _, err := s.get(ctx); err != nil {
		<-ctx.Done()
		return 0, false, ctx.Err()
	}
	return s.failing.SwapRecord(ctx, name, revision, value)
}

// A store that hangs holds requests up once, not one after the other.
func TestStoreHangs_RequestsDoNotQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{points: map[string][]point{}}
		store := slow{&failing{Store: NewMemory()}}
		g := &gateway{t: t, config: testConfig(), store: store, backend: b}
		g.start()
		defer func() { g.stop() }()
		send := func(shard int) {
			_, err := g.write(series.V1, requestV1(t, row{labels: []string{"__name__", "c", "__replica__", "a", "cluster", "x", "shard", fmt.Sprint(shard)}, samples: []int64{time.Now().UnixMilli()}}))
			require.NoError(t, err)
		}
		send(0)
		time.Sleep(5 * time.Second)
		store.cut(true)
		began := time.Now()
		var wg sync.WaitGroup
		for shard := range 50 {
			wg.Go(func() { send(shard) })
		}
		wg.Wait()
		require.LessOrEqual(t, time.Since(began), 2*storeTimeout)
		began = time.Now()
		send(0)
		require.Zero(t, time.Since(began), "it is known not to answer")
		require.Equal(t, 52, b.count())
	})
}

func TestStoreLosesTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig())
		time.Sleep(time.Minute)
		first := w.elected(t)
		lost := NewMemory()
		for _, s := range w.stores {
			s.move(lost)
		}
		time.Sleep(time.Minute)
		require.Equal(t, first, w.elected(t))
		w.requireSound(t)
	})
}

func TestConfig_Validate(t *testing.T) {
	c := DefaultConfig()
	require.NoError(t, c.Validate())
	for name, change := range map[string]func(*Config){
		"cluster_label":        func(c *Config) { c.ClusterLabel = "" },
		"replica_label":        func(c *Config) { c.ReplicaLabel = c.ClusterLabel },
		"failover_timeout":     func(c *Config) { c.FailoverTimeout = 1 },
		"buffer_bytes":         func(c *Config) { c.BufferBytes = -1 },
		"max_clusters":         func(c *Config) { c.MaxClusters = 0 },
		"on_store_unavailable": func(c *Config) { c.OnStoreUnavailable = "both" },
	} {
		c := DefaultConfig()
		change(&c)
		require.ErrorContains(t, c.Validate(), name)
	}
}

func TestMetrics_Registered(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	_, err := New(Options{Config: testConfig(), Store: NewMemory(), Registerer: reg, Now: time.Now})
	require.NoError(t, err)
	require.NoError(t, testutil.GatherAndCompare(reg, bytes.NewBufferString(`
# HELP ha_buffer_bytes Bytes held back of replicas that are not elected. 0: nothing is newer than what is accepted.
# TYPE ha_buffer_bytes gauge
ha_buffer_bytes 0
`), "ha_buffer_bytes"))
	_, err = New(Options{Config: testConfig(), Store: NewMemory(), Registerer: reg, Now: time.Now})
	require.Error(t, err)
}
