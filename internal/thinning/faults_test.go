package thinning_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/thinning"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// broken is a fault of all that changes files below a path.
func broken(path string) vfs.Fault {
	return vfs.Fault{Ops: []vfs.Op{vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpSyncDir, vfs.OpMkdirAll}, Path: path, Forever: true, Err: syscall.EIO}
}

// Nothing takes effect that cannot be written down: no session begins, a step stays, a
// session that ends goes over to everything at once and is not settled before.
func TestLedgerThatCannotBeWritten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewFaulty(vfs.NewMem())
		s := newStation(t, fs, stationOptions{window: 4 * time.Hour})
		defer s.stop()
		l := newLoad(3, false)
		l.feed(s, time.Minute)
		fs.Inject(broken("ledger"))
		s.sink.set(4, false)
		l.feed(s, 3*time.Minute)
		require.Less(t, s.thinner.View().Rate, 1.0)
		require.Equal(t, 1.0, s.thinner.Kept())
		require.Zero(t, s.check(l).Totals.Withheld)
		require.Positive(t, s.log.lines("The beginning of sampling cannot be written down"))
		require.LessOrEqual(t, s.log.lines("The beginning of sampling cannot be written down"), 19, "one attempt in ten seconds")
		fs.Heal()
		s.awaitThinned(l, 0.9)
		l.feed(s, time.Minute)
		before := s.ledger.Entries()
		last := before[len(before)-1]

		fs.Inject(broken("ledger"))
		s.sink.set(0, false)
		l.feed(s, 3*time.Minute)
		after := s.ledger.Entries()
		require.Len(t, after, len(before))
		require.Equal(t, len(last.Steps), len(after[len(after)-1].Steps), "no step is in force that is not written")
		require.Equal(t, last.Steps[len(last.Steps)-1].Rate, s.lastRate())
		fs.Heal()
		l.feed(s, 6*time.Minute)
		b := s.rest(l, time.Hour)
		require.Zero(t, lossOf(b))
		s.equal(l, 0)
	})
}

// lastRate is the rate of the newest step of the ledger.
func (s *station) lastRate() float64 {
	list := s.ledger.Entries()
	steps := list[len(list)-1].Steps
	return steps[len(steps)-1].Rate
}

// The end of a session cannot be written down: everything is sent, nothing is settled as
// if it went on, and it ends where it did.
func TestEndThatCannotBeWritten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewFaulty(vfs.NewMem())
		s := newStation(t, fs, stationOptions{window: 4 * time.Hour})
		defer s.stop()
		l := newLoad(4, false)
		l.feed(s, time.Minute)
		s.sink.set(4, false)
		s.awaitThinned(l, 0.8)
		s.sink.set(0, false)
		for s.thinner.View().Rate < 1 {
			l.feed(s, scrapeEvery)
		}
		l.feed(s, 30*time.Second)
		fs.Inject(broken("ledger"))
		l.feed(s, 2*time.Minute)
		require.Nil(t, s.thinner.View().Since, "the session has ended")
		require.Positive(t, s.log.lines("The end of sampling cannot be written down"))
		require.Equal(t, ledger.StateOpen, s.ledger.Entries()[0].State)
		fs.Heal()
		l.feed(s, 2*time.Minute)
		b := s.rest(l, time.Hour)
		require.Zero(t, lossOf(b))
		s.equal(l, 0)
	})
}

// The cursor cannot be written for minutes, in a session and while it is given back.
func TestCursorThatCannotBeWritten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewFaulty(vfs.NewMem())
		s := newStation(t, fs, stationOptions{window: 4 * time.Hour})
		defer s.stop()
		l := newLoad(5, false)
		l.feed(s, time.Minute)
		s.sink.set(4, false)
		s.awaitThinned(l, 0.8)
		fs.Inject(broken("cursor"))
		l.feed(s, 2*time.Minute)
		s.check(l)
		fs.Heal()
		l.feed(s, time.Minute)
		s.sink.set(0, false)
		l.feed(s, 150*time.Second)
		fs.Inject(broken("cursor"))
		l.feed(s, 2*time.Minute)
		s.check(l)
		fs.Heal()
		l.feed(s, 3*time.Minute)
		b := s.rest(l, time.Hour)
		require.Zero(t, lossOf(b))
		s.equal(l, 0)
	})
}

