package remotewrite

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
)

func TestH1_BlockFormat(t *testing.T) {
	m := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: "up"}},
		Samples: []prompb.Sample{{Value: 1, Timestamp: 5}},
	}}}
	// A snappy block: the length of the message, then one literal, (length-1)<<2 and its bytes.
	golden := map[Protocol]string{
		ProtocolRW1: "\x1f" + "\x78" + "\x0a\x1d" + "\x0a\x0e\x0a\x08__name__\x12\x02up" +
			"\x12\x0b\x09\x00\x00\x00\x00\x00\x00\xf0\x3f\x10\x05",
		ProtocolRW2: "\x23" + "\x88" + "\x22\x00\x22\x08__name__\x22\x02up" + "\x2a\x11" + "\x0a\x02\x01\x02" +
			"\x12\x0b\x09\x00\x00\x00\x00\x00\x00\xf0\x3f\x10\x05",
	}
	for p, want := range golden {
		t.Run(string(p), func(t *testing.T) {
			s := newServer(t, accept)
			b := newBackend(t, s.URL, protocol(p))
			batch := batchOf(t, series.V1, m)
			_, err := b.send(t, &exporter.Parcel{Parts: []exporter.Part{{Batch: batch, Take: take(batch, 0)}}})
			require.NoError(t, err)
			require.Equal(t, want, string(s.got()[0].body))
		})
	}
	t.Run("encoded and joined bodies are one unframed block", func(t *testing.T) {
		s := newServer(t, accept)
		b := newBackend(t, s.URL, protocol(ProtocolRW1))
		whole, divided := batchOf(t, series.V1, requestV1("a", 50)), batchOf(t, series.V1, requestV1("b", 50))
		p := parcel(whole, divided)
		p.Parts[1].Take = take(divided, 1, 3)
		_, err := b.send(t, p)
		require.NoError(t, err)
		body := s.got()[0].body
		require.NotContains(t, string(body), "sNaPpY")
		_, err = snappy.Decode(nil, body)
		require.NoError(t, err)
		_, err = io.ReadAll(snappy.NewReader(strings.NewReader(string(body))))
		require.ErrorIs(t, err, snappy.ErrCorrupt, "it must not be the framed format")
	})
}

func TestH5_Headers(t *testing.T) {
	for p, want := range map[Protocol]struct{ contentType, version string }{
		ProtocolRW1: {typeV1, "0.1.0"},
		ProtocolRW2: {typeV2, "2.0.0"},
	} {
		t.Run(string(p), func(t *testing.T) {
			s := newServer(t, accept)
			b := newBackend(t, s.URL+"/api/v1/write", protocol(p), func(c *Config) {
				c.Headers = map[string]string{"x-scope-orgid": "team-a"}
			})
			d, err := b.Prepare(parcel(batchOf(t, series.V1, requestV1("a", 3))))
			require.NoError(t, err)
			defer d.Close()
			for attempt := range 3 {
				_, err = d.Send(t.Context(), attempt)
				require.NoError(t, err)
			}
			for attempt, r := range s.got() {
				require.Equal(t, http.MethodPost, r.method)
				require.Equal(t, "/api/v1/write", r.path)
				require.Equal(t, "snappy", r.header.Get("Content-Encoding"))
				require.Equal(t, want.contentType, r.header.Get("Content-Type"))
				require.Equal(t, want.version, r.header.Get("X-Prometheus-Remote-Write-Version"))
				require.Regexp(t, `^Sluice/\S+$`, r.header.Get("User-Agent"))
				require.Equal(t, "team-a", r.header.Get("X-Scope-OrgID"))
				require.Equal(t, strconv.Itoa(len(r.body)), r.header.Get("Content-Length"))
				require.Empty(t, r.header.Get("Accept-Encoding"))
				if attempt == 0 {
					require.NotContains(t, r.header, "Retry-Attempt")
				} else {
					require.Equal(t, strconv.Itoa(attempt), r.header.Get("Retry-Attempt"))
				}
			}
		})
	}
}

