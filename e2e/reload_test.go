package e2e

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// TestReload adds, changes and removes backends under load. The unchanged one loses
// nothing and gets nothing twice, the changed one loses nothing, and the new one gets
// what comes after it.
func TestReload(t *testing.T) {
	t.Parallel()
	sinks := map[string]*testutil.Sink{}
	for _, name := range []string{"kept", "changed", "removed", "added"} {
		sinks[name] = testutil.StartSink(t, testutil.SinkOptions{Accept: []testutil.Protocol{testutil.RW1}})
	}
	of := func(name, extra string) backend {
		return backend{name: name, url: sinks[name].URL(), extra: "protocol: rw1, " + extra}
	}
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText("", of("kept", ""), of("changed", ""), of("removed", ""))})
	load := testutil.StartLoad(t, steadyLoad(s))
	for _, name := range []string{"kept", "changed", "removed"} {
		awaitArrivals(t, sinks[name])
	}

	s.Configure(t, configText("", of("added", ""), of("changed", "max_samples_per_send: 200"), of("kept", "")))
	status, body := s.Reload(t)
	require.Equal(t, http.StatusOK, status, body)
	acked := load.Acknowledged()
	awaitArrivals(t, sinks["added"])
	time.Sleep(time.Second) // load goes on
	require.Greater(t, load.Acknowledged(), acked)

	// The same by signal.
	s.Configure(t, configText("", of("added", ""), of("changed", "max_samples_per_send: 300"), of("kept", "")))
	s.Signal(t, syscall.SIGHUP)
	testutil.Await(t, 10*time.Second, "reload by signal", func() string {
		if n := strings.Count(strings.ToLower(s.Log()), "reload"); n < 2 {
			return "not in the log yet"
		}
		return ""
	})
	time.Sleep(time.Second) // load goes on

	load.Stop(t, 10*time.Second)
	require.Equal(t, []int{http.StatusNoContent}, statuses(load), "the senders saw the reload")
	kept := load.RequireDelivered(t, sinks["kept"], 10*time.Second, testutil.CheckOptions{})
	require.Zero(t, kept.Repeated)
	load.RequireDelivered(t, sinks["changed"], 10*time.Second, testutil.CheckOptions{})
	requireSettled(t, s, "kept", "changed", "added")

	removed := load.Check(sinks["removed"].Arrivals(), testutil.CheckOptions{})
	require.Positive(t, removed.Lost, "the removed backend went on getting samples")
	require.Zero(t, removed.Changed+removed.Disordered+removed.Unknown)
	_, still := s.Metrics(t).Sum("sluice_routed_total", "backend", "removed")
	require.False(t, still, "the removed backend is still exported")

	added := load.Check(sinks["added"].Arrivals(), testutil.CheckOptions{})
	require.Zero(t, added.Changed+added.Disordered+added.Unknown)
	requireNoHoles(t, load, sinks["added"])
}

// requireNoHoles requires that of each series the sink has everything from its first
// arrival to the end.
func requireNoHoles(t *testing.T, load *testutil.Load, sink *testutil.Sink) {
	t.Helper()
	step := steadyLoad(&testutil.Sluice{}).Step.Milliseconds()
	for _, key := range load.Keys() {
		for _, kind := range []string{"samples", "histograms"} {
			points := sink.Arrivals().Points(key, kind)
			for i := 1; i < len(points); i++ {
				require.Equal(t, points[i-1].Time+step, points[i].Time, "a hole in %s", key)
			}
		}
	}
}

