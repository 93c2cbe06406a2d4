package thinning_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// notThere is how many samples the sink does not have, of those from a time on, or before.
func (s *station) notThere(l *load, keep func(at int64) bool) (n int) {
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	for x := range l.input {
		if s.sink.got[x] == 0 && keep(timeOfSample(s.t, x)) {
			n++
		}
	}
	return n
}

// One long session, of which the journal loses the oldest part: that is given up at once,
// also while the session goes on, and the rest is given back.
func TestJournalLosesTheBeginningOfASession(t *testing.T) {
	for name, restart := range map[string]bool{"in one run": false, "with a restart behind the cut": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStation(t, vfs.NewMem(), stationOptions{window: 8 * time.Hour, disk: func(c *disk.Config) {
					smallSegments(c)
					c.MaxDisk = 384 * bytesize.KiB
				}, config: func(c *sampler.Config) { c.BaseRate, c.MinRate = 0.3, 0.3 }})
				defer func() { s.stop() }()
				l := newLoad(51, false)
				l.w.actors = many(l.w.actors, 80)
				var first ledger.Entry
				for end := time.Now().Add(3 * time.Hour); first.GivenUp.Zero(); l.feed(s, time.Minute) {
					require.True(t, time.Now().Before(end), "nothing is given up: %v", s.journal.Oldest())
					if list := s.ledger.Entries(); len(list) > 0 {
						first = list[0]
					}
				}
				require.Equal(t, ledger.StateOpen, first.State, "it goes on")
				require.Equal(t, thinning.ReasonJournalFull, first.Reason)
				require.Equal(t, s.lane.Balance().Totals.GivenUp[thinning.ReasonJournalFull], s.ledger.Entries()[0].GivenUp)
				owed := s.ledger.Entries()[0].Outstanding()
				require.Equal(t, owed.Samples+owed.Histograms, s.thinner.View().Debt.Samples, "the debt is without it")
				s.restart(func(o *stationOptions) { o.config = nil })
				l.feed(s, 30*time.Second)
				if restart {
					s.kill()
				}
				kept := time.Now().Add(-2 * time.Minute).UnixMilli() // about what lies behind the cut at the end
				l.feed(s, 4*time.Minute)
				b := s.rest(l, time.Hour)
				require.Zero(t, s.notThere(l, func(at int64) bool { return at >= kept }), "the newest is there")
				lost, missing := lossOf(b), s.notThere(l, func(int64) bool { return true })
				t.Log("lost", lost, "missing", missing, "withheld", b.Totals.Withheld, "repeated", b.Totals.Redelivered)
				require.Positive(t, missing)
				require.Less(t, missing, int(b.Totals.Withheld.Samples+b.Totals.Withheld.Histograms)*3/4)
				require.GreaterOrEqual(t, samplesOf(lost), missing)
				if !restart {
					require.Equal(t, missing, samplesOf(lost), "nothing is cut in the midst of a step")
				}
				s.exactly(l)
				for reason := range b.Totals.GivenUp {
					require.Equal(t, thinning.ReasonJournalFull, reason)
				}
				require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
				s.settledEach()
			})
		})
	}
}

// timeOfSample is the time of a sample of a store, Unix ms.
func timeOfSample(t testing.TB, x string) int64 {
	_, text, _ := strings.Cut(x[strings.LastIndex(x, `" `):], " ")
	text, _, _ = strings.Cut(text, " ")
	at, err := strconv.ParseInt(text, 10, 64)
	require.NoError(t, err)
	return at + someTime
}
