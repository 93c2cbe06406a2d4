package exporter_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/exporter/exportertest"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// kill ends the station as the death of the process does, and returns what is left of it.
func (s *station) kill(fs *vfs.Mem) (*station, *vfs.Mem) {
	left := fs.KillClone()
	for _, r := range s.lanes {
		if r != nil {
			_ = r.stop()
			_ = r.cursor.Close()
		}
	}
	s.stopJournal()
	<-s.journalDone
	_ = s.journal.Close()
	n := &station{t: s.t, fs: left, log: s.log, dir: s.dir, config: s.config}
	return n, left
}

// Invariant 1 and 6: killed at any time, everything arrives in the end, in order, the
// totals go on where they were, and only what may have been there before counts as
// redelivered.
func TestKilledAtAnyTime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := draw(rt)
		p.steps = 15
		kills := rapid.IntRange(1, 5).Draw(rt, "kills")
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(p.seed, 1))
			fs := vfs.NewMem()
			s := open(t, fs, nil, "a")
			w := &weather{rng: rand.New(rand.NewPCG(p.seed, 2)), rate: p.rate}
			backend := exportertest.NewBackend(w.play)
			o := both(shards(p.least, p.most), small(p.send), quick)
			want := map[string]int{}
			var routed series.Counts
			for k := range kills {
				r := s.lane("a", backend, o)
				for x, n := range p.fill(t, s, rng, k*p.steps, p.steps) {
					want[x] += n
				}
				time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
				routed = r.check(t).Routed
				// What the dead process had on its way arrives or not; then nothing more.
				s, fs = s.kill(fs)
				s.start("a")
			}
			r := s.lane("a", backend, o)
			require.Equal(t, routed, r.Balance().Routed, "totals go on")
			b := r.rest(t, time.Hour)
			for x, n := range want {
				require.Len(t, backend.Stored(x), n, "%+v: series %s", p, x)
			}
			require.Equal(t, routed, b.Totals.Delivered, "%+v", b)
			// Each life may repeat what the one before it did, and only the last one's count
			// of that is sure to be written down.
			_, repeats := backend.Count()
			require.GreaterOrEqual(t, int(b.Totals.Redelivered.Samples)*(kills+p.rate), repeats)
			s.close()
		})
	})
}

// Only what lies before the horizon that was stored may have been there.
func TestRedeliveredIsWhatMayHaveBeenThere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewMem()
		s := open(t, fs, nil, "a")
		backend := exportertest.NewBackend(nil)
		r := s.lane("a", backend, nil)
		s.feed("m", 10, 1)
		r.rest(t, time.Minute)
		pause(3 * time.Second) // committed, and the horizon is back
		left := fs.KillClone()
		s.feed("m", 10, 2)
		r.rest(t, time.Minute)
		killed := fs.KillClone() // sent, not committed
		s.close()

		s = open(t, left, nil, "a")
		r = s.lane("a", backend, nil)
		s.feed("m", 10, 3)
		b := r.rest(t, time.Minute)
		require.Equal(t, samples(20), b.Totals.Delivered)
		require.Zero(t, b.Totals.Redelivered)
		s.close()

		s = open(t, killed, nil, "a")
		r = s.lane("a", backend, nil)
		s.feed("m", 10, 4)
		b = r.rest(t, time.Minute)
		require.Equal(t, samples(30), b.Totals.Delivered)
		require.Equal(t, samples(10), b.Totals.Redelivered)
		s.close()
	})
}

// After a stop that was waited for, nothing that comes later counts as sent before, not
// even in the same segment of the journal.
func TestCleanStopLeavesNoHorizon(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		backend := exportertest.NewBackend(nil)
		r := s.lane("a", backend, nil)
		s.feed("m", 10, 1)
		r.rest(t, time.Minute)
		require.NoError(t, r.stop())
		st := r.cursor.Committed()
		require.False(t, s.journal.Tail().Before(st.Horizon), "horizon %s, tail %s", st.Horizon, s.journal.Tail())
		require.NoError(t, r.cursor.Close())
		r = s.lane("a", backend, nil)
		s.feed("m", 10, 2)
		b := r.rest(t, time.Minute)
		require.Equal(t, samples(20), b.Totals.Delivered)
		require.Zero(t, b.Totals.Redelivered)
	})
}

