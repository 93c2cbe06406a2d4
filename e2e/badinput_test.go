package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

// marshaler is what generated messages have in common.
type marshaler interface{ Marshal() ([]byte, error) }

func compressed(t testing.TB, m marshaler) []byte {
	t.Helper()
	raw, err := m.Marshal()
	require.NoError(t, err)
	return snappy.Encode(nil, raw)
}

func oneSeries(value string) *prompb.WriteRequest {
	return &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: "m"}, {Name: "l", Value: value}},
		Samples: []prompb.Sample{{Value: 1, Timestamp: time.Now().UnixMilli()}},
	}}}
}

func requestV2(symbols []string, refs ...uint32) *writev2.Request {
	return &writev2.Request{Symbols: symbols, Timeseries: []writev2.TimeSeries{{
		LabelsRefs: refs,
		Samples:    []writev2.Sample{{Value: 1, Timestamp: time.Now().UnixMilli()}},
	}}}
}

// forged is a snappy block that claims to decode to n bytes.
func forged(n uint64) []byte {
	return append(binary.AppendUvarint(nil, n), 0, 'x')
}

// answer is what came back for a request.
type answer struct {
	status int
	header http.Header
	body   string
}

// send posts the body with the given headers changed; an empty value removes one.
func send(t testing.TB, url string, p testutil.Protocol, body []byte, header map[string]string) answer {
	t.Helper()
	req, err := testutil.NewWriteRequest(context.Background(), url, p, body)
	require.NoError(t, err)
	for name, value := range header {
		req.Header.Del(name)
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	// As real senders do, it does not ask for the connection to be closed: net/http would
	// then reset it before an early answer to a large body is read.
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// TestBadInput sends one bad request after the other: each gets the right status and a
// text that says what is wrong, RW 2.0 answers carry exact Written headers, RW 1.0
// answers carry none, and a good request works after each.
func TestBadInput(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText("", backend{name: "main", url: sink.URL(), extra: "protocol: rw1"})})
	good := compressed(t, oneSeries("good"))
	goodV2 := compressed(t, requestV2([]string{"", "__name__", "m"}, 1, 2))
	raw, err := oneSeries("v").Marshal()
	require.NoError(t, err)
	random := randomBytes(rand.New(rand.NewPCG(3, 4)), 33<<20)

	for _, c := range []struct {
		name   string
		p      testutil.Protocol
		body   []byte
		header map[string]string
		status int
		text   string // part of the answer
	}{
		{"forged snappy length of 1 GiB", testutil.RW1, forged(1 << 30), nil, 400, ""},
		{"forged snappy length of 2^63", testutil.RW1, forged(1 << 63), nil, 400, ""},
		{"forged snappy length just inside", testutil.RW1, forged(31 << 20), nil, 400, ""},
		{"snappy bomb of zeros", testutil.RW1, snappy.Encode(nil, make([]byte, 31<<20)), nil, 400, ""},
		{"snappy bomb above the limit", testutil.RW1, snappy.Encode(nil, make([]byte, 40<<20)), nil, 400, ""},
		{"snappy bomb in rw2", testutil.RW2, snappy.Encode(nil, make([]byte, 31<<20)), nil, 400, ""},
		{"body above the limit", testutil.RW1, random, nil, 413, ""},
		{"not compressed", testutil.RW1, raw, nil, 400, ""},
		{"empty body", testutil.RW1, nil, nil, 400, ""},
		{"truncated body", testutil.RW1, good[:len(good)-9], nil, 400, ""},
		{"truncated message", testutil.RW1, snappy.Encode(nil, raw[:len(raw)-3]), nil, 400, ""},
		{"forged length of a field", testutil.RW1, snappy.Encode(nil, append([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, raw...)), nil, 400, ""},
		{"unknown wire type", testutil.RW1, snappy.Encode(nil, []byte{0x0f, 0x01}), nil, 400, ""},
		{"label without a name", testutil.RW1, compressed(t, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
			Labels:  []prompb.Label{{Name: "", Value: "x"}, {Name: "__name__", Value: "m"}},
			Samples: []prompb.Sample{{Value: 1, Timestamp: time.Now().UnixMilli()}},
		}}}), nil, 400, ""},
		{"label twice", testutil.RW1, compressed(t, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
			Labels:  []prompb.Label{{Name: "__name__", Value: "m"}, {Name: "a", Value: "1"}, {Name: "a", Value: "2"}},
			Samples: []prompb.Sample{{Value: 1, Timestamp: time.Now().UnixMilli()}},
		}}}), nil, 400, ""},
		{"far in the future", testutil.RW1, compressed(t, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
			Labels:  []prompb.Label{{Name: "__name__", Value: "m"}},
			Samples: []prompb.Sample{{Value: 1, Timestamp: time.Now().Add(time.Hour).UnixMilli()}},
		}}}), nil, 400, "future"},
		{"odd number of references", testutil.RW2, compressed(t, requestV2([]string{"", "__name__", "m"}, 1, 2, 1)), nil, 400, ""},
		{"reference out of range", testutil.RW2, compressed(t, requestV2([]string{"", "__name__", "m"}, 1, 7)), nil, 400, ""},
		{"greatest reference", testutil.RW2, compressed(t, requestV2([]string{"", "__name__", "m"}, 1, 0xffffffff)), nil, 400, ""},
		{"symbols do not start with the empty one", testutil.RW2, compressed(t, requestV2([]string{"x", "__name__", "m"}, 1, 2)), nil, 400, ""},
		{"no name", testutil.RW2, compressed(t, requestV2([]string{"", "a", "m"}, 1, 2)), nil, 400, ""},
		// The reference answers 204 and keeps nothing, which loses it without a word.
		{"rw1 body called rw2", testutil.RW2, good, nil, 400, "no symbols"},
		{"wrong content type", testutil.RW1, good, map[string]string{"Content-Type": "application/json"}, 415, ""},
		{"unknown message", testutil.RW1, good, map[string]string{"Content-Type": "application/x-protobuf;proto=x.Y"}, 415, ""},
		{"wrong content type and a corrupt body", testutil.RW1, []byte("???"), map[string]string{"Content-Type": "text/plain"}, 415, ""},
		{"wrong encoding", testutil.RW1, good, map[string]string{"Content-Encoding": "gzip"}, 415, "snappy"},
		{"odd but right content type", testutil.RW1, good, map[string]string{"Content-Type": `Application/X-Protobuf; charset=utf-8; proto="prometheus.WriteRequest"`}, 204, ""},
		{"no content type", testutil.RW1, good, map[string]string{"Content-Type": ""}, 204, ""},
		{"no encoding", testutil.RW1, good, map[string]string{"Content-Encoding": ""}, 204, ""},
		{"odd version header", testutil.RW1, good, map[string]string{"X-Prometheus-Remote-Write-Version": "17"}, 204, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := send(t, s.WriteURL(), c.p, c.body, c.header)
			require.Equal(t, c.status, a.status, a.body)
			if c.status/100 != 2 {
				require.NotEmpty(t, strings.TrimSpace(a.body), "an error says what is wrong")
				require.LessOrEqual(t, len(a.body), 1024)
			}
			require.Contains(t, a.body, c.text)
			const written = "X-Prometheus-Remote-Write-Samples-Written"
			if c.p == testutil.RW2 && c.status != 415 {
				require.Equal(t, "0", a.header.Get(written))
			} else {
				require.Empty(t, a.header.Get(written))
			}
			require.Equal(t, 204, send(t, s.WriteURL(), testutil.RW1, good, nil).status)
			after := send(t, s.WriteURL(), testutil.RW2, goodV2, nil)
			require.Equal(t, 204, after.status)
			require.Equal(t, "1", after.header.Get(written))
		})
	}
	status, _, err := testutil.Get(s.WriteURL())
	require.NoError(t, err)
	require.Equal(t, http.StatusMethodNotAllowed, status)
	require.True(t, s.Running())
	requireSettled(t, s, "main")
	requireMemory(t, s)
}