// TestInvalidReloadChangesNothing breaks the file: the answer and the log say what is
// wrong, and everything goes on as before.
func TestInvalidReloadChangesNothing(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	valid := configText("", backend{name: "main", url: sink.URL(), extra: "protocol: rw1"})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: valid})
	load := testutil.StartLoad(t, steadyLoad(s))
	awaitArrivals(t, sink)

	s.Configure(t, strings.Replace(valid, "url:", "urll:", 1))
	status, body := s.Reload(t)
	require.NotEqual(t, http.StatusOK, status)
	require.Contains(t, body, `did you mean "url"?`)
	require.Contains(t, body, "sluice.yaml:")
	s.Signal(t, syscall.SIGHUP)
	testutil.Await(t, 10*time.Second, "the failed reload by signal is logged", func() string {
		if strings.Count(s.Log(), "urll") < 2 {
			return "not yet"
		}
		return ""
	})
	acked := load.Acknowledged()
	testutil.Await(t, 10*time.Second, "the old configuration goes on", func() string {
		if load.Acknowledged() < acked+2000 {
			return "nothing more is acknowledged"
		}
		return ""
	})
	s.Configure(t, valid)
	status, body = s.Reload(t)
	require.Equal(t, http.StatusOK, status, body)
	load.Stop(t, 10*time.Second)
	require.Equal(t, []int{http.StatusNoContent}, statuses(load))
	r := load.RequireDelivered(t, sink, 10*time.Second, testutil.CheckOptions{})
	require.Zero(t, r.Repeated)
	requireSettled(t, s, "main")
}

// TestRemovedBackendComesBack takes a backend out and puts it back within
// orphan_retention: it goes on where it was.
func TestRemovedBackendComesBack(t *testing.T) {
	t.Parallel()
	a := testutil.StartSink(t, testutil.SinkOptions{})
	b := testutil.StartSink(t, testutil.SinkOptions{})
	both := configText("", backend{name: "a", url: a.URL(), extra: "protocol: rw1"}, backend{name: "b", url: b.URL(), extra: "protocol: rw1"})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: both})
	load := testutil.StartLoad(t, steadyLoad(s))
	awaitArrivals(t, b)
	s.Configure(t, configText("", backend{name: "a", url: a.URL(), extra: "protocol: rw1"}))
	status, body := s.Reload(t)
	require.Equal(t, http.StatusOK, status, body)
	time.Sleep(time.Second) // load goes on
	s.Configure(t, both)
	status, body = s.Reload(t)
	require.Equal(t, http.StatusOK, status, body)
	load.Stop(t, 10*time.Second)
	load.RequireDelivered(t, a, 10*time.Second, testutil.CheckOptions{})
	load.RequireDelivered(t, b, 10*time.Second, testutil.CheckOptions{})
	requireSettled(t, s, "a", "b")
}

// TestTerminationDrains sends SIGTERM under load with a healthy backend: everything
// acknowledged is delivered before the program ends with 0.
func TestTerminationDrains(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	sink.Behave(testutil.Fault{Delay: 50 * time.Millisecond})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText("", backend{name: "main", url: sink.URL(), extra: "protocol: rw1"})})
	load := testutil.StartLoad(t, steadyLoad(s))
	awaitArrivals(t, sink)
	require.Equal(t, 0, s.Stop(t, 40*time.Second))
	r := load.Check(sink.Arrivals(), testutil.CheckOptions{})
	require.Zero(t, r.Lost+r.Changed+r.Disordered, "%v", r)

	// What was refused at the end is taken by its successor.
	s.Start(t)
	load.Stop(t, 10*time.Second)
	load.RequireDelivered(t, sink, 10*time.Second, testutil.CheckOptions{})
	requireSettled(t, s, "main")
}

// TestTerminationWithBacklog sends SIGTERM while the backend is down: the program ends
// within its limit, says what stays, and delivers it after the next start.
func TestTerminationWithBacklog(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText("shutdown_timeout: 2s", backend{name: "main", url: sink.URL(), extra: "protocol: rw1"})})
	sink.Down()
	load := testutil.StartLoad(t, testutil.LoadOptions{URL: s.WriteURL(), Rounds: 10})
	load.Wait(t, 10*time.Second)
	begun := time.Now()
	require.Equal(t, 0, s.Stop(t, 20*time.Second))
	require.Less(t, time.Since(begun), 15*time.Second)
	log := s.Log()
	require.Contains(t, log, "samples=2000", "the log does not say what stays in the journal")
	sink.Up(t)
	s.Start(t)
	r := load.RequireDelivered(t, sink, 20*time.Second, testutil.CheckOptions{})
	require.Zero(t, r.Repeated)
	requireSettled(t, s, "main")
}

