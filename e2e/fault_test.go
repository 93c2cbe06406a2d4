package e2e

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// faultTime is how long a backend stays broken in these tests.
const faultTime = 3 * time.Second

// aboutNow is how old the newest delivered sample of a healthy backend may be while its
// neighbour is broken, on a busy machine.
const aboutNow = 3.0

// TestBackendFaults breaks one of two backends in each of the ways that backends break.
// The other one must not notice, and after the end of the fault nothing acknowledged may
// be missing anywhere.
func TestBackendFaults(t *testing.T) {
	status := func(code int, after string) func(*broken) {
		return func(b *broken) { b.sink.Behave(testutil.Fault{Status: code, RetryAfter: after}) }
	}
	for _, c := range []struct {
		name   string
		begin  func(*broken)
		closed bool // nothing gets through
	}{
		{"down", func(b *broken) { b.sink.Down() }, true},
		{"refuses connections", func(b *broken) { b.proxy.Set(testutil.Network{Refuse: true}); b.proxy.CutAll() }, true},
		{"slow", func(b *broken) { b.sink.Behave(testutil.Fault{Delay: 700 * time.Millisecond}) }, false},
		{"slow network", func(b *broken) { b.proxy.Set(testutil.Network{Delay: 20 * time.Millisecond, BytesPerSecond: 20_000}) }, false},
		{"throttles", func(b *broken) { b.sink.Behave(testutil.Fault{SamplesPerSecond: 1000}) }, false},
		{"429 with Retry-After", status(http.StatusTooManyRequests, "1"), true},
		{"500", status(http.StatusInternalServerError, ""), true},
		{"503 with Retry-After", status(http.StatusServiceUnavailable, "1"), true},
		{"every third request fails", func(b *broken) { b.sink.Behave(testutil.Fault{Every: 3, Status: http.StatusBadGateway}) }, false},
		{"500 after it wrote all", func(b *broken) {
			b.sink.Behave(testutil.Fault{Every: 2, Status: http.StatusInternalServerError, Takes: true})
		}, false},
		{"wrong token", status(http.StatusUnauthorized, ""), true},
		{"wrong path", status(http.StatusNotFound, ""), true},
		{"cuts requests", func(b *broken) { b.sink.Behave(testutil.Fault{CutRequest: true}) }, true},
		{"cuts answers", func(b *broken) { b.sink.Behave(testutil.Fault{Every: 2, CutAnswer: true}) }, false},
		{"network cuts", func(b *broken) { b.proxy.Set(testutil.Network{CutAfter: 30_000}); b.proxy.CutAll() }, false},
		{"hangs", func(b *broken) { b.sink.Behave(testutil.Fault{Hang: true}) }, true},
		{"half-open connection", func(b *broken) { b.proxy.Set(testutil.Network{HalfOpen: true}) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := &broken{sink: testutil.StartSink(t, testutil.SinkOptions{Accept: []testutil.Protocol{testutil.RW1}})}
			b.proxy = testutil.StartProxy(t, b.sink.Address())
			well := testutil.StartSink(t, testutil.SinkOptions{Accept: []testutil.Protocol{testutil.RW1}})
			s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText("",
				backend{name: "broken", url: "http://" + b.proxy.Address() + "/api/v1/write", extra: "protocol: rw1, timeout: 1s"},
				backend{name: "well", url: well.URL(), extra: "protocol: rw1"},
			)})
			load := testutil.StartLoad(t, steadyLoad(s))
			awaitArrivals(t, b.sink)

			c.begin(b)
			before := load.Acknowledged()
			lag := watchLag(t, s, "well", faultTime)
			require.Less(t, lag, aboutNow, "the healthy backend fell behind")
			require.Greater(t, load.Acknowledged(), before+4000, "the senders were held up")
			if c.closed {
				require.Positive(t, value(t, s, "sluice_in_journal", "backend", "broken"))
				require.Positive(t, value(t, s, "remote_write_queue_length", "backend", "broken"))
			}

			b.repair(t)
			load.Stop(t, 10*time.Second)
			require.Equal(t, []int{http.StatusNoContent}, statuses(load), "the senders saw a failure")
			// Held lanes probe with back-off: allow for one longest pause and then some.
			load.RequireDelivered(t, b.sink, 30*time.Second, testutil.CheckOptions{})
			report := load.RequireDelivered(t, well, 5*time.Second, testutil.CheckOptions{})
			require.Zero(t, report.Repeated, "the healthy backend got something twice")
			requireSettled(t, s, "broken", "well")
			m := s.Metrics(t)
			for _, name := range []string{"broken", "well"} {
				a := m.Accounts(name, "samples")
				require.Equal(t, a.Routed, a.Delivered, "%s: %v", name, a)
			}
			requireMemory(t, s)
		})
	}
}

// broken is the backend that a test breaks, and the network before it.
type broken struct {
	sink  *testutil.Sink
	proxy *testutil.Proxy
}

func (b *broken) repair(t *testing.T) {
	t.Helper()
	b.sink.Behave(testutil.Fault{})
	b.proxy.Set(testutil.Network{})
	b.sink.Down()
	b.sink.Up(t)
}

