// Package receiver serves remote write and OTLP metrics: it admits, negotiates, reads and checks requests,
// hands them to the journal and answers each outcome in the way that makes a sender do
// the right thing. It never answers 2xx before the journal has the request.
package receiver

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"mime"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// Paths are the URL paths that remote write is accepted on: Prometheus' own, and those
// that senders of other systems are configured with.
var Paths = []string{
	"/api/v1/write",
	"/api/v1/push",
	"/api/prom/push",
	"/api/v1/receive",
	"/insert/{account}/prometheus/api/v1/write",
}

// OTLPPaths are the URL paths that OTLP metrics are accepted on: the one that exporters of
// OTLP/HTTP use by default, and Prometheus' own.
var OTLPPaths = []string{
	"/v1/metrics",
	"/api/v1/otlp/v1/metrics",
}

// SpecVersion is the version of the remote-write 2.0 specification that is spoken.
const SpecVersion = "2.0-rc.4"

// maxAnswer is how much of an answer senders read.
const maxAnswer = 1 << 10

// Options is what a Handler is made of.
type Options struct {
	Config   Config
	Ingester *Ingester
	// Process is what the requests of this gateway's own backends have in
	// remotewrite.ProcessHeader: they are refused. Empty: nothing is.
	Process string
	// Senders is told who sends what; nil: nobody asks.
	Senders *Senders
	Metrics *Metrics
	Logger  *slog.Logger
	Now     func() time.Time
}

// Handler answers remote-write requests on every path it is mounted on.
type Handler struct {
	o      Options
	bytes  *semaphore.Weighted
	turns  *semaphore.Weighted
	closed chan struct{}

	// translations has a place for each translation of OTLP metrics that may go on at
	// the same time.
	translations *semaphore.Weighted
}

// NewHandler returns a Handler; it starts nothing.
func NewHandler(o Options) *Handler {
	return &Handler{
		o:      o,
		bytes:  semaphore.NewWeighted(int64(o.Config.MaxInFlightBytes)),
		turns:  semaphore.NewWeighted(int64(o.Config.MaxInFlight)),
		closed: make(chan struct{}),

		translations: semaphore.NewWeighted(int64(min(o.Config.MaxInFlight, runtime.GOMAXPROCS(0)+1))),
	}
}

// Close makes the handler refuse new requests with 503. It is called once.
func (h *Handler) Close() { close(h.closed) }

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := answer{h: h, w: w, r: r, start: h.o.Now()}
	rc := h.startReading(w)
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		a.fail(http.StatusMethodNotAllowed, "remote write is a POST")
		return
	}
	v, ok := messageVersion(r.Header.Get("Content-Type"))
	if !ok || !slices.Contains(h.o.Config.Protocols, v.String()) {
		a.fail(http.StatusUnsupportedMediaType, "Content-Type must be one of "+h.mediaTypes())
		return
	}
	a.version = v
	if enc := r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "snappy") {
		a.fail(http.StatusUnsupportedMediaType, "Content-Encoding must be snappy (block format)")
		return
	}
	if h.o.Process != "" && r.Header.Get(remotewrite.ProcessHeader) == h.o.Process {
		a.fail(http.StatusLoopDetected, "the request comes from this gateway itself: the URL of one of its backends leads back to it")
		return
	}
	buf, leave, err := h.admit(rc, r)
	if err != nil {
		a.refuse(err)
		return
	}
	defer leave()
	h.o.Metrics.receivedBytes.WithLabelValues(v.String()).Add(float64(len(buf.B)))

	result, err := h.o.Ingester.Ingest(r.Context(), Request{Version: v, Body: buf, Sender: h.sender(r, v.String())})
	a.finish(result, err)
}

// sender is the number of who sends the request.
func (h *Handler) sender(r *http.Request, protocol string) series.Sender {
	if h.o.Senders == nil {
		return 0
	}
	return h.o.Senders.note(r, protocol)
}

// startReading bounds the time that the body may take. Also a refusal waits for the rest
// of the body, or its sender would not read it.
func (h *Handler) startReading(w http.ResponseWriter) *http.ResponseController {
	rc := http.NewResponseController(w)
	// Where the server cannot set a deadline (HTTP/2 in tests), its own holds.
	_ = rc.SetReadDeadline(time.Now().Add(time.Duration(h.o.Config.ReadTimeout)))
	return rc
}

