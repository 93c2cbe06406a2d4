package receiver_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/receiver"
)

// heldJournal lets appends wait until the test lets them go on.
type heldJournal struct {
	receiver.Journal
	arrived chan struct{}
	release chan error // each append takes one: nil to go on, else its error
}

func holdJournal(h *heldJournal) func(*setup) {
	h.arrived, h.release = make(chan struct{}, 100), make(chan error)
	return func(s *setup) {
		s.wrap = func(j receiver.Journal) receiver.Journal {
			h.Journal = j
			return h
		}
	}
}

func (h *heldJournal) Append(ctx context.Context, b *series.Batch) error {
	h.arrived <- struct{}{}
	if err := <-h.release; err != nil {
		return err
	}
	return h.Journal.Append(ctx, b)
}

// later sends a request in the background.
func (g *gate) later(r *http.Request) <-chan answer {
	got := make(chan answer, 1)
	go func() {
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			got <- answer{text: err.Error()}
			return
		}
		got <- read(g.t, resp)
	}()
	return got
}

func TestAdmission_RequestsInFlight(t *testing.T) {
	var h heldJournal
	g := newGate(t, holdJournal(&h), func(s *setup) { s.receiver.MaxInFlight = 1 })
	first := g.later(g.request(typeV2, packV2(t, newV2().sample(1, "__name__", "a").done())))
	<-h.arrived
	require.Equal(t, 1.0, g.counter("sluice_receiver_requests_in_flight"))

	begin := time.Now()
	a := g.sendV2(newV2().sample(1, "__name__", "b").done())
	require.Equal(t, 503, a.status)
	require.Contains(t, a.text, "in flight")
	require.NotEmpty(t, a.header.Get("Retry-After"))
	require.Equal(t, [3]int{}, a.written(t))
	require.GreaterOrEqual(t, time.Since(begin), 100*time.Millisecond)

	h.release <- nil
	require.Equal(t, 204, (<-first).status)
	require.Len(t, g.kept(), 1)
	again := g.later(g.request(typeV1, packV1(t, oneV1())))
	h.release <- nil
	require.Equal(t, 204, (<-again).status)
}

// A request that waits is taken as soon as there is room.
func TestAdmission_WaitingRequestsGoOn(t *testing.T) {
	var h heldJournal
	g := newGate(t, holdJournal(&h), func(s *setup) {
		s.receiver.MaxInFlight = 1
		s.receiver.AdmissionTimeout = model.Duration(time.Minute)
	})
	var waiting []<-chan answer
	for range 5 {
		waiting = append(waiting, g.later(g.request(typeV1, packV1(t, oneV1()))))
	}
	for range 5 {
		<-h.arrived
		h.release <- nil
	}
	for _, w := range waiting {
		require.Equal(t, 204, (<-w).status)
	}
	require.Len(t, g.kept(), 5)
}

// Clients that announce a lot and send nothing hold the budget, never more memory than
// that, and those beyond it are answered after the admission timeout. When they leave,
// everything is as before.
func TestAdmission_BytesInMemory(t *testing.T) {
	const clients = 400
	g := newGate(t, func(s *setup) {
		s.receiver.MaxInFlightBytes = 4 * bytesize.MiB
		s.receiver.MaxRequestSize = bytesize.MiB
	})
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	conns := make([]*net.TCPConn, clients)
	for i := range conns {
		conns[i] = g.dial()
		fmt.Fprintf(conns[i], "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\nxxxx", typeV2, 1<<20)
	}
	a := g.do(g.request(typeV2, packV2(t, newV2().sample(1, "__name__", "a").done())))
	require.Equal(t, 503, a.status, a.text)
	require.Contains(t, a.text, "max_in_flight_bytes")
	require.NotEmpty(t, a.header.Get("Retry-After"))
	require.Equal(t, [3]int{}, a.written(t))
	runtime.GC()
	runtime.ReadMemStats(&during)
	// Beside the budget a connection has some buffers of the server's.
	require.Less(t, int64(during.HeapAlloc)-int64(before.HeapAlloc), int64(8<<20+clients*24<<10))

	for _, c := range conns {
		require.NoError(t, c.Close())
	}
	eventually(t, func() bool { return g.sendV1(oneV1()).status == 204 })
}

