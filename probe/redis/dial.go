package redis

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// dialTimeout bounds a connection's beginning, TLS included. The library dials apart from
// the probe that asked for it, so the probe's own limit does not end it.
const dialTimeout = 2 * time.Second

// dialer returns a function that dials and never fails: after a failed dial the library goes
// on dialing by itself, each second, and answers meanwhile with that failure. The connection
// that stands for a failure gives its error to the first who writes, which is the library's
// greeting.
func dialer(secure *tls.Config) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		c, err := dial(ctx, secure, network, address)
		if err != nil {
			return failed{err}, nil //nolint:nilerr // see above
		}
		return c, nil
	}
}

func dial(ctx context.Context, secure *tls.Config, network, address string) (net.Conn, error) {
	var plain net.Dialer
	if secure == nil {
		return plain.DialContext(ctx, network, address)
	}
	return (&tls.Dialer{NetDialer: &plain, Config: secure}).DialContext(ctx, network, address)
}

// failed is a connection that was never made.
type failed struct{ err error }

var _ net.Conn = failed{}

func (f failed) Read([]byte) (int, error)         { return 0, f.err }
func (f failed) Write([]byte) (int, error)        { return 0, f.err }
func (f failed) Close() error                     { return nil }
func (f failed) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (f failed) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (f failed) SetDeadline(time.Time) error      { return nil }
func (f failed) SetReadDeadline(time.Time) error  { return nil }
func (f failed) SetWriteDeadline(time.Time) error { return nil }
