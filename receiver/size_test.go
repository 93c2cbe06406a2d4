package receiver_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
)

// small bounds requests so that tests can cross the bounds cheaply.
func small(s *setup) {
	s.receiver.MaxRequestSize = 64 * bytesize.KiB
	s.receiver.MaxDecodedSize = 128 * bytesize.KiB
}

// literal is a snappy block of src without any compression.
func literal(src []byte) []byte {
	b := binary.AppendUvarint(nil, uint64(len(src)))
	for len(src) > 0 {
		n := min(len(src), 1<<16)
		b = append(b, 61<<2, byte(n-1), byte((n-1)>>8))
		b = append(b, src[:n]...)
		src = src[n:]
	}
	return b
}

// padded is a valid request of exactly n bytes on the wire.
func padded(t testing.TB, n int) []byte {
	t.Helper()
	for pad := n - 128; pad < n; pad++ {
		req := oneV1()
		req.Timeseries[0].Labels = append(req.Timeseries[0].Labels, prompb.Label{Name: "pad", Value: strings.Repeat("x", pad)})
		if b := literal(mustMarshal(t, req)); len(b) == n {
			return b
		}
	}
	require.FailNow(t, "no padding gives that length")
	return nil
}

// unknownLength hides the length of a body, so that it is sent in chunks.
type unknownLength struct{ io.Reader }

func TestH13_CompressedSize(t *testing.T) {
	const limit = 64 << 10
	for _, inFlight := range []bytesize.Size{limit, 4 * limit} {
		g := newGate(t, small, func(s *setup) { s.receiver.MaxInFlightBytes = inFlight })
		for _, tc := range []struct{ size, status int }{
			{limit - 1, 204}, {limit, 204}, {limit + 1, 413}, {3 * limit, 413},
		} {
			for _, chunked := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d of %s chunked %t", tc.size, inFlight, chunked), func(t *testing.T) {
					body := padded(t, tc.size)
					r := g.request(typeV1, body)
					if chunked {
						r.Body = io.NopCloser(unknownLength{bytes.NewReader(body)})
						r.ContentLength = -1
					}
					a := g.do(r)
					require.Equal(t, tc.status, a.status, a.text)
					if tc.status == 413 {
						require.Contains(t, a.text, "max_request_size")
						require.Empty(t, g.kept())
						return
					}
					require.Equal(t, body, g.keptOne().body)
				})
			}
		}
	}
}

// A body that announces too much is refused before it is sent.
func TestH13_AnnouncedSizeIsRefusedAtOnce(t *testing.T) {
	g := newGate(t, small)
	conn := g.dial()
	fmt.Fprintf(conn, "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 1<<40)
	require.Equal(t, 413, responseOf(t, conn).status)
}

func TestH13_DecodedSize(t *testing.T) {
	const limit = 128 << 10
	g := newGate(t, small)
	for _, tc := range []struct {
		name   string
		length int
		status int
	}{
		{"at the limit", limit, 204},
		{"beyond", limit + 1, 400},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plain := withUnknownField(t, tc.length)
			a := g.do(g.request(typeV1, snappy.Encode(nil, plain)))
			require.Equal(t, tc.status, a.status, a.text)
			if tc.status == 400 {
				require.Contains(t, a.text, "max_decoded_size")
			}
		})
	}
}

// withUnknownField returns a request of n bytes that ends with an unknown field.
func withUnknownField(t testing.TB, n int) []byte {
	t.Helper()
	plain, err := oneV1().Marshal()
	require.NoError(t, err)
	for size := n - 128; size < n; size++ {
		b := append(bytes.Clone(plain), 15<<3|2)
		b = binary.AppendUvarint(b, uint64(size))
		if len(b)+size == n {
			return append(b, make([]byte, size)...)
		}
	}
	require.FailNow(t, "no field gives that length")
	return nil
}

// Each of these claims far more than it holds. None may cost the memory it claims, nor
// be kept.
func TestH13_ForgedLengths(t *testing.T) {
	g := newGate(t)
	valid := packV1(t, oneV1())
	for name, body := range map[string][]byte{
		"4 GiB":                       {0xff, 0xff, 0xff, 0xff, 0x0f, 0},
		"more than 32 bits":           {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0},
		"varint without end":          bytes.Repeat([]byte{0xff}, 64),
		"at the limit, nothing in it": binary.AppendUvarint(nil, 32<<20),
		"32 MiB in a hundred bytes":   append(binary.AppendUvarint(nil, 32<<20), bytes.Repeat([]byte{0xfe, 1, 0}, 33)...),
		"one more than there is":      append(binary.AppendUvarint(nil, uint64(valid[0])+1), valid[1:]...),
		"one less than there is":      append(binary.AppendUvarint(nil, uint64(valid[0])-1), valid[1:]...),
		"no body":                     {},
		"only a length":               {5},
		"copy before the start":       {10, 0, 'a', 0xfe, 200, 0},
		"framed snappy":               framed(t, valid),
	} {
		t.Run(name, func(t *testing.T) {
			for _, contentType := range []string{typeV1, typeV2} {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				a := g.do(g.request(contentType, body))
				runtime.ReadMemStats(&after)
				require.Equal(t, 400, a.status, a.text)
				require.Regexp(t, "snappy|decompresses", a.text)
				require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))
				require.Empty(t, g.kept())
			}
		})
	}
}

func framed(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := snappy.NewBufferedWriter(&buf)
	_, err := w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return buf.Bytes()
}

