package testutil

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Program returns the path of a server program ("redis-server", "etcd", "mariadbd",
// "postgres", "chromium"): from .tools/bin, PATH, /usr/sbin, or the newest
// /usr/lib/postgresql/<major>/bin. A missing one fails the test and names the script
// that brings it.
func Program(t testing.TB, name string) string {
	t.Helper()
	root, err := Root()
	require.NoError(t, err)
	candidates := []string{filepath.Join(root, ".tools", "bin", name)}
	if path, err := exec.LookPath(name); err == nil {
		candidates = append(candidates, path)
	}
	candidates = append(candidates, filepath.Join("/usr/sbin", name))
	majors, err := filepath.Glob(filepath.Join("/usr/lib/postgresql", "*", "bin", name))
	require.NoError(t, err)
	slices.Sort(majors)
	slices.Reverse(majors)
	for _, path := range append(candidates, majors...) {
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	require.FailNow(t, "a test program is missing",
		"%s was not found in .tools/bin, PATH, /usr/sbin and /usr/lib/postgresql; run scripts/install-test-programs in the repository's folder", name)
	return ""
}

// Pause stops the process with SIGSTOP: its connections stay open and nothing is
// answered. It returns when the kernel has stopped it.
func (p *Process) Pause(t testing.TB) {
	t.Helper()
	p.Signal(t, syscall.SIGSTOP)
	require.Eventually(t, func() bool { return stopped(p.cmd.Process.Pid) }, 10*time.Second, time.Millisecond, "%s goes on after SIGSTOP", p.name)
}

// stopped reports whether all threads of a process stand still: some run on, and answer, for
// a moment after the signal was sent.
func stopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false
	}
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		// The state is behind the command, which is in parentheses and may hold any text.
		_, state, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
		if !strings.HasPrefix(state, "T") && !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X") {
			return false
		}
	}
	return true
}

// Resume lets a paused process run on.
func (p *Process) Resume(t testing.TB) {
	t.Helper()
	p.Signal(t, syscall.SIGCONT)
}

// awaitServer calls try, each time with a second's limit, until it succeeds. It fails
// the test at the limit, or at once when the process ends.
func awaitServer(t testing.TB, p *Process, limit time.Duration, try func(context.Context) error) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		if !p.Running() {
			require.FailNow(t, "server ended before it answered", "%s", lastLines(p.Log(), 40))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := try(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			require.FailNow(t, "server did not answer", "after %v: %v\n%s", limit, err, lastLines(p.Log(), 40))
		}
	}
}
