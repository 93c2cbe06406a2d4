package web

import (
	"bytes"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	// maxListeners is how many pages are kept up to date at a time.
	maxListeners = 32
	// tellWithin is how long a listener may take to take what it is told.
	tellWithin = 5 * time.Second
)

// stream tells listeners that there is news.
type stream struct {
	mu        sync.Mutex
	open      bool
	listeners int
	news      chan struct{} // closed when there is news, or the end
}

func newStream() *stream { return &stream{news: make(chan struct{})} }

func (s *stream) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = true
}

func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
	close(s.news)
	s.news = make(chan struct{})
}

func (s *stream) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.news)
	s.news = make(chan struct{})
}

// next is closed at the next news; ok is false at the end.
func (s *stream) next() (news <-chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.news, s.open
}

func (s *stream) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open || s.listeners >= maxListeners {
		return false
	}
	s.listeners++
	return true
}

func (s *stream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners--
}

// live serves /events: the parts of the page that changed, as server-sent events named like
// the elements that they replace.
func (s *Site) live(w http.ResponseWriter, r *http.Request) {
	if !s.stream.enter() {
		w.Header().Set("Retry-After", "10")
		http.Error(w, "no room for another live page, or not running", http.StatusServiceUnavailable)
		return
	}
	defer s.stream.leave()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies are not to hold it back
	rc := http.NewResponseController(w)
	sent := map[string]string{}
	for {
		news, ok := s.stream.next()
		if !ok {
			return
		}
		// Not every server can limit a write; one that cannot is limited by its client.
		_ = rc.SetWriteDeadline(time.Now().Add(tellWithin))
		if _, err := w.Write(s.changes(sent)); err != nil {
			return
		}
		if err := rc.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-news:
		}
	}
}

// changes are the events for the parts that are not in sent as they are now, and notes
// them there.
func (s *Site) changes(sent map[string]string) []byte {
	var b bytes.Buffer
	for _, p := range s.parts() {
		if sent[p.id] == p.html {
			continue
		}
		sent[p.id] = p.html
		fmt.Fprintf(&b, "event: %s\n", p.id)
		for line := range bytes.Lines([]byte(p.html)) {
			fmt.Fprintf(&b, "data: %s\n", bytes.TrimRight(line, "\r\n"))
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}