// s2 is a superset of snappy that no other receiver reads: it must not be kept, since
// bodies go on to backends as they came.
func TestH13_ExtensionsOfSnappyAreNotSnappy(t *testing.T) {
	g := newGate(t)
	plain := mustMarshal(t, oneV1())
	n := len(plain)
	body := binary.AppendUvarint(nil, uint64(2*n))
	body = append(body, byte(n-1)<<2)                 // literal: the request
	body = append(body, plain...)                     //
	body = append(body, byte(n-8-1)<<2|2, byte(n), 0) // copy of it but the last 8 bytes
	body = append(body, (8-4)<<2|1, 0)                // repeat the last offset for 8 bytes
	twice, err := s2.Decode(nil, body)
	require.NoError(t, err)
	require.Equal(t, append(bytes.Clone(plain), plain...), twice)
	_, err = snappy.Decode(nil, body)
	require.Error(t, err, "the test wants a body that only s2 reads")
	require.Equal(t, 400, g.do(g.request(typeV1, body)).status)
	require.Empty(t, g.kept())
	require.Equal(t, 204, g.do(g.request(typeV1, s2.EncodeSnappy(nil, twice))).status)
}

// What snappy can make of few bytes is bounded, so bombs are small; what they hold is
// bounded by the walk. Many at once must not cost more than the bounds.
func TestH13_Bombs(t *testing.T) {
	g := newGate(t)
	for name, tc := range map[string]struct {
		contentType string
		plain       []byte
		status      int
	}{
		"zeros":               {typeV1, make([]byte, 32<<20), 400},
		"empty series v1":     {typeV1, bytes.Repeat([]byte{1<<3 | 2, 0}, 16<<20), 400},
		"empty series v2":     {typeV2, append([]byte{4<<3 | 2, 0}, bytes.Repeat([]byte{5<<3 | 2, 0}, 16<<20-1)...), 400},
		"empty symbols":       {typeV2, bytes.Repeat([]byte{4<<3 | 2, 0}, 16<<20), 204},
		"empty samples":       {typeV1, repeatInField(1<<3|2, []byte{2<<3 | 2, 0}, 8<<20), 400},
		"nested length":       {typeV1, append([]byte{1<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0x0f}, make([]byte, 1<<20)...), 400},
		"one label of 10 MiB": {typeV1, bigLabel(t, 10<<20), 204},
	} {
		t.Run(name, func(t *testing.T) {
			a := g.do(g.request(tc.contentType, snappy.Encode(nil, tc.plain)))
			require.Equal(t, tc.status, a.status, a.text)
			for _, k := range g.kept() {
				require.Equal(t, snappy.Encode(nil, tc.plain), k.body)
			}
		})
	}
	// Decoding keeps its memory for the next request, but not that of a bomb.
	require.Equal(t, 204, g.sendV1(oneV1()).status)
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	require.Less(t, m.HeapAlloc, uint64(160<<20))
}

func repeatInField(tag byte, p []byte, n int) []byte {
	b := binary.AppendUvarint([]byte{tag}, uint64(len(p)*n))
	return append(b, bytes.Repeat(p, n)...)
}

func bigLabel(t testing.TB, n int) []byte {
	t.Helper()
	req := oneV1()
	req.Timeseries[0].Labels = append(req.Timeseries[0].Labels, prompb.Label{Name: "z", Value: strings.Repeat("z", n)})
	b, err := req.Marshal()
	require.NoError(t, err)
	return b
}

// Every part of a request that is cut short is a 400 and kept in no part.
func TestH13_TruncatedBodies(t *testing.T) {
	g := newGate(t)
	v2 := newV2().sample(1, "__name__", "up", "job", "x")
	v2.add(writev2.TimeSeries{Exemplars: []writev2.Exemplar{v2.exemplar("x")}, Samples: []writev2.Sample{{Timestamp: startMs}}}, "__name__", "e")
	for contentType, plain := range map[string][]byte{
		typeV1: mustMarshal(t, oneV1()),
		typeV2: mustMarshal(t, v2.done()),
	} {
		for n := 1; n < len(plain); n++ {
			a := g.do(g.request(contentType, snappy.Encode(nil, plain[:n])))
			// Some cuts leave a whole message: then it is a request.
			if a.status == 204 {
				list := g.kept()
				for _, k := range list {
					require.Equal(t, snappy.Encode(nil, plain[:n]), k.body)
				}
				continue
			}
			require.Equal(t, 400, a.status, "%s cut at %d: %s", contentType, n, a.text)
		}
		block := snappy.Encode(nil, plain)
		for n := range block {
			require.Equal(t, 400, g.do(g.request(contentType, block[:n])).status)
		}
	}
}

func mustMarshal(t testing.TB, m interface{ Marshal() ([]byte, error) }) []byte {
	t.Helper()
	b, err := m.Marshal()
	require.NoError(t, err)
	return b
}

// A sender that announces more than it sends and ends its half of the connection.
func TestH13_BodyShorterThanAnnounced(t *testing.T) {
	g := newGate(t)
	body := packV1(t, oneV1())
	conn := g.dial()
	fmt.Fprintf(conn, "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body)+1, body)
	require.NoError(t, conn.CloseWrite())
	require.Equal(t, 400, responseOf(t, conn).status)
	require.Empty(t, g.kept())
}

// dial opens a connection for requests that no HTTP client would send.
func (g *gate) dial() *net.TCPConn {
	g.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	require.NoError(g.t, err)
	require.NoError(g.t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	g.t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn)
}