// admit reads the body of a request and waits for its turn. The caller owns the body, and
// calls leave after the answer. After an error there is nothing to free or to leave.
func (h *Handler) admit(rc *http.ResponseController, r *http.Request) (body *series.Buffer, leave func(), err error) {
	select {
	case <-h.closed:
		return nil, nil, refuse(http.StatusServiceUnavailable, "shutting down")
	default:
	}
	q := patience{ctx: r.Context(), left: time.Duration(h.o.Config.AdmissionTimeout)}
	buf, held, err := h.read(&q, r)
	if err == nil {
		_ = rc.SetReadDeadline(time.Time{}) // or it would end a slow append
		if q.acquire(h.turns, 1) != nil {
			err = refuse(http.StatusServiceUnavailable, "too many requests in flight")
		}
	}
	if err != nil {
		if buf != nil {
			buf.Free()
		}
		h.bytes.Release(held)
		return nil, nil, err
	}
	h.o.Metrics.inFlight.Inc()
	return buf, func() {
		h.o.Metrics.inFlight.Dec()
		h.turns.Release(1)
		h.bytes.Release(held)
	}, nil
}

// patience is how long a request may still wait for others to make room. The time that
// its own body takes to arrive does not count.
type patience struct {
	ctx  context.Context
	left time.Duration
}

// acquire takes n of sem. It fails when patience is at its end.
func (q *patience) acquire(sem *semaphore.Weighted, n int64) error {
	if sem.TryAcquire(n) {
		return nil
	}
	begin := time.Now()
	defer func() { q.left -= time.Since(begin) }()
	ctx, cancel := context.WithTimeout(q.ctx, q.left)
	defer cancel()
	return sem.Acquire(ctx, n)
}

// readStep is how much of a body is paid for at a time: a slow client holds what it has
// sent, not what it announced.
const readStep = 256 << 10

// read takes in the body. held is what the caller has to give back to h.bytes, also
// after an error.
func (h *Handler) read(q *patience, r *http.Request) (buf *series.Buffer, held int64, err error) {
	limit := int64(h.o.Config.MaxRequestSize)
	if r.ContentLength > limit {
		return nil, 0, refuse(http.StatusRequestEntityTooLarge, "the body has %d bytes; the limit (receiver.max_request_size) is %d", r.ContentLength, limit)
	}
	end := limit + 1 // the byte that tells a body that is too large
	if r.ContentLength >= 0 {
		end = r.ContentLength
	}
	buf = series.NewBuffer(0)
	for room := int64(0); ; {
		if int64(len(buf.B)) == room {
			step := min(readStep, end-room)
			if step == 0 {
				return buf, held, nil
			}
			// No memory is taken before it is granted.
			pay := min(room+step, limit) - held
			if err := q.acquire(h.bytes, pay); err != nil {
				return buf, held, refuse(http.StatusServiceUnavailable, "too many bytes of requests in memory (receiver.max_in_flight_bytes)")
			}
			held += pay
			room += step
			buf.Grow(int(step))
		}
		n, err := r.Body.Read(buf.B[len(buf.B):room])
		buf.B = buf.B[:len(buf.B)+n]
		switch {
		case int64(len(buf.B)) > limit:
			return buf, held, refuse(http.StatusRequestEntityTooLarge, "the body has more than %d bytes (receiver.max_request_size)", limit)
		case err == io.EOF:
			return buf, held, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			// A 4xx would make the sender drop what only the network held up.
			return buf, held, refuse(http.StatusServiceUnavailable, "the body did not arrive within %s (receiver.read_timeout)", h.o.Config.ReadTimeout)
		case err != nil:
			return buf, held, refuse(http.StatusBadRequest, "reading the body: %w", err)
		}
	}
}

// messageVersion reads a Content-Type as a media type (RFC 9110, section 8.3.1): spaces
// around parameters, quoted values and parameters that are not ours do not matter.
// No type at all is RW 1.0, as in the reference implementation.
func messageVersion(contentType string) (series.Version, bool) {
	if contentType == "" {
		return series.V1, true
	}
	t, params, err := mime.ParseMediaType(contentType)
	if err != nil || t != "application/x-protobuf" {
		return 0, false
	}
	proto, ok := params["proto"]
	switch {
	case !ok, proto == "prometheus.WriteRequest":
		return series.V1, true
	case proto == "io.prometheus.write.v2.Request":
		return series.V2, true
	}
	return 0, false
}

