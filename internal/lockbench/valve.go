package lockbench

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// valve passes connections on to a server, and stops to pass anything when it is told to:
// to the client this is a server that is paused.
type valve struct {
	prefix string // http:// where the server's address has it
	target string
	ln     net.Listener
	closed chan struct{} // also what ends a stall
	all    sync.WaitGroup

	mu      sync.Mutex
	stalled bool
	conns   []net.Conn
}

func newValve(server string) (*valve, error) {
	v := &valve{target: server, closed: make(chan struct{})}
	if scheme, rest, ok := strings.Cut(server, "://"); ok {
		v.prefix, v.target = scheme+"://", rest
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for connections to %s: %w", server, err)
	}
	v.ln = ln
	v.all.Go(v.accept)
	return v, nil
}

func (v *valve) address() string { return v.prefix + v.ln.Addr().String() }

func (v *valve) stall() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stalled = true
}

func (v *valve) close() {
	close(v.closed)
	_ = v.ln.Close()
	v.mu.Lock()
	for _, c := range v.conns {
		_ = c.Close()
	}
	v.mu.Unlock()
	v.all.Wait()
}

// keep remembers a connection for close; false when that was called.
func (v *valve) keep(c net.Conn) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	select {
	case <-v.closed:
		_ = c.Close()
		return false
	default:
		v.conns = append(v.conns, c)
		return true
	}
}

func (v *valve) accept() {
	for {
		client, err := v.ln.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", v.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		if v.keep(client) && v.keep(server) {
			v.all.Go(func() { v.pass(server, client) })
			v.all.Go(func() { v.pass(client, server) })
		}
	}
}

func (v *valve) pass(dst, src net.Conn) {
	defer dst.Close()
	_, _ = io.Copy(gate{v, dst}, src)
}

// gate is a connection behind the valve.
type gate struct {
	valve *valve
	dst   net.Conn
}

func (g gate) Write(b []byte) (int, error) {
	g.valve.mu.Lock()
	stalled := g.valve.stalled
	g.valve.mu.Unlock()
	if stalled {
		<-g.valve.closed
		return 0, net.ErrClosed
	}
	return g.dst.Write(b)
}
