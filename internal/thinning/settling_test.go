package thinning_test

import (
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler"
)

// A session ends backfill_after behind the return of the rate, and what was withheld is
// given back then, not before.
func TestBackfillAfter(t *testing.T) {
	for _, after := range []time.Duration{10 * time.Second, 2 * time.Minute} {
		t.Run(after.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStation(t, vfs.NewMem(), stationOptions{window: time.Hour, config: func(c *sampler.Config) { c.BackfillAfter = model.Duration(after) }})
				defer s.stop()
				l := newLoad(31, false)
				thinnedFor(t, s, l, time.Minute)
				s.sink.set(0, false)
				for end := time.Now().Add(5 * time.Minute); s.thinner.View().Rate < 1; time.Sleep(scrapeEvery) {
					require.True(t, time.Now().Before(end), "the rate does not rise: %+v", s.thinner.View())
					l.round(s)
				}
				full := time.Now()
				l.feed(s, after+time.Minute)
				ended, back := lastOf(s.thinner, "sampling ended").Sub(full), lastOf(s.thinner, "given back").Sub(full)
				// The rate was seen to be back up to a scrape late; a record ends the session, and
				// a tick of a second begins the backfill.
				const late = scrapeEvery + time.Second
				require.GreaterOrEqual(t, ended, after-late)
				require.GreaterOrEqual(t, back, after-late)
				require.Less(t, ended, after+2*late)
				s.rest(l, time.Minute)
			})
		})
	}
}

// lastOf is when something happened last; zero: never.
func lastOf(t *thinning.Thinner, what string) (at time.Time) {
	for _, e := range t.View().Events {
		if e.What == what {
			at = e.Time
		}
	}
	return at
}