func (h *Handler) mediaTypes() string {
	var s []string
	if slices.Contains(h.o.Config.Protocols, "rw1") {
		s = append(s, "application/x-protobuf, application/x-protobuf;proto=prometheus.WriteRequest")
	}
	if slices.Contains(h.o.Config.Protocols, "rw2") {
		s = append(s, "application/x-protobuf;proto=io.prometheus.write.v2.Request")
	}
	return strings.Join(s, ", ")
}

// answer is the answer to one request.
type answer struct {
	h       *Handler
	w       http.ResponseWriter
	r       *http.Request
	version series.Version // 0 before negotiation succeeded
	written series.Counts
	start   time.Time
	gone    bool // the sender left before it was answered
}

func (a *answer) finish(result Result, err error) {
	switch {
	case err != nil:
		a.refuse(err)
	case !result.Refused.Zero():
		a.written = result.taken()
		a.fail(http.StatusBadRequest, result.Text())
	default:
		a.written = result.taken()
		a.head(http.StatusNoContent)
	}
}

// refuse answers an error of Ingest or of reading.
func (a *answer) refuse(err error) {
	v := a.h.verdict(a.r, err)
	a.gone = v.gone
	a.fail(v.status, v.text)
}

// verdict is how an error of reading, translating or ingesting is answered.
type verdict struct {
	status int
	text   string
	gone   bool // the sender left before it was answered
}

func (h *Handler) verdict(r *http.Request, err error) verdict {
	var re *Refusal
	if errors.As(err, &re) {
		return verdict{status: re.Status, text: re.Error()}
	}
	if r.Context().Err() != nil {
		// A sender that only ended its half of the connection still reads: without an
		// answer the server would send it a 200.
		return verdict{status: http.StatusServiceUnavailable, text: "the sender ended the connection", gone: true}
	}
	h.o.Logger.Error("Request failed", "path", r.URL.Path, "err", err)
	return verdict{status: http.StatusInternalServerError, text: err.Error()}
}

func (a *answer) fail(status int, text string) {
	askToRetry(a.w, a.r, status)
	a.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	a.w.Header().Set("X-Content-Type-Options", "nosniff")
	a.head(status)
	_, _ = io.WriteString(a.w, truncate(text, maxAnswer-1)+"\n")
}

// head writes status and headers. The Written headers belong to RW 2.0 alone: senders
// of RW 1.0 take a 0 for a partial failure.
func (a *answer) head(status int) {
	if a.version == series.V2 {
		h := a.w.Header()
		h.Set("X-Prometheus-Remote-Write-Samples-Written", strconv.FormatUint(a.written.Samples, 10))
		h.Set("X-Prometheus-Remote-Write-Histograms-Written", strconv.FormatUint(a.written.Histograms, 10))
		h.Set("X-Prometheus-Remote-Write-Exemplars-Written", strconv.FormatUint(a.written.Exemplars, 10))
	}
	a.w.WriteHeader(status)
	a.h.count(a.proto(), status, a.gone, a.start)
}

func (a *answer) proto() string { return a.version.String() }

// count books an answer.
func (h *Handler) count(protocol string, status int, gone bool, start time.Time) {
	code := strconv.Itoa(status)
	if gone {
		code = "gone"
	}
	h.o.Metrics.requests.WithLabelValues(protocol, code).Inc()
	h.o.Metrics.duration.Observe(h.o.Now().Sub(start).Seconds())
}

// askToRetry sets Retry-After where the status asks for another attempt.
func askToRetry(w http.ResponseWriter, r *http.Request, status int) {
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter(r.Header.Get("Retry-Attempt"))))
	}
}

// retryAfter is how many seconds a sender is asked to wait: twice as long with each
// attempt it tells of, from 1 s to 64 s, half to one and a half times that, so that
// senders do not come back together.
func retryAfter(attempt string) int {
	n, err := strconv.Atoi(attempt)
	if err != nil || n < 1 {
		n = 1
	}
	base := float64(uint(1) << min(n-1, 6))
	return max(1, int(base*(0.5+rand.Float64())+0.5))
}
