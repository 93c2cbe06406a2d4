package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// kills is how often each crash test kills the program.
const kills = 20

// TestCrash kills the program with SIGKILL at random instants while load goes on, and
// starts it again on the same data. Every acknowledged point has to arrive, in order and
// with the same bits, and the books have to balance.
func TestCrash(t *testing.T) {
	for _, c := range []struct {
		name     string
		protocol testutil.Protocol
		journal  string
		damage   func(*testing.T, *tear)
	}{
		{"write", testutil.RW1, "durability: write", nil},
		{"write rw2", testutil.RW2, "durability: write, segment_size: 1MiB", nil},
		{"fsync", testutil.RW1, "durability: fsync", nil},
		{"torn tail", testutil.RW1, "durability: fsync, segment_size: 2MiB", tearTail},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 1))

			sink := testutil.StartSink(t, testutil.SinkOptions{Accept: []testutil.Protocol{c.protocol}})
			s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText(
				"journal: {"+c.journal+"}",
				backend{name: "main", url: sink.URL(), extra: "protocol: " + string(c.protocol)},
			)})
			load := testutil.StartLoad(t, testutil.LoadOptions{
				URL: s.WriteURL(), Protocol: c.protocol, Content: testutil.Everything(),
				Series: 400, Batch: 100, Senders: 4, Rate: 8000, Step: 20 * time.Millisecond, Pause: 20 * time.Millisecond,
			})
			testutil.Await(t, 20*time.Second, "the first acknowledgement", func() string {
				if load.Acknowledged() == 0 {
					return "nothing yet: there is no journal to damage"
				}
				return ""
			})
			for i := range kills {
				time.Sleep(time.Duration(r.IntN(700)) * time.Millisecond) // the instant is what is random
				if i%5 == 4 {
					// Now and then the sink is slow, so that the kill finds a backlog.
					sink.Behave(testutil.Fault{Delay: 100 * time.Millisecond})
				} else {
					sink.Behave(testutil.Fault{})
				}
				s.Kill()
				if c.damage != nil {
					c.damage(t, &tear{rand: r, sluice: s, sink: sink, at: i})
				}
				s.Start(t)
			}
			sink.Behave(testutil.Fault{})
			load.Stop(t, 30*time.Second)
			report := load.RequireDelivered(t, sink, 30*time.Second, testutil.CheckOptions{})
			t.Logf("after %d kills: %v; answers: %v", kills, report, load.Answers())
			// A permanent error would make a real sender drop its data.
			require.Subset(t, []int{0, http.StatusNoContent, http.StatusServiceUnavailable}, statuses(load))
			requireSettled(t, s, "main")
			requireBooksMatch(t, s, load, sink)
		})
	}
}

// requireBooksMatch compares the program's books with what the load and the sink
// counted themselves.
func requireBooksMatch(t *testing.T, s *testutil.Sluice, load *testutil.Load, sink *testutil.Sink) {
	t.Helper()
	m := s.Metrics(t)
	routed := 0.0
	for _, kind := range testutil.Kinds() {
		a := m.Accounts("main", kind)
		unique, repeated := float64(sink.Arrivals().Unique(kind)), float64(sink.Arrivals().Repeated(kind))
		redelivered := m.Get("sluice_redelivered_total", "backend", "main", "kind", kind)
		t.Logf("%s: %v; redelivered %v; at the sink: %v, %v of them more than once", kind, a, redelivered, unique, repeated)
		require.Equal(t, a.Routed, a.Delivered, "%s: everything routed is delivered", kind)
		require.GreaterOrEqual(t, a.Delivered, unique, "%s: what arrived is in the books", kind)
		// What came twice was sent twice by the load, and routed twice, or it was sent
		// again after a start.
		require.LessOrEqual(t, repeated, redelivered+a.Routed-unique, "%s: what was sent again is counted as redelivered", kind)
		routed += a.Routed
	}
	require.GreaterOrEqual(t, routed, float64(load.Acknowledged()), "what was acknowledged was routed")
}

