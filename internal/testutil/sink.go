package testutil

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// SinkOptions configure a Sink.
type SinkOptions struct {
	// Accept lists the versions that are taken; others are answered with 415. Empty
	// takes both.
	Accept []Protocol
	// SilentRW2 answers RW 2.0 requests as receivers do that take them for empty RW
	// 1.0 ones: 204, no Written headers, nothing kept.
	SilentRW2 bool
}

// Fault is what a Sink does wrong. The zero Fault is a well-behaved receiver.
type Fault struct {
	Every int // only each n-th request suffers; 0 is each

	Delay      time.Duration // before the answer
	Hang       bool          // no answer until the fault is changed or the sender leaves
	CutRequest bool          // the connection is reset while the sender sends
	CutAnswer  bool          // the content is taken, then the connection is reset
	Status     int           // answered to everything; nothing is taken
	Takes      bool          // with Status: the content is taken all the same
	RetryAfter string        // header of answers with Status

	// Refuse selects series, by SeriesKey, that are never taken: a request with one
	// of them is answered with 400 and Message. The others of the request are taken,
	// unless Atomic is set.
	Refuse  func(key string) bool
	Atomic  bool
	Message string

	// SamplesPerSecond is the highest rate that is taken; above it requests are
	// answered with 429 and Retry-After 1.
	SamplesPerSecond int
	// Pace is how many samples a second are worked off: requests wait for those before
	// them, however many come at once. 0 takes no time.
	Pace int
}

// behaviour is a fault in force; over is closed when another takes its place.
type behaviour struct {
	Fault
	over chan struct{}

	mu   sync.Mutex
	free time.Time // when everything that came before is worked off
}

// turn is how long it takes until n samples are worked off behind those before them.
func (b *behaviour) turn(n int) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.free.Before(now) {
		b.free = now
	}
	b.free = b.free.Add(time.Duration(n) * time.Second / time.Duration(b.Pace))
	return b.free.Sub(now)
}

// Sink is a scripted remote-write receiver in the test's process. It decodes with
// Prometheus' own code and remembers what arrived. Its methods may be called from
// several goroutines.
type Sink struct {
	opts     SinkOptions
	addr     string
	arrivals Arrivals
	fault    atomic.Pointer[behaviour]
	number   atomic.Int64 // of requests
	budget   budget

	mu     sync.Mutex
	server *http.Server
	served chan struct{}
	stats  SinkStats
}

// SinkStats counts requests.
type SinkStats struct {
	Requests   int64
	Refused    int64 // answered with anything but 2xx, or not at all
	ByProtocol map[Protocol]int64
	Bad        []string    // what could not be decoded or broke the protocol, the first ten
	Header     http.Header // of the last request
	Metadata   map[string]Metadata
}

// StartSink starts a sink that ends with the test.
func StartSink(t testing.TB, opts SinkOptions) *Sink {
	t.Helper()
	s := &Sink{opts: opts, addr: FreeAddress(t)}
	s.stats = SinkStats{ByProtocol: map[Protocol]int64{}, Metadata: map[string]Metadata{}}
	s.fault.Store(&behaviour{over: make(chan struct{})})
	s.Up(t)
	t.Cleanup(func() {
		s.Behave(Fault{}) // lets hanging requests go
		s.Down()
	})
	return s
}

// URL is where to write to.
func (s *Sink) URL() string { return "http://" + s.Address() + "/api/v1/write" }

// Address is the host:port that the sink listens on, or did before Down.
func (s *Sink) Address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// Up makes a sink that is down listen again, on the same address.
func (s *Sink) Up(t testing.TB) {
	t.Helper()
	ln := Listen(t, "tcp", s.Address())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr = ln.Addr().String()
	s.server = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: time.Minute}
	s.served = make(chan struct{})
	go func(server *http.Server, served chan struct{}) {
		defer close(served)
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			s.bad("serve: %v", err)
		}
	}(s.server, s.served)
}

// Down stops listening and closes all connections. Calling it again does nothing.
func (s *Sink) Down() {
	s.mu.Lock()
	server, served := s.server, s.served
	s.server = nil
	s.mu.Unlock()
	if server != nil {
		_ = server.Close()
		<-served
	}
}

// Behave puts the fault in the place of the present one.
func (s *Sink) Behave(f Fault) {
	old := s.fault.Swap(&behaviour{Fault: f, over: make(chan struct{})})
	close(old.over)
}

// Arrivals is what the sink has taken so far.
func (s *Sink) Arrivals() *Arrivals { return &s.arrivals }

// Stats is a copy of the counts.
func (s *Sink) Stats() SinkStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.stats
	c.Bad = slices.Clone(s.stats.Bad)
	c.Header = s.stats.Header.Clone()
	c.ByProtocol = make(map[Protocol]int64, len(s.stats.ByProtocol))
	for k, v := range s.stats.ByProtocol {
		c.ByProtocol[k] = v
	}
	c.Metadata = make(map[string]Metadata, len(s.stats.Metadata))
	for k, v := range s.stats.Metadata {
		c.Metadata[k] = v
	}
	return c
}

func (s *Sink) bad(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.stats.Bad) < 10 {
		s.stats.Bad = append(s.stats.Bad, fmt.Sprintf(format, args...))
	}
}

