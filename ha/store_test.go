package ha_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/config"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/ha"
	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/lock/etcd"
	"github.com/sluice-metrics/sluice/lock/postgres"
	"github.com/sluice-metrics/sluice/lock/redis"
)

// stores opens two connections to each kind of store.
func stores(t *testing.T) map[string]func() ha.Store {
	t.Helper()
	endpoints := testutil.StartEtcd(t, testutil.EtcdOptions{Members: 3}).Endpoints()
	cache := testutil.StartRedis(t, testutil.RedisOptions{}).Addr
	dsn := testutil.StartPostgres(t, testutil.PostgresOptions{}).DSN("postgres")
	memory := ha.NewMemory()
	return map[string]func() ha.Store{
		"local": func() ha.Store { return memory },
		"etcd": func() ha.Store {
			var c etcd.Config
			c.SetDefaults()
			c.Endpoints = endpoints
			return etcd.NewClient(c)
		},
		"redis": func() ha.Store {
			var c redis.Config
			c.SetDefaults()
			c.Address = cache
			s, err := redis.New(c)
			require.NoError(t, err)
			return s
		},
		"postgres": func() ha.Store {
			var c postgres.Config
			c.SetDefaults()
			c.DSN = config.Secret(dsn)
			s, err := postgres.New(c, postgres.Options{})
			require.NoError(t, err)
			return s
		},
	}
}

func TestStores(t *testing.T) {
	for kind, open := range stores(t) {
		t.Run(kind, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			one, other := open(), open()
			defer func() {
				require.NoError(t, one.Close())
				require.NoError(t, other.Close())
			}()
			value, revision, err := one.ReadRecord(ctx, "ha/x")
			require.NoError(t, err)
			require.Zero(t, revision)
			require.Empty(t, value)

			text := []byte(`{"replica":"a b","accepted":-9223372036854775808}`)
			first, swapped, err := one.SwapRecord(ctx, "ha/x", 0, text)
			require.NoError(t, err)
			require.True(t, swapped)
			require.Positive(t, first)
			_, swapped, err = other.SwapRecord(ctx, "ha/x", 0, []byte("{}"))
			require.NoError(t, err)
			require.False(t, swapped, "it is there already")
			value, revision, err = other.ReadRecord(ctx, "ha/x")
			require.NoError(t, err)
			require.Equal(t, first, revision)
			require.Equal(t, string(text), string(value))

			second, swapped, err := other.SwapRecord(ctx, "ha/x", first, []byte("{}"))
			require.NoError(t, err)
			require.True(t, swapped)
			require.Greater(t, second, first)
			_, swapped, err = one.SwapRecord(ctx, "ha/x", first, text)
			require.NoError(t, err)
			require.False(t, swapped, "another wrote it since")
			_, swapped, err = one.SwapRecord(ctx, "ha/other", second, text)
			require.NoError(t, err)
			require.False(t, swapped, "it was never there")
			requireOneWinner(t, ctx, one, other)
		})
	}
}

// requireOneWinner lets both count in one record: no count gets lost.
func requireOneWinner(t *testing.T, ctx context.Context, connections ...ha.Store) {
	t.Helper()
	const each = 25
	var conflicts atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for _, s := range connections {
		wg.Go(func() {
			for n := 0; n < each; {
				value, revision, err := s.ReadRecord(ctx, "ha/count")
				if err != nil {
					t.Error(err)
					return
				}
				count := 0
				if revision != 0 {
					_, err = fmt.Sscan(string(value), &count)
					if err != nil {
						t.Error(err)
						return
					}
				}
				_, swapped, err := s.SwapRecord(ctx, "ha/count", revision, fmt.Append(nil, count+1))
				switch {
				case err != nil:
					t.Error(err)
					return
				case swapped:
					n++
				default:
					conflicts.Add(1)
				}
			}
		})
	}
	wg.Wait()
	value, _, err := connections[0].ReadRecord(ctx, "ha/count")
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(each*len(connections)), string(value))
	n := each*len(connections) + int(conflicts.Load())
	t.Logf("%d conflicts; %v for reading and writing", conflicts.Load(), (time.Since(begin) / time.Duration(n)).Round(time.Microsecond))
}
