package remotewrite

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
)

// maxClockDifference is how far the backend's clock may be from ours before Inspect minds.
const maxClockDifference = 30 * time.Second

// Inspect implements exporter.Inspector: it looks up the host, connects, shakes hands,
// authenticates, agrees on a protocol, and compares the clocks. The requests are empty.
func (b *Backend) Inspect(ctx context.Context) []exporter.Finding {
	w := &way{}
	traced := httptrace.WithClientTrace(ctx, w.hooks())
	var a answer
	var err error
	choice := b.negotiation.choose()
	for range maxTurns {
		choice = b.negotiation.choose()
		a = b.post(traced, choice.version, emptyRequest(choice.version), 0)
		_, err = b.judge(choice, &a, series.Counts{})
		var e *exporter.Error
		if !errors.As(err, &e) || e.Class != exporter.Renegotiate {
			break
		}
	}
	list := w.findings(b.config.URL.URL.Scheme == "https")
	if a.status == 0 {
		if len(list) == 0 || list[len(list)-1].OK {
			list = append(list, w.broken(b.config.URL.URL.Scheme == "https", err))
		}
		return list
	}
	list = append(list, b.authenticated(a.status, err))
	if !list[len(list)-1].OK {
		return list
	}
	if list = append(list, agreed(choice.version, &a, err)); !list[len(list)-1].OK {
		return list
	}
	return append(list, b.clock())
}

// maxTurns is more than there are protocols.
const maxTurns = 3

// authenticated says whether the backend lets us in.
func (b *Backend) authenticated(status int, err error) exporter.Finding {
	f := exporter.Finding{Step: "auth"}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		f.Text = fmt.Sprintf("%v; see basic_auth, authorization, oauth2, headers and tls_config", err)
		return f
	}
	f.OK = true
	h := &b.config.HTTP
	switch {
	case h.BasicAuth != nil:
		f.Text = "basic_auth is accepted"
	case h.Authorization != nil:
		f.Text = "authorization is accepted"
	case h.OAuth2 != nil:
		f.Text = "oauth2 is accepted"
	default:
		f.Text = "none configured, none asked for"
	}
	return f
}

// agreed says in which protocol the backend is spoken to.
func agreed(v series.Version, a *answer, err error) exporter.Finding {
	f := exporter.Finding{Step: "protocol", OK: true, Text: "remote write 2.0"}
	if v == series.V1 {
		f.Text = "remote write 1.0"
	}
	var e *exporter.Error
	switch {
	case err == nil:
	case errors.As(err, &e) && e.Class == exporter.Rejected && a.status == http.StatusBadRequest:
		f.Text += ", as far as an empty request can tell: " + cmp.Or(e.Message, "status 400")
	case errors.As(err, &e) && e.Class == exporter.Denied && (a.status == http.StatusNotFound || a.status == http.StatusMethodNotAllowed):
		f.OK, f.Text = false, fmt.Sprintf("%v; is the path of the url that of remote write, and is the receiver turned on?", err)
	default:
		f.OK, f.Text = false, err.Error()
	}
	return f
}

// clock compares the clocks.
func (b *Backend) clock() exporter.Finding {
	b.peer.mu.Lock()
	known, ahead := b.peer.known, b.peer.ahead
	b.peer.mu.Unlock()
	f := exporter.Finding{Step: "clock", OK: ahead.Abs() <= maxClockDifference}
	switch {
	case !known:
		f.Text = "the answer has no Date"
	case ahead == 0:
		f.Text = "no difference"
	default:
		direction := "ahead of"
		if ahead < 0 {
			direction = "behind"
		}
		f.Text = fmt.Sprintf("the backend is %s %s this machine", ahead.Abs().Round(time.Second), direction)
		if !f.OK {
			f.Text += "; does NTP run on both?"
		}
	}
	return f
}

// way is what was seen of the way to the backend.
type way struct {
	mu        sync.Mutex
	host      string
	addresses []string
	dnsErr    error
	dialled   time.Time
	connected string
	took      time.Duration
	dialErr   error
	shaken    bool
	state     tls.ConnectionState
	tlsErr    error
}

func (w *way) hooks() *httptrace.ClientTrace {
	locked := func(do func()) {
		w.mu.Lock()
		defer w.mu.Unlock()
		do()
	}
	return &httptrace.ClientTrace{
		DNSStart: func(i httptrace.DNSStartInfo) { locked(func() { w.host = i.Host }) },
		DNSDone: func(i httptrace.DNSDoneInfo) {
			locked(func() {
				w.dnsErr, w.addresses = i.Err, nil
				for _, a := range i.Addrs {
					w.addresses = append(w.addresses, a.String())
				}
			})
		},
		ConnectStart: func(string, string) {
			locked(func() {
				if w.dialled.IsZero() {
					w.dialled = time.Now()
				}
			})
		},
		ConnectDone: func(_, address string, err error) {
			locked(func() {
				switch {
				case err == nil && w.connected == "":
					w.connected, w.took = address, time.Since(w.dialled)
				case err != nil && w.dialErr == nil:
					w.dialErr = err
				}
			})
		},
		TLSHandshakeDone: func(s tls.ConnectionState, err error) {
			locked(func() { w.shaken, w.state, w.tlsErr = true, s, err })
		},
	}
}

// findings are the steps that were made, up to the first that failed.
func (w *way) findings(secure bool) []exporter.Finding {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []exporter.Finding
	// The dialler of a host that is an address looks it up, too.
	if w.host != "" && net.ParseIP(w.host) == nil {
		if w.dnsErr != nil {
			return append(list, exporter.Finding{Step: "dns", Text: w.dnsErr.Error()})
		}
		slices.Sort(w.addresses)
		list = append(list, exporter.Finding{Step: "dns", OK: true, Text: w.host + " is " + strings.Join(w.addresses, ", ")})
	}
	if w.connected == "" {
		if w.dialErr != nil {
			list = append(list, exporter.Finding{Step: "tcp", Text: w.dialErr.Error()})
		}
		return list
	}
	list = append(list, exporter.Finding{Step: "tcp", OK: true, Text: fmt.Sprintf("connected to %s in %s", w.connected, w.took.Round(100*time.Microsecond))})
	if !secure || !w.shaken {
		return list
	}
	if w.tlsErr != nil {
		return append(list, exporter.Finding{Step: "tls", Text: w.tlsErr.Error() + "; see tls_config"})
	}
	text := tls.VersionName(w.state.Version)
	if c := w.state.PeerCertificates; len(c) > 0 {
		text += ", certificate until " + c[0].NotAfter.UTC().Format(time.DateOnly)
	}
	return append(list, exporter.Finding{Step: "tls", OK: true, Text: text})
}

// broken is the step behind those that succeeded, where there was no answer.
func (w *way) broken(secure bool, err error) exporter.Finding {
	w.mu.Lock()
	defer w.mu.Unlock()
	step := "answer"
	switch {
	case w.connected == "":
		step = "tcp"
	case secure && !w.shaken:
		step = "tls"
	}
	return exporter.Finding{Step: step, Text: err.Error()}
}