// steadyLoad is a load whose timestamps advance as real time does.
func steadyLoad(s *testutil.Sluice) testutil.LoadOptions {
	return testutil.LoadOptions{
		URL: s.WriteURL(), Content: testutil.Everything(),
		Series: 400, Batch: 100, Senders: 4, Rate: 4000, Step: 100 * time.Millisecond,
	}
}

func awaitArrivals(t *testing.T, s *testutil.Sink) {
	t.Helper()
	testutil.Await(t, 10*time.Second, "first arrivals", func() string {
		if s.Arrivals().Unique("samples") == 0 {
			return fmt.Sprintf("none; bad requests: %v", s.Stats().Bad)
		}
		return ""
	})
}

// watchLag returns the greatest lag that the backend shows in the given time.
func watchLag(t *testing.T, s *testutil.Sluice, name string, d time.Duration) float64 {
	t.Helper()
	most := 0.0
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		most = max(most, value(t, s, "remote_write_destination_lag_seconds", "backend", name))
	}
	return most
}

// statuses lists the kinds of answers that the load got.
func statuses(l *testutil.Load) []int {
	var out []int
	for status := range l.Answers() {
		out = append(out, status)
	}
	return out
}

// TestOneSeriesRefused has a backend that never takes one series. Only that one may be
// lost, and it has to be in the dead-letter file with the backend's own words.
func TestOneSeriesRefused(t *testing.T) {
	const words = "out of bounds, says the backend"
	for _, c := range []struct {
		name     string
		protocol testutil.Protocol
		atomic   bool
	}{
		{"partial write", testutil.RW1, false},
		{"nothing written", testutil.RW1, true},
		{"partial write rw2", testutil.RW2, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sink := testutil.StartSink(t, testutil.SinkOptions{Accept: []testutil.Protocol{c.protocol}})
			well := testutil.StartSink(t, testutil.SinkOptions{Accept: []testutil.Protocol{c.protocol}})
			s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText("",
				backend{name: "choosy", url: sink.URL(), extra: "protocol: " + string(c.protocol)},
				backend{name: "well", url: well.URL(), extra: "protocol: " + string(c.protocol)},
			)})
			var victim atomic.Pointer[string]
			sink.Behave(testutil.Fault{
				Refuse:  func(key string) bool { v := victim.Load(); return v != nil && key == *v },
				Atomic:  c.atomic,
				Message: words,
			})
			opts := steadyLoad(s)
			opts.Protocol = c.protocol
			load := testutil.StartLoad(t, opts)
			key := load.Keys()[4] // a counter: it has exemplars too
			victim.Store(&key)
			awaitArrivals(t, well)
			time.Sleep(2 * time.Second) // load goes on
			load.Stop(t, 10*time.Second)
			awaitArrivals(t, sink)

			others := testutil.CheckOptions{Series: func(k string) bool { return k != key }}
			load.RequireDelivered(t, well, 10*time.Second, testutil.CheckOptions{})
			requireSettled(t, s, "choosy", "well")
			// What was sent before the victim was chosen is there.
			before := len(sink.Arrivals().Points(key, "samples"))
			r := load.Check(sink.Arrivals(), others)
			require.Zero(t, r.Lost+r.Changed+r.Disordered, "%v", r)
			sent := len(well.Arrivals().Points(key, "samples"))
			require.Greater(t, sent-before, 5)

			m := s.Metrics(t)
			a := m.Accounts("choosy", "samples")
			require.Equal(t, float64(sent-before), a.Rejected, "%v", a)
			require.Equal(t, a.Routed-a.Rejected, a.Delivered, "%v", a)
			file := findText(s.Data, words)
			require.NotEmpty(t, file, "no file below %s has the backend's message", s.Data)
			require.NotEmpty(t, findText(s.Data, `load_total_4`), "the dead letters do not name the series")
			t.Logf("dead letters in %s", file)
		})
	}
}

// TestJournalFullRefuses fills the journal while the backend is down: the senders get
// 503 with Retry-After, and go on without loss when there is room again.
func TestJournalFullRefuses(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText(
		"journal: {max_disk: 4MiB, segment_size: 512KiB, retain_behind: 0s}",
		backend{name: "main", url: sink.URL(), extra: "protocol: rw1"},
	)})
	sink.Down()
	load := testutil.StartLoad(t, testutil.LoadOptions{URL: s.WriteURL(), Content: testutil.Everything(), Series: 2000, Batch: 500, Senders: 4})
	testutil.Await(t, 60*time.Second, "a refused request", func() string {
		if n := load.Answers()[http.StatusServiceUnavailable]; n < 10 {
			return fmt.Sprintf("%d answers with 503, disk %v", n, diskUse(s))
		}
		return ""
	})
	require.NotEmpty(t, load.RetryAfter())
	require.LessOrEqual(t, diskUse(s), int64(4<<20))
	status, body, err := testutil.Get(s.URL("/-/healthy"))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, body)

	sink.Up(t)
	acked := load.Acknowledged()
	testutil.Await(t, 30*time.Second, "acknowledgements after recovery", func() string {
		if load.Acknowledged() < acked+20_000 {
			return fmt.Sprintf("%d more", load.Acknowledged()-acked)
		}
		return ""
	})
	load.Stop(t, 30*time.Second)
	load.RequireDelivered(t, sink, 60*time.Second, testutil.CheckOptions{})
	requireSettled(t, s, "main")
	requireMemory(t, s)
}

