package thinning_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/router"
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// Killed while it gives back, again and again, each entry of the ledger has in the end what
// it withheld, no other one has it, and nothing is lost.
func TestKilledWhileGivingBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64Range(0, 1<<20).Draw(rt, "seed")
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			s := newStation(t, vfs.NewMem(), stationOptions{window: 6 * time.Hour, disk: smallSegments, config: anyFloor(seed)})
			defer func() { s.stop() }()
			l := newLoad(seed, false)
			l.w.actors = many(l.w.actors, 80)
			l.feed(s, time.Minute)
			for range 1 + rng.IntN(2) {
				s.sink.set(10+rng.Float64()*80, false)
				l.feed(s, time.Duration(20+rng.IntN(60))*time.Second)
				if rng.IntN(2) == 0 {
					s.kill()
				}
				s.sink.set(0, true)
				l.feed(s, time.Duration(20+rng.IntN(60))*time.Second)
				if rng.IntN(2) == 0 {
					s.kill()
				}
				s.sink.set(0, false)
				l.feed(s, time.Duration(rng.IntN(30))*time.Second)
			}
			s.sink.set(0, false)
			l.feed(s, time.Duration(30+rng.IntN(60))*time.Second)
			for range 1 + rng.IntN(6) {
				for range 600 {
					if s.thinner.View().GivingBack != nil {
						break
					}
					time.Sleep(100 * time.Millisecond)
				}
				time.Sleep(time.Duration(rng.IntN(4000)) * time.Millisecond)
				s.kill()
				l.feed(s, time.Duration(rng.IntN(90))*time.Second)
			}
			l.feed(s, 3*time.Minute)
			b := s.rest(l, 4*time.Hour)
			require.Zero(t, lossOf(b), "seed %d: %+v", seed, b.Totals)
			s.equal(l, 1<<60)
			require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
			require.Equal(t, l.n, b.Totals.Delivered)
			s.settledEach()
		})
	})
}

// thinnedToAGap leaves a session that ended before a gap, when most of its series waited for
// their next frame, and returns its entry.
func thinnedToAGap(t *testing.T, s *station, l *load) ledger.Entry {
	l.w.actors = many(l.w.actors, 3000)
	l.feed(s, time.Minute)
	s.restart(func(o *stationOptions) {
		o.config = func(c *sampler.Config) { c.BaseRate, c.MinRate = 0.1, 0.1 }
	})
	l.feed(s, time.Minute)
	s.sink.set(0, true)
	l.feed(s, 40*time.Second)
	s.sink.set(0, false)
	l.feed(s, 10*time.Second)
	l.w.actors = l.w.actors[:40]
	s.restart(func(o *stationOptions) { o.config = nil })
	e := s.ledger.Entries()[0]
	require.Equal(t, ledger.KindSampled, e.Kind)
	require.NotZero(t, e.To)
	return e
}

// slowly makes a commit come before each batch that is given back, and sends on the channel
// before those that which picks.
func (s *station) slowly(which func(upTo position, more bool) bool) (at chan struct{}) {
	at = make(chan struct{}, 1)
	s.shim.before = func(upTo position, more bool) {
		if which(upTo, more) {
			select {
			case at <- struct{}{}:
			default:
			}
		}
		time.Sleep(1500 * time.Millisecond)
	}
	return at
}

// What waits for the end of an entry belongs to it too: the entry is not closed before that
// is there, whenever a commit or a kill comes.
func TestRestOfAnEntry(t *testing.T) {
	for _, kills := range [][]int{nil, {4, 2}} {
		t.Run(fmt.Sprint("killed before batches ", kills), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStation(t, vfs.NewMem(), stationOptions{window: 6 * time.Hour})
				defer func() { s.stop() }()
				l := newLoad(3, false)
				entry := thinnedToAGap(t, s, l)
				nth := func(n int) func(position, bool) bool {
					return func(upTo position, _ bool) bool {
						if !upTo.Before(entry.To) {
							n--
						}
						return n == 0
					}
				}
				s.slowly(nth(0))
				for _, k := range kills {
					at := s.slowly(nth(k))
					l.feed(s, 40*time.Second)
					select {
					case <-at:
					case <-time.After(time.Hour):
						require.Fail(t, "it is not given back", "%+v", s.ledger.Entries())
					}
					s.kill()
				}
				l.feed(s, 3*time.Minute)
				b := s.rest(l, time.Hour)
				require.Zero(t, lossOf(b))
				s.equal(l, 1<<60)
				require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
				s.settledEach()
			})
		})
	}
}

// The configuration changes in the middle of the giving back: what was found to wait by the
// decisions of before is sent too, and nothing is counted twice.
func TestAnotherMannerMidway(t *testing.T) {
	for name, change := range map[string]func(*sampler.Config){
		"everything":     func(c *sampler.Config) { c.KeyFrameMin *= 2; c.Classes[0].MaxGap *= 2 },
		"all but frames": func(c *sampler.Config) { c.BackfillMethod = sampler.BackfillFloor },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStation(t, vfs.NewMem(), stationOptions{window: 6 * time.Hour})
				defer func() { s.stop() }()
				l := newLoad(4, false)
				entry := thinnedToAGap(t, s, l)
				n := 0
				at := s.slowly(func(upTo position, _ bool) bool {
					n++
					return n == 8 && upTo.Before(entry.To)
				})
				l.feed(s, 90*time.Second)
				<-at
				s.restart(func(o *stationOptions) { o.config = change })
				require.Equal(t, ledger.StateGivingBack, s.ledger.Entries()[0].State)
				l.feed(s, 10*time.Second)
				s.kill()
				l.feed(s, 3*time.Minute)
				b := s.rest(l, time.Hour)
				require.Zero(t, lossOf(b))
				s.equal(l, 1<<60)
				require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
				require.Equal(t, l.n, b.Totals.Delivered)
				s.settledEach()
			})
		})
	}
}

