package main

import (
	"context"
	"log/slog"

	"github.com/redis/go-redis/v9"
)

// redisLog takes what the Redis client library would print itself, each failed dial for
// one: what matters of it comes back as errors, which are told by those who asked.
type redisLog struct{ logger *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.logger.DebugContext(ctx, "Redis client", "format", format, "args", args)
}

func quietLibraries(logger *slog.Logger) { redis.SetLogger(redisLog{logger}) }