// TestLongLabels sends labels of ten megabytes: they are either delivered as they are or
// refused, and a hundred megabytes of them do not stay in memory.
func TestLongLabels(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText("", backend{name: "main", url: sink.URL(), extra: "protocol: rw1"})})
	accepted := 0
	for i := range 10 {
		body := compressed(t, oneSeries(fmt.Sprint(i)+strings.Repeat("0123456789", 1<<20)))
		a := send(t, s.WriteURL(), testutil.RW1, body, nil)
		require.Contains(t, []int{204, 400}, a.status, a.body)
		require.LessOrEqual(t, len(a.body), 1024, "the label must not be echoed")
		if a.status == 204 {
			accepted++
		}
	}
	requireSettled(t, s, "main")
	require.Equal(t, accepted, sink.Arrivals().Unique("samples"))
	t.Logf("%d of 10 accepted", accepted)
	requireMemory(t, s)
}

// TestManyBombs sends two hundred requests at a time that each decode to nearly the
// limit, six gigabytes in all: memory depends on what may be in flight, not on how many
// come, and whoever is turned away is told to come again.
func TestManyBombs(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.StartSluice(t, testutil.SluiceOptions{
		Config: configText("", backend{name: "main", url: sink.URL(), extra: "protocol: rw1"}),
		Env:    []string{"GOMAXPROCS=2"}, // the number of requests decoded at a time follows it
	})
	bomb := snappy.Encode(nil, make([]byte, 31<<20))
	var wg sync.WaitGroup
	answers := make([]answer, 200)
	for i := range answers {
		wg.Go(func() { answers[i] = send(t, s.WriteURL(), testutil.RW1, bomb, nil) })
	}
	wg.Wait()
	for _, a := range answers {
		require.Contains(t, []int{400, 503}, a.status, a.body)
		if a.status == 503 {
			require.NotEmpty(t, a.header.Get("Retry-After"))
		}
	}
	// Three decoded bodies of 32 MiB, 64 MiB of bodies as they came, and as much again
	// that waits for the garbage collector; the rest is the program.
	_, peak := s.Memory(t)
	t.Logf("peak memory: %d MiB", peak>>20)
	if os.Getenv(testutil.RaceEnv) == "" {
		require.Less(t, peak, int64(2*(3*32+64)+250)<<20)
	}
	require.Equal(t, 204, send(t, s.WriteURL(), testutil.RW1, compressed(t, oneSeries("good")), nil).status)
}

