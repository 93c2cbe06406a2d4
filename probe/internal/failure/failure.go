// Package failure says in one line why a server could not be probed: what happened, where,
// and what to look at.
package failure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-metrics/sluice/probe"
)

// Server is what a probe reads.
type Server struct {
	// Name is what people call its kind.
	Name string
	// Address is host:port.
	Address string
	// Grants is the file of the documentation with the rights of the account.
	Grants string
}

// Finding is what the kind of server knows about an error.
type Finding struct {
	// Within is how long the probe waited.
	Within time.Duration
	// Denied: the server does not let the account in.
	Denied bool
	// Foreign: what answered does not speak the protocol.
	Foreign bool
	// Cause is the error in other words, where the library has none that help; empty: its
	// own.
	Cause string
}

// Explain returns the error with a text of one line. It is a probe.ErrDenied where the
// server does not let the account in.
func (s Server) Explain(err error, f Finding) error {
	cause := f.Cause
	if cause == "" {
		cause = line(err)
	}
	text := fmt.Sprintf("%s at %s: %s", s.Name, s.Address, cause)
	var name *net.DNSError
	switch {
	case f.Denied:
		text += "; the account or its password is wrong, or it may not log in from here: see password_file and " + s.Grants
		return &explained{text, errors.Join(probe.ErrDenied, err)}
	case f.Cause != "":
	case errors.As(err, &name) && !name.IsTimeout:
		text = fmt.Sprintf("%s at %s: the name has no address: %s", s.Name, s.Address, name.Error())
	case errors.Is(err, syscall.ECONNREFUSED):
		text = fmt.Sprintf("%s at %s: connection refused: does the server run, and is this its port?", s.Name, s.Address)
	case silent(err):
		text = fmt.Sprintf("%s at %s: no answer within %v from %s: is a firewall dropping packets, does the server hang, or is it no %s (or TLS at one end only)?",
			s.Name, s.Address, f.Within.Round(10*time.Millisecond), s.Address, s.Name)
	case f.Foreign || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET):
		text += fmt.Sprintf("; is it a %s, and is TLS on at both ends or at none?", s.Name)
	}
	return &explained{text, err}
}

// silent reports whether the error is that nobody answered in time.
func silent(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &network) && network.Timeout()
}

// line is the text of an error in one line, without what is said twice.
func line(err error) string {
	var said []string
	for text := range strings.Lines(err.Error()) {
		if text = strings.TrimSpace(text); text != "" && !slices.Contains(said, text) {
			said = append(said, text)
		}
	}
	return strings.Join(said, "; ")
}

type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.err }