// leftBeforeAGap feeds until a session has ended before a gap, while the cursor is still in
// the session, and kills the station there. The sink is down then.
func leftBeforeAGap(t *testing.T, s *station, l *load) {
	l.w.actors = many(l.w.actors, 300)
	l.feed(s, time.Minute)
	s.restart(func(o *stationOptions) {
		o.config = func(c *sampler.Config) { c.BaseRate, c.MinRate = 0.2, 0.2 }
	})
	l.feed(s, 5*time.Minute)
	s.sink.set(0, true)
	l.feed(s, 40*time.Second)
	s.sink.set(20, false) // the newest goes first now, while the rest of the session is on its way
	for n := 0; s.ledger.Entries()[0].To == (position{}); n++ {
		require.Less(t, n, 100_000)
		time.Sleep(time.Millisecond) // much less than the sink takes for a sample
	}
	s.o.config = nil
	s.sink.set(0, true)
	s.kill()
	require.True(t, s.ledger.Entries()[0].Holds(s.cursor.Committed().Position))
}

// oneByOne has a request for each record.
func oneByOne(o *exporter.Options) { o.Config.MaxSamplesPerSend = 1 }

// What was decided in a run before is not passed: the session goes on to where it ended.
func TestPass_NotWhereItIsDecided(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: 6 * time.Hour, lane: oneByOne})
		defer func() { s.stop() }()
		l := newLoad(5, false)
		leftBeforeAGap(t, s, l)
		entry := s.ledger.Entries()[0]
		// Another Thinner is given the first record of the session by hand.
		synctest.Wait()
		thinner, book := s.thinner, s.ledger
		defer func() { s.thinner, s.ledger = thinner, book }()
		s.metrics = prometheus.NewRegistry()
		s.sampling(slog.New(slog.DiscardHandler))
		defer func() { require.NoError(t, s.ledger.Close()) }()
		r, err := s.journal.OpenReader("main", s.cursor.Committed().Position)
		require.NoError(t, err)
		defer func() { require.NoError(t, r.Close()) }()
		rec, ok, err := r.Next()
		require.NoError(t, err)
		require.True(t, ok && entry.Holds(rec.Start))
		defer rec.Batch.Release()
		set, _, err := router.NewPicker(s.router, "main", nil).Pick(rec.Batch)
		require.NoError(t, err)
		thinned, err := s.thinner.Thin(&rec, set)
		require.NoError(t, err)
		if thinned.Batch != nil {
			thinned.Batch.Release()
		}
		require.NotNil(t, s.thinner.View().Since)
		require.Error(t, s.thinner.Pass(rec.End, s.journal.Tail(), true))
		require.NotNil(t, s.thinner.View().Since, "the session goes on")
		require.Equal(t, entry, s.ledger.Entries()[0])
	})
}

// slowJournal takes a second for each record that is read beside the lane.
type slowJournal struct {
	thinning.Journal
	read *atomic.Int64
}

type slowReader struct {
	journal.Reader
	read *atomic.Int64
}

func (j slowJournal) OpenReader(backend string, from position) (journal.Reader, error) {
	r, err := j.Journal.OpenReader(backend, from)
	return slowReader{r, j.read}, err
}

func (r slowReader) Next() (journal.Record, bool, error) {
	time.Sleep(time.Second)
	r.read.Add(1)
	return r.Reader.Next()
}

// A lane that ends does not wait for a session to be read again. The next run goes on with
// it, and gives back everything.
func TestStopWhileASessionIsReadAgain(t *testing.T) {
	for name, closed := range map[string]bool{"closed": true, "open": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStation(t, vfs.NewMem(), stationOptions{window: 6 * time.Hour, lane: oneByOne})
				defer func() { s.stop() }()
				l := newLoad(5, false)
				var read atomic.Int64
				slow := func(j thinning.Journal) thinning.Journal { return slowJournal{j, &read} }
				if closed {
					leftBeforeAGap(t, s, l)
					s.restart(func(o *stationOptions) { o.journal = slow })
				} else {
					l.w.actors = many(l.w.actors, 300)
					l.feed(s, time.Minute)
					s.restart(func(o *stationOptions) {
						o.config = func(c *sampler.Config) { c.BaseRate, c.MinRate = 0.2, 0.2 }
					})
					l.feed(s, 5*time.Minute)
					s.sink.set(0, true)
					l.feed(s, 20*time.Second)
					s.restart(func(o *stationOptions) { o.config, o.journal = nil, slow })
				}
				before := s.ledger.Entries()
				require.Equal(t, closed, before[0].To != position{}, "%+v", before[0])
				require.True(t, before[0].Holds(s.cursor.Committed().Position))
				time.Sleep(10 * time.Second)
				require.Positive(t, read.Load(), "the session is being read")
				s.sink.set(0, false)
				began := time.Now()
				s.restart(func(o *stationOptions) { o.journal = nil })
				require.Less(t, time.Since(began), 3*time.Second)
				after := s.ledger.Entries()
				require.Len(t, after, len(before))
				require.Equal(t, before[0].To, after[0].To, "it has not ended for that")
				l.feed(s, 4*time.Minute)
				require.Positive(t, s.log.lines("Sampling goes on where it was"))
				b := s.rest(l, time.Hour)
				require.Zero(t, lossOf(b))
				s.equal(l, 1<<60)
				require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
				s.settledEach()
			})
		})
	}
}
