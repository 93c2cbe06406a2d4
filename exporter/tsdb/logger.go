package tsdb

import (
	"context"
	"log/slog"
)

// quieter makes debug lines of information lines: the store writes a dozen of them
// when it opens and several at each compaction. Warnings and errors stay.
type quieter struct{ slog.Handler }

func demoted(l slog.Level) slog.Level {
	if l >= slog.LevelWarn {
		return l
	}
	return min(l, slog.LevelDebug)
}

// Enabled implements slog.Handler.
func (q quieter) Enabled(ctx context.Context, l slog.Level) bool {
	return q.Handler.Enabled(ctx, demoted(l))
}

// Handle implements slog.Handler.
func (q quieter) Handle(ctx context.Context, r slog.Record) error {
	r.Level = demoted(r.Level)
	return q.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (q quieter) WithAttrs(as []slog.Attr) slog.Handler {
	return quieter{q.Handler.WithAttrs(as)}
}

// WithGroup implements slog.Handler.
func (q quieter) WithGroup(name string) slog.Handler {
	return quieter{q.Handler.WithGroup(name)}
}
