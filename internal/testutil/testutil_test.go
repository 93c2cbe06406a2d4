package testutil

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func all() Content {
	c := Everything()
	c.CustomBuckets, c.StartTimes, c.Metadata = true, true, true
	return c
}

func TestLoadReachesSink(t *testing.T) {
	for _, p := range []Protocol{RW1, RW2} {
		t.Run(string(p), func(t *testing.T) {
			sink := StartSink(t, SinkOptions{Accept: []Protocol{p}})
			l := StartLoad(t, LoadOptions{URL: sink.URL(), Protocol: p, Content: all(), Rounds: 20})
			l.Wait(t, 10*time.Second)
			r := l.RequireDelivered(t, sink, time.Second, CheckOptions{NoStart: p == RW1})
			require.Equal(t, r.Acknowledged, r.Arrived)
			require.Zero(t, r.Repeated)
			require.Equal(t, map[int]int{http.StatusNoContent: 40}, l.Answers())
			total := sink.Arrivals().Total()
			require.Equal(t, 200*20, total[0]+total[1])
			require.Positive(t, total[1])
			require.Positive(t, total[2])
			if p == RW2 {
				row, ok := sink.Arrivals().Row(l.Keys()[0])
				require.True(t, ok)
				require.Equal(t, l.Types()[0], row)
			}
		})
	}
}

func TestLoadKeepsRateAndStops(t *testing.T) {
	sink := StartSink(t, SinkOptions{})
	begun := time.Now()
	l := StartLoad(t, LoadOptions{URL: sink.URL(), Rate: 4000})
	time.Sleep(500 * time.Millisecond) // the rate is the thing under test
	l.Stop(t, 5*time.Second)
	got, most := l.Acknowledged(), 4000*time.Since(begun).Seconds()+400
	require.Positive(t, got)
	require.Less(t, float64(got), most)
}

func TestReportFindsTrouble(t *testing.T) {
	sink := StartSink(t, SinkOptions{})
	l := StartLoad(t, LoadOptions{URL: sink.URL(), Rounds: 5, Series: 10, Batch: 10, Senders: 1})
	l.Wait(t, 5*time.Second)
	key := l.Keys()[3]
	good := sink.Arrivals().Points(key, "samples")
	require.Len(t, good, 5)

	altered := func(change func(rows []Row) []Row) Report {
		var rows []Row
		for _, k := range l.Keys() {
			rows = append(rows, Row{Key: k, Points: sink.Arrivals().Points(k, "samples")})
		}
		var a Arrivals
		a.Add(change(rows))
		return l.Check(&a, CheckOptions{})
	}
	same := altered(func(rows []Row) []Row { return rows })
	require.Equal(t, Report{Acknowledged: 50, Arrived: 50}, same)
	lost := altered(func(rows []Row) []Row { rows[3].Points = rows[3].Points[1:]; return rows })
	require.Equal(t, 1, lost.Lost)
	repeated := altered(func(rows []Row) []Row { return append(rows, Row{Key: key, Points: good[:2]}) })
	require.Equal(t, 2, repeated.Repeated)
	require.Zero(t, repeated.Disordered)
	changed := altered(func(rows []Row) []Row { rows[3].Points[2].Sum++; return rows })
	require.Equal(t, 1, changed.Changed)
	disordered := altered(func(rows []Row) []Row {
		p := rows[3].Points
		p[0], p[1] = p[1], p[0]
		return rows
	})
	require.Equal(t, 1, disordered.Disordered)
	unknown := altered(func(rows []Row) []Row {
		rows[3].Points = append(rows[3].Points, Point{Kind: "samples", Time: good[4].Time + 1})
		return rows
	})
	require.Equal(t, 1, unknown.Unknown)
	unselected := l.Check(sink.Arrivals(), CheckOptions{Series: func(k string) bool { return k != key }})
	require.Equal(t, 5, unselected.Unknown)
}

func TestSinkFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault Fault
		want  int // status that the load sees; 0 is a broken connection
		taken bool
	}{
		{"status", Fault{Status: 503, RetryAfter: "7"}, 503, false},
		{"status after taking", Fault{Status: 500, Takes: true}, 500, true},
		{"cut request", Fault{CutRequest: true}, 0, false},
		{"cut answer", Fault{CutAnswer: true}, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			sink := StartSink(t, SinkOptions{})
			sink.Behave(c.fault)
			l := StartLoad(t, LoadOptions{URL: sink.URL(), Rounds: 1, Senders: 1})
			Await(t, 5*time.Second, "a second failed attempt", func() string {
				if l.Answers()[c.want] < 2 {
					return l.lastProblem()
				}
				return ""
			})
			require.Equal(t, c.taken, sink.Arrivals().Unique("samples") > 0)
			require.Equal(t, c.fault.RetryAfter, l.RetryAfter())
			sink.Behave(Fault{})
			l.Wait(t, 5*time.Second)
			r := l.RequireDelivered(t, sink, time.Second, CheckOptions{})
			require.Equal(t, c.taken, r.Repeated > 0)
		})
	}
}

func TestSinkRefusesSeries(t *testing.T) {
	for _, atomic := range []bool{false, true} {
		sink := StartSink(t, SinkOptions{})
		probe := newGenerator(LoadOptions{Name: "load", Series: 200, Target: 1, Start: time.Now(), Step: time.Second})
		sink.Behave(Fault{Refuse: func(key string) bool { return key == probe.series[7].key }, Atomic: atomic, Message: "too old"})
		l := StartLoad(t, LoadOptions{URL: sink.URL(), Rounds: 1, Senders: 1, Batch: 100})
		l.Wait(t, 5*time.Second)
		require.Equal(t, map[int]int{204: 1, 400: 1}, l.Answers())
		require.Contains(t, l.lastProblem(), "too old")
		want := 199
		if atomic {
			want = 100
		}
		require.Equal(t, want, sink.Arrivals().Unique("samples"))
	}
}

func TestSinkHangsUntilToldOtherwise(t *testing.T) {
	sink := StartSink(t, SinkOptions{})
	sink.Behave(Fault{Hang: true})
	l := StartLoad(t, LoadOptions{URL: sink.URL(), Rounds: 1, Senders: 1, Series: 10})
	Await(t, 5*time.Second, "a request", func() string {
		if sink.Stats().Requests == 0 {
			return "none yet"
		}
		return ""
	})
	require.Zero(t, l.Acknowledged())
	sink.Behave(Fault{})
	l.Wait(t, 5*time.Second)
	l.RequireDelivered(t, sink, time.Second, CheckOptions{})
}

func TestSinkDownAndUp(t *testing.T) {
	sink := StartSink(t, SinkOptions{})
	sink.Down()
	l := StartLoad(t, LoadOptions{URL: sink.URL(), Rounds: 3, Series: 10})
	Await(t, 5*time.Second, "a refused connection", func() string {
		if l.Answers()[0] == 0 {
			return "none yet"
		}
		return ""
	})
	sink.Up(t)
	l.Wait(t, 5*time.Second)
	l.RequireDelivered(t, sink, time.Second, CheckOptions{})
}

func TestSinkNegotiates(t *testing.T) {
	post := func(s *Sink, contentType string) *http.Response {
		g := newGenerator(LoadOptions{Name: "x", Series: 1, Target: 1, Start: time.Now(), Step: time.Second})
		p := RW1
		if strings.Contains(contentType, "v2") {
			p = RW2
		}
		body, _, err := g.encode(p, 0, 0, 1)
		require.NoError(t, err)
		req, err := NewWriteRequest(context.Background(), s.URL(), p, body)
		require.NoError(t, err)
		req.Header.Set("Content-Type", contentType)
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp
	}
	const written = "X-Prometheus-Remote-Write-Samples-Written"
	both := StartSink(t, SinkOptions{})
	require.Equal(t, 204, post(both, "application/x-protobuf").StatusCode)
	require.Empty(t, post(both, ContentTypeRW1).Header.Get(written))
	require.Equal(t, "1", post(both, ContentTypeRW2).Header.Get(written))
	require.Equal(t, 415, post(both, "text/plain").StatusCode)
	old := StartSink(t, SinkOptions{Accept: []Protocol{RW1}})
	require.Equal(t, 415, post(old, ContentTypeRW2).StatusCode)
	silent := StartSink(t, SinkOptions{SilentRW2: true})
	answer := post(silent, ContentTypeRW2)
	require.Equal(t, 204, answer.StatusCode)
	require.Empty(t, answer.Header.Get(written))
	require.Zero(t, silent.Arrivals().Unique("samples"))
}

