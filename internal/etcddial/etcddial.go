// Package etcddial tells why an etcd cannot be reached. The client library dials on its own
// and says only that an answer did not come in time.
package etcddial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
)

// Dialer dials, and remembers how the last dial of each address went. Its methods may be
// called from several goroutines.
type Dialer struct {
	mu   sync.Mutex
	last map[string]error // by host:port; nil: connected
}

// New returns a Dialer that has dialed nothing.
func New() *Dialer { return &Dialer{last: map[string]error{}} }

// Option makes a client of etcd dial by the Dialer.
func (d *Dialer) Option() grpc.DialOption { return grpc.WithContextDialer(d.dial) }

var errPending = errors.New("no answer: is a firewall dropping packets?")

func (d *Dialer) dial(ctx context.Context, address string) (net.Conn, error) {
	d.note(address, errPending)
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	switch {
	case err == nil:
		d.note(address, nil)
	case ctx.Err() == nil:
		d.note(address, err)
	}
	return conn, err
}

func (d *Dialer) note(address string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if before, there := d.last[address]; there && before != nil && errors.Is(err, errPending) {
		return // how the dial before went says more than that another one is under way
	}
	d.last[address] = err
}

// Reached reports whether one of the endpoints, which are host:port or URLs, was connected
// to when it was last dialed.
func (d *Dialer) Reached(endpoints ...string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(endpoints, func(e string) bool {
		err, dialed := d.last[Address(e)]
		return dialed && err == nil
	})
}

// Why says in one line, for each of the endpoints, why no answer came from it.
func (d *Dialer) Why(endpoints ...string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var said []string
	for _, e := range endpoints {
		address := Address(e)
		err, dialed := d.last[address]
		why := "it was not dialed"
		var network *net.OpError
		switch {
		case dialed && err == nil:
			why = "it takes the connection and does not answer: is it an etcd, does it have a leader, and is TLS on at both ends or at none?"
		case errors.As(err, &network):
			why = network.Err.Error()
		case dialed:
			why = err.Error()
		}
		said = append(said, fmt.Sprintf("%s: %s", address, strings.TrimPrefix(why, "connect: ")))
	}
	return strings.Join(said, "; ")
}

// Address is the host:port of an endpoint.
func Address(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
		return u.Host
	}
	return endpoint
}