func TestS1_RetriesSendTheSameBytes(t *testing.T) {
	for _, p := range []Protocol{ProtocolRW1, ProtocolRW2} {
		s := newServer(t, status(http.StatusServiceUnavailable, "later"))
		b := newBackend(t, s.URL, protocol(p))
		d, err := b.Prepare(parcel(batchOf(t, series.V1, requestV1("a", 700)), batchOf(t, series.V1, requestV1("b", 700))))
		require.NoError(t, err)
		for attempt := range 4 {
			_, err := d.Send(t.Context(), attempt)
			failure(t, err, exporter.Retry)
		}
		d.Close()
		got := s.got()
		require.Len(t, got, 4)
		for _, r := range got {
			require.Equal(t, got[0].body, r.body)
		}
		require.Equal(t, 4*float64(len(got[0].body)), b.metric(t, b.metrics.sentBytes))
		require.Equal(t, 4.0, b.metric(t, b.metrics.requests.WithLabelValues("503")))
	}
}

// S1, S2, S3 and R8: the class of each status. Protocol 1.0; what 400, 415 and 2xx mean to
// the negotiation is in negotiate_test.go.
func TestS2_StatusClasses(t *testing.T) {
	for code, want := range map[int]exporter.Error{
		300: {Class: exporter.Denied}, 301: {Class: exporter.Denied}, 302: {Class: exporter.Denied}, 304: {Class: exporter.Denied},
		400: {Class: exporter.Rejected},
		401: {Class: exporter.Denied}, 403: {Class: exporter.Denied}, 404: {Class: exporter.Denied},
		405: {Class: exporter.Denied}, 407: {Class: exporter.Denied}, 415: {Class: exporter.Denied},
		409: {Class: exporter.Rejected}, 418: {Class: exporter.Rejected}, 422: {Class: exporter.Rejected},
		413: {Class: exporter.Rejected, TooLarge: true},
		429: {Class: exporter.Throttled},
		500: {Class: exporter.Retry, Unknown: true}, 502: {Class: exporter.Retry, Unknown: true},
		503: {Class: exporter.Retry, Unknown: true}, 504: {Class: exporter.Retry, Unknown: true}, 599: {Class: exporter.Retry, Unknown: true},
	} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			s := newServer(t, status(code, "as it\tis\n"))
			b := newBackend(t, s.URL, protocol(ProtocolRW1))
			_, err := b.send(t, parcel(batchOf(t, series.V1, requestV1("a", 1))))
			e := failure(t, err, want.Class)
			require.Equal(t, code, e.Status)
			require.Equal(t, want.Unknown, e.Unknown)
			require.Equal(t, want.TooLarge, e.TooLarge)
			require.Zero(t, e.After)
			if code != http.StatusNotModified { // has no body
				require.Equal(t, `as it\tis`, e.Message)
			}
			require.Equal(t, 1.0, b.metric(t, b.metrics.requests.WithLabelValues(strconv.Itoa(code))))
		})
	}
	for _, code := range []int{200, 202, 204, 299} {
		s := newServer(t, status(code, ""))
		b := newBackend(t, s.URL, protocol(ProtocolRW1))
		r, err := b.send(t, parcel(batchOf(t, series.V1, requestV1("a", 1))))
		require.NoError(t, err)
		require.Equal(t, exporter.Receipt{}, r)
	}
}

func TestS3_RetryAfter(t *testing.T) {
	now := time.UnixMilli(startTime).UTC()
	for text, want := range map[string]time.Duration{
		"":                      0,
		"7":                     7 * time.Second,
		" 7 ":                   7 * time.Second,
		"86400":                 24 * time.Hour,
		"86401":                 0,
		"0":                     0,
		"-5":                    0,
		"1.5":                   0,
		"soon":                  0,
		"999999999999999999999": 0,
		"9223372036854775807":   0,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Minute).Format(http.TimeFormat):     0,
		now.Add(25 * time.Hour).Format(http.TimeFormat):   0,
	} {
		for _, code := range []int{429, 503, 500} {
			s := newServer(t, func(w http.ResponseWriter, r request) {
				w.Header().Set("Retry-After", text)
				w.WriteHeader(code)
			})
			b := newBackend(t, s.URL, protocol(ProtocolRW1))
			_, err := b.send(t, parcel(batchOf(t, series.V1, requestV1("a", 1))))
			class := exporter.Throttled
			if code != 429 && want == 0 {
				class = exporter.Retry
			}
			e := failure(t, err, class)
			require.Equal(t, want, e.After, "%q", text)
			require.Equal(t, code != 429, e.Unknown)
		}
	}
}