func TestProxy(t *testing.T) {
	for _, c := range []struct {
		name string
		net  Network
	}{
		{"delay", Network{Delay: 20 * time.Millisecond}},
		{"throttle", Network{BytesPerSecond: 200_000}},
		{"cut in the middle", Network{CutAfter: 20_000}},
		{"refuse", Network{Refuse: true}},
		{"half open", Network{HalfOpen: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			sink := StartSink(t, SinkOptions{})
			proxy := StartProxy(t, sink.Address())
			proxy.Set(c.net)
			l := StartLoad(t, LoadOptions{URL: "http://" + proxy.Address() + "/api/v1/write", Rounds: 4, Senders: 1})
			broken := c.net.Refuse || c.net.HalfOpen || c.net.CutAfter > 0
			if !broken {
				l.Wait(t, 10*time.Second)
				l.RequireDelivered(t, sink, time.Second, CheckOptions{})
				return
			}
			if !c.net.HalfOpen {
				Await(t, 5*time.Second, "a failure", func() string {
					if l.Answers()[0] == 0 {
						return "none yet"
					}
					return ""
				})
			}
			require.NotEqual(t, 800, l.Acknowledged())
			proxy.Set(Network{})
			proxy.CutAll()
			l.Wait(t, 5*time.Second)
			l.RequireDelivered(t, sink, time.Second, CheckOptions{})
		})
	}
}

// TestBottlenecks bounds what passes by time, for all connections together.
func TestBottlenecks(t *testing.T) {
	took := func(url string) time.Duration {
		begun := time.Now()
		l := StartLoad(t, LoadOptions{URL: url, Rounds: 2, Senders: 4, Series: 400, Target: 50})
		l.Wait(t, 20*time.Second)
		require.Equal(t, map[int]int{204: 8}, l.Answers())
		return time.Since(begun)
	}
	sink := StartSink(t, SinkOptions{})
	sink.Behave(Fault{Pace: 800})
	require.InDelta(t, 1, took(sink.URL()).Seconds(), 0.5, "800 samples at 800 a second")
	sink.Behave(Fault{})

	proxy := StartProxy(t, sink.Address())
	url := "http://" + proxy.Address() + "/api/v1/write"
	took(url)
	sent := proxy.Passed()
	require.Positive(t, sent)
	proxy.Set(Network{Shared: int(sent)})
	require.InDelta(t, 1, took(url).Seconds(), 0.5, "as many bytes as pass in a second")
}

// TestLoadOfTargets has series of one target with one instance and one time.
func TestLoadOfTargets(t *testing.T) {
	sink := StartSink(t, SinkOptions{})
	l := StartLoad(t, LoadOptions{URL: sink.URL(), Rounds: 1, Series: 20, Target: 10})
	l.Wait(t, 5*time.Second)
	times := map[int64]int{}
	for _, key := range l.Keys() {
		times[sink.Arrivals().Points(key, "samples")[0].Time]++
	}
	require.Len(t, times, 2)
	for at, n := range times {
		require.Equal(t, 10, n, at)
	}
	require.Contains(t, l.Keys()[9], `instance="10.0.0.0:9100"`)
	require.Contains(t, l.Keys()[10], `instance="10.0.0.1:9100"`)
}