// Steps beyond what the ledger holds: the oldest is given up, counted and logged, and
// sampling goes on.
func TestLedgerThatIsFull(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: 8 * time.Hour, ledger: func(o *ledger.Options) { o.MaxSteps = 20 }})
		defer s.stop()
		l := newLoad(6, false)
		l.feed(s, time.Minute)
		s.sink.set(4, false)
		s.awaitThinned(l, 0.8)
		l.feed(s, 20*time.Minute)
		s.awaitThinned(l, 0.9) // not at once: the session that was full has a successor
		s.sink.set(0, false)
		l.feed(s, 6*time.Minute)
		b := s.rest(l, time.Hour)
		require.Positive(t, b.Totals.GivenUp[thinning.ReasonLedgerFull].Samples, "%+v", b.Totals)
		require.Positive(t, s.log.lines("The ledger is full"))
		require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
		lost := lossOf(b)
		require.Equal(t, len(l.input)-len(s.sink.got), int(lost.Samples+lost.Histograms))
	})
}

// A ledger that is damaged: what it lost is given up and said, nothing is stuck, and the
// books are exact.
func TestLedgerThatIsDamaged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewMem()
		s := newStation(t, fs, stationOptions{window: 8 * time.Hour})
		defer func() { s.stop() }()
		l := newLoad(7, false)
		l.feed(s, time.Minute)
		s.sink.set(4, false)
		s.awaitThinned(l, 0.8)
		l.feed(s, 3*time.Minute)
		s.stop()
		damage(t, fs)
		s.ledger, s.thinner = nil, nil
		s.start()
		s.check(l)
		s.sink.set(0, false)
		l.feed(s, 6*time.Minute)
		b := s.rest(l, time.Hour)
		require.Positive(t, b.Totals.GivenUp[thinning.ReasonUnknown].Samples, "%+v", b.Totals)
		require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
		v := s.thinner.View()
		require.False(t, v.Debt.Unknown)
		require.Zero(t, v.Debt.Samples)
	})
}

// damage changes a byte in the middle of the ledger.
func damage(t *testing.T, fs *vfs.Mem) {
	names, err := fs.List("/ledger")
	require.NoError(t, err)
	for _, name := range names {
		if !strings.Contains(name, "main") {
			continue
		}
		f, err := fs.Open("/ledger/" + name)
		require.NoError(t, err)
		size, err := f.Size()
		require.NoError(t, err)
		b := make([]byte, size)
		_, err = f.ReadAt(b, 0)
		require.True(t, err == nil || errors.Is(err, io.EOF))
		middle := int64(len(bytes.TrimRight(b, "\x00")) / 2)
		_, err = f.WriteAt([]byte{b[middle] ^ 0x55}, middle)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
}

// The journal has no room for all that is withheld: the oldest is given up, counted and
// logged, and nothing is refused because of it.
func TestJournalWithoutRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: 8 * time.Hour, disk: func(c *disk.Config) {
			smallSegments(c)
			c.MaxDisk = 256 * bytesize.KiB
		}})
		defer s.stop()
		l := newLoad(8, false)
		l.feed(s, time.Minute)
		s.sink.set(4, false)
		s.awaitThinned(l, 0.8)
		l.feed(s, 5*time.Minute)
		s.sink.set(0, true) // a gap behind it
		l.feed(s, 2*time.Minute)
		s.sink.set(4, false)
		l.feed(s, 25*time.Minute) // an append that is refused fails the test
		s.sink.set(0, false)
		l.feed(s, 50*time.Second) // nothing more is cut while it is given back
		b := s.rest(l, time.Hour)
		require.Positive(t, b.Totals.GivenUp[thinning.ReasonJournalFull].Samples, "%+v", b.Totals)
		require.Positive(t, s.log.lines("the journal had no room for it"))
		require.Equal(t, b.Totals.Withheld, b.Totals.Restored)
		require.Equal(t, len(l.input)-len(s.sink.got), samplesOf(lossOf(b)))
		s.exactly(l)
		for reason := range b.Totals.GivenUp {
			require.Equal(t, thinning.ReasonJournalFull, reason)
		}
	})
}

// The journal keeps what is owed for as long as it is, and no longer.
func TestJournalKeepsWhatIsOwed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: 8 * time.Hour, disk: smallSegments})
		defer func() { s.stop() }()
		l := newLoad(9, false)
		l.feed(s, time.Minute)
		s.sink.set(4, false)
		s.awaitThinned(l, 0.8)
		from := s.ledger.Entries()[0].Rebuild
		l.feed(s, 10*time.Minute)
		require.False(t, from.Before(s.journal.Oldest()), "what a session is built from stays while it goes on")
		s.kill()
		require.False(t, from.Before(s.journal.Oldest()))
		s.sink.set(0, false)
		l.feed(s, 4*time.Minute)
		b := s.rest(l, time.Hour)
		require.Zero(t, lossOf(b))
		l.feed(s, 2*time.Minute)
		require.Less(t, s.journal.Tail().Segment-s.journal.Oldest().Segment, uint64(3), "and goes then")
	})
}

