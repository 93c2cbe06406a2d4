package failure_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/probe"
	"github.com/sluice-metrics/sluice/probe/internal/failure"
)

func TestExplain(t *testing.T) {
	s := failure.Server{Name: "Redis", Address: "10.0.0.1:6379", Grants: "docs/probe/redis-acl.txt"}
	for name, test := range map[string]struct {
		err     error
		finding failure.Finding
		want    string
	}{
		"denied":  {errors.New("WRONGPASS no"), failure.Finding{Denied: true}, "Redis at 10.0.0.1:6379: WRONGPASS no; the account or its password is wrong, or it may not log in from here: see password_file and docs/probe/redis-acl.txt"},
		"silent":  {fmt.Errorf("x: %w", context.DeadlineExceeded), failure.Finding{Within: 2 * time.Second}, "Redis at 10.0.0.1:6379: no answer within 2s from 10.0.0.1:6379: is a firewall dropping packets, does the server hang, or is it no Redis (or TLS at one end only)?"},
		"refused": {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, failure.Finding{}, "Redis at 10.0.0.1:6379: connection refused: does the server run, and is this its port?"},
		"no name": {&net.DNSError{Err: "no such host", Name: "db.invalid"}, failure.Finding{}, "Redis at 10.0.0.1:6379: the name has no address: lookup db.invalid: no such host"},
		"foreign": {io.EOF, failure.Finding{}, "Redis at 10.0.0.1:6379: EOF; is it a Redis, and is TLS on at both ends or at none?"},
		"words":   {io.EOF, failure.Finding{Cause: "it hangs up"}, "Redis at 10.0.0.1:6379: it hangs up"},
		"other":   {errors.New("one\n\ttwo\none"), failure.Finding{}, "Redis at 10.0.0.1:6379: one; two"},
	} {
		t.Run(name, func(t *testing.T) {
			err := s.Explain(test.err, test.finding)
			require.EqualError(t, err, test.want)
			require.ErrorIs(t, err, test.err)
			require.Equal(t, test.finding.Denied, errors.Is(err, probe.ErrDenied))
		})
	}
}
