package testutil

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"
)

// MariaDBOptions configure a real MariaDB.
type MariaDBOptions struct {
	// ServerID tells the servers of one cluster apart; 0 is 1.
	ServerID int
	// Args are further arguments ("--lock-wait-timeout=5"); they win over the
	// harness' own.
	Args []string
}

// MariaDB is a running mariadbd with a binary log and global transaction ids. Pause
// and Resume freeze and thaw it. Restart starts it again with its data.
type MariaDB struct {
	*Process
	Addr string // host:port
	dir  string
	args []string
	db   *sql.DB
}

// replicationUser may copy the binary log of every server that StartMariaDB starts.
const replicationUser = "harness_repl"

// mariadbTemplate is the one data directory that the servers of a test process start
// from. A test binary has no owner above its tests that could hold it.
var mariadbTemplate struct {
	once sync.Once
	path string
	err  error
}

// StartMariaDB starts a mariadbd whose root has no password and waits until it answers.
// The first start on a machine makes a data directory to copy, which takes some seconds.
func StartMariaDB(t testing.TB, opts MariaDBOptions) *MariaDB {
	t.Helper()
	server, install := Program(t, "mariadbd"), Program(t, "mariadb-install-db")
	mariadbTemplate.once.Do(func() { mariadbTemplate.path, mariadbTemplate.err = makeMariaDBTemplate(server, install) })
	require.NoError(t, mariadbTemplate.err)
	m := &MariaDB{Addr: FreeAddress(t), dir: t.TempDir()}
	data := filepath.Join(m.dir, "data")
	require.NoError(t, os.CopyFS(data, os.DirFS(mariadbTemplate.path)))
	host, port, err := net.SplitHostPort(m.Addr)
	require.NoError(t, err)
	// A test's own folder may be too long for the name of a socket.
	socket, err := os.MkdirTemp("", "sluice-db-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(socket) })
	// A starting server removes what it takes for its own left-overs, also those of
	// another one in the same folder.
	temporary := filepath.Join(m.dir, "tmp")
	require.NoError(t, os.Mkdir(temporary, 0o700))
	m.args = append([]string{
		"--no-defaults", "--datadir=" + data, "--tmpdir=" + temporary, "--port=" + port, "--bind-address=" + host,
		"--socket=" + filepath.Join(socket, "s"), "--pid-file=" + filepath.Join(m.dir, "pid"),
		"--server-id=" + strconv.Itoa(max(1, opts.ServerID)), "--log-bin=binlog", "--log-slave-updates",
		"--binlog-format=ROW", "--gtid-strict-mode=1", "--slave-net-timeout=10", "--skip-name-resolve",
		"--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0",
		"--innodb-deadlock-detect=1", "--max-connections=300",
	}, append(asRoot(), opts.Args...)...)

	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr = "root", "tcp", m.Addr
	cfg.Timeout = 2 * time.Second
	cfg.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(cfg)
	require.NoError(t, err)
	m.db = sql.OpenDB(connector)
	t.Cleanup(func() { _ = m.db.Close() })
	m.start(t)
	// Each server makes the user for itself: copied by replication it would be a
	// write that the tests did not make.
	m.local(t, "CREATE USER IF NOT EXISTS "+replicationUser+"@'%'",
		"GRANT REPLICATION SLAVE ON *.* TO "+replicationUser+"@'%'", "CREATE DATABASE IF NOT EXISTS app")
	return m
}

func (m *MariaDB) start(t testing.TB) {
	t.Helper()
	m.Process = StartProcess(t, Command{Name: "mariadbd", Path: Program(t, "mariadbd"), Args: m.args, Dir: m.dir})
	awaitServer(t, m.Process, 60*time.Second, m.db.PingContext)
}

// local runs statements that stay out of the binary log.
func (m *MariaDB) local(t testing.TB, statements ...string) {
	t.Helper()
	c := m.Conn(t)
	for _, s := range append([]string{"SET sql_log_bin=0"}, statements...) {
		c.Exec(t, s)
	}
	c.Close()
}

// DB is a connection pool of the harness as root, closed with the test.
func (m *MariaDB) DB() *sql.DB { return m.db }

// Exec runs the statements as root, each on any connection, and fails the test at the
// first error.
func (m *MariaDB) Exec(t testing.TB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := m.db.ExecContext(context.Background(), s)
		require.NoError(t, err, "mariadb %s: %s", m.Addr, s)
	}
}

