package tsdb

import (
	"log/slog"
	"sync"
	"time"
)

// complainEvery is the time between two log lines about one reason.
const complainEvery = time.Minute

// complaints logs an example of what the store refuses, at most one a minute and
// reason.
type complaints struct {
	logger *slog.Logger

	mu    sync.Mutex
	kinds [numReasons]complaint
}

type complaint struct {
	last  time.Time
	quiet uint64 // refused since, but not logged
}

// due counts n refusals for a reason and reports whether one of them should be
// logged; quiet is how many were not logged since the last one that was.
func (c *complaints) due(r reason, now time.Time) (quiet uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := &c.kinds[r]
	if !k.last.IsZero() && now.Sub(k.last) < complainEvery {
		k.quiet++
		return 0, false
	}
	quiet, k.quiet, k.last = k.quiet, 0, now
	return quiet, true
}

// about logs one refusal. labels is called only when the line is written.
func (c *complaints) about(r reason, t int64, err error, labels func() string) {
	quiet, ok := c.due(r, time.Now())
	if !ok {
		return
	}
	c.logger.Warn("Embedded store refused a sample",
		"reason", reasons[r], "series", labels(), "timestamp", time.UnixMilli(t).UTC(), "err", err, "not_logged", quiet)
}
