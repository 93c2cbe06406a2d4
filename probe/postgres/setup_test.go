package postgres_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/postgres"
)

const password = "opEn-seSame"

// failure is the error of one probe. It has to be one line without the password.
func failure(t *testing.T, target postgres.Target) string {
	t.Helper()
	p, err := postgres.New(target)
	require.NoError(t, err)
	defer func() { require.NoError(t, p.Close()) }()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = p.Probe(ctx)
	require.Error(t, err)
	require.Less(t, time.Since(start), 3*time.Second, "nobody waits for a server that does not answer")
	require.NotContains(t, err.Error(), "\n")
	require.NotContains(t, err.Error(), password)
	require.Contains(t, err.Error(), p.Target())
	return err.Error()
}

// What goes wrong when somebody sets it up gives one clear line.
func TestBadSetups(t *testing.T) {
	t.Parallel()
	s := testutil.StartPostgres(t, testutil.PostgresOptions{
		HBA: []string{"host all locked 127.0.0.1/32 scram-sha-256", "host all stranger 127.0.0.1/32 reject"},
	})
	s.Exec(t, "CREATE ROLE locked LOGIN PASSWORD '"+password+"'", "CREATE ROLE stranger LOGIN", "GRANT pg_monitor TO locked")
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("wrong\n"), 0o600))
	proxy := testutil.StartProxy(t, s.Addr)
	proxy.Set(testutil.Network{HalfOpen: true})
	dsn := func(user string) postgres.DSN { return postgres.DSN(s.DSN(user)) }

	for name, test := range map[string]struct {
		target postgres.Target
		want   string
	}{
		"never prepared":     {postgres.Target{DSN: dsn("probe")}, `role "probe" does not exist (SQLSTATE 28000); the account is not there, or pg_hba.conf does not let it in from here: see docs/probe/postgres-grants.sql`},
		"wrong password":     {postgres.Target{DSN: dsn("locked"), PasswordFile: file}, `password authentication failed for user "locked" (SQLSTATE 28P01); the password is wrong`},
		"password in DSN":    {postgres.Target{DSN: postgres.DSN("postgres://locked:" + password + "x@" + s.Addr + "/postgres?sslmode=disable")}, "28P01"},
		"no password file":   {postgres.Target{DSN: dsn("locked"), PasswordFile: file + "2"}, "read password_file: open " + file + "2: no such file or directory"},
		"not let in":         {postgres.Target{DSN: dsn("stranger")}, "pg_hba.conf rejects connection"},
		"no such database":   {postgres.Target{DSN: postgres.DSN(strings.Replace(s.DSN("postgres"), "/postgres?", "/nothing?", 1))}, `database "nothing" does not exist (SQLSTATE 3D000); name a database that is there`},
		"packets dropped":    {postgres.Target{DSN: postgres.DSN("postgres://locked:" + password + "@" + proxy.Address() + "/postgres")}, "nothing answers in time: look whether a firewall drops packets, or the server hangs"},
		"nobody there":       {postgres.Target{DSN: postgres.DSN("postgres://probe@" + testutil.FreeAddress(t) + "/postgres")}, "connection refused"},
		"host does not name": {postgres.Target{DSN: "postgres://probe@db.invalid/postgres"}, "db.invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			text := failure(t, test.target)
			require.Contains(t, text, test.want)
			t.Log(text)
		})
	}

	t.Run("right password, read anew", func(t *testing.T) {
		require.NoError(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
		p, err := postgres.New(postgres.Target{DSN: dsn("locked"), PasswordFile: file})
		require.NoError(t, err)
		read(t, p)
		require.NoError(t, p.Close())
	})
}

// Packets are dropped from one moment on: the probe ends at its timeout, leaves nothing
// behind, and comes back on a new connection.
func TestDroppedPackets(t *testing.T) {
	t.Parallel()
	s := primary(t, nil)
	proxy := testutil.StartProxy(t, s.Addr)
	p, err := postgres.New(postgres.Target{DSN: postgres.DSN("postgres://probe@" + proxy.Address() + "/postgres?sslmode=disable")})
	require.NoError(t, err)
	defer func() { require.NoError(t, p.Close()) }()
	read(t, p)
	proxy.Set(testutil.Network{HalfOpen: true})
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		start := time.Now()
		_, err := p.Probe(ctx)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(start), 2*time.Second)
	}
	proxy.Set(testutil.Network{})
	read(t, p)
}