func TestR6_MessageIsBoundedAndPrintable(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"plain":        {"  out of order sample: {a=\"b\"}\r\n", `out of order sample: {a="b"}`},
		"controls":     {"a\x1b[31mb\x00c\nd", `a\x1b[31mb\x00c\nd`},
		"broken UTF-8": {"a\xffb", `a\xffb`},
		"unicode":      {"grün \u2028 日本", `grün \u2028 日本`},
		"replacement":  {"\uFFFD", "\uFFFD"},
		"empty":        {"", ""},
		"long":         {strings.Repeat("ä", 5000), strings.Repeat("ä", 512)},
		"long escaped": {strings.Repeat("\x01", 5000), strings.Repeat(`\x01`, 256)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, status(400, tt.text))
			b := newBackend(t, s.URL, protocol(ProtocolRW1))
			_, err := b.send(t, parcel(batchOf(t, series.V1, requestV1("a", 1))))
			e := failure(t, err, exporter.Rejected)
			require.Equal(t, tt.want, e.Message)
			require.LessOrEqual(t, len(e.Message), maxMessage)
		})
	}
}

func TestS1_NoConnectionIsNotUnknown(t *testing.T) {
	b := newBackend(t, "http://"+closedPort(t), protocol(ProtocolRW1))
	_, err := b.send(t, parcel(batchOf(t, series.V1, requestV1("a", 1))))
	e := failure(t, err, exporter.Retry)
	require.False(t, e.Unknown, "nothing was sent")
	require.Zero(t, e.Status)
	require.ErrorContains(t, e, "connection refused")
	require.Equal(t, 1.0, b.metric(t, b.metrics.requests.WithLabelValues(codeNone)))
	require.Zero(t, b.metric(t, b.metrics.inFlight))
}

// brokenServer takes each connection, reads the head of a request and after bytes of its
// body, and resets the connection.
func brokenServer(t *testing.T, after int64) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.CopyN(io.Discard, req.Body, after)
			}
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

func TestS1_CutConnectionIsUnknown(t *testing.T) {
	for name, after := range map[string]int64{"after the head, perhaps before any of the body": 0, "in the body": 1000, "after the body": 1 << 30} {
		t.Run(name, func(t *testing.T) {
			b := newBackend(t, brokenServer(t, after), protocol(ProtocolRW1))
			_, err := b.send(t, parcel(batchOf(t, series.V1, requestV1("a", 20000))))
			e := failure(t, err, exporter.Retry)
			require.Equal(t, b.metric(t, b.metrics.sentBytes) > 0, e.Unknown, "%v", e)
			require.True(t, e.Unknown || after == 0, "%v", e)
			require.Zero(t, e.Status)
			require.Error(t, e.Err)
		})
	}
}

func TestS1_Timeout(t *testing.T) {
	release := make(chan struct{})
	s := newServer(t, func(w http.ResponseWriter, r request) { <-release })
	t.Cleanup(func() { close(release) })
	b := newBackend(t, s.URL, protocol(ProtocolRW1), func(c *Config) { c.Timeout = 50e6 })
	_, err := b.send(t, parcel(batchOf(t, series.V1, requestV1("a", 1))))
	e := failure(t, err, exporter.Retry)
	require.True(t, e.Unknown)
	require.ErrorIs(t, e, context.DeadlineExceeded)
}

func TestSend_CancelledByTheCaller(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	s := newServer(t, func(w http.ResponseWriter, r request) { close(arrived); <-release })
	t.Cleanup(func() { close(release) })
	b := newBackend(t, s.URL)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	d, err := b.Prepare(parcel(batchOf(t, series.V2, requestV2("a", 1))))
	require.NoError(t, err)
	defer d.Close()
	_, err = d.Send(ctx, 0)
	e := failure(t, err, exporter.Retry)
	require.True(t, e.Unknown)
	require.ErrorIs(t, e, context.Canceled)
	require.False(t, b.negotiation.lost, "the backend is not to blame")
}

