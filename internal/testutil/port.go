package testutil

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// Ports for servers of tests. They lie below the range from which kernels take the
// local ports of outgoing connections (32768 and up on Linux, RFC 6335's 49152 and up
// elsewhere): a server that a test stops and starts again would find a port of that
// range taken by anybody's connection.
const (
	firstPort = 15000
	lastPort  = 32000
)

// FreeAddress returns a loopback address (host:port) on which nothing listens at the
// moment. The port belongs to the test until its end: no other caller is given it, in
// this process or another, so that a server may be stopped and started again on it.
func FreeAddress(t testing.TB) string {
	t.Helper()
	// At random, because packages are tested side by side.
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		// The mark of ownership is an abstract socket: it needs no file and goes with the
		// process that holds it.
		mark, err := net.Listen("unix", fmt.Sprintf("@sluice-test-port-%d", port))
		if err != nil {
			continue
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		listener, err := net.Listen("tcp", address)
		if err != nil {
			mark.Close()
			continue
		}
		require.NoError(t, listener.Close())
		t.Cleanup(func() { mark.Close() })
		return address
	}
	require.FailNow(t, "no free port")
	return ""
}