// TestMutatedRequests flips bytes of valid requests, before and after compression. No
// answer may be a 5xx, and the program survives.
func TestMutatedRequests(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText("", backend{name: "main", url: sink.URL()})})
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 5))
	v1, err := oneSeries("value").Marshal()
	require.NoError(t, err)
	v2, err := requestV2([]string{"", "__name__", "m", "job", "x"}, 1, 2, 3, 4).Marshal()
	require.NoError(t, err)
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for i := range 1000 {
		p, raw := testutil.RW1, bytes.Clone(v1)
		if i%2 == 1 {
			p, raw = testutil.RW2, bytes.Clone(v2)
		}
		body := raw
		if i%4 < 2 {
			mutate(r, raw)
			body = snappy.Encode(nil, raw)
		} else {
			body = snappy.Encode(nil, raw)
			mutate(r, body)
		}
		req, err := testutil.NewWriteRequest(context.Background(), s.WriteURL(), p, body)
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Contains(t, []int{204, 400}, resp.StatusCode, "%s for %x: %s", p, body, text)
	}
	require.True(t, s.Running())
	requireSettled(t, s, "main")
}

func mutate(r *rand.Rand, b []byte) {
	for range 1 + r.IntN(3) {
		b[r.IntN(len(b))] ^= byte(1 << r.IntN(8))
	}
}

// TestSlowClients opens many connections that send a request byte by byte, or stop in
// its midst. They cost little, honest senders are served meanwhile, and the slow ones
// are cut off in the end.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	sink := testutil.StartSink(t, testutil.SinkOptions{})
	s := testutil.StartSluice(t, testutil.SluiceOptions{Config: configText(
		"receiver: {read_timeout: 3s}", backend{name: "main", url: sink.URL(), extra: "protocol: rw1"})})
	var conns []net.Conn
	for range 200 {
		conn, err := net.Dial("tcp", s.Address)
		require.NoError(t, err)
		defer conn.Close()
		_, err = fmt.Fprintf(conn, "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"+
			"Content-Encoding: snappy\r\nContent-Length: 30000000\r\n\r\nslow")
		require.NoError(t, err)
		conns = append(conns, conn)
	}
	load := testutil.StartLoad(t, testutil.LoadOptions{URL: s.WriteURL(), Rounds: 10})
	load.Wait(t, 10*time.Second)
	require.Equal(t, []int{http.StatusNoContent}, statuses(load), "honest senders were held up")
	load.RequireDelivered(t, sink, 10*time.Second, testutil.CheckOptions{})
	for _, conn := range conns {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
		_, err := io.Copy(io.Discard, conn) // until the program closes it
		var timeout net.Error
		if err != nil {
			require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "a slow client was never cut off")
		}
	}
	requireMemory(t, s)
}