// tear is one occasion to damage the journal of a program that is down.
type tear struct {
	rand   *rand.Rand
	sluice *testutil.Sluice
	sink   *testutil.Sink
	at     int // which one
}

// tearTail damages the newest segment as a crash of the machine might: with bytes
// after its end that were never a record, or by cutting off part of a request that was
// not acknowledged.
func tearTail(t *testing.T, c *tear) {
	switch c.at % 4 {
	case 0:
		appendToNewest(t, c.sluice, randomBytes(c.rand, 1+c.rand.IntN(5000)))
	case 1:
		appendToNewest(t, c.sluice, make([]byte, 1+c.rand.IntN(8192))) // a page that was allocated and not written
	case 2:
		b, err := os.ReadFile(newestSegment(t, c.sluice))
		require.NoError(t, err)
		from := len(b) - min(len(b), 1+c.rand.IntN(4000))
		appendToNewest(t, c.sluice, b[from:]) // looks like a record, at the wrong place
	case 3:
		cutUnacknowledged(t, c)
	}
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func segments(t *testing.T, s *testutil.Sluice) map[string]int64 {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.Data, "journal", "segments", "*.seg"))
	require.NoError(t, err)
	require.NotEmpty(t, paths, "no segments in %s", s.Data)
	sizes := map[string]int64{}
	for _, p := range paths {
		info, err := os.Stat(p)
		require.NoError(t, err)
		sizes[p] = info.Size()
	}
	return sizes
}

func newestSegment(t *testing.T, s *testutil.Sluice) string {
	t.Helper()
	var names []string
	for p := range segments(t, s) {
		names = append(names, p)
	}
	return slices.Max(names)
}

func appendToNewest(t *testing.T, s *testutil.Sluice, b []byte) {
	t.Helper()
	f, err := os.OpenFile(newestSegment(t, s), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.Write(b)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// cutUnacknowledged starts the program on an address that the load does not know, sends
// it one large request, kills it in the midst, and cuts the newest segment anywhere
// behind what was there before, if no acknowledgement was seen. The sink refuses
// meanwhile: what a power loss takes away cannot have been delivered.
func cutUnacknowledged(t *testing.T, c *tear) {
	t.Helper()
	body, s := largeRequest(t), c.sluice
	c.sink.Behave(testutil.Fault{Status: http.StatusServiceUnavailable})
	defer c.sink.Behave(testutil.Fault{})
	address := s.Address
	defer func() { s.Address = address }()
	s.Address = testutil.FreeAddress(t)
	s.Start(t)
	before := segments(t, s)
	answered := make(chan bool, 1)
	go func() { answered <- post(s.WriteURL(), body) }()
	time.Sleep(time.Duration(c.rand.IntN(30)) * time.Millisecond) // the instant is what is random
	s.Kill()
	if <-answered {
		return
	}
	path := newestSegment(t, s)
	low, size := before[path], segments(t, s)[path]
	if size > low {
		require.NoError(t, os.Truncate(path, low+c.rand.Int64N(size-low)))
	}
}

// post sends the body once and reports whether it was acknowledged.
func post(url string, body []byte) bool {
	req, err := testutil.NewWriteRequest(context.Background(), url, testutil.RW1, body)
	if err != nil {
		return false
	}
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode/100 == 2
}

// largeRequest is a valid request of some 2 MB that does not compress much.
func largeRequest(t *testing.T) []byte {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	var req prompb.WriteRequest
	now := time.Now().UnixMilli()
	for i := range 10_000 {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
			Labels: []prompb.Label{
				{Name: "__name__", Value: "torn"},
				{Name: "id", Value: fmt.Sprintf("%d", i)},
				{Name: "text", Value: fmt.Sprintf("%x", randomBytes(r, 60))},
			},
			Samples: []prompb.Sample{{Value: r.Float64(), Timestamp: now}},
		})
	}
	raw, err := req.Marshal()
	require.NoError(t, err)
	return snappy.Encode(nil, raw)
}
