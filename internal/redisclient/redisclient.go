// Package redisclient makes the clients of Redis. Nothing else does, so that none is made
// whose library writes to standard error.
package redisclient

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// New returns a client. It does not connect yet. The library prints nothing from then on,
// in the whole process: what matters of it comes back as errors, and those who asked tell
// them.
func New(o *redis.Options) *redis.Client {
	redis.SetLogger(silent{})
	return redis.NewClient(o)
}

// silent takes what the library would print, each failed dial for one.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}