func (s *Sink) serve(w http.ResponseWriter, r *http.Request) {
	b := s.fault.Load()
	n := s.number.Add(1)
	if b.Every > 1 && n%int64(b.Every) != 0 {
		b = &behaviour{over: b.over}
	}
	protocol, ok := protocolOf(r)
	s.mu.Lock()
	s.stats.Requests++
	s.stats.ByProtocol[protocol]++
	s.stats.Header = r.Header
	s.mu.Unlock()

	answer := &recorder{ResponseWriter: w}
	switch {
	case !ok:
		http.Error(answer, "unsupported content type", http.StatusUnsupportedMediaType)
	case protocol == RW2 && s.opts.SilentRW2:
		_, _ = io.Copy(io.Discard, r.Body)
		answer.WriteHeader(http.StatusNoContent)
	case len(s.opts.Accept) > 0 && !slices.Contains(s.opts.Accept, protocol):
		_, _ = io.Copy(io.Discard, r.Body)
		http.Error(answer, string(protocol)+" is not supported", http.StatusUnsupportedMediaType)
	default:
		s.write(answer, r, protocol, b)
	}
	if answer.status/100 != 2 {
		s.mu.Lock()
		s.stats.Refused++
		s.mu.Unlock()
	}
}

func (s *Sink) write(w http.ResponseWriter, r *http.Request, protocol Protocol, b *behaviour) {
	if b.CutRequest {
		_, _ = io.CopyN(io.Discard, r.Body, 512)
		reset(w)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if b.Hang {
		waitEnd(r.Context(), b.over, 0)
		reset(w)
		return
	}
	if b.Delay > 0 {
		waitEnd(r.Context(), nil, b.Delay)
	}
	if b.Status != 0 && !b.Takes {
		fail(w, b)
		return
	}
	req, err := DecodeRequest(protocol, body)
	if err != nil {
		s.bad("%v", err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if b.SamplesPerSecond > 0 && !s.budget.take(points(req.Rows), b.SamplesPerSecond) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many samples a second", http.StatusTooManyRequests)
		return
	}
	if b.Pace > 0 {
		waitEnd(r.Context(), b.over, b.turn(points(req.Rows)))
		if r.Context().Err() != nil {
			return // nobody waits for it any more, and nothing is taken
		}
	}
	s.take(w, req, b)
}

// take keeps the request and answers it.
func (s *Sink) take(w http.ResponseWriter, req *Request, b *behaviour) {
	rows, refused := req.Rows, 0
	if b.Refuse != nil {
		rows = slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return b.Refuse(r.Key) })
		refused = len(req.Rows) - len(rows)
		if refused > 0 && b.Atomic {
			rows = nil
		}
	}
	written := s.arrivals.Add(rows)
	s.mu.Lock()
	for _, md := range req.Metadata {
		s.stats.Metadata[md.Family] = md
	}
	s.mu.Unlock()
	if req.Protocol == RW2 {
		for i, class := range []string{"Samples", "Histograms", "Exemplars"} {
			w.Header().Set("X-Prometheus-Remote-Write-"+class+"-Written", strconv.Itoa(written[i]))
		}
	}
	switch {
	case b.CutAnswer:
		reset(w)
	case b.Status != 0:
		fail(w, b)
	case refused > 0:
		message := b.Message
		if message == "" {
			message = "series refused"
		}
		http.Error(w, message, http.StatusBadRequest)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func fail(w http.ResponseWriter, b *behaviour) {
	if b.RetryAfter != "" {
		w.Header().Set("Retry-After", b.RetryAfter)
	}
	message := b.Message
	if message == "" {
		message = "scripted failure"
	}
	http.Error(w, message, b.Status)
}

// waitEnd waits for the first of: the sender leaves, over is closed, d has passed
// (0 is for ever).
func waitEnd(ctx context.Context, over <-chan struct{}, d time.Duration) {
	var timer <-chan time.Time
	if d > 0 {
		timer = time.After(d)
	}
	select {
	case <-ctx.Done():
	case <-over:
	case <-timer:
	}
}

// reset closes the request's connection so that the other side sees a reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // the sender is gone already
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// protocolOf reads the version from the content type as a receiver must: by RFC 9110.
func protocolOf(r *http.Request) (Protocol, bool) {
	header := r.Header.Get("Content-Type")
	if header == "" {
		return RW1, true
	}
	kind, params, err := mime.ParseMediaType(header)
	if err != nil || kind != "application/x-protobuf" || !strings.EqualFold(r.Header.Get("Content-Encoding"), "snappy") {
		return "", false
	}
	switch params["proto"] {
	case "", "prometheus.WriteRequest":
		return RW1, true
	case "io.prometheus.write.v2.Request":
		return RW2, true
	}
	return "", false
}

func points(rows []Row) int {
	n := 0
	for i := range rows {
		n += len(rows[i].Points)
	}
	return n
}

// budget is what may be taken in the current second.
type budget struct {
	mu   sync.Mutex
	from time.Time
	used int
}

func (b *budget) take(n, limit int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); now.Sub(b.from) >= time.Second {
		b.from, b.used = now, 0
	}
	if b.used > 0 && b.used+n > limit {
		return false
	}
	b.used += n
	return true
}

// recorder remembers the status that was answered; 0 when none was.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