// An account without pg_monitor sees itself and nothing else: that is said, and nothing
// that looks like "all is well" is reported.
func TestMissingGrants(t *testing.T) {
	t.Parallel()
	s := testutil.StartPostgres(t, testutil.PostgresOptions{})
	s.Exec(t, "CREATE ROLE probe LOGIN", "CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 1)")
	r := s.StartReplica(t, testutil.PostgresOptions{Name: "r1"})
	holding(t, s, "UPDATE t SET v = 2")
	block(t, s, "UPDATE t SET v = 3")
	awaitWaiting(t, s, 1)
	w := watch(t, s, r)
	w.awaitSteady(t, r) // positions are for everybody
	got := read(t, prober(t, s, "probe"))
	require.Equal(t, map[string]bool{"replication": false, "locks": false, "transactions": false}, got.Privileged)
	require.Nil(t, got.Locks)
	require.Empty(t, got.Replicas)
	require.Nil(t, got.Transactions.Sessions)
	require.False(t, got.Transactions.SessionsLimit.Known)
	require.NotEmpty(t, got.Transactions.Committed)
	require.Len(t, w.log.lines("lacks privileges"), 2, "one line for each server")

	s.Exec(t, "GRANT pg_monitor TO probe")
	w.await(t, s, "privileged", 5*time.Second, func(v probe.TargetView) bool {
		return v.Reading != nil && v.Reading.Privileged["locks"] && v.Graph.Waiting == 1
	})
}

func TestConfig(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"none":       {"{}", "targets: is missing"},
		"empty":      {"targets: [{}]", "targets[0].dsn: is missing"},
		"not a URL":  {`targets: [{dsn: "postgres://a:` + password + `@b:x/c"}]`, "targets[0].dsn: cannot be read"},
		"socket":     {`targets: [{dsn: "host=/tmp user=probe"}]`, "names a socket"},
		"several":    {`targets: [{dsn: "postgres://probe@a,b/postgres"}]`, "names several servers"},
		"twice":      {`targets: [{dsn: "postgres://probe@a/postgres"}, {dsn: "host=a port=5432"}]`, "targets[1].dsn: is the server a:5432, which targets[0] is already"},
		"unknown":    {`targets: [{dsn: "host=a sslmode=maybe password=` + password + `"}]`, "sslmode"},
		"good":       {`targets: [{dsn: "postgres://probe@10.0.0.1/postgres"}, {dsn: "host=10.0.0.2 user=probe"}]`, ""},
		"with a TLS": {`targets: [{dsn: "postgres://probe@10.0.0.1/postgres?sslmode=prefer"}]`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := postgres.DefaultConfig()
			require.NoError(t, yaml.Unmarshal([]byte(test.text), &c))
			err := c.Validate()
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), password)
		})
	}
}

func TestPasswordsAreHidden(t *testing.T) {
	for _, d := range []postgres.DSN{
		"postgres://probe:" + password + "@a/b", "host=a password=" + password, "host=a password='" + password + " x' user=b",
		"host=a PASSWORD = " + password, "postgres://probe@a/b?password=" + password, "postgres://probe:" + password + "@a:x/b",
		"host=a sslpassword=" + password,
	} {
		out, err := yaml.Marshal(postgres.Config{Targets: []postgres.Target{{DSN: d}}})
		require.NoError(t, err)
		require.NotContains(t, string(out), password)
		require.NotContains(t, string(out), " x'")
		require.NotContains(t, d.String(), password)
	}
	require.Equal(t, "postgres://probe@a/b?sslmode=disable", postgres.DSN("postgres://probe@a/b?sslmode=disable").String())
}

func TestSetDirectory(t *testing.T) {
	c := postgres.Config{Targets: []postgres.Target{{PasswordFile: "pw"}, {PasswordFile: "/abs"}, {}}}
	c.SetDirectory("/etc/sluice")
	require.Equal(t, []postgres.Target{{PasswordFile: "/etc/sluice/pw"}, {PasswordFile: "/abs"}, {}}, c.Targets)
}
