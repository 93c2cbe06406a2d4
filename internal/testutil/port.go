package testutil

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

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
// this process or another, so that a server may be stopped and started again on it. A
// server in the test's own process listens with Listen.
func FreeAddress(t testing.TB) string {
	t.Helper()
	// At random, because packages are tested side by side.
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		// The mark of ownership is an abstract socket: it needs no file and goes with the
		// process that holds it.
		mark, err := net.Listen("unix", portMark(port))
		if err != nil {
			continue
		}
		// Asked by a connection and not by listening for a moment: see Listen.
		address := fmt.Sprintf("127.0.0.1:%d", port)
		connection, err := net.Dial("tcp", address)
		if err == nil {
			connection.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			mark.Close()
			continue
		}
		t.Cleanup(func() { mark.Close() })
		return address
	}
	require.FailNow(t, "no free port")
	return ""
}

// portMark is the abstract socket whose holder owns a port.
func portMark(port int) string { return fmt.Sprintf("@sluice-test-port-%d", port) }

// Listen listens on an address of FreeAddress, on which the test may have listened
// before. A socket that this process has closed lives on for milliseconds in a child that
// is between fork and exec, which runs beside all other tests of the process; that is
// waited out.
func Listen(t testing.TB, network, address string) net.Listener {
	t.Helper()
	for patience := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		listener, err := net.Listen(network, address)
		if errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(patience) {
			continue
		}
		require.NoError(t, err)
		return listener
	}
}