// A commit may come at any moment of the giving back, also between the last batch of an
// entry and its end, and between the batches of one record.
func TestCommitsWhileItIsGivenBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: 8 * time.Hour, config: func(c *sampler.Config) { c.BackfillShare = 1 }})
		defer s.stop()
		more := 0
		s.shim.before = func(_ position, m bool) {
			if m {
				more++
			}
			time.Sleep(1500 * time.Millisecond) // at least one commit
		}
		l := newLoad(10, false)
		l.w.actors = many(l.w.actors, 150)
		l.feed(s, time.Minute)
		s.sink.set(12, false)
		s.awaitThinned(l, 0.8)
		l.feed(s, 3*time.Minute)
		s.sink.set(0, false)
		l.feed(s, 8*time.Minute)
		b := s.rest(l, time.Hour)
		require.Positive(t, more, "places with several batches")
		require.Zero(t, lossOf(b), "%+v", b.Totals)
		s.equal(l, 0)
		require.Zero(t, s.metric("sluice_lane_commits_total", "failed"))
	})
}

// metric is the sum of a metric's series that have one of the label values; of all, where
// there are none.
func (s *station) metric(name string, values ...string) (n float64) {
	s.t.Helper()
	families, err := s.metrics.Gather()
	require.NoError(s.t, err)
	found := false
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		found = true
		for _, m := range f.GetMetric() {
			for _, p := range m.GetLabel() {
				if len(values) == 0 || slices.Contains(values, p.GetValue()) {
					n += m.GetCounter().GetValue() + m.GetGauge().GetValue()
					break
				}
			}
		}
	}
	require.True(s.t, found, "no metric %s", name)
	return n
}

// After an outage the newest sample is there within seconds, whatever waits; the rest
// comes behind it, and stops while the backend lags.
func TestFreshFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: 8 * time.Hour, lane: func(o *exporter.Options) { o.Config.MaxSamplesPerSend = 50 }})
		defer s.stop()
		l := newLoad(11, false)
		l.feed(s, time.Minute)
		s.sink.set(0, true)
		l.feed(s, 20*time.Minute)
		s.sink.set(100, false)
		up := time.Now()
		l.round(s)
		time.Sleep(5 * time.Second)
		s.sink.mu.Lock()
		require.Less(t, up.UnixMilli()-s.sink.fresh, int64(1000), "the newest is there")
		require.Less(t, s.sink.last.Sub(up), 5*time.Second)
		t.Log("newest visible after", s.sink.last.Sub(up))
		s.sink.mu.Unlock()
		b := s.check(l)
		require.Positive(t, b.Totals.Withheld.Samples)
		s.sink.set(20_000, false)
		for n := 0; s.metric("remote_write_backfill_samples_total") == 0; n++ {
			require.Less(t, n, 1200, "%+v", s.thinner.View())
			if n%50 == 0 {
				l.round(s)
			}
			time.Sleep(100 * time.Millisecond)
		}
		s.sink.set(4, false) // it lags again
		l.feed(s, 30*time.Second)
		synctest.Wait()
		given := s.metric("remote_write_backfill_samples_total")
		require.Less(t, given, float64(b.Totals.Withheld.Samples+b.Totals.Withheld.Histograms))
		l.feed(s, time.Minute)
		require.Equal(t, given, s.metric("remote_write_backfill_samples_total"), "nothing is given back meanwhile")
		s.sink.set(0, false)
		l.feed(s, 5*time.Minute)
		b = s.rest(l, time.Hour)
		require.Zero(t, lossOf(b))
		s.equal(l, 0)
	})
}

// What waits is older than the backend takes behind newer samples: it is sent in its order,
// or it would be lost.
func TestFreshFirst_NotBeyondTheWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newStation(t, vfs.NewMem(), stationOptions{window: 10 * time.Minute})
		defer s.stop()
		l := newLoad(12, false)
		l.feed(s, time.Minute)
		s.sink.set(0, true)
		l.feed(s, 20*time.Minute)
		s.sink.set(0, false)
		l.feed(s, time.Minute)
		b := s.check(l)
		require.Zero(t, b.InJournal)
		require.Positive(t, s.log.lines("The newest data cannot go first"))
		for _, e := range s.ledger.Entries() {
			require.NotEqual(t, ledger.KindGap, e.Kind)
		}
	})
}