// The time that a slow client takes itself is not that of waiting for others.
func TestAdmission_SlowClientIsNotAskedToWaitForItself(t *testing.T) {
	g := newGate(t, func(s *setup) { s.receiver.AdmissionTimeout = model.Duration(time.Millisecond) })
	body := padded(t, 600<<10) // several steps
	conn := g.dial()
	fmt.Fprintf(conn, "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(body))
	for len(body) > 0 {
		n := min(len(body), 200<<10)
		_, err := conn.Write(body[:n])
		require.NoError(t, err)
		body = body[n:]
		time.Sleep(10 * time.Millisecond) // the client is slow: there is no event to wait for
	}
	a := responseOf(t, conn)
	require.Equal(t, 204, a.status, a.text)
}

// A body that does not arrive in time is not the data's fault: a 4xx would make the
// sender drop it.
func TestAdmission_ReadTimeout(t *testing.T) {
	g := newGate(t, func(s *setup) { s.receiver.ReadTimeout = model.Duration(50 * time.Millisecond) })
	for name, head := range map[string]string{
		"slow":             "Content-Length: 100\r\n\r\nxx",
		"slow and chunked": "Transfer-Encoding: chunked\r\n\r\n2\r\nxx\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn := g.dial()
			fmt.Fprintf(conn, "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\n%s", typeV2, head)
			a := responseOf(t, conn)
			require.Equal(t, 503, a.status, a.text)
			require.Contains(t, a.text, "read_timeout")
			require.NotEmpty(t, a.header.Get("Retry-After"))
			require.Equal(t, [3]int{}, a.written(t))
			g.closes(conn)
		})
	}
}

// A request that is refused without reading does not keep its connection for ever
// either, when the body never comes.
func TestAdmission_RefusedSlowClientIsCutOff(t *testing.T) {
	g := newGate(t, func(s *setup) { s.receiver.ReadTimeout = model.Duration(50 * time.Millisecond) })
	for status, head := range map[int]string{
		415: "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n",
		405: "PUT /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
		503: "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
	} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			conn := g.dial()
			fmt.Fprint(conn, head)
			require.Equal(t, status, responseOf(t, conn).status)
			g.closes(conn)
		})
	}
}

// responseOf reads the answer that comes over a dialled connection.
func responseOf(t testing.TB, conn net.Conn) answer {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	return read(t, resp)
}

// closes waits for the server to end the connection.
func (g *gate) closes(conn *net.TCPConn) {
	g.t.Helper()
	require.NoError(g.t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	n, err := conn.Read(make([]byte, 1))
	require.Zero(g.t, n)
	require.Error(g.t, err)
	require.NotErrorIs(g.t, err, context.DeadlineExceeded)
	ne, ok := err.(net.Error)
	require.False(g.t, ok && ne.Timeout(), "the server keeps the connection")
}

// The deadline for the body does not end an append that takes longer.
func TestAdmission_SlowAppendOutlivesReadTimeout(t *testing.T) {
	var h heldJournal
	g := newGate(t, holdJournal(&h), func(s *setup) { s.receiver.ReadTimeout = model.Duration(20 * time.Millisecond) })
	got := g.later(g.request(typeV1, packV1(t, oneV1())))
	<-h.arrived
	time.Sleep(60 * time.Millisecond) // past the deadline, which must not be in force: no event
	h.release <- nil
	require.Equal(t, 204, (<-got).status)
}

// Requests that keep their connection are not harmed by the deadlines of earlier ones.
func TestAdmission_KeptConnection(t *testing.T) {
	g := newGate(t, func(s *setup) { s.receiver.ReadTimeout = model.Duration(30 * time.Millisecond) })
	conn := g.dial()
	rd := bufio.NewReader(conn)
	body := packV1(t, oneV1())
	for range 3 {
		fmt.Fprintf(conn, "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		resp, err := http.ReadResponse(rd, nil)
		require.NoError(t, err)
		require.Equal(t, 204, read(t, resp).status)
		time.Sleep(40 * time.Millisecond) // idle for longer than the deadline of a body
	}
}

func TestAdmission_Closing(t *testing.T) {
	var h heldJournal
	g := newGate(t, holdJournal(&h))
	running := g.later(g.request(typeV1, packV1(t, oneV1())))
	<-h.arrived
	g.handler.Close()
	a := g.sendV2(newV2().sample(1, "__name__", "a").done())
	require.Equal(t, 503, a.status)
	require.Contains(t, a.text, "shutting down")
	require.NotEmpty(t, a.header.Get("Retry-After"))
	require.Equal(t, [3]int{}, a.written(t))
	h.release <- nil
	require.Equal(t, 204, (<-running).status, "what is in flight is finished")
	require.Len(t, g.kept(), 1)
}

// Exclusive keeps appends out, and waits for those that are on the way.
func TestExclusive(t *testing.T) {
	var h heldJournal
	g := newGate(t, holdJournal(&h))
	first := g.later(g.request(typeV1, packV1(t, oneV1())))
	<-h.arrived
	entered := make(chan struct{})
	leave := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = g.ingester.Exclusive(func() error {
			close(entered)
			<-leave
			return nil
		})
	})
	select {
	case <-entered:
		t.Fatal("Exclusive does not wait for an append")
	case <-time.After(20 * time.Millisecond):
	}
	h.release <- nil
	<-entered
	require.Equal(t, 204, (<-first).status)
	second := g.later(g.request(typeV1, packV1(t, oneV1())))
	select {
	case <-h.arrived:
		t.Fatal("an append during Exclusive")
	case <-time.After(20 * time.Millisecond):
	}
	close(leave)
	<-h.arrived
	h.release <- nil
	require.Equal(t, 204, (<-second).status)
	wg.Wait()
}
