package mariadb_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// A probe is one round trip of short statements: 1.5 ms of the server's time on a quiet
// machine. Processor time is measured, which what else the machine does changes little.
func TestCost(t *testing.T) {
	m := testutil.StartMariaDB(t, testutil.MariaDBOptions{})
	p := newProber(t, m.Addr)
	defer p.Close()
	_, err := once(t, p) // connects
	require.NoError(t, err)
	const probes = 400
	server, own, start := serverTime(t, m.PID()), ownTime(t), time.Now()
	for range probes {
		_, err := once(t, p)
		require.NoError(t, err)
	}
	server, own = (serverTime(t, m.PID())-server)/probes, (ownTime(t)-own)/probes
	t.Logf("a probe of an idle server takes %v of the server's processor and %v of ours, in %v",
		server, own, time.Since(start)/probes)
	require.Less(t, server, 4*time.Millisecond)
}

// serverTime is how much processor time a process has used.
func serverTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	// The name, in brackets, may hold spaces. User and system time are the 12th and the
	// 13th word behind it, in ticks of 10 ms.
	words := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int64
	for _, word := range words[11:13] {
		n, err := strconv.ParseInt(word, 10, 64)
		require.NoError(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// ownTime is how much processor time the test's process has used.
func ownTime(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
