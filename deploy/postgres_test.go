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
	// The harness trusts everybody; these are not to get in by that.
	hba := append(strings.Split(read(t, "deploy/compose/pg_hba.conf"), "\n")[2:],
		"host postgres postgres all trust", "host all all all reject", "host replication all all reject")
	primary := testutil.StartPostgres(t, testutil.PostgresOptions{HBA: hba})
	primary.Exec(t, read(t, "docs/probe/postgres-grants.sql"), read(t, "deploy/compose/postgres-replication.sql"))

	host, port, err := net.SplitHostPort(primary.Addr)
	require.NoError(t, err)
	replica := startReplica(t, host, port)
	for _, dsn := range []string{primary.DSN("probe"), "postgres://probe@" + replica + "/postgres?sslmode=disable"} {
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
	testutil.Await(t, 20*time.Second, "the replica streams", func() string {
		if primary.Value(t, "SELECT count(*)::text FROM pg_stat_replication WHERE usename = 'replica' AND state = 'streaming'") != "1" {
			return "it does not"
		}
		return ""
	})
	require.Equal(t, "true", primary.Value(t, "SELECT active::text FROM pg_replication_slots WHERE slot_name = 'replica'"))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = pgx.Connect(ctx, "postgres://postgres@"+primary.Addr+"/template1?sslmode=disable")
	require.ErrorContains(t, err, "pg_hba.conf", "the superuser gets in over the network")
}

// startReplica runs the script of the replica's container, and returns the address.
func startReplica(t *testing.T, host, port string) string {
	t.Helper()
	base, err := os.MkdirTemp("", "sluice-replica-") // t.TempDir lets nobody else in
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	address := testutil.FreeAddress(t)
	_, own, err := net.SplitHostPort(address)
	require.NoError(t, err)
	var out bytes.Buffer
	cmd := exec.Command("/bin/bash", "-c", read(t, "deploy/compose/postgres-replica.sh"), "replica.sh", "-c", "port="+own)
	cmd.Dir = "/"
	cmd.Env = []string{
		"PATH=" + filepath.Dir(testutil.Program(t, "postgres")) + ":" + os.Getenv("PATH"),
		"PGDATA=" + filepath.Join(base, "data"), "PGHOST=" + host, "PGPORT=" + port,
	}
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		// PostgreSQL refuses to run as root.
		nobody, err := user.Lookup("nobody")
		require.NoError(t, err)
		uid, err := strconv.Atoi(nobody.Uid)
		require.NoError(t, err)
		gid, err := strconv.Atoi(nobody.Gid)
		require.NoError(t, err)
		require.NoError(t, os.Chown(base, uid, gid))
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("output of the replica:\n%s", out.String())
		}
	})
	return address
}

func TestMain(m *testing.M) {
	code := m.Run()
	testutil.RemovePostgres()
	os.Exit(code)
}
