package remotewrite

import (
	"context"
	"io"
	"net"
	"sync"
)

// connections dials the connections of a backend and knows those that are open. The
// transport closes idle ones only, and an HTTP/2 connection whose last request has just
// ended is not idle yet: it would stay for minutes after the backend is gone.
type connections struct {
	mu     sync.Mutex
	open   map[*conn]struct{}
	closed bool
}

// dial opens a connection to the backend or its proxy.
func (cs *connections) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: connectTimeout}
	dialed, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tcp, ok := dialed.(*net.TCPConn)
	if !ok {
		return dialed, nil
	}
	c := &conn{TCPConn: tcp, owner: cs}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed { // the transport goes on dialling for requests that have given up
		tcp.Close()
		return nil, net.ErrClosed
	}
	if cs.open == nil {
		cs.open = make(map[*conn]struct{})
	}
	cs.open[c] = struct{}{}
	return c, nil
}

// closeAll closes what is open and lets nothing be opened any more.
func (cs *connections) closeAll() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.closed = true
	for c := range cs.open {
		c.TCPConn.Close()
	}
	clear(cs.open)
}

// conn is a connection that takes a request's body from where it lies, without a buffer
// in between. The transport asks a connection to read from the rest of a body behind an
// io.LimitedReader; should it no longer, the body goes by way of Read as it does for TLS.
type conn struct {
	*net.TCPConn
	owner *connections
}

// ReadFrom implements io.ReaderFrom.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if limit, ok := r.(*io.LimitedReader); ok {
		if body, ok := limit.R.(*reader); ok {
			n, err := body.writeTo(c.TCPConn, limit.N)
			limit.N -= n
			if n > 0 || err != nil {
				return n, err
			}
		}
	}
	return c.TCPConn.ReadFrom(r)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.open, c)
	c.owner.mu.Unlock()
	return c.TCPConn.Close()
}