// Follow makes the server a replica of the one at addr (host:port, for instance a
// proxy's address) by global transaction ids, and starts it.
func (m *MariaDB) Follow(t testing.TB, addr string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	m.Exec(t, fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='%s', MASTER_PORT=%s, MASTER_USER='%s', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1",
		host, port, replicationUser), "START SLAVE", "SET GLOBAL read_only=1")
}

// Restart stops the server as an operator would and starts it at the same address with
// its data.
func (m *MariaDB) Restart(t testing.TB) {
	t.Helper()
	m.Stop(t, 30*time.Second)
	m.past = true
	m.start(t)
}

// MariaDBConn is one session, for tests that hold transactions open.
type MariaDBConn struct {
	conn *sql.Conn
	addr string
}

// Conn opens a session as root, closed with the test.
func (m *MariaDB) Conn(t testing.TB) *MariaDBConn {
	t.Helper()
	conn, err := m.db.Conn(context.Background())
	require.NoError(t, err, "mariadb %s", m.Addr)
	c := &MariaDBConn{conn: conn, addr: m.Addr}
	t.Cleanup(c.Close)
	return c
}

// Exec runs the statement in the session.
func (c *MariaDBConn) Exec(t testing.TB, statement string) {
	t.Helper()
	_, err := c.conn.ExecContext(context.Background(), statement)
	require.NoError(t, err, "mariadb %s: %s", c.addr, statement)
}

// TryExec runs the statement in the session and returns the server's error.
func (c *MariaDBConn) TryExec(ctx context.Context, statement string) error {
	_, err := c.conn.ExecContext(ctx, statement)
	return err
}

// Close ends the session: the connection is closed, so that the server rolls back and
// forgets what the session had set.
func (c *MariaDBConn) Close() {
	// This error is the word by which database/sql closes a connection instead of
	// keeping it for reuse.
	_ = c.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = c.conn.Close()
}

// asRoot are the arguments that a test running as root needs: the server refuses to
// run as root unless told so. "loose" keeps mariadb-install-db from taking the option
// for itself, upon which it would change the owners of system files.
func asRoot() []string {
	if os.Geteuid() != 0 {
		return nil
	}
	return []string{"--loose-user=root"}
}

// makeMariaDBTemplate returns a fresh data directory below .tools, kept for later runs.
func makeMariaDBTemplate(server, install string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	version, err := exec.Command(server, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", server, err)
	}
	parent := filepath.Join(root, ".tools", "templates")
	path := filepath.Join(parent, fmt.Sprintf("mariadb-%.6x-%d", sha256.Sum256(version), os.Geteuid()))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", fmt.Errorf("make a folder for the MariaDB template: %w", err)
	}
	// Made under another name, so that a template is never half of one.
	fresh, err := os.MkdirTemp(parent, "fresh-")
	if err != nil {
		return "", fmt.Errorf("make a folder for the MariaDB template: %w", err)
	}
	defer os.RemoveAll(fresh)
	data := filepath.Join(fresh, "data")
	args := append([]string{
		"--no-defaults", "--datadir=" + data, "--auth-root-authentication-method=normal", "--skip-test-db",
		"--force", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0",
	}, asRoot()...)
	if out, err := exec.Command(install, args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", install, err, lastLines(string(out), 30))
	}
	if err := os.Rename(data, path); err != nil && !os.IsExist(err) {
		if _, statErr := os.Stat(path); statErr != nil {
			return "", fmt.Errorf("keep the MariaDB template: %w", err)
		}
	}
	return path, nil
}
