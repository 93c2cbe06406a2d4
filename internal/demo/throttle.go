package demo

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Headers with which a receiver of remote write 2.0 says what it has written.
const (
	samplesWritten    = "X-Prometheus-Remote-Write-Samples-Written"
	histogramsWritten = "X-Prometheus-Remote-Write-Histograms-Written"
)

// throttle makes a receiver of remote write slow: it takes one request after the other, and
// answers when as much time has passed as so many samples need. Queries are not slowed.
type throttle struct {
	next  http.Handler // set before the first request
	place chan struct{}
	end   <-chan struct{} // ends all waiting
	once  sync.Once
	first chan struct{} // closed with the first samples that were written

	mu      sync.Mutex
	limit   int           // samples a second; 0 is no limit
	changed chan struct{} // closed when limit changes
}

func newThrottle(end <-chan struct{}) *throttle {
	return &throttle{place: make(chan struct{}, 1), end: end, first: make(chan struct{}), changed: make(chan struct{})}
}

// set makes the capacity so many samples a second from now on; 0 is no limit. Who waits for
// an answer has it at once when the limit changes.
func (t *throttle) set(limit int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limit = limit
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *throttle) state() (limit int, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.limit, t.changed
}

// ServeHTTP implements http.Handler.
func (t *throttle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != writePath {
		t.next.ServeHTTP(w, r)
		return
	}
	select {
	case t.place <- struct{}{}:
	case <-r.Context().Done():
		return
	}
	defer func() { <-t.place }()
	t.next.ServeHTTP(&lateAnswer{ResponseWriter: w, hold: func(samples int) { t.hold(r, samples) }}, r)
}

// hold waits as long as the samples take.
func (t *throttle) hold(r *http.Request, samples int) {
	if samples == 0 {
		return
	}
	t.once.Do(func() { close(t.first) })
	limit, changed := t.state()
	if limit == 0 {
		return
	}
	timer := time.NewTimer(time.Duration(samples) * time.Second / time.Duration(limit))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-r.Context().Done():
	case <-t.end:
	}
}

// lateAnswer keeps an answer back, when it is clear how much was written.
type lateAnswer struct {
	http.ResponseWriter
	hold func(samples int)
	told bool
}

// WriteHeader implements http.ResponseWriter.
func (a *lateAnswer) WriteHeader(status int) {
	if !a.told {
		a.told = true
		a.hold(a.number(samplesWritten) + a.number(histogramsWritten))
	}
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (a *lateAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *lateAnswer) number(header string) int {
	n, err := strconv.Atoi(a.Header().Get(header))
	if err != nil {
		return 0 // the header is absent
	}
	return n
}