// An answer may come before the body was read. The batch is given back after Send, so
// nothing may read it then.
func TestSend_NothingReadsTheBodyAfterwards(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	release := make(chan struct{})
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
		<-release
	})
	t.Cleanup(func() { close(release); l.Close(); wg.Wait() })
	b := newBackend(t, "http://"+l.Addr().String(), protocol(ProtocolRW1))
	batch := batchOf(t, series.V1, requestV1("a", 1))
	batch.Body = make([]byte, 64<<20) // more than the sockets take
	batch.Body[0] = 1
	d, err := b.Prepare(parcel(batch))
	require.NoError(t, err)
	_, err = d.Send(t.Context(), 0)
	e := failure(t, err, exporter.Rejected)
	require.True(t, e.TooLarge)
	require.Equal(t, "big", e.Message)
	clear(batch.Body) // the race detector sees a reader
	d.Close()
}

func TestContent(t *testing.T) {
	c := &content{src: &stored{body: []byte("0123456789")}}
	first := c.begin()
	buf := make([]byte, 4)
	n, err := first.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "0123", string(buf[:n]))

	second := c.open() // as the transport does when a kept connection turns out dead
	_, err = first.Read(buf)
	require.ErrorIs(t, err, errRevoked)
	all, err := io.ReadAll(second)
	require.NoError(t, err)
	require.Equal(t, "0123456789", string(all))
	require.Equal(t, int64(14), c.revoke())
	n, err = second.Read(buf)
	require.Zero(t, n)
	require.ErrorIs(t, err, io.EOF, "a body that was sent does not fail")

	third := c.begin()
	require.Zero(t, c.revoke())
	_, err = third.Read(buf)
	require.ErrorIs(t, err, errRevoked)
}

func TestSend_ConnectionIsUsedAgain(t *testing.T) {
	for _, code := range []int{204, 200, 400, 429, 500} {
		text := ""
		if code != http.StatusNoContent {
			text = strings.Repeat("x", 5000)
		}
		var mu sync.Mutex
		var connections int
		s := new(server)
		s.Server = httptest.NewUnstartedServer(s.handler(status(code, text)))
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				mu.Lock()
				connections++
				mu.Unlock()
			}
		}
		s.Start()
		t.Cleanup(s.Close)
		b := newBackend(t, s.URL, protocol(ProtocolRW1))
		p := parcel(batchOf(t, series.V1, requestV1("a", 2000)))
		for range 50 {
			_, _ = b.send(t, p)
		}
		mu.Lock()
		require.Equal(t, 1, connections, "status %d", code)
		mu.Unlock()
	}
}

func TestSend_RedirectsKeepThePost(t *testing.T) {
	target := newServer(t, accept)
	for code, followed := range map[int]bool{301: false, 302: false, 303: false, 307: true, 308: true} {
		s := newServer(t, func(w http.ResponseWriter, r request) {
			w.Header().Set("Location", target.URL+"/there?token=hidden")
			w.WriteHeader(code)
		})
		for _, follow := range []bool{true, false} {
			before := len(target.got())
			b := newBackend(t, s.URL, protocol(ProtocolRW1), func(c *Config) { c.HTTP.FollowRedirects = follow })
			_, err := b.send(t, parcel(batchOf(t, series.V1, requestV1("a", 300))))
			got := target.got()[before:]
			if followed && follow {
				require.NoError(t, err)
				require.Len(t, got, 1)
				require.Equal(t, http.MethodPost, got[0].method)
				require.Len(t, got[0].v1(t).Timeseries, 300)
				continue
			}
			e := failure(t, err, exporter.Denied)
			require.Equal(t, code, e.Status)
			require.ErrorContains(t, e, target.URL+"/there")
			require.NotContains(t, e.Error(), "hidden")
			require.Empty(t, got)
		}
	}
}

func TestSend_ErrorsHideTheAddress(t *testing.T) {
	b := newBackend(t, "http://"+closedPort(t)+"/write?token=hidden", protocol(ProtocolRW1))
	_, err := b.send(t, parcel(batchOf(t, series.V1, requestV1("a", 1))))
	require.Error(t, err)
	require.NotContains(t, err.Error(), "hidden")
}