// TestReadyAndHealthy asks both, and what the program says while it cannot be ready.
func TestReadyAndHealthy(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText("", backend{name: "main", url: sink.URL()})})
	for _, path := range []string{"/-/healthy", "/-/ready", "/metrics", "/debug/pprof/cmdline"} {
		status, body, err := testutil.Get(s.URL(path))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, status, "%s: %s", path, body)
	}
	status, _, err := testutil.Get(s.URL("/-/reload"))
	require.NoError(t, err)
	require.Equal(t, http.StatusMethodNotAllowed, status, "a reload is a POST")
	m := s.Metrics(t)
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes", "sluice_build_info"} {
		_, ok := m.Sum(name)
		require.True(t, ok, "%s is not exported", name)
	}
}

// TestExitCodes: 1 is a configuration or runtime error, 2 a wrong command line.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
		file string
		code int
		text string
	}{
		{"help", []string{"--help"}, "", 0, "--storage.path"},
		{"version", []string{"--version"}, "", 0, "sluice"},
		{"unknown flag", []string{"--web.listen-adress=x"}, "", 2, "web.listen-adress"},
		{"missing file", []string{"--config.file=absent.yaml"}, "", 1, "absent.yaml"},
		{"invalid file", []string{"--config.file=sluice.yaml"}, "backends: [{name: a, remote_write: {urll: x}}]\n", 1, `did you mean "url"?`},
		{"check of an invalid file", []string{"check", "--config.file=sluice.yaml"}, "backendz: []\n", 1, `did you mean "backends"?`},
		{"check of a valid file", []string{"check", "--config.file=sluice.yaml"}, "backends: [{name: a, remote_write: {url: 'http://127.0.0.1:1/'}}]\n", 0, ""},
		{"storage path that is a file", []string{"--config.file=sluice.yaml", "--storage.path=sluice.yaml"}, "backends: [{name: a, remote_write: {url: 'http://127.0.0.1:1/'}}]\n", 1, "sluice.yaml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.file != "" {
				writeFile(t, dir+"/sluice.yaml", c.file)
			}
			args := c.args
			if c.code == 1 && c.args[0] != "check" {
				args = append(args, "--web.listen-address="+testutil.FreeAddress(t))
			}
			p := testutil.StartProcess(t, testutil.Command{Name: "sluice", Path: testutil.BuildSluice(t), Args: args, Dir: dir})
			require.Equal(t, c.code, p.Wait(t, 20*time.Second), p.Log())
			require.Contains(t, p.Log(), c.text)
		})
	}
}

// TestPortInUse starts on an address that is taken: exit code 1, and one line that names
// it and the flag that changes it.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.NewSluice(t, testutil.SluiceOptions{Config: configText("", backend{name: "main", url: sink.URL()})})
	s.Address = sink.Address()
	s.Launch(t)
	require.Equal(t, 1, s.Wait(t, 20*time.Second))
	require.Contains(t, s.Log(), sink.Address())
	require.Contains(t, s.Log(), "--web.listen-address")
}

// A backend whose URL leads back to the gateway is refused what it sends, loudly: nothing goes in
// a circle.
func TestBackendIsTheGatewayItself(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{Accept: []testutil.Protocol{testutil.RW1}})
	other := backend{name: "main", url: sink.URL(), extra: "protocol: rw1"}
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText("", other)})
	s.Configure(t, configText("", other, backend{name: "self", url: s.WriteURL(), extra: "protocol: rw1"}))
	status, body := s.Reload(t)
	require.Equal(t, http.StatusOK, status, body)
	load := testutil.StartLoad(t, steadyLoad(s))
	testutil.Await(t, 10*time.Second, "the gateway says so", func() string {
		if !strings.Contains(s.Log(), "leads back to it") {
			return "not in the log yet"
		}
		return ""
	})
	load.Stop(t, 10*time.Second)
	t.Log(load.RequireDelivered(t, sink, 10*time.Second, testutil.CheckOptions{}))
	require.Zero(t, s.Metrics(t).Get("sluice_delivered_total", "backend", "self"))
}
