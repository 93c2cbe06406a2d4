package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-metrics/sluice/probe"
)

// applicationName is what an operator sees in pg_stat_activity.
const applicationName = "gateway-probe"

// lockTimeout bounds how long a probe waits for a lock of a catalogue.
const lockTimeout = 100 * time.Millisecond

// Prober reads one server. Probe and Close are called from one goroutine at a time.
type Prober struct {
	target       string
	config       *pgx.ConnConfig
	passwordFile string

	// dialing lets the driver open connections. At other times it may not: when it
	// gives up a connection it would open another one to cancel the query, which only
	// adds to the trouble of a server that does not answer. The server has a timeout.
	dialing atomic.Bool
	socket  atomic.Pointer[net.Conn]

	conn    *pgx.Conn
	version int
	// receivedTimeline is what the receiver last said on this connection, for when it
	// is gone: the control file lags behind it.
	receivedTimeline uint32
}

// New makes a prober of one server. It connects to nothing.
func New(t Target) (*Prober, error) {
	address, c, err := t.parse()
	if err != nil {
		return nil, fmt.Errorf("dsn: %w", err)
	}
	p := &Prober{target: address, config: c, passwordFile: t.PasswordFile}
	for name, value := range map[string]string{
		"application_name":              applicationName,
		"lock_timeout":                  milliseconds(lockTimeout),
		"default_transaction_read_only": "on",
	} {
		c.RuntimeParams[name] = value
	}
	dialer := net.Dialer{}
	c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if !p.dialing.Load() {
			return nil, errors.New("no connection is to be opened now")
		}
		conn, err := dialer.DialContext(ctx, network, address)
		if err == nil {
			p.socket.Store(&conn)
		}
		return conn, err
	}
	return p, nil
}

func milliseconds(d time.Duration) string {
	return strconv.FormatInt(max(1, d.Milliseconds()), 10)
}

// Target is host:port of the server.
func (p *Prober) Target() string { return p.target }

// Engine is probe.EnginePostgres.
func (p *Prober) Engine() probe.Engine { return probe.EnginePostgres }

// Probe reads the server once; see probe.Prober.
func (p *Prober) Probe(ctx context.Context) (probe.Reading, error) {
	if p.conn == nil {
		if err := p.connect(ctx); err != nil {
			return probe.Reading{}, p.explain("connect to", err)
		}
	}
	r, err := p.read(ctx)
	if err != nil {
		p.drop()
		return probe.Reading{}, p.explain("probe", err)
	}
	return r, nil
}

func (p *Prober) connect(ctx context.Context) error {
	c := p.config.Copy()
	if p.passwordFile != "" {
		password, err := os.ReadFile(p.passwordFile)
		if err != nil {
			return fmt.Errorf("read password_file: %w", err)
		}
		c.Password = strings.TrimRight(string(password), "\r\n")
	}
	// The server is told how long anybody waits, so that it stops when nobody does.
	if deadline, ok := ctx.Deadline(); ok {
		c.RuntimeParams["statement_timeout"] = milliseconds(time.Until(deadline))
	}
	p.dialing.Store(true)
	conn, err := pgx.ConnectConfig(ctx, c)
	p.dialing.Store(false)
	if err != nil {
		return err
	}
	p.conn = conn
	p.receivedTimeline = 0
	p.version = majorVersion(conn.PgConn().ParameterStatus("server_version"))
	if p.version < oldest {
		p.drop()
		return fmt.Errorf("the server is PostgreSQL %d; needed is %d or newer", p.version, oldest)
	}
	return nil
}

// majorVersion reads "15.18 (Debian …)".
func majorVersion(text string) int {
	digits := strings.TrimLeft(text, "0123456789")
	n, _ := strconv.Atoi(text[:len(text)-len(digits)])
	return n
}

// drop gives up the connection at once, whatever the server does.
func (p *Prober) drop() {
	if p.conn == nil {
		return
	}
	if socket := p.socket.Load(); socket != nil {
		_ = (*socket).Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = p.conn.Close(ctx)
	<-p.conn.PgConn().CleanupDone()
	p.conn = nil
}

// Close ends the connection.
func (p *Prober) Close() error {
	if p.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lockTimeout)
	defer cancel()
	err := p.conn.Close(ctx)
	p.drop()
	if err != nil {
		return fmt.Errorf("close the connection to PostgreSQL at %s: %w", p.target, err)
	}
	return nil
}