// What is refused after a restart may have been delivered before it: it is no loss that
// can be shown, and no dead letter.
func TestRefusedAfterARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewMem()
		s := open(t, fs, nil, "a")
		backend := exportertest.NewBackend(nil)
		r := s.lane("a", backend, nil)
		s.feed("m", 10, 1)
		r.rest(t, time.Minute)
		s, _ = s.kill(fs)
		s.start("a")
		bad := nameOf("m", 3)
		backend.Play(exportertest.Strict(func(x string) bool { return x == bad }, false))
		r = s.lane("a", backend, nil)
		s.feed("m", 10, 2)
		b := r.rest(t, time.Minute)
		require.Equal(t, samples(18), b.Totals.Delivered)
		require.Equal(t, samples(9), b.Totals.Redelivered)
		require.Equal(t, map[string]series.Counts{
			exporter.ReasonRedeliveredRefused: samples(1), // of the first round
			exporter.ReasonRefused:            samples(1), // of the second, which is new
		}, b.Totals.Rejected)
		require.Len(t, readLetters(t, s.letters("a")), 1)
		require.EqualValues(t, 1, r.metric(t, "sluice_dead_letters_total", "outcome", "written"))
		s.close()
	})
}

// An attempt whose outcome is unknown makes what follows uncertain, of this parcel alone.
func TestUnknownOutcome(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		lost := func(_ context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
			a.Write()
			return exporter.Receipt{}, errors.New("connection reset")
		}
		r := s.lane("a", exportertest.NewBackend(sequence(lost, accept)), nil)
		s.feed("m", 10, 1)
		r.rest(t, time.Minute)
		s.feed("m", 10, 2)
		b := r.rest(t, time.Minute)
		require.Equal(t, samples(20), b.Totals.Delivered)
		require.Equal(t, samples(10), b.Totals.Redelivered)
		different, repeats := r.backend.Count()
		require.Equal(t, 20, different)
		require.Equal(t, 10, repeats)

		// A failure that says that nothing was written makes nothing uncertain.
		r.backend.Play(func(_ context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
			if a.Retry < 3 {
				return exporter.Receipt{}, &exporter.Error{Class: exporter.Retry, Status: 503}
			}
			a.Write()
			return exporter.Receipt{}, nil
		})
		s.feed("m", 10, 3)
		b = r.rest(t, time.Minute)
		require.Equal(t, samples(30), b.Totals.Delivered)
		require.Equal(t, samples(10), b.Totals.Redelivered)
	})
}

// Changed selectors: the backlog is counted anew, while appends go on.
func TestRecount(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		backend := exportertest.NewBackend(fail(exporter.Retry, 503))
		r := s.lane("a", backend, nil)
		for at := range int64(10) {
			s.feed("up", 10, at+1)
			s.feed("down", 10, at+1)
		}
		pause(time.Second)
		require.NoError(t, r.stop())
		require.NoError(t, r.cursor.Close())
		require.Equal(t, samples(200), r.Balance().InJournal)

		s.route(`a {__name__="up"}`)
		backend.Play(nil)
		r = s.connect("a", backend, nil)
		stop := make(chan struct{})
		stopped := make(chan int64)
		go func() {
			for at := int64(11); ; at++ {
				select {
				case <-stop:
					stopped <- at - 1
					return
				default:
				}
				_ = s.append(series.V1, round("up", 10, at)...)
				_ = s.append(series.V1, round("down", 10, at)...)
				time.Sleep(time.Millisecond)
			}
		}()
		r.run()
		time.Sleep(time.Second)
		close(stop)
		last := <-stopped
		b := r.rest(t, time.Minute)
		require.Equal(t, samples(int(last)*10), b.Routed)
		require.Equal(t, samples(int(last)*10), b.Totals.Delivered)
		require.Len(t, backend.Stored(nameOf("up", 1)), int(last))
		require.Empty(t, backend.Stored(nameOf("down", 1)))
	})
}

// Appends while a lane starts are counted once, also where nothing has to be recounted.
func TestAppendsWhileALaneStarts(t *testing.T) {
	for range 20 {
		s := open(t, vfs.NewMem(), nil, "a")
		r := s.connect("a", exportertest.NewBackend(nil), nil)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for at := range int64(50) {
				_ = s.append(series.V1, round("m", 5, at+1)...)
			}
		}()
		r.run()
		<-done
		require.Equal(t, samples(250), r.rest(t, 10*time.Second).Routed)
		s.close()
	}
}
