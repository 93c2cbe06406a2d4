package demo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/demo"
	"github.com/sluice-metrics/sluice/internal/testutil"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testutil.RemoveSluice()
	http.DefaultClient.CloseIdleConnections()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// fleetSeries selects what the demo's fleet writes.
const fleetSeries = `job=~"shop|queue|node"`

// TestFirstSample starts the program as a newcomer does, in an empty directory, and
// measures from the start of the process.
func TestFirstSample(t *testing.T) {
	dir, temp, address := t.TempDir(), t.TempDir(), testutil.FreeAddress(t)
	path := testutil.BuildSluice(t)
	begun := time.Now()
	p := testutil.StartProcess(t, testutil.Command{
		Name: "sluice demo", Path: path, Dir: dir, Env: []string{"TMPDIR=" + temp},
		Args: []string{"demo", "--web.listen-address=" + address},
	})
	base := "http://" + address
	awaitFleet(t, base, begun)
	slow := regexp.MustCompile(`store behind remote write, at (http://\S+),`).FindStringSubmatch(p.Log())
	require.NotNil(t, slow, p.Log())
	awaitFleet(t, slow[1], begun)
	took := time.Since(begun)
	require.Less(t, took, 5*time.Second, "the first delivered sample is visible in both backends")
	t.Log("visible in both backends after", took)
	require.Contains(t, p.Log(), base+"/ ")
	require.Contains(t, p.Log(), `"remote" slows down`)
	require.Less(t, strings.Count(p.Log(), "\n"), 15, "few lines:\n%s", p.Log())

	// A client that never ends its request does not hold up the end.
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /api/v1/write HTTP/1.1\r\nHost: demo\r\nContent-Length: 100\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\r\nx")
	require.NoError(t, err)
	// Nor does a browser that watches the page.
	events, err := http.Get(base + "/events")
	require.NoError(t, err)
	defer events.Body.Close()
	require.Equal(t, http.StatusOK, events.StatusCode)
	p.Signal(t, syscall.SIGINT)
	require.Equal(t, 0, p.Wait(t, 2*time.Second))
	require.NotContains(t, p.Log(), "level=")
	for _, d := range []string{dir, temp} {
		left, err := os.ReadDir(d)
		require.NoError(t, err)
		require.Empty(t, left, "data is left behind")
	}
}

func awaitFleet(t *testing.T, base string, begun time.Time) {
	t.Helper()
	testutil.Await(t, 5*time.Second-time.Since(begun), "a sample of the fleet at "+base, func() string {
		got, err := testutil.Ask(base, testutil.Query{Expr: `up{` + fleetSeries + `}`, End: time.Now()})
		if err != nil {
			return err.Error()
		}
		if len(got) == 0 {
			return "none yet"
		}
		return ""
	})
}

// running is a demonstration in this process.
type running struct {
	base string
	stop func()
	out  *lines
	log  *lines
}

// lines is a writer that can be read meanwhile.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func start(t *testing.T, dir string, s demo.Schedule) *running {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &running{base: "http://" + l.Addr().String(), out: &lines{}, log: &lines{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- demo.Run(ctx, demo.Options{
			Listener: l, StoragePath: dir, Schedule: s, Out: r.out, Now: time.Now,
			Logger: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelWarn})),
		})
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(r.stop)
	return r
}

func (r *running) slowBackend(t *testing.T) string {
	t.Helper()
	m := regexp.MustCompile(`store behind remote write, at (http://\S+),`).FindStringSubmatch(r.out.String())
	require.NotNil(t, m)
	return m[1]
}

func (r *running) remote(name string) (float64, error) {
	m, err := testutil.ScrapeMetrics(r.base + "/metrics")
	if err != nil {
		return 0, err
	}
	v, ok := m.Sum(name, "backend", "remote")
	if !ok {
		return 0, errors.New(name + " is not exported")
	}
	return v, nil
}

