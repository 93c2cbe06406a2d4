package web

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxEvents is how many Events keeps, shownEvents how many of them the page shows.
const (
	maxEvents   = 200
	shownEvents = 20
)

// Event is something that happened: one line of the log.
type Event struct {
	At time.Time `json:"at"`
	// Level is info, warning or error.
	Level string `json:"level"`
	// About is the backend, cluster or part of the gateway that it happened to; empty for
	// the gateway as a whole.
	About string `json:"about,omitempty"`
	Text  string `json:"text"`
	// Details are the other fields of the line.
	Details string `json:"details,omitempty"`

	backend string
}

// Events keeps the last lines of the log, of level info and above: the gateway logs
// changes, not repetitions. All methods may be called from several goroutines.
type Events struct {
	mu   sync.Mutex
	ring []Event
	// failed is the last warning or error about each backend.
	failed map[string]Event
}

// NewEvents returns Events without any.
func NewEvents() *Events { return &Events{failed: map[string]Event{}} }

// Handler hands what it is given to next, and keeps it.
func (e *Events) Handler(next slog.Handler) slog.Handler { return recorder{events: e, next: next} }

// last returns the newest n, newest first.
func (e *Events) last(n int) []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := slices.Clone(e.ring[max(0, len(e.ring)-n):])
	slices.Reverse(list)
	return list
}

// lastFailed returns the last warning or error about the backend; nil when there is none.
func (e *Events) lastFailed(backend string) *Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ev, ok := e.failed[backend]; ok {
		return &ev
	}
	return nil
}

// maxFailed bounds the backends whose last error is kept: more than a gateway can have,
// fewer than reloads can name.
const maxFailed = 256

func (e *Events) add(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.ring) == maxEvents {
		e.ring = append(e.ring[:0], e.ring[1:]...)
	}
	e.ring = append(e.ring, ev)
	if _, known := e.failed[ev.backend]; ev.backend != "" && ev.Level != "info" && (known || len(e.failed) < maxFailed) {
		e.failed[ev.backend] = ev
	}
}

// recorder is the Handler of Events.
type recorder struct {
	events *Events
	next   slog.Handler
	attrs  []slog.Attr
	prefix string // of the groups that are open
}

// Enabled implements slog.Handler.
func (r recorder) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || r.next.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (r recorder) Handle(ctx context.Context, rec slog.Record) error {
	if rec.Level >= slog.LevelInfo {
		r.events.add(r.event(rec))
	}
	if !r.next.Enabled(ctx, rec.Level) {
		return nil
	}
	return r.next.Handle(ctx, rec)
}

// WithAttrs implements slog.Handler.
func (r recorder) WithAttrs(list []slog.Attr) slog.Handler {
	r.attrs = slices.Clone(r.attrs)
	for _, a := range list {
		a.Key = r.prefix + a.Key
		r.attrs = append(r.attrs, a)
	}
	r.next = r.next.WithAttrs(list)
	return r
}

// WithGroup implements slog.Handler.
func (r recorder) WithGroup(name string) slog.Handler {
	r.prefix += name + "."
	r.next = r.next.WithGroup(name)
	return r
}

// maxDetail bounds one field of an event: answers of backends may be long.
const maxDetail = 300

func (r recorder) event(rec slog.Record) Event {
	ev := Event{At: rec.Time, Level: "info", Text: rec.Message}
	switch {
	case rec.Level >= slog.LevelError:
		ev.Level = "error"
	case rec.Level >= slog.LevelWarn:
		ev.Level = "warning"
	}
	var details []string
	component := ""
	take := func(key string, v slog.Value) {
		text := v.Resolve().String()
		switch key {
		case "backend":
			ev.About, ev.backend = text, text
		case "cluster":
			ev.About = text
		case "component":
			component = text
		default:
			details = append(details, key+"="+shorten(text))
		}
	}
	for _, a := range r.attrs {
		take(a.Key, a.Value)
	}
	rec.Attrs(func(a slog.Attr) bool {
		take(r.prefix+a.Key, a.Value)
		return true
	})
	if ev.About == "" {
		ev.About = component
	}
	ev.Details = strings.Join(details, " ")
	return ev
}

// shorten quotes a value where it is more than one word, and cuts a long one.
func shorten(text string) string {
	if cut := []rune(text); len(cut) > maxDetail {
		text = string(cut[:maxDetail]) + "…"
	}
	if text == "" || strings.ContainsAny(text, " \t\r\n\"=") {
		return fmt.Sprintf("%q", text)
	}
	return text
}
