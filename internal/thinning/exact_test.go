package thinning_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler"
)

// lacking are the ends of the records of all samples that the sink does not have.
func (s *station) lacking(l *load) (ends []position) {
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	for x, end := range l.ends {
		if s.sink.got[x] == 0 {
			ends = append(ends, end)
		}
	}
	return ends
}

func samplesOf(c series.Counts) int { return int(c.Samples + c.Histograms) }

// overstated is by how much more than what the sink does not have is outstanding, in how many
// steps. It checks that it is nowhere less, and in no step by more than what had been sent of it,
// unless a process was killed with what it did last.
func (s *station) overstated(l *load, killed bool) (by, steps int) {
	s.t.Helper()
	missing, ends := 0, s.lacking(l)
	for _, e := range s.ledger.Entries() {
		require.NotZero(s.t, e.To)
		for i, step := range e.Steps {
			to := e.To
			if next := i + 1; next < len(e.Steps) {
				to = e.Steps[next].At
			}
			there := step.Sent
			there.Add(step.GivenBack)
			require.Zero(s.t, there.Without(step.Withheld), "entry %d: more came of step %d than it withheld: %+v", e.ID, i, step)
			owing, lacks := samplesOf(step.Outstanding()), 0
			for _, end := range ends {
				if step.At.Before(end) && !to.Before(end) {
					lacks++
				}
			}
			missing += lacks
			require.LessOrEqual(s.t, lacks, owing, "entry %d, step %d of %d: %+v", e.ID, i, len(e.Steps), step)
			if owing == lacks {
				continue
			}
			steps++
			by += owing - lacks
			sent := step.Taken
			sent.Sub(step.Withheld)
			sent.Add(step.Sent)
			require.True(s.t, killed || owing-lacks <= samplesOf(sent), "entry %d, step %d of %d: %+v", e.ID, i, len(e.Steps), step)
		}
	}
	require.Len(s.t, ends, missing, "what is missing was withheld")
	return by, steps
}

// exactly checks that what the books have as lost is what the sink does not have, in each step
// but for those in the midst of which the journal lost more, each time that a stretch was being
// sent whole.
func (s *station) exactly(l *load) {
	s.t.Helper()
	by, steps := s.overstated(l, false)
	require.LessOrEqual(s.t, steps, s.log.lines("all of the rest of the stretch is sent again"), "more is lost by %d than is missing", by)
	require.Len(s.t, s.lacking(l), samplesOf(lossOf(s.check(l)))-by)
}

// Whatever the journal loses, and whenever, what the books have as lost is what the backend
// does not have: never less; and more only of a step that was being given back whole just then,
// or where a kill took with it what the backend had got.
func TestJournalLosesAnything(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 8))
				s := newStation(t, vfs.NewMem(), stationOptions{window: 8 * time.Hour, disk: func(c *disk.Config) {
					smallSegments(c)
					c.MaxDisk = 320 * bytesize.KiB
				}, config: func(c *sampler.Config) {
					anyFloor(seed)(c)
					c.BackfillShare = 0.2 + 0.8*float64(seed%5)/4
				}})
				defer func() { s.stop() }()
				l := newLoad(seed, false)
				l.w.actors = many(l.w.actors, 40+rng.IntN(40))
				kills, deadly := 0, rng.IntN(2) == 0
				l.feed(s, time.Minute)
				for range 2 + rng.IntN(4) {
					s.sink.set(5+rng.Float64()*10, false)
					l.feed(s, time.Duration(60+rng.IntN(480))*time.Second)
					switch rng.IntN(6) {
					case 0:
						s.sink.set(0, true)
						l.feed(s, time.Duration(20+rng.IntN(60))*time.Second)
					case 1, 2, 3:
						s.sink.set(0, false)
						l.feed(s, time.Duration(30+rng.IntN(240))*time.Second)
					}
					if deadly && rng.IntN(2) == 0 {
						s.kill()
						kills++
					}
				}
				s.sink.set(0, false)
				l.feed(s, 5*time.Minute)
				b := s.rest(l, 4*time.Hour)
				require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
				s.settledEach()
				if kills == 0 {
					s.exactly(l)
				}
				by, steps := s.overstated(l, kills > 0)
				require.Len(t, s.lacking(l), samplesOf(lossOf(b))-by)
				t.Log("lost", samplesOf(lossOf(b)), "more than is missing by", by, "in steps", steps, "kills", kills)
			})
		})
	}
}