func TestProcess(t *testing.T) {
	p := StartProcess(t, Command{Name: "sh", Path: "/bin/sh", Args: []string{"-c", "trap 'echo bye; exit 3' TERM; echo hello; while :; do sleep 0.05; done"}})
	Await(t, 5*time.Second, "output", func() string {
		if !strings.Contains(p.Log(), "hello") {
			return "not yet: " + p.Log()
		}
		return ""
	})
	now, peak := p.Memory(t)
	require.Positive(t, now)
	require.GreaterOrEqual(t, peak, now)
	require.True(t, p.Running())
	require.Equal(t, 3, p.Stop(t, 5*time.Second))
	require.Equal(t, "hello\nbye\n", p.Log())
	require.False(t, p.Running())
	p.Signal(t, syscall.SIGTERM) // gone already: no error
	p.Kill()
}

func TestMetrics(t *testing.T) {
	m, err := ParseMetrics(strings.NewReader(`# TYPE sluice_routed_total counter
sluice_routed_total{backend="a",kind="samples"} 10
sluice_routed_total{backend="b",kind="samples"} 5
# TYPE sluice_rejected_total counter
sluice_rejected_total{backend="a",kind="samples",reason="x"} 2
sluice_rejected_total{backend="a",kind="samples",reason="y"} 1
# TYPE sluice_delivered_total counter
sluice_delivered_total{backend="a",kind="samples"} 6
# TYPE sluice_in_journal gauge
sluice_in_journal{backend="a",kind="samples"} 1
`))
	require.NoError(t, err)
	require.Equal(t, 15.0, m.Get("sluice_routed_total"))
	require.Equal(t, []string{"x", "y"}, m.Labels("sluice_rejected_total", "reason"))
	a := m.Accounts("a", "samples")
	require.Equal(t, Account{Routed: 10, Delivered: 6, Rejected: 3, InJournal: 1}, a)
	require.Zero(t, a.Gap())
	require.Equal(t, 5.0, m.Accounts("b", "samples").Gap())
	_, ok := m.Sum("sluice_given_up_total", "backend", "a")
	require.False(t, ok)
}

func TestPrometheusTakesBothWays(t *testing.T) {
	p := StartPrometheus(t, PrometheusOptions{Receiver: true})
	// Special values sort badly into a text of an answer; plain ones will do here.
	l := StartLoad(t, LoadOptions{URL: p.URL("/api/v1/write"), Rounds: 10, Step: time.Second, Start: time.Now().Add(-20 * time.Second)})
	l.Wait(t, 10*time.Second)
	got, err := Ask(p.URL(""), Query{Expr: `count(count_over_time({job="load"}[1m]))`, End: time.Now()})
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Contains(t, got[0], `"200"`)
	_, err = Ask(p.URL(""), Query{Expr: `sum(`, End: time.Now()})
	require.ErrorContains(t, err, "parse error")
	require.Equal(t, 0, p.Stop(t, 20*time.Second))
}

func TestRootIsTheRepository(t *testing.T) {
	root, err := Root()
	require.NoError(t, err)
	_, err = os.Stat(root + "/scripts/install-test-programs")
	require.NoError(t, err)
}

func TestFreeAddress(t *testing.T) {
	// Children between fork and exec hold what this process has closed.
	forking := make(chan struct{})
	var forks sync.WaitGroup
	defer forks.Wait()
	defer close(forking)
	for range 4 {
		forks.Go(func() {
			for {
				select {
				case <-forking:
					return
				default:
					if err := exec.Command("true").Run(); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for range 200 {
		var mark string
		t.Run("its own until the end", func(t *testing.T) {
			address, err := net.ResolveTCPAddr("tcp", FreeAddress(t))
			require.NoError(t, err)
			mark = portMark(address.Port)
			_, err = net.Listen("unix", mark)
			require.ErrorIs(t, err, syscall.EADDRINUSE, "somebody else may be given it")
			for range 10 { // stopped and started again
				require.NoError(t, Listen(t, "tcp", address.String()).Close())
			}
		})
		require.NoError(t, Listen(t, "unix", mark).Close(), "it is kept after the test")
	}
}