func diskUse(s *testutil.Sluice) int64 {
	m, err := testutil.ScrapeMetrics(s.URL("/metrics"))
	if err != nil {
		return -1
	}
	return int64(m.Get("sluice_journal_disk_bytes"))
}

// TestJournalFullDropsOldest has on_full: drop_oldest: the senders never notice, what was
// given up is counted exactly, and the healthy backend gets everything.
func TestJournalFullDropsOldest(t *testing.T) {
	t.Parallel()
	testGivingUp(t, "journal: {max_disk: 8MiB, segment_size: 1MiB, retain_behind: 0s, on_full: drop_oldest}", "", "journal_full")
}

// TestMaxBacklog bounds what one dead backend may leave behind.
func TestMaxBacklog(t *testing.T) {
	t.Parallel()
	testGivingUp(t, "journal: {segment_size: 512KiB, retain_behind: 0s}", "    max_backlog: {bytes: 2MiB}\n", "max_backlog")
}

func testGivingUp(t *testing.T, sections, more, reason string) {
	t.Helper()
	dead := testutil.StartSink(t, testutil.SinkOptions{})
	well := testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText(sections,
		backend{name: "dead", url: dead.URL(), extra: "protocol: rw1", more: more},
		backend{name: "well", url: well.URL(), extra: "protocol: rw1"},
	)})
	dead.Down()
	load := testutil.StartLoad(t, testutil.LoadOptions{URL: s.WriteURL(), Content: testutil.Everything(), Series: 2000, Batch: 500, Senders: 4, Rate: 20_000})
	testutil.Await(t, 60*time.Second, "something is given up", func() string {
		a := s.Metrics(t).Accounts("dead", "samples")
		if a.GivenUp < 20_000 {
			return a.String()
		}
		return ""
	})
	dead.Up(t)
	load.Stop(t, 10*time.Second)
	require.Equal(t, []int{http.StatusNoContent}, statuses(load), "the senders saw a failure")
	load.RequireDelivered(t, well, 30*time.Second, testutil.CheckOptions{})
	requireSettled(t, s, "dead", "well")

	m := s.Metrics(t)
	require.Zero(t, m.Accounts("well", "samples").GivenUp)
	require.Equal(t, []string{reason}, m.Labels("sluice_given_up_total", "reason"))
	r := load.Check(dead.Arrivals(), testutil.CheckOptions{})
	require.Zero(t, r.Changed+r.Disordered+r.Unknown, "%v", r)
	givenUp := 0.0
	for _, kind := range testutil.Kinds() {
		givenUp += m.Accounts("dead", kind).GivenUp
	}
	require.Equal(t, givenUp, float64(r.Lost), "what is missing is what was given up: %v", r)
	requireMemory(t, s)
}

// TestDiskErrors makes the kernel fail writes to segment files beyond a size. Senders see
// 503 for those requests and no others, and nothing acknowledged is lost.
func TestDiskErrors(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.NewSluice(t, testutil.SluiceOptions{
		Config: configText("journal: {segment_size: 64MiB}", backend{name: "main", url: sink.URL(), extra: "protocol: rw1"}),
	})
	s.LimitFileSize(1 << 20)
	s.Start(t)
	load := testutil.StartLoad(t, testutil.LoadOptions{URL: s.WriteURL(), Content: testutil.Everything(), Series: 2000, Batch: 500, Senders: 4, Rate: 40_000})
	testutil.Await(t, 60*time.Second, "failed appends", func() string {
		if n := load.Answers()[http.StatusServiceUnavailable]; n < 3 {
			return fmt.Sprintf("answers: %v", load.Answers())
		}
		return ""
	})
	load.Stop(t, 30*time.Second)
	load.RequireDelivered(t, sink, 30*time.Second, testutil.CheckOptions{})
	requireSettled(t, s, "main")
	require.Positive(t, value(t, s, "sluice_journal_write_errors_total"))
	s.Kill()
	s.Start(t)
	load.RequireDelivered(t, sink, time.Second, testutil.CheckOptions{})
	requireSettled(t, s, "main")
}

// TestSecondProcessIsRefused starts a second program on the data of the first.
func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	first := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText("", backend{name: "main", url: sink.URL()})})
	second := testutil.NewSluice(t, testutil.SluiceOptions{Config: configText("", backend{name: "main", url: sink.URL()})})
	second.Data = first.Data
	second.Launch(t)
	require.Equal(t, 1, second.Wait(t, 20*time.Second))
	require.Contains(t, second.Log(), first.Data)
	require.Contains(t, second.Log(), "--storage.path")
	load := testutil.StartLoad(t, testutil.LoadOptions{URL: first.WriteURL(), Rounds: 2})
	load.Wait(t, 10*time.Second)
	load.RequireDelivered(t, sink, 10*time.Second, testutil.CheckOptions{})
}
