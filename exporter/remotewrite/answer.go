package remotewrite

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/oauth2"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
)

const (
	maxMessage    = 1 << 10        // of a backend's words that are kept
	maxDiscard    = 64 << 10       // of an answer that is read to use its connection again
	maxRetryAfter = 24 * time.Hour // longer waits are taken for a mistake (S3)
)

// answer is what came of one request.
type answer struct {
	status  int         // 0 when there was no answer
	header  http.Header // nil when there was no answer
	message string      // see exporter.Error
	err     error       // why there was no answer
	taken   int64       // bytes of the content that the connection took
}

// success reports whether the status says that all was written.
func (a *answer) success() bool { return a.status >= 200 && a.status <= 299 }

// take reads what is needed of res and gives its connection back.
func (a *answer) take(res *http.Response) {
	a.status, a.header = res.StatusCode, res.Header
	if !a.success() {
		var buf [maxMessage]byte
		n, _ := io.ReadFull(res.Body, buf[:]) // a message that breaks off is still a message
		a.message = printable(buf[:n])
	}
	if res.ContentLength != 0 {
		// Best effort: if it fails the connection is not used again.
		_, _ = io.CopyN(io.Discard, res.Body, maxDiscard)
	}
	res.Body.Close()
}

// printable returns the text without the line ends around it, with control characters
// and broken UTF-8 escaped, in at most maxMessage bytes.
func printable(text []byte) string {
	var b strings.Builder
	for rest := strings.TrimSpace(string(text)); len(rest) > 0; {
		r, n := utf8.DecodeRuneInString(rest)
		part := rest[:n]
		if r == utf8.RuneError && n <= 1 || r != ' ' && !unicode.IsPrint(r) {
			part = strings.Trim(strconv.Quote(part), `"`)
		}
		if b.Len()+len(part) > maxMessage {
			break
		}
		b.WriteString(part)
		rest = rest[n:]
	}
	return b.String()
}

// The Written headers of remote write 2.0.
const (
	headerSamples    = "X-Prometheus-Remote-Write-Samples-Written"
	headerHistograms = "X-Prometheus-Remote-Write-Histograms-Written"
	headerExemplars  = "X-Prometheus-Remote-Write-Exemplars-Written"
)

// written reads the Written headers of an answer to a 2.0 request. A missing one means
// 0 (R5). any is false when there is none at all: whoever answered does not speak 2.0
// (H10). told is false when there is none or one is not a number.
func written(h http.Header) (c series.Counts, told, any bool) {
	told = true
	for _, f := range []struct {
		name string
		to   *uint64
	}{{headerSamples, &c.Samples}, {headerHistograms, &c.Histograms}, {headerExemplars, &c.Exemplars}} {
		text := h.Get(f.name)
		if text == "" {
			continue
		}
		any = true
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			told = false
			continue
		}
		*f.to = uint64(n)
	}
	return c, told && any, any
}

// retryAfter reads the header Retry-After: seconds or an HTTP date. It returns 0 for one
// that is missing, broken, not in the future, or more than a day away.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if text == "" {
		return 0
	}
	var d time.Duration
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		if seconds > int64(maxRetryAfter/time.Second) {
			return 0
		}
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		d = at.Sub(now)
	}
	if d <= 0 || d > maxRetryAfter {
		return 0
	}
	return d
}

// classify says what a failed request means whatever the protocol in use; 400 and 415
// may mean something else to the negotiation.
func classify(a *answer, now time.Time) *exporter.Error {
	e := &exporter.Error{Status: a.status, Message: a.message, Err: a.err}
	switch {
	case a.status == 0:
		e.Class = classOf(a.err)
		e.Unknown = a.taken > 0
	case a.status == http.StatusTooManyRequests:
		e.Class = exporter.Throttled
		e.After = retryAfter(a.header, now)
		if c, _, _ := written(a.header); !c.Zero() {
			e.Unknown = true
		}
	case a.status >= 500:
		e.Class, e.Unknown = exporter.Retry, true
		if e.After = retryAfter(a.header, now); e.After > 0 {
			e.Class = exporter.Throttled
		}
	case a.status >= 400:
		e.Class = exporter.Rejected
		e.TooLarge = a.status == http.StatusRequestEntityTooLarge
		switch a.status {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
			http.StatusProxyAuthRequired, http.StatusUnsupportedMediaType:
			e.Class = exporter.Denied
		}
	default: // 3xx that was not followed
		e.Class = exporter.Denied
		e.Err = redirected(a.header)
	}
	return e
}

// classOf is the class of a request that got no answer.
func classOf(err error) exporter.Class {
	var proxy *proxyRefusal
	if errors.As(err, &proxy) {
		switch proxy.status {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
			http.StatusProxyAuthRequired:
			return exporter.Denied
		}
	}
	var token *oauth2.RetrieveError
	if errors.As(err, &token) && token.Response != nil {
		if s := token.Response.StatusCode; s >= 400 && s <= 499 && s != http.StatusTooManyRequests {
			return exporter.Denied
		}
	}
	return exporter.Retry
}

// redirected explains a redirect. Of the address only what cannot be secret is shown.
func redirected(h http.Header) error {
	to := "another address"
	if u, err := url.Parse(h.Get("Location")); err == nil && u.Path != "" {
		to = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
	}
	return fmt.Errorf("the backend redirects to %s in a way that a POST must not follow; set url to where it really is", to)
}

// withoutURL takes the request's address, which may carry a token, out of an error of the
// HTTP client.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
