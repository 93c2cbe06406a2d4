package deploy

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// TestReplica starts a real primary with the rules and scripts of docker-compose.yml, and
// a replica of it with the script of its container.
func TestReplica(t *testing.T) {
	primary := startPrimary(t)
	r := newReplica(t)
	r.start(t, primary.Addr)
	for _, dsn := range []string{primary.DSN("probe"), "postgres://probe@" + r.address + "/postgres?sslmode=disable"} {
		testutil.Await(t, 30*time.Second, "the probe gets into "+dsn, func() string {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			conn, err := pgx.Connect(ctx, dsn)
			if err != nil {
				return err.Error()
			}
			require.NoError(t, conn.Close(ctx))
			return ""
		})
	}
	awaitStreaming(t, primary)
	require.Equal(t, "true", primary.Value(t, "SELECT active::text FROM pg_replication_slots WHERE slot_name = 'replica'"))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := pgx.Connect(ctx, "postgres://postgres@"+primary.Addr+"/template1?sslmode=disable")
	require.ErrorContains(t, err, "pg_hba.conf", "the superuser gets in over the network")
}

// A copy that was killed half-way is not taken for a replica: the next start makes it anew.
func TestReplica_KilledWhileCopying(t *testing.T) {
	primary := startPrimary(t)
	slow := testutil.StartProxy(t, primary.Addr)
	slow.Set(testutil.Network{BytesPerSecond: 4 << 20}) // a fresh database has about 40 MiB
	r := newReplica(t)
	r.start(t, slow.Address())
	testutil.Await(t, 20*time.Second, "the copying is under way", func() string {
		if files, err := os.ReadDir(r.data + ".part"); err != nil || len(files) < 3 {
			return "it has not begun"
		}
		return ""
	})
	r.kill()
	require.NoDirExists(t, r.data, "half a copy has the name of a whole one")
	require.DirExists(t, r.data+".part", "the test killed it too late")
	// As if the file that was looked for before had come through.
	require.NoError(t, os.WriteFile(filepath.Join(r.data+".part", "PG_VERSION"), []byte("15\n"), 0o644))

	r.start(t, primary.Addr)
	awaitStreaming(t, primary)
	require.NoDirExists(t, r.data+".part")
	r.kill()
	r.start(t, primary.Addr) // what is whole is not copied again
	awaitStreaming(t, primary)
	require.NotContains(t, r.out.String(), "cannot be copied")
}

// startPrimary starts a primary with the rules and roles of docker-compose.yml.
func startPrimary(t *testing.T) *testutil.Postgres {
	t.Helper()
	// The harness trusts everybody; these are not to get in by that.
	hba := append(strings.Split(read(t, "deploy/compose/pg_hba.conf"), "\n")[2:],
		"host postgres postgres all trust", "host all all all reject", "host replication all all reject")
	primary := testutil.StartPostgres(t, testutil.PostgresOptions{HBA: hba})
	primary.Exec(t, read(t, "docs/probe/postgres-grants.sql"), read(t, "deploy/compose/postgres-replication.sql"))
	return primary
}

func awaitStreaming(t *testing.T, primary *testutil.Postgres) {
	t.Helper()
	testutil.Await(t, 30*time.Second, "the replica streams", func() string {
		if primary.Value(t, "SELECT count(*)::text FROM pg_stat_replication WHERE usename = 'replica' AND application_name <> 'pg_basebackup' AND state = 'streaming'") != "1" {
			return "it does not"
		}
		return ""
	})
}

// replica is what the container of the replica does.
type replica struct {
	base, data string
	address    string
	cmd        *exec.Cmd
	out        bytes.Buffer
}

func newReplica(t *testing.T) *replica {
	t.Helper()
	base, err := os.MkdirTemp("", "sluice-replica-") // t.TempDir lets nobody else in
	require.NoError(t, err)
	r := &replica{base: base, data: filepath.Join(base, "data"), address: testutil.FreeAddress(t)}
	t.Cleanup(func() {
		r.kill()
		_ = os.RemoveAll(base)
		if t.Failed() {
			t.Logf("output of the replica:\n%s", r.out.String())
		}
	})
	return r
}

// start runs the script of the container, for a primary at the address.
func (r *replica) start(t *testing.T, primary string) {
	t.Helper()
	host, port, err := net.SplitHostPort(primary)
	require.NoError(t, err)
	_, own, err := net.SplitHostPort(r.address)
	require.NoError(t, err)
	cmd := exec.Command("/bin/bash", "-c", read(t, "deploy/compose/postgres-replica.sh"), "replica.sh", "-c", "port="+own)
	cmd.Dir = "/"
	cmd.Env = []string{
		"PATH=" + filepath.Dir(testutil.Program(t, "postgres")) + ":" + os.Getenv("PATH"),
		"PGDATA=" + r.data, "PGHOST=" + host, "PGPORT=" + port,
	}
	r.out.Reset()
	cmd.Stdout, cmd.Stderr = &r.out, &r.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		// PostgreSQL refuses to run as root.
		nobody, err := user.Lookup("nobody")
		require.NoError(t, err)
		uid, err := strconv.Atoi(nobody.Uid)
		require.NoError(t, err)
		gid, err := strconv.Atoi(nobody.Gid)
		require.NoError(t, err)
		require.NoError(t, os.Chown(r.base, uid, gid))
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	require.NoError(t, cmd.Start())
	r.cmd = cmd
}

// kill ends all that start has started, at once.
func (r *replica) kill() {
	if r.cmd == nil {
		return
	}
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	_ = r.cmd.Wait()
	r.cmd = nil
}

func TestMain(m *testing.M) {
	code := m.Run()
	testutil.RemovePostgres()
	testutil.RemoveSluice()
	os.Exit(code)
}
