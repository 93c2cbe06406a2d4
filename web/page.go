package web

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"hash/fnv"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed status.html status.css status.js
var files embed.FS

var statusPage = template.Must(template.New("status.html").Funcs(template.FuncMap{
	"count": countText, "rate": rateText, "seconds": secondsText, "share": shareText,
	"bytes":  func(n int64) string { return bytesText(float64(n)) },
	"bytesf": bytesText,
	"deref":  func(v *float64) float64 { return *v },
	"list":   func(v []string) string { return strings.Join(v, " or ") },
}).ParseFS(files, "status.html"))

// partNames are the parts of the page that change while it is open: templates, and the ids
// of the elements that they are in.
var partNames = []string{"headline", "clock", "pipeline", "plots", "databases", "leases", "happened"}

// part is one of them as it is now.
type part struct{ id, html string }

// view is what the templates get.
type view struct {
	*Picture
	Headline string
	Trouble  bool
	Plots    []plot
	Recent   []Event

	// Of the request.
	Write   string
	Query   string
	Refresh int
	Answer  *Explanation
	Refused string
}

func newView(p *Picture) view {
	v := view{Picture: p, Plots: p.plots, Recent: p.Events[:min(len(p.Events), shownEvents)]}
	v.Headline, v.Trouble = headline(p)
	return v
}

// Clock is a time as the page writes it.
func (v view) Clock(at time.Time) string { return clockText(at, v.At) }

// Blocked reports whether sessions are known to wait.
func (t Target) Blocked() bool { return t.Waiting != nil && *t.Waiting > 0 }

// JournalShare is how full the journal is, 0 to 1.
func (v view) JournalShare() float64 {
	if v.Journal.Limit <= 0 {
		return 0
	}
	return min(float64(v.Journal.Bytes)/float64(v.Journal.Limit), 1)
}

// Nothing says that nobody has sent anything yet.
func (v view) Nothing() bool {
	for _, p := range v.Received.Protocols {
		if p.Requests > 0 {
			return false
		}
	}
	return true
}

// Waiting is how many samples and histograms of the lane are in the journal.
func (l Lane) Waiting() uint64 { return l.InJournal.Samples + l.InJournal.Histograms }

// Total is how many samples and histograms the backend has taken.
func (l Lane) Total() uint64 { return l.Delivered.Samples + l.Delivered.Histograms }

// Lost is how many samples and histograms the backend will never have.
func (l Lane) Lost() uint64 { return l.Rejected + l.GivenUp }

// Bound is how many samples may be in flight; 0 is no bound of the controller.
func (l Lane) Bound() uint64 {
	if l.Sampling == nil {
		return 0
	}
	return l.Sampling.InFlightLimit
}

// Sending says in words how much of what the backend takes it is sent.
func (l Lane) Sending() string {
	s := l.Sampling
	switch {
	case s == nil:
		return "everything (adaptive_sampling is off)"
	case s.Shadow && s.Kept < 1:
		return "everything (shadow mode; would be " + shareText(s.Kept) + ")"
	case s.Since == nil && s.Kept >= 1:
		return "everything"
	case s.FloorBound:
		return shareText(s.Kept) + " (asked for: " + shareText(s.Rate) + ")"
	}
	return shareText(s.Kept)
}

// headline says in a sentence how the gateway is. It holds no times that go on, so that it
// changes, and is read out, only when something has happened.
func headline(p *Picture) (text string, trouble bool) {
	if p.NotReady != "" {
		return "Not ready: " + p.NotReady + ".", true
	}
	var list []string
	for i := range p.Lanes {
		l := &p.Lanes[i]
		if l.State != "ok" {
			list = append(list, fmt.Sprintf("%s is %s since %s", l.Name, l.State, clockText(l.Since, p.At)))
		}
		if s := l.Sampling; s != nil && s.Since != nil && !s.Shadow {
			list = append(list, "not everything is sent to "+l.Name)
		}
	}
	trouble = len(list) > 0
	for i := range p.Clusters {
		c := &p.Clusters[i]
		if n := c.Primaries; n != nil && *n > 1 {
			list, trouble = append(list, fmt.Sprintf("cluster %s has %d primaries", c.Name, *n)), true
		}
	}
	if text := blindText(p); text != "" {
		list, trouble = append(list, text), true
	}
	if down := downTexts(p.Clusters); len(down) > 0 {
		list, trouble = append(list, down...), true
	}
	if p.Config.Refused {
		list, trouble = append(list, "the last reload was refused"), true
	}
	if len(list) == 0 {
		return "Ready. Every backend takes what it is sent; nothing is withheld.", false
	}
	return "Ready, but " + strings.Join(list, "; ") + ".", trouble
}

// maxDown is how many databases that are down the headline names, and maxReason how many
// characters of the reason: the page has all of them below.
const (
	maxDown   = 3
	maxReason = 120
)

