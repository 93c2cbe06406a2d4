package receiver

import (
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
)

// Sender is who sends requests, as far as they tell. None of it is proven.
type Sender struct {
	Address   string // the IP address that the connection comes from
	Forwarded string // what a proxy says of who is behind it: the header X-Forwarded-For
	UserAgent string
	Protocol  string // rw1, rw2, otlp or OwnProtocol
}

// OwnProtocol is the protocol of what the gateway writes itself, which has no address.
const OwnProtocol = "own"

// maxSenderText bounds what is kept of one header of a sender, in bytes.
const maxSenderText = 128

// Senders numbers the senders, so that a number can be kept for each series. Where there
// are more than numbers, the one not heard of for longest loses its own. All methods may
// be called from several goroutines.
type Senders struct {
	now func() time.Time

	mu     sync.Mutex
	number map[Sender]series.Sender
	known  []known // by number; the first is nobody's
}

type known struct {
	Sender
	since time.Time // when it was given the number of another; zero where it is the first
	last  time.Time // its newest request
}

// NewSenders returns an empty list.
func NewSenders(now func() time.Time) *Senders {
	return &Senders{now: now, number: map[Sender]series.Sender{}, known: make([]known, 1)}
}

// note returns the number of who sends the request.
func (s *Senders) note(r *http.Request, protocol string) series.Sender {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	return s.numberOf(Sender{
		Address:   host,
		Forwarded: truncate(r.Header.Get("X-Forwarded-For"), maxSenderText),
		UserAgent: truncate(r.UserAgent(), maxSenderText),
		Protocol:  protocol,
	})
}

// Own is the number of the gateway itself.
func (s *Senders) Own() series.Sender { return s.numberOf(Sender{Protocol: OwnProtocol}) }

// numberOf notes that the sender is there, and returns its number.
func (s *Senders) numberOf(of Sender) series.Sender {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.number[of]
	if !ok {
		n = s.add(of.clone(), now)
	}
	s.known[n].last = now
	return n
}

// clone shares no memory with the request, of which a header would keep all others.
func (s Sender) clone() Sender {
	return Sender{
		Address: strings.Clone(s.Address), Forwarded: strings.Clone(s.Forwarded),
		UserAgent: strings.Clone(s.UserAgent), Protocol: s.Protocol,
	}
}

// add gives the sender a number. s.mu is held.
func (s *Senders) add(of Sender, now time.Time) series.Sender {
	if n := len(s.known); n <= int(series.MaxSender) {
		s.known = append(s.known, known{Sender: of})
		s.number[of] = series.Sender(n)
		return series.Sender(n)
	}
	oldest := series.Sender(1)
	for n := oldest; int(n) < len(s.known); n++ {
		if s.known[n].last.Before(s.known[oldest].last) {
			oldest = n
		}
	}
	delete(s.number, s.known[oldest].Sender)
	s.known[oldest] = known{Sender: of, since: now}
	s.number[of] = oldest
	return oldest
}

// Last returns who sent a series that was marked with the number at a time, and when that
// was at the latest. ok is false when nobody knows, or the number was another's then.
func (s *Senders) Last(n series.Sender, at time.Time) (from Sender, when time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n == 0 || int(n) >= len(s.known) || at.Before(s.known[n].since) {
		return Sender{}, time.Time{}, false
	}
	k := &s.known[n]
	if k.last.Before(at) {
		at = k.last // what is read again from the journal is marked too
	}
	return k.Sender, at, true
}
