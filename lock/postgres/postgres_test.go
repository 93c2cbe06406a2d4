package postgres_test

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	promtest "github.com/prometheus/client_golang/prometheus/testutil"
	promconfig "github.com/prometheus/common/config"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/lock"
	"github.com/sluice-metrics/sluice/lock/locktest"
	"github.com/sluice-metrics/sluice/lock/postgres"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		testutil.RemovePostgres()
		os.Exit(code)
	}))
}

func config(t testing.TB, dsn string) postgres.Config {
	t.Helper()
	c := postgres.Config{DSN: promconfig.Secret(dsn)}
	c.SetDefaults()
	require.NoError(t, c.Validate())
	return c
}

func open(t testing.TB, c postgres.Config, o postgres.Options) *postgres.Store {
	t.Helper()
	s, err := postgres.New(c, o)
	require.NoError(t, err)
	return s
}

func TestConformance(t *testing.T) {
	server := testutil.StartPostgres(t, testutil.PostgresOptions{})
	c := config(t, server.DSN("postgres"))
	c.MaxConnections = 2 // the suite opens many
	locktest.Run(t, locktest.Harness{
		Open:   func(t testing.TB) lock.Store { return open(t, c, postgres.Options{}) },
		Fences: true,
		TTL:    time.Second,
	})
}

