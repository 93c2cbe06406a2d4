package etcddial

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWhy(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	open := l.Addr().String()
	d := New()
	conn, err := d.dial(t.Context(), open)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.True(t, d.Reached("http://"+open))
	require.Contains(t, d.Why("http://"+open), open+": it takes the connection and does not answer")

	require.NoError(t, l.Close())
	_, err = d.dial(t.Context(), open)
	require.Error(t, err)
	require.False(t, d.Reached(open))
	require.Equal(t, open+": connection refused; 10.0.0.1:2379: it was not dialed", d.Why(open, "10.0.0.1:2379"))

	// A dial under way does not hide how the one before went.
	d.note(open, errPending)
	require.Contains(t, d.Why(open), "connection refused")
	d.note("10.0.0.2:1", errPending)
	require.Equal(t, "10.0.0.2:1: no answer: is a firewall dropping packets?", d.Why("10.0.0.2:1"))

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = d.dial(ctx, "nowhere.invalid:2379")
	require.Error(t, err)
	require.Contains(t, d.Why("https://nowhere.invalid:2379"), "nowhere.invalid:2379: lookup nowhere.invalid")
}