func TestProbe(t *testing.T) {
	for _, tt := range []struct {
		name     string
		protocol Protocol
		answer   func(http.ResponseWriter, request)
		denied   bool
	}{
		{"accepted", ProtocolAuto, accept, false},
		{"accepted as 1.0", ProtocolRW1, accept, false},
		{"empty is refused", ProtocolRW2, status(400, "no series"), false},
		{"overloaded", ProtocolRW1, status(503, ""), false},
		{"throttled", ProtocolRW1, status(429, ""), false},
		{"wrong token", ProtocolRW1, status(401, "who are you"), true},
		{"forbidden", ProtocolAuto, status(403, ""), true},
		{"wrong path", ProtocolAuto, status(404, ""), true},
		{"wrong method", ProtocolAuto, status(405, ""), true},
		{"redirect", ProtocolAuto, status(302, ""), true},
		{"another type, to be negotiated", ProtocolAuto, status(415, ""), false},
		{"another type, forced", ProtocolRW2, status(415, ""), true},
		{"no Written headers, to be negotiated", ProtocolAuto, status(204, ""), false},
		{"no Written headers, forced", ProtocolRW2, status(204, ""), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, tt.answer)
			b := newBackend(t, s.URL, protocol(tt.protocol))
			err := b.Probe(t.Context())
			if tt.denied {
				failure(t, err, exporter.Denied)
			} else {
				require.NoError(t, err)
			}
			r := s.got()[0]
			if r.isV2() {
				m := r.v2(t)
				require.Equal(t, []string{""}, m.Symbols)
				require.Empty(t, m.Timeseries)
			} else {
				require.Empty(t, r.v1(t).Timeseries)
			}
		})
	}
	b := newBackend(t, "http://"+closedPort(t))
	var e *exporter.Error
	require.True(t, errors.As(b.Probe(t.Context()), &e))
	require.Equal(t, exporter.Retry, e.Class)
}

// watched is a source that notes how it is read.
type watched struct {
	stored
	written int64
}

func (w *watched) WriteTo(to io.Writer) (int64, error) {
	n, err := w.stored.WriteTo(to)
	w.written += n
	return n, err
}

// The body is written from where it lies, but for what may go out with the head.
func TestConn_WritesWithoutABuffer(t *testing.T) {
	s := newServer(t, accept)
	b := newBackend(t, s.URL, protocol(ProtocolRW1))
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	w := &watched{stored: stored{body: body}}
	a := b.post(t.Context(), series.V1, &content{src: w}, 0)
	require.NoError(t, a.err)
	require.Equal(t, int64(len(body)), a.taken)
	require.GreaterOrEqual(t, w.written, int64(len(body)-writeBuffer))
	require.Equal(t, body, s.got()[0].body)
}

func TestConn_ReadFrom(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	var cs connections
	out, err := cs.dial(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	in, err := l.Accept()
	require.NoError(t, err)
	defer in.Close()

	c := &content{src: &stored{body: []byte("0123456789")}}
	for name, open := range map[string]func() io.Reader{
		"the whole body":     func() io.Reader { return io.LimitReader(c.begin(), 10) },
		"less than the body": func() io.Reader { return io.LimitReader(c.begin(), 5) },
		"another reader":     func() io.Reader { return strings.NewReader("01234") },
	} {
		_, err := out.(io.ReaderFrom).ReadFrom(open())
		require.NoError(t, err, name)
	}
	stale := c.begin()
	c.revoke()
	_, err = out.(io.ReaderFrom).ReadFrom(io.LimitReader(stale, 10))
	require.ErrorIs(t, err, errRevoked)
	cs.closeAll()
	got, err := io.ReadAll(in)
	require.NoError(t, err)
	require.Len(t, got, 20)
	require.Equal(t, 3, bytes.Count(got, []byte("01234")))
	require.Equal(t, 1, bytes.Count(got, []byte("56789")))
	_, err = cs.dial(t.Context(), "tcp", l.Addr().String())
	require.ErrorIs(t, err, net.ErrClosed)
}
