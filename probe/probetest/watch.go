// Package probetest helps the tests of the kinds of probes: it watches a cluster of real
// servers as the gateway does, and compares what is said of it with the truth.
package probetest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/probe"
)

// Tick is the interval of the probes. What is reported may be one second off, which is
// the slowest tick that is meant for production; tests look at Tolerance.
const (
	Tick      = 250 * time.Millisecond
	Tolerance = time.Second
)

// Watch is a cluster under observation. It ends with the test.
type Watch struct {
	*probe.Cluster
	log *logs
}

// Start watches the targets with the given probers, which it closes at the end.
func Start(t testing.TB, probers ...probe.Prober) *Watch {
	t.Helper()
	w := &Watch{log: &logs{}}
	w.Cluster = probe.New(probe.Options{
		Name: "test", Interval: Tick, Timeout: time.Second, MaxLag: 5 * time.Second,
		Probers: probers, Logger: slog.New(slog.NewTextHandler(w.log, nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
		if t.Failed() {
			t.Logf("log of the probes:\n%s", w.Log())
		}
	})
	return w
}

// Log is what was logged so far.
func (w *Watch) Log() string { return w.log.String() }

// View is what is known of the target now.
func (w *Watch) View(t testing.TB, target string) probe.TargetView {
	t.Helper()
	for _, v := range w.Snapshot().Targets {
		if v.Target == target {
			return v
		}
	}
	require.FailNow(t, "unknown target", "%s is not in the cluster", target)
	return probe.TargetView{}
}

// Await waits until what is known of the target fits. It fails the test after the limit.
func (w *Watch) Await(t testing.TB, limit time.Duration, target string, fits func(*probe.TargetView) bool) {
	t.Helper()
	var v probe.TargetView
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(Tick / 5) {
		v = w.View(t, target)
		if fits(&v) {
			return
		}
	}
	require.FailNow(t, "what is reported does not become true", "after %v %s is: %s", limit, target, Describe(&v))
}

// AwaitNoLag waits until the target has nothing to catch up with.
func (w *Watch) AwaitNoLag(t testing.TB, target string) {
	t.Helper()
	w.Await(t, 15*time.Second, target, func(v *probe.TargetView) bool { return v.Lag.Known() && v.Lag.Age == 0 })
}

// HoldsLag checks for a while that the lag of the target is known and, but for Tolerance,
// the time since the oldest write that it lacks.
func (w *Watch) HoldsLag(t testing.TB, target string, since time.Time, during time.Duration) {
	t.Helper()
	w.Holds(t, target, during, func(v *probe.TargetView) bool {
		truth := time.Since(since)
		return v.Lag.Known() && v.Lag.Age > truth-Tolerance && v.Lag.Age < truth+Tolerance
	})
}

// Holds checks for a while that what is known of the target fits.
func (w *Watch) Holds(t testing.TB, target string, during time.Duration, fits func(*probe.TargetView) bool) {
	t.Helper()
	for start := time.Now(); time.Since(start) < during; time.Sleep(Tick / 5) {
		v := w.View(t, target)
		if !fits(&v) {
			require.FailNow(t, "what is reported is not true", "%v after the check began %s is: %s",
				time.Since(start).Round(time.Millisecond), target, Describe(&v))
		}
	}
}

// Describe says in one line what is known of a target.
func Describe(v *probe.TargetView) string {
	lag := "unknown: " + string(v.Lag.Unknown)
	if v.Lag.Known() {
		lag = fmt.Sprintf("%v (%d units, source %s, lower bound %v)", v.Lag.Age, v.Lag.Distance, v.Lag.Source, v.Lag.LowerBound)
	}
	line := fmt.Sprintf("role %q, success %v, error %q, lag %s", v.Role, v.Success, v.Error, lag)
	if r := v.Reading; r != nil {
		line += fmt.Sprintf(", link %v, applier %v, paused %v, delay %v, errors %v, streams %+v",
			r.LinkUp, r.ApplierRunning, r.ApplyPaused, r.ApplyDelay, r.Errors, r.Streams)
	}
	return line
}

// Every calls write at once and then on an interval until the returned function is called
// or the test ends. Both return after the last write.
func Every(t testing.TB, interval time.Duration, write func()) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	write()
	all.Go(func() {
		for tick := time.NewTicker(interval); ; {
			select {
			case <-tick.C:
				write()
			case <-ctx.Done():
				tick.Stop()
				return
			}
		}
	})
	stop = func() {
		cancel()
		all.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// logs keeps what was logged. It is safe for concurrent use.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