// Several gateways start at the same moment with no table there.
func TestTableIsMadeOnce(t *testing.T) {
	server := testutil.StartPostgres(t, testutil.PostgresOptions{})
	server.Exec(t, `CREATE SCHEMA "Own"`)
	c := config(t, server.DSN("postgres"))
	c.Table = "Own.leases"
	var all sync.WaitGroup
	for range 4 {
		e := lock.New(open(t, c, postgres.Options{}), lock.EngineOptions{Instance: "one"})
		all.Go(func() {
			defer e.Close()
			l, err := e.Acquire(context.Background(), "job", lock.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := l.Release(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.Equal(t, "4", server.Value(t, `SELECT token FROM "Own".leases`))
}

// An account without the right to make the table is told what to do; one with the least
// rights works.
func TestLeastPrivilege(t *testing.T) {
	server := testutil.StartPostgres(t, testutil.PostgresOptions{})
	server.Exec(t, `CREATE ROLE sluice LOGIN PASSWORD 'not to be shown'`, `REVOKE CREATE ON SCHEMA public FROM PUBLIC`)
	c := config(t, server.DSN("sluice"))
	e := lock.New(open(t, c, postgres.Options{}), lock.EngineOptions{Instance: "one"})
	defer e.Close()
	_, err := e.TryAcquire(context.Background(), "job", lock.Options{})
	require.ErrorContains(t, err, `CREATE TABLE IF NOT EXISTS "sluice_leases" (name text PRIMARY KEY, holder text NOT NULL, token bigint NOT NULL, expires timestamptz NOT NULL); GRANT SELECT, INSERT, UPDATE ON "sluice_leases"`)
	server.Exec(t,
		`CREATE TABLE IF NOT EXISTS "sluice_leases" (name text PRIMARY KEY, holder text NOT NULL, token bigint NOT NULL, expires timestamptz NOT NULL)`,
		`GRANT SELECT, INSERT, UPDATE ON "sluice_leases" TO sluice`)
	l, err := e.TryAcquire(context.Background(), "job", lock.Options{})
	require.NoError(t, err)
	require.NoError(t, l.Release(context.Background()))
}

func TestMetrics(t *testing.T) {
	server := testutil.StartPostgres(t, testutil.PostgresOptions{})
	reg := prometheus.NewPedanticRegistry()
	c := config(t, server.DSN("postgres"))
	store := open(t, c, postgres.Options{Pool: "main", Registerer: reg, HikariCP: true})
	_, err := postgres.New(c, postgres.Options{Pool: "main", Registerer: reg})
	require.ErrorContains(t, err, `the pool "main"`)
	other := open(t, c, postgres.Options{Pool: "other", Registerer: reg, HikariCP: true})
	require.Zero(t, promtest.CollectAndCount(reg, "db_conn_queue_time_seconds"), "no call, no quantiles")
	e := lock.New(store, lock.EngineOptions{Instance: "one"})
	l, err := e.Acquire(context.Background(), "job", lock.Options{})
	require.NoError(t, err)
	require.NoError(t, l.Release(context.Background()))
	require.NoError(t, err)
	families, err := reg.Gather()
	require.NoError(t, err)
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			key := f.GetName()
			for _, l := range m.Label {
				key += " " + l.GetValue()
			}
			got[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount()) + float64(m.GetSummary().GetSampleCount())
		}
	}
	// Grant (no table), create, grant (no row), insert, grant, release.
	want := map[string]float64{
		"transaction_total sluice-lock":                        6,
		"transaction_rollback_total sluice-lock":               1,
		"transaction_duration_seconds sluice-lock committed":   5,
		"transaction_duration_seconds sluice-lock rolled_back": 1,
		"transaction_nesting_depth sluice-lock main":           0,
		"db_conn_queue_time_seconds main":                      4,
		"db_pool_connections main active":                      0,
		"db_pool_connections main idle":                        1,
		"db_pool_connections main connecting":                  0,
		"db_pool_max_connections main":                         4,
		"hikaricp_connections_active main":                     0,
		"hikaricp_connections_idle main":                       1,
		"hikaricp_connections_pending main":                    0,
		"hikaricp_connections_max main":                        4,
		"jdbc_statement_timeout_total deadline":                0,
		"jdbc_statement_timeout_total cancelled":               0,
		"jdbc_statement_timeout_total connection":              0,
	}
	for key, value := range want {
		require.Contains(t, got, key)
		require.Equal(t, value, got[key], key)
	}
	require.NoError(t, e.Close())
	require.NoError(t, other.Close())
	require.Zero(t, promtest.CollectAndCount(reg, "db_pool_connections"), "a closed pool says nothing")
}

func TestConfig(t *testing.T) {
	tests := map[string]struct {
		change func(*postgres.Config)
		want   string
	}{
		"no dsn":        {func(c *postgres.Config) { c.DSN = "" }, "dsn: is missing"},
		"wrong dsn":     {func(c *postgres.Config) { c.DSN = "postgres://u:secret@[::1" }, "dsn: is neither a URL"},
		"table":         {func(c *postgres.Config) { c.Table = `a"; DROP TABLE b` }, "table: "},
		"connections":   {func(c *postgres.Config) { c.MaxConnections = 0 }, "max_connections: must be 1 or more"},
		"timeout":       {func(c *postgres.Config) { c.ConnectTimeout = 0 }, "connect_timeout: must be longer than 0s"},
		"file is fine":  {func(c *postgres.Config) { c.PasswordFile = "x" }, ""},
		"schema's fine": {func(c *postgres.Config) { c.Table = "a.b" }, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := config(t, "postgres://u@127.0.0.1/d")
			test.change(&c)
			err := c.Validate()
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

// A password from a file is read at each connection, and no error shows it.
func TestPasswordFile(t *testing.T) {
	dir := t.TempDir()
	c := config(t, (&url.URL{Scheme: "postgres", User: url.UserPassword("u", "hidden1"), Host: testutil.FreeAddress(t), Path: "d"}).String())
	c.PasswordFile = "password"
	c.SetDirectory(dir)
	e := lock.New(open(t, c, postgres.Options{}), lock.EngineOptions{Instance: "one"})
	defer e.Close()
	_, err := e.TryAcquire(context.Background(), "job", lock.Options{})
	require.ErrorContains(t, err, "password_file: open "+filepath.Join(dir, "password"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "password"), []byte("hidden2\n"), 0o600))
	_, err = e.TryAcquire(context.Background(), "job", lock.Options{})
	require.ErrorContains(t, err, "connection refused")
	require.NotContains(t, err.Error(), "hidden")
}

// A connection that nobody answers is a timeout of its own kind.
func TestConnectionTimeout(t *testing.T) {
	server := testutil.StartPostgres(t, testutil.PostgresOptions{})
	proxy := testutil.StartProxy(t, server.Addr)
	proxy.Set(testutil.Network{HalfOpen: true})
	reg := prometheus.NewPedanticRegistry()
	c := config(t, (&url.URL{Scheme: "postgres", User: url.User("postgres"), Host: proxy.Address(), Path: "postgres"}).String())
	e := lock.New(open(t, c, postgres.Options{Pool: "main", Registerer: reg, HikariCP: true}), lock.EngineOptions{Instance: "one"})
	defer e.Close()
	_, err := e.TryAcquire(context.Background(), "job", lock.Options{})
	require.ErrorIs(t, err, lock.ErrUnsent)
	families, err := reg.Gather()
	require.NoError(t, err)
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "jdbc_statement_timeout_total" {
			for _, m := range f.Metric {
				got[m.Label[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	require.Equal(t, map[string]float64{"deadline": 0, "cancelled": 0, "connection": 1}, got)
}