// downTexts says which databases are down and why, each once: several clusters may have
// the same one.
func downTexts(clusters []Cluster) []string {
	type database struct{ name, why string }
	in := map[database][]string{}
	var order []database
	for i := range clusters {
		for k := range clusters[i].Targets {
			t := &clusters[i].Targets[k]
			if t.Up {
				continue
			}
			d := database{t.Name, t.Error}
			if in[d] == nil {
				order = append(order, d)
			}
			if !slices.Contains(in[d], clusters[i].Name) {
				in[d] = append(in[d], clusters[i].Name)
			}
		}
	}
	var list []string
	for _, d := range order[:min(maxDown, len(order))] {
		of, why := strings.Join(in[d], " and "), cut(strings.TrimRight(d.why, ". "), maxReason)
		switch {
		case why == "":
			list = append(list, fmt.Sprintf("database %s of %s is down", d.name, of))
		case strings.Contains(why, d.name):
			list = append(list, fmt.Sprintf("a database of %s is down: %s", of, why))
		default:
			list = append(list, fmt.Sprintf("database %s of %s is down: %s", d.name, of, why))
		}
	}
	if more := len(order) - maxDown; more > 0 {
		list = append(list, fmt.Sprintf("%d more databases are down", more))
	}
	return list
}

// cut shortens a text to n characters.
func cut(text string, n int) string {
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return text
}

// Blind: the lease store was asked who probes the cluster, and does not say.
func (c Cluster) Blind() bool { return c.UnknownSince != nil && c.Why != "" }

// blindText says of which clusters it is not known that somebody probes them; empty if of
// none.
func blindText(p *Picture) string {
	var names []string
	var since time.Time
	for i := range p.Clusters {
		c := &p.Clusters[i]
		if !c.Blind() || c.Leading {
			continue
		}
		names = append(names, c.Name)
		if since.IsZero() || c.UnknownSince.Before(since) {
			since = *c.UnknownSince
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("nobody is known to probe %s: the lease store has not said who does since %s", strings.Join(names, " and "), clockText(since, p.At))
}

// Probing says who probes the cluster; empty where this gateway does, as it should.
func (v view) Probing(c Cluster) string {
	switch {
	case c.Blind() && c.Leading:
		return fmt.Sprintf("Probed without a lease: the lease store has not granted one since %s: %s", v.Clock(*c.UnknownSince), c.Why)
	case c.Leading:
		return ""
	case c.Blind():
		return fmt.Sprintf("Nobody is known to probe it: the lease store has not said who does since %s: %s", v.Clock(*c.UnknownSince), c.Why)
	case c.UnknownSince != nil:
		return "It is not known yet who probes it."
	case c.Leader != "":
		return "Another gateway, " + c.Leader + ", probes it."
	}
	return "Another gateway probes it."
}

// rendered are the parts of one picture.
type rendered struct {
	mu    sync.Mutex
	of    *Picture
	parts []part
}

// parts renders what changes while a page is open, once for all listeners.
func (s *Site) parts() []part {
	p := s.watch.look()
	s.rendered.mu.Lock()
	defer s.rendered.mu.Unlock()
	if s.rendered.of == p {
		return s.rendered.parts
	}
	v := newView(p)
	list := make([]part, 0, len(partNames))
	for _, id := range partNames {
		var b bytes.Buffer
		if err := statusPage.ExecuteTemplate(&b, id, v); err != nil {
			s.o.Logger.Error("A part of the status page cannot be written", "part", id, "err", err)
			continue
		}
		list = append(list, part{id, strings.TrimSpace(b.String())})
	}
	s.rendered.of, s.rendered.parts = p, list
	return list
}

// policy lets the page load what this server has, and nothing else.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func (s *Site) page(w http.ResponseWriter, r *http.Request) {
	v := newView(s.watch.look())
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	v.Write = scheme + "://" + r.Host + "/api/v1/write"
	if n, err := strconv.Atoi(r.FormValue("refresh")); err == nil && n > 0 {
		v.Refresh = min(max(n, 2), 3600)
	}
	if v.Query = strings.TrimSpace(r.FormValue("series")); v.Query != "" {
		e, err := s.explain(v.Query)
		if err != nil {
			v.Refused = err.Error()
		} else {
			v.Answer = &e
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	var b bytes.Buffer
	if err := statusPage.Execute(&b, v); err != nil {
		s.o.Logger.Error("The status page cannot be written", "err", err)
		http.Error(w, "the status page cannot be written; see the log", http.StatusInternalServerError)
		return
	}
	if _, err := w.Write(b.Bytes()); err != nil && !errors.Is(err, http.ErrHandlerTimeout) {
		s.o.Logger.Debug("The status page was not sent whole", "err", err)
	}
}

// asset serves one of the files that the page loads.
func asset(name, contentType string) http.HandlerFunc {
	content, err := files.ReadFile(name)
	if err != nil {
		panic("BUG: web: " + err.Error())
	}
	sum := fnv.New64a()
	_, _ = sum.Write(content) // never fails
	tag := fmt.Sprintf(`"%x"`, sum.Sum64())
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-cache") // ask again; the answer is mostly 304
		h.Set("ETag", tag)
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
	}
}
