package testutil

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// PostgresOptions configure a real PostgreSQL.
type PostgresOptions struct {
	// Settings are added to the harness' own ("deadlock_timeout": "1s") and win over
	// them.
	Settings map[string]string
	// HBA are lines of pg_hba.conf that come before "everybody is trusted".
	HBA []string
	// Name is the application name and the slot of a replica. Required for one.
	Name string
	// Via is the address that a replica connects to in place of its source's: that of a
	// Proxy in front of it.
	Via string
}

// Postgres is a running server with the superuser postgres, who needs no password. It
// listens on a loopback port only. Its methods fail the test when the server does not do
// what they say.
type Postgres struct {
	*Process
	Addr string // host:port
	dir  string // the data
	opts PostgresOptions
}

// postgresTemplate is what initdb made once in a test process: a test binary has no owner
// above its tests that could hold it.
var postgresTemplate struct {
	once sync.Once
	dir  string
	err  error
}

// RemovePostgres removes what the servers were copied from. Called by TestMain after the
// tests.
func RemovePostgres() {
	if postgresTemplate.dir != "" {
		_ = os.RemoveAll(postgresTemplate.dir)
	}
}

// StartPostgres starts a primary and waits until it answers. All servers of a test process
// are copies of one, and so have the same system identifier.
func StartPostgres(t testing.TB, opts PostgresOptions) *Postgres {
	t.Helper()
	initdb := Program(t, "initdb")
	postgresTemplate.once.Do(func() { postgresTemplate.dir, postgresTemplate.err = makeTemplate(initdb) })
	require.NoError(t, postgresTemplate.err)
	p := newPostgres(t, opts)
	require.NoError(t, runUnprivileged("cp", "-a", filepath.Join(postgresTemplate.dir, "data"), p.dir))
	p.configure(t)
	p.start(t)
	return p
}

func makeTemplate(initdb string) (string, error) {
	base, err := os.MkdirTemp("", "sluice-postgres-")
	if err != nil {
		return "", fmt.Errorf("make a folder for PostgreSQL's template: %w", err)
	}
	if err := giveAway(base); err != nil {
		return base, err
	}
	return base, runUnprivileged(initdb, "-D", filepath.Join(base, "data"), "-U", "postgres", "-A", "trust",
		"-E", "UTF8", "--locale=C.UTF-8", "-N", "--wal-segsize=1")
}

func newPostgres(t testing.TB, opts PostgresOptions) *Postgres {
	t.Helper()
	base, err := os.MkdirTemp("", "sluice-postgres-") // t.TempDir lets nobody else in
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	require.NoError(t, giveAway(base))
	return &Postgres{Addr: FreeAddress(t), dir: filepath.Join(base, "data"), opts: opts}
}

// StartReplica copies this server and starts the copy as a replica of it, with a slot. It
// returns when the replica answers; AwaitReplay waits until it has everything.
func (p *Postgres) StartReplica(t testing.TB, opts PostgresOptions) *Postgres {
	t.Helper()
	require.NotEmpty(t, opts.Name)
	r := newPostgres(t, opts)
	host, port, err := net.SplitHostPort(p.Addr)
	require.NoError(t, err)
	require.NoError(t, runUnprivileged(Program(t, "pg_basebackup"), "-D", r.dir, "-h", host, "-p", port, "-U", "postgres",
		"-R", "-X", "stream", "-c", "fast", "-C", "-S", opts.Name, "-N", "-d", "application_name="+opts.Name))
	r.configure(t)
	r.start(t)
	return r
}

// configure appends the settings; what comes last wins.
func (p *Postgres) configure(t testing.TB) {
	t.Helper()
	_, port, err := net.SplitHostPort(p.Addr)
	require.NoError(t, err)
	settings := map[string]string{
		"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off",
		"wal_sender_timeout": "10s", "wal_receiver_status_interval": "1s", "deadlock_timeout": "200ms",
		"max_connections": "150", "shared_buffers": "32MB", "autovacuum": "off", "hot_standby_feedback": "off",
		"max_standby_streaming_delay": "-1", "wal_retrieve_retry_interval": "500ms",
	}
	if p.opts.Via != "" {
		host, port, err := net.SplitHostPort(p.opts.Via)
		require.NoError(t, err)
		settings["primary_conninfo"] = fmt.Sprintf("host=%s port=%s user=postgres application_name=%s", host, port, p.opts.Name)
	}
	maps.Copy(settings, p.opts.Settings)
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&lines, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	f, err := os.OpenFile(filepath.Join(p.dir, "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(lines.String())
	require.NoError(t, err)
	require.NoError(t, f.Close())
	hba := filepath.Join(p.dir, "pg_hba.conf")
	old, err := os.ReadFile(hba)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(hba, []byte(strings.Join(append(p.opts.HBA, string(old)), "\n")), 0o600))
}

// start runs the server until the test ends.
func (p *Postgres) start(t testing.TB) {
	t.Helper()
	p.Process = startUnprivileged(t, "postgres "+p.Addr, Program(t, "postgres"), "-D", p.dir)
	t.Cleanup(func() {
		p.Kill(t)
		if t.Failed() {
			t.Logf("end of the log of PostgreSQL at %s:\n%s", p.Addr, lastLines(p.Log(), 30))
		}
	})
	awaitServer(t, p.Process, 30*time.Second, func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, p.DSN("postgres"))
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
}

// Restart starts a server that Kill or Stop ended, with its data.
func (p *Postgres) Restart(t testing.TB) {
	t.Helper()
	require.False(t, p.Running(), "it still runs")
	_ = os.Remove(filepath.Join(p.dir, "postmaster.pid"))
	p.start(t)
}

// DSN is the address of the database postgres for a user, as a URL.
func (p *Postgres) DSN(user string) string {
	return fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", user, p.Addr)
}

// Conn opens a connection of the superuser that ends with the test.
func (p *Postgres) Conn(t testing.TB) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.DSN("postgres"))
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// Exec runs statements, each on its own, over a connection of the superuser.
func (p *Postgres) Exec(t testing.TB, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.DSN("postgres"))
	require.NoError(t, err)
	defer func() { _ = conn.Close(ctx) }()
	for _, s := range statements {
		_, err := conn.Exec(ctx, s, pgx.QueryExecModeSimpleProtocol)
		require.NoError(t, err, "%s: %s", p.Addr, s)
	}
}

