package exporter

import (
	"sync"
	"time"

	"github.com/sluice-metrics/sluice/internal/series"
)

// noticeInterval is how often one kind of loss is logged at most; the metrics count each.
const noticeInterval = time.Minute

// notice adds up what is to be said about one kind of loss, so that a loss that goes on
// for hours is a line a minute. The zero notice is ready. Any goroutine may use it.
type notice struct {
	mu     sync.Mutex
	last   time.Time
	times  int
	counts series.Counts
}

// add adds a loss. It returns all since the last line, and ok when a line is due.
func (n *notice) add(now time.Time, c series.Counts) (counts series.Counts, times int, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counts.Add(c)
	n.times++
	if !n.last.IsZero() && now.Sub(n.last) < noticeInterval {
		return series.Counts{}, 0, false
	}
	counts, times = n.counts, n.times
	n.last, n.counts, n.times = now, series.Counts{}, 0
	return counts, times, true
}
