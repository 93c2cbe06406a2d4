package testutil

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Network is how a Proxy treats the bytes that pass it. The zero Network passes
// them at once.
type Network struct {
	Delay          time.Duration // of each piece, in both directions
	BytesPerSecond int           // in each direction and connection; 0 is no bound
	// Shared is how many bytes a second go from clients to the server, all connections
	// together; 0 is no bound.
	Shared int
	// HalfOpen swallows everything: connections stay open, nothing arrives.
	HalfOpen bool
	// CutAfter resets a connection once so many bytes went from client to server
	// since the Network was set; 0 is never.
	CutAfter int64
	// Refuse resets new connections.
	Refuse bool
}

// Proxy is a TCP proxy on a loopback port with a bad network inside. Its methods
// may be called from several goroutines.
type Proxy struct {
	target string
	ln     net.Listener
	net    atomic.Pointer[condition]
	passed atomic.Int64 // bytes from clients to the server
	wg     sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// condition is a Network in force; over is closed when another takes its place.
type condition struct {
	Network
	over chan struct{}
	sent atomic.Int64

	mu   sync.Mutex
	free time.Time // when the bytes of Network.Shared that are under way have passed
}

// queue is how long n bytes wait for their turn on the shared way.
func (c *condition) queue(n int) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.free.Before(now) {
		c.free = now
	}
	c.free = c.free.Add(time.Duration(n) * time.Second / time.Duration(c.Shared))
	return c.free.Sub(now)
}

// StartProxy starts a proxy to the target (host:port) that ends with the test.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &Proxy{target: target, ln: ln, conns: map[net.Conn]struct{}{}}
	p.net.Store(&condition{over: make(chan struct{})})
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Set(Network{})
		p.CutAll()
		p.wg.Wait()
	})
	return p
}

// Address is the host:port to connect to.
func (p *Proxy) Address() string { return p.ln.Addr().String() }

// Passed is how many bytes went from clients to the server so far.
func (p *Proxy) Passed() int64 { return p.passed.Load() }

// Set puts the network in the place of the present one, for open connections too.
func (p *Proxy) Set(n Network) {
	old := p.net.Swap(&condition{Network: n, over: make(chan struct{})})
	close(old.over)
}

// CutAll resets all open connections.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		resetConn(c)
	}
}

func resetConn(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func (p *Proxy) accept() {
	for {
		client, err := p.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if p.net.Load().Refuse || !p.keep(client) {
			resetConn(client)
			continue
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

// keep remembers the connection so that CutAll finds it; false after the end.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}

func (p *Proxy) serve(client net.Conn) {
	defer p.drop(client)
	server, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil || !p.keep(server) {
		resetConn(client)
		return
	}
	defer p.drop(server)
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client, true) })
	both.Go(func() { p.copy(client, server, false) })
	both.Wait()
}

// copy passes what comes from src on to dst until either ends.
func (p *Proxy) copy(dst, src net.Conn, up bool) {
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 && !p.pass(dst, src, buf[:n], up) {
			return
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				if tcp, ok := dst.(*net.TCPConn); ok {
					_ = tcp.CloseWrite()
				}
				return
			}
			resetConn(dst)
			return
		}
	}
}

// pass treats one piece; false when the connection is over.
func (p *Proxy) pass(dst, src net.Conn, piece []byte, up bool) bool {
	c := p.net.Load()
	if c.HalfOpen {
		return true
	}
	pause := c.Delay
	if c.BytesPerSecond > 0 {
		pause += time.Duration(len(piece)) * time.Second / time.Duration(c.BytesPerSecond)
	}
	if up && c.Shared > 0 {
		pause += c.queue(len(piece))
	}
	if pause > 0 {
		waitEnd(context.Background(), c.over, pause)
	}
	if up && c.CutAfter > 0 && c.sent.Add(int64(len(piece))) > c.CutAfter {
		_, _ = dst.Write(piece[:len(piece)/2])
		resetConn(src)
		resetConn(dst)
		return false
	}
	_, err := dst.Write(piece)
	if up && err == nil {
		p.passed.Add(int64(len(piece)))
	}
	return err == nil
}