// Value runs a query of one text column and row; "" for NULL.
func (p *Postgres) Value(t testing.TB, query string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.DSN("postgres"))
	require.NoError(t, err)
	defer func() { _ = conn.Close(ctx) }()
	var v *string
	require.NoError(t, conn.QueryRow(ctx, query).Scan(&v), "%s: %s", p.Addr, query)
	if v == nil {
		return ""
	}
	return *v
}

// AwaitReplay waits until this replica has applied all that the source has written.
func (p *Postgres) AwaitReplay(t testing.TB, source *Postgres) {
	t.Helper()
	head := source.Value(t, "SELECT pg_current_wal_lsn()::text")
	require.Eventually(t, func() bool {
		return p.Value(t, fmt.Sprintf("SELECT (pg_last_wal_replay_lsn() >= '%s')::text", head)) == "true"
	}, 20*time.Second, 10*time.Millisecond, "%s has not applied %s of %s", p.Addr, head, source.Addr)
}

// Promote makes this replica a primary and waits until it is.
func (p *Postgres) Promote(t testing.TB) {
	t.Helper()
	require.Equal(t, "true", p.Value(t, "SELECT pg_promote(true, 20)::text"))
}

// Pause freezes all processes of the server; Resume lets them run on.
func (p *Postgres) Pause(t testing.TB)  { t.Helper(); p.signalAll(syscall.SIGSTOP) }
func (p *Postgres) Resume(t testing.TB) { t.Helper(); p.signalAll(syscall.SIGCONT) }

// PauseReceiver freezes the process of a replica that receives changes, and returns what
// lets it run on.
func (p *Postgres) PauseReceiver(t testing.TB) (resume func()) {
	t.Helper()
	pid, err := strconv.Atoi(p.Value(t, "SELECT pid::text FROM pg_stat_wal_receiver"))
	require.NoError(t, err, "%s has no receiver", p.Addr)
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	return func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
}

// signalAll signals the server and its children, the server first: it starts no more.
func (p *Postgres) signalAll(sig syscall.Signal) {
	for _, pid := range append([]int{p.PID()}, childrenOf(p.PID())...) {
		_ = syscall.Kill(pid, sig)
	}
}

// Kill ends the server as a power failure would, and waits until it and its children are
// gone.
func (p *Postgres) Kill(t testing.TB) {
	t.Helper()
	if !p.Running() {
		return
	}
	children := childrenOf(p.PID())
	p.signalAll(syscall.SIGKILL)
	<-p.Done()
	for _, pid := range children {
		for deadline := time.Now().Add(5 * time.Second); alive(pid) && time.Now().Before(deadline); {
			time.Sleep(2 * time.Millisecond) // a process of another parent has no event
		}
	}
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// childrenOf lists the processes whose parent this is.
func childrenOf(parent int) (list []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		// The name in parentheses may hold anything; state and parent follow it.
		_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			list = append(list, pid)
		}
	}
	return list
}

// unprivileged is the account that servers run as when the test runs as root: they refuse
// that. Nil: the test's own account.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, fmt.Errorf("find an account for servers that refuse to run as root: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("read the account of nobody: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// giveAway makes the folder the unprivileged account's.
func giveAway(dir string) error {
	c, err := unprivileged()
	if c == nil || err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(c.Uid), int(c.Gid))
	})
}

// runUnprivileged runs a program to its end.
func runUnprivileged(path string, args ...string) error {
	c, err := unprivileged()
	if err != nil {
		return err
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, lastLines(string(out), 20))
	}
	return nil
}

// startUnprivileged starts a server that dies with the test process.
func startUnprivileged(t testing.TB, name, path string, args ...string) *Process {
	t.Helper()
	c, err := unprivileged()
	require.NoError(t, err)
	p := &Process{name: name, log: &tailBuffer{}, done: make(chan struct{})}
	p.cmd = exec.Command(path, args...)
	p.cmd.Dir = "/"
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c, Pdeathsig: syscall.SIGKILL}
	p.cmd.WaitDelay = 5 * time.Second // children may outlive it and hold its output
	started := make(chan error, 1)
	go func() {
		// The kernel sends the death signal when the thread that started the child ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
	}()
	require.NoError(t, <-started, "start %s", path)
	return p
}

// Name is the application name of a replica.
func (p *Postgres) Name() string { return p.opts.Name }
