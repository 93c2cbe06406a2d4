package testutil

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// logLimit is how much of a process' output is kept: the newest bytes.
const logLimit = 1 << 20

// Command says which program to start.
type Command struct {
	Name string // for messages
	Path string
	Args []string
	Dir  string   // working directory; the test's own when empty
	Env  []string // added to the test's environment
}

// Process is a running program. It is killed when the test ends, or when the test
// process dies in whatever way. Its methods may be called from several goroutines.
type Process struct {
	name string
	cmd  *exec.Cmd
	log  *tailBuffer
	done chan struct{} // closed when the process is gone
	past bool          // another took its place: its output is of little interest
}

// StartProcess starts the program. A data race or a panic in its output fails the test.
// When the test fails the end of its output is logged.
func StartProcess(t testing.TB, c Command) *Process {
	t.Helper()
	p, err := startProcess(c)
	require.NoError(t, err)
	t.Cleanup(func() {
		p.Kill()
		for _, words := range []string{"WARNING: DATA RACE", "\npanic: ", "\nfatal error: "} {
			if at := strings.Index(p.Log(), words); at >= 0 {
				t.Errorf("%s (pid %d) wrote:\n%s", p.name, p.PID(), firstLines(p.Log()[at:], 60))
			}
		}
		if t.Failed() && !p.past {
			t.Logf("end of the output of %s (pid %d):\n%s", p.name, p.PID(), lastLines(p.Log(), 40))
		}
	})
	return p
}

func startProcess(c Command) (*Process, error) {
	p := &Process{name: c.Name, log: &tailBuffer{}, done: make(chan struct{})}
	p.cmd = exec.Command(c.Path, c.Args...)
	p.cmd.Dir = c.Dir
	p.cmd.Env = append(os.Environ(), c.Env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		// The kernel sends the death signal when the thread that started the
		// child ends, so that thread must live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s (%s): %w", c.Name, c.Path, err)
	}
	return p, nil
}

// PID is the process' id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process is gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process is still there.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Log is what the process has written to its standard output and error, the newest
// mebibyte of it.
func (p *Process) Log() string { return p.log.String() }

// Signal sends the signal; a process that is gone is not an error.
func (p *Process) Signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		require.NoError(t, err, "signal %v to %s", sig, p.name)
	}
}

// Kill sends SIGKILL and waits until the process is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Wait waits until the process is gone and returns its exit code (-1 when a signal
// ended it). After the limit it kills the process and fails the test.
func (p *Process) Wait(t testing.TB, limit time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.Signal(t, syscall.SIGQUIT) // a Go program prints its goroutines
		select {
		case <-p.done:
		case <-time.After(5 * time.Second):
			p.Kill()
		}
		require.FailNow(t, "process did not end", "%s (pid %d) still ran after %v", p.name, p.PID(), limit)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Stop sends SIGTERM and returns the exit code, as Wait does.
func (p *Process) Stop(t testing.TB, limit time.Duration) int {
	t.Helper()
	p.Signal(t, syscall.SIGTERM)
	return p.Wait(t, limit)
}

// Memory is the process' resident memory in bytes, now and at its highest so far.
// Both are 0 when the process is gone.
func (p *Process) Memory(t testing.TB) (now, peak int64) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.PID()))
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0
	}
	require.NoError(t, err)
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		kib, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		n, err := strconv.ParseInt(kib, 10, 64)
		switch {
		case err != nil:
		case name == "VmRSS":
			now = n << 10
		case name == "VmHWM":
			peak = n << 10
		}
	}
	return now, peak
}

// tailBuffer keeps the newest logLimit bytes written to it.
type tailBuffer struct {
	mu  sync.Mutex
	buf []byte
}

var _ io.Writer = (*tailBuffer)(nil)

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = append(b.buf, p...)
	if over := len(b.buf) - 2*logLimit; over > 0 {
		b.buf = append(b.buf[:0], b.buf[len(b.buf)-logLimit:]...)
	}
	return len(p), nil
}

func (b *tailBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.buf)
}

func firstLines(s string, n int) string {
	lines := strings.SplitN(s, "\n", n+1)
	return strings.Join(lines[:min(n, len(lines))], "\n")
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
