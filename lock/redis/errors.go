package redis

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-metrics/sluice/lock"
)

// Explain says in one line what failed at which Redis. The error is marked where nothing
// can have come of the command.
func Explain(what, address string, err error) error {
	said := fmt.Errorf("%s at Redis %s: %w", what, address, err)
	var dial *net.OpError
	var network net.Error
	switch {
	case refused(err):
		return lock.Marked(lock.ErrRefused, said)
	case errors.As(err, &dial) && dial.Op == "dial", errors.Is(err, redis.ErrPoolTimeout):
		return lock.Marked(lock.ErrUnsent, said)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return fmt.Errorf("%w; no answer in time: is a firewall dropping packets, or does the server hang?", said)
	}
	return said
}

// refused reports whether a Redis gave an answer that another attempt gets again: it had no
// effect.
func refused(err error) bool {
	return redis.IsAuthError(err) || redis.IsPermissionError(err) || redis.IsReadOnlyError(err)
}
