package postgres_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/postgres"
)

const (
	// tick is the time between probes; within is how near to the truth a lag has to be.
	tick   = 700 * time.Millisecond
	within = time.Second
	// look is the time between two looks at what is reported.
	look = 50 * time.Millisecond
)

// grants runs the script that operators run.
func grants(t *testing.T, p *testutil.Postgres) {
	t.Helper()
	root, err := testutil.Root()
	require.NoError(t, err)
	script, err := os.ReadFile(filepath.Join(root, "docs", "probe", "postgres-grants.sql"))
	require.NoError(t, err)
	p.Exec(t, string(script))
}

// primary is a primary with the probe's account and a table.
func primary(t *testing.T, settings map[string]string) *testutil.Postgres {
	t.Helper()
	p := testutil.StartPostgres(t, testutil.PostgresOptions{Settings: settings})
	grants(t, p)
	p.Exec(t, "CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t SELECT i, 0 FROM generate_series(1, 10) i", "CHECKPOINT")
	return p
}

func replica(t *testing.T, of *testutil.Postgres, name string) *testutil.Postgres {
	t.Helper()
	return of.StartReplica(t, testutil.PostgresOptions{Name: name})
}

// watched is a cluster that is being probed.
type watched struct {
	*probe.Cluster
	log *logBuffer
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// lines are those that hold the word.
func (b *logBuffer) lines(word string) (list []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.buf.String()) {
		if strings.Contains(line, word) {
			list = append(list, line)
		}
	}
	return list
}

// watch probes the servers as the account of the grants until the test ends.
func watch(t *testing.T, servers ...*testutil.Postgres) *watched {
	t.Helper()
	var c postgres.Config
	for _, s := range servers {
		c.Targets = append(c.Targets, postgres.Target{DSN: postgres.DSN(s.DSN("probe"))})
	}
	return watchConfig(t, c)
}

func watchConfig(t *testing.T, c postgres.Config) *watched {
	t.Helper()
	require.NoError(t, c.Validate())
	probers, err := c.Probers()
	require.NoError(t, err)
	w := &watched{log: &logBuffer{}}
	w.Cluster = probe.New(probe.Options{
		Name: "orders", Interval: tick, Timeout: tick, MaxLag: 10 * time.Second, Probers: probers,
		Logger: slog.New(slog.NewTextHandler(w.log, nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if t.Failed() {
			t.Logf("log of the cluster:\n%s", strings.Join(w.log.lines(""), ""))
		}
	})
	return w
}

// view is what is reported of a server now.
func (w *watched) view(s *testutil.Postgres) probe.TargetView {
	for _, v := range w.Snapshot().Targets {
		if v.Target == s.Addr {
			return v
		}
	}
	return probe.TargetView{}
}

// await waits until what is reported of a server is as it should be.
func (w *watched) await(t *testing.T, s *testutil.Postgres, what string, limit time.Duration, ok func(probe.TargetView) bool) {
	t.Helper()
	require.Eventually(t, func() bool { return ok(w.view(s)) }, limit, look,
		"%s: not within %v; reported at the end: %s", what, limit, describer{w, s})
}

// awaitSteady waits until the replicas are seen to have everything.
func (w *watched) awaitSteady(t *testing.T, replicas ...*testutil.Postgres) {
	t.Helper()
	for _, r := range replicas {
		w.await(t, r, "steady", 15*time.Second, func(v probe.TargetView) bool {
			return v.Lag.Known() && v.Success && v.Lag.Age == 0 && v.Lag.Distance == 0
		})
	}
}

// settle makes one change, so that the replica has applied some transaction, and waits
// until it is seen to have everything.
func (w *watched) settle(t *testing.T, p *testutil.Postgres, replicas ...*testutil.Postgres) {
	t.Helper()
	write(t, p)
	for _, r := range replicas {
		r.AwaitReplay(t, p)
	}
	w.awaitSteady(t, replicas...)
}

// describer prints what is reported when it is printed, not when it was made.
type describer struct {
	w *watched
	s *testutil.Postgres
}

func (d describer) String() string {
	v := d.w.view(d.s)
	return fmt.Sprintf("role %q, lag %+v, success %v, error %q", v.Role, v.Lag, v.Success, v.Error)
}

// truth is the lag that a replica really has at a time.
type truth func(now time.Time) time.Duration

func none(time.Time) time.Duration { return 0 }

// since is the truth while a change made at a time is missing.
func since(change time.Time) truth {
	return func(now time.Time) time.Duration { return now.Sub(change) }
}

func steady(d time.Duration) truth { return func(time.Time) time.Duration { return d } }

// lagIs looks for so long and demands that each look is near to the truth. It returns the
// largest error.
func (w *watched) lagIs(t *testing.T, s *testutil.Postgres, d time.Duration, real truth) (worst time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(look) {
		v := w.view(s)
		now := time.Now()
		require.True(t, v.Lag.Known(), "the lag is unknown: %s; the truth is %v", describer{w, s}, real(now))
		require.False(t, v.Lag.LowerBound)
		off := (v.Lag.Age - real(now)).Abs()
		require.LessOrEqual(t, off, within, "reported %v, the truth is %v; %s", v.Lag.Age, real(now), describer{w, s})
		worst = max(worst, off)
	}
	return worst
}

// lagUnknown looks for so long and demands that the lag is unknown for the reason.
func (w *watched) lagUnknown(t *testing.T, s *testutil.Postgres, d time.Duration, reason probe.Reason) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(look) {
		require.Equal(t, reason, w.view(s).Lag.Unknown, "%s", describer{w, s})
	}
}

// write makes one change and returns when it was made.
func write(t *testing.T, p *testutil.Postgres) time.Time {
	t.Helper()
	before := time.Now()
	p.Exec(t, "UPDATE t SET v = v + 1 WHERE id = 10")
	return before.Add(time.Since(before) / 2)
}