// await waits until a metric of the slow backend is as wanted.
func (r *running) await(t *testing.T, limit time.Duration, name string, want func(float64) bool) {
	t.Helper()
	begun := time.Now()
	testutil.Await(t, limit, name, func() string {
		v, err := r.remote(name)
		switch {
		case err != nil:
			return err.Error()
		case !want(v):
			return fmt.Sprint("is ", v)
		}
		return ""
	})
	t.Log(name, "as wanted after", time.Since(begun).Round(time.Millisecond))
}

func above(x float64) func(float64) bool { return func(v float64) bool { return v > x } }
func below(x float64) func(float64) bool { return func(v float64) bool { return v < x } }

// TestLoop sees in one round all that the demo promises, and that in the end both backends
// have the same.
func TestLoop(t *testing.T) {
	t.Parallel()
	s := demo.Schedule{Well: 16 * time.Second, Slow: 30 * time.Second, Recovered: 10 * time.Minute, Capacity: demo.DefaultSchedule().Capacity}
	r := start(t, t.TempDir(), s)
	begun := time.Now()
	r.await(t, 45*time.Second, "remote_write_destination_lag_seconds", above(3))
	r.await(t, 30*time.Second, "remote_write_sampling_rate", below(0.9))
	r.await(t, 15*time.Second, "remote_write_debt_samples", above(100))
	thinned := time.Now()
	m, err := testutil.ScrapeMetrics(r.base + "/metrics")
	require.NoError(t, err)
	require.Less(t, m.Get("remote_write_destination_lag_seconds", "backend", "local"), 2.0, "the other backend goes on unharmed")

	r.await(t, 90*time.Second, "remote_write_sampling_rate", above(0.999))
	r.await(t, 60*time.Second, "remote_write_backfill_samples_total", above(100))
	r.await(t, 30*time.Second, "remote_write_debt_samples", below(1))
	t.Log("a loop takes", time.Since(begun).Round(time.Second))
	// A batch on its way is in no account for a moment.
	r.await(t, 10*time.Second, "sluice_conservation_error_samples", func(v float64) bool { return v == 0 })

	// What was withheld is there, at the time at which it was measured.
	for _, name := range []string{"up", "http_requests_total", "http_request_duration_seconds_bucket", "go_goroutines", "queue_depth", "node_cpu_seconds_total"} {
		count := testutil.Query{Expr: "sum(count_over_time(" + name + "{" + fleetSeries + "}[90s]))", End: thinned}
		local, err := testutil.Ask(r.base, count)
		require.NoError(t, err)
		require.Len(t, local, 1, name)
		remote, err := testutil.Ask(r.slowBackend(t), count)
		require.NoError(t, err)
		require.Equal(t, local, remote, name)
	}
	require.Empty(t, r.log.String(), "nothing to warn of")
}

// TestGoesOn ends a demonstration while its backend is slow, and starts another one with
// the data of the first.
func TestGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	slow := demo.Schedule{Well: time.Second, Slow: 10 * time.Minute, Recovered: time.Minute, Capacity: 10}
	r := start(t, dir, slow)
	r.await(t, 30*time.Second, "sluice_in_journal", above(100))
	begun := time.Now()
	r.stop()
	require.Less(t, time.Since(begun), 2*time.Second)

	r = start(t, dir, demo.DefaultSchedule())
	r.await(t, 15*time.Second, "sluice_in_journal", below(100))
	r.stop()
	_, err := os.Stat(dir)
	require.NoError(t, err, "a directory that was named is kept")
}

// TestPortInUse says which flag changes it.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	p := testutil.StartProcess(t, testutil.Command{
		Name: "sluice demo", Path: testutil.BuildSluice(t), Args: []string{"demo", "--web.listen-address=" + l.Addr().String()},
	})
	require.Equal(t, 1, p.Wait(t, 10*time.Second))
	require.Contains(t, p.Log(), "--web.listen-address")
}

// TestUnusableDirectory ends at once, and leaves nothing running.
func TestUnusableDirectory(t *testing.T) {
	file := t.TempDir() + "/file"
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	err = demo.Run(context.Background(), demo.Options{Listener: l, StoragePath: file, Out: io.Discard, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	require.ErrorContains(t, err, file)
	_, err = net.Dial("tcp", l.Addr().String())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}
