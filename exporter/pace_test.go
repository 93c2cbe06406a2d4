package exporter_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/exporter/exportertest"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// timed notes when attempts were made.
type timed struct {
	mu     sync.Mutex
	at     []time.Time
	script exportertest.Script
}

func (x *timed) play(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
	x.mu.Lock()
	x.at = append(x.at, time.Now())
	x.mu.Unlock()
	return x.script(ctx, a)
}

func (x *timed) times() []time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	return append([]time.Time(nil), x.at...)
}

// feedMany appends n requests that share no series.
func (s *station) feedMany(n int) {
	s.t.Helper()
	for i := range n {
		s.feed("many"+string(rune('A'+i)), 3, 1)
	}
}

// A wrong token: everything is held, which is said once, and one request at a time asks
// again, ever more rarely; once accepted everything goes on at once. Others do not notice.
func TestDenied(t *testing.T) {
	for _, status := range []int{401, 403, 404, 405, 407} {
		bubble(t, func(t *testing.T) {
			s := open(t, vfs.NewMem(), nil, "a", "b")
			defer s.close()
			denied := true
			var mu sync.Mutex
			var probes []time.Time
			backend := exportertest.NewBackend(func(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
				mu.Lock()
				defer mu.Unlock()
				if denied {
					return fail(exporter.Denied, status)(ctx, a)
				}
				return accept(ctx, a)
			})
			backend.ProbeFunc = func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				probes = append(probes, time.Now())
				if denied {
					return &exporter.Error{Class: exporter.Denied, Status: status}
				}
				return nil
			}
			a := s.lane("a", backend, both(shards(8, 8), small(3)))
			b := s.lane("b", exportertest.NewBackend(nil), nil)
			s.feedMany(20)
			pause(time.Minute)
			first := backend.Attempts()
			require.LessOrEqual(t, first, 8)
			time.Sleep(time.Hour)
			require.Equal(t, first, backend.Attempts(), "only probes")
			require.Equal(t, "denied", a.State())
			require.False(t, a.Draining())
			require.EqualValues(t, 1, a.metric(t, "sluice_lane_state", "state", "denied"))
			require.EqualValues(t, 0, a.metric(t, "sluice_lane_state", "state", "ok"))
			require.Equal(t, 1, s.log.lines("takes nothing from us"))
			require.Equal(t, samples(60), a.check(t).InJournal)
			b.rest(t, time.Second)
			mu.Lock()
			for i := 10; i < len(probes); i++ {
				d := probes[i].Sub(probes[i-1])
				require.GreaterOrEqual(t, d, 15*time.Second)
				require.LessOrEqual(t, d, 30*time.Second)
			}
			require.Greater(t, len(probes), 100)
			denied = false
			mu.Unlock()
			began := time.Now()
			require.Equal(t, samples(60), a.rest(t, time.Minute).Totals.Delivered)
			require.LessOrEqual(t, time.Since(began), 31*time.Second)
			require.Equal(t, "ok", a.State())
			require.Equal(t, 1, s.log.lines("takes data again"))
		})
	}
}

// Where only a real request can tell, it is the prober's own parcel that asks.
func TestDeniedAndTheProbeCannotTell(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		r := s.lane("a", exportertest.NewBackend(fail(exporter.Denied, 401)), both(shards(8, 8), small(3)))
		s.feedMany(20)
		pause(time.Hour)
		n := r.backend.Attempts()
		require.Greater(t, n, 100)
		require.Less(t, n, 300)
		require.Equal(t, 1, s.log.lines("takes nothing from us"))

		// A new denial is asked about at the pace of a new one.
		r.backend.Play(nil)
		r.rest(t, 31*time.Second)
		r.backend.Play(fail(exporter.Denied, 401))
		before := r.backend.Attempts()
		s.feedMany(20)
		pause(10 * time.Second)
		require.Greater(t, r.backend.Attempts(), before+4)

		// It fails otherwise now: no credentials are to blame any more.
		r.backend.Play(fail(exporter.Retry, 503))
		pause(time.Minute)
		require.Equal(t, "failing", r.State())
		r.backend.Play(nil)
		require.Equal(t, samples(120), r.rest(t, 10*time.Second).Totals.Delivered)
	})
}

func TestDeniedAndGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		r := s.lane("a", exportertest.NewBackend(fail(exporter.Denied, 401)), both(shards(4, 4), small(3), backlog(0, time.Minute)))
		s.feedMany(20)
		pause(90 * time.Second)
		b := r.rest(t, time.Second)
		require.Equal(t, map[string]series.Counts{exporter.ReasonMaxBacklog: samples(60)}, b.Totals.GivenUp)
		s.feedMany(2)
		pause(time.Second)
		require.NoError(t, r.stop(), "stops while held")
		require.Equal(t, samples(6), r.check(t).InJournal)
	})
}

// A bound of the backlog takes parcels from the prober: the role moves on, the back-off
// goes on where it was.
func TestDeniedUnderABound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		r := s.lane("a", exportertest.NewBackend(fail(exporter.Denied, 403)), both(shards(8, 8), small(3), backlog(0, 20*time.Second)))
		for range 600 {
			s.feedMany(5)
			time.Sleep(time.Second)
		}
		require.Less(t, r.backend.Attempts()+r.backend.Probes(), 120, "in ten minutes")
		require.Equal(t, 1, s.log.lines("takes nothing from us"))
		require.Positive(t, r.check(t).Totals.GivenUp[exporter.ReasonMaxBacklog].Samples)
		r.backend.Play(nil)
		r.rest(t, 31*time.Second)
	})
}

// What a backend asks for with Retry-After holds for all senders, whatever succeeds that
// was sent before.
func TestRetryAfter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		x := &timed{script: func(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
			switch a.Number {
			case 0:
				time.Sleep(2 * time.Second)
				return exporter.Receipt{}, &exporter.Error{Class: exporter.Throttled, Status: 429, After: 20 * time.Second}
			case 1:
				time.Sleep(4 * time.Second) // succeeds after the other one was throttled
			}
			return accept(ctx, a)
		}}
		began := time.Now()
		r := s.lane("a", exportertest.NewBackend(x.play), both(shards(2, 2), small(3)))
		s.feedMany(10)
		pause(10 * time.Second)
		require.Equal(t, "throttled", r.State())
		r.rest(t, time.Minute)
		for _, at := range x.times()[2:] {
			require.GreaterOrEqual(t, at.Sub(began), 22*time.Second)
		}
		require.Less(t, time.Since(began), 30*time.Second)
		require.Equal(t, 1, s.log.lines("asks for less"))
	})
}

func TestShards(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		slow := func(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
			time.Sleep(300 * time.Millisecond)
			return accept(ctx, a)
		}
		r := s.connect("a", exportertest.NewBackend(slow), both(shards(1, 16), small(3)))
		for range 30 {
			s.feedMany(26)
		}
		r.run()
		shardsNow := func() float64 { return r.metric(t, "sluice_lane_shards") }
		require.EqualValues(t, 1, shardsNow())
		pause(2 * time.Second)
		require.EqualValues(t, 16, shardsNow(), "grows with the backlog")
		require.Equal(t, 16, r.backend.Peak())

		r.backend.Play(fail(exporter.Throttled, 429))
		pause(3 * time.Second)
		require.LessOrEqual(t, shardsNow(), 4.0, "halves while it is throttled")
		pause(5 * time.Minute)
		require.EqualValues(t, 1, shardsNow())

		r.backend.Play(slow)
		r.rest(t, 20*time.Minute)
		require.Greater(t, shardsNow(), 1.0)
		pause(5 * time.Minute)
		require.EqualValues(t, 1, shardsNow(), "shrinks when it idles")
	})
}

// Back-off: from min_backoff, doubled, at most max_backoff, and never less than half of
// it; also with values for which doubling overflows.
func TestBackoff(t *testing.T) {
	for _, c := range []struct{ least, most time.Duration }{
		{100 * time.Millisecond, 5 * time.Second}, {20 * time.Second, time.Minute},
	} {
		bubble(t, func(t *testing.T) {
			s := open(t, vfs.NewMem(), nil, "a")
			defer s.close()
			x := &timed{script: fail(exporter.Retry, 503)}
			r := s.lane("a", exportertest.NewBackend(x.play), func(o *exporter.Options) {
				o.Config.MinBackoff, o.Config.MaxBackoff = model.Duration(c.least), model.Duration(c.most)
			})
			s.feed("m", 1, 1)
			time.Sleep(80 * c.most)
			at := x.times()
			require.Greater(t, len(at), 70)
			want := c.least
			for i := 1; i < len(at); i++ {
				d := at[i].Sub(at[i-1])
				require.GreaterOrEqual(t, d, want/2)
				require.LessOrEqual(t, d, want)
				want = min(2*want, c.most)
			}
			require.Equal(t, 1, s.log.lines("The backend fails"))
			r.backend.Play(nil)
			r.rest(t, c.most+time.Second)
		})
	}
}

// After an outage one success wakes all that wait, so that the lane is back within one
// back-off however long that of each sender is.
func TestRecoveryIsQuick(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		r := s.lane("a", exportertest.NewBackend(fail(exporter.Retry, 503)), both(shards(16, 16), small(3)))
		s.feedMany(26)
		pause(10 * time.Minute)
		x := &timed{script: accept}
		r.backend.Play(x.play)
		began := time.Now()
		r.rest(t, time.Minute)
		at := x.times()
		require.LessOrEqual(t, at[0].Sub(began), 5*time.Second)
		require.LessOrEqual(t, at[len(at)-1].Sub(at[0]), 10*time.Millisecond)
	})
}

// A backend that fails now and then does not fill the log, and an outage that follows is
// told all the same.
func TestNowAndThenIsNotLogged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		r := s.lane("a", exportertest.NewBackend(func(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
			if a.Number%3 == 0 {
				return fail(exporter.Retry, 503)(ctx, a)
			}
			return accept(ctx, a)
		}), nil)
		for at := range int64(300) {
			s.feed("m", 1, at+1)
			time.Sleep(100 * time.Millisecond)
		}
		require.LessOrEqual(t, s.log.lines("The backend fails"), 4)
		require.LessOrEqual(t, s.log.lines("takes data again"), 4)
		before := s.log.lines("The backend fails")
		r.backend.Play(fail(exporter.Retry, 503))
		s.feed("m", 1, 1000)
		pause(30 * time.Second)
		require.Equal(t, before+1, s.log.lines("The backend fails"))
		pause(time.Hour)
		require.Equal(t, before+1, s.log.lines("The backend fails"))
	})
}

// A backend that goes on asking for another encoding is not asked in a circle.
func TestRenegotiationWithoutEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		r := s.lane("a", exportertest.NewBackend(fail(exporter.Renegotiate, 415)), nil)
		s.feed("m", 1, 1)
		pause(time.Minute)
		require.Less(t, r.backend.Attempts(), 50)
		r.backend.Play(nil)
		r.rest(t, 10*time.Second)
	})
}

// Stopping: what waits ends at once and stays in the journal, what is on its way gets
// StopGrace, and how far the lane came is written down.
func TestStop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a", "b", "c")
		defer s.close()
		a := s.lane("a", exportertest.NewBackend(fail(exporter.Retry, 503)), nil)
		quickEnough := func(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
			time.Sleep(700 * time.Millisecond)
			return accept(ctx, a)
		}
		b := s.lane("b", exportertest.NewBackend(quickEnough), nil)
		hangs := func(ctx context.Context, _ *exportertest.Attempt) (exporter.Receipt, error) {
			<-ctx.Done()
			return exporter.Receipt{}, &exporter.Error{Class: exporter.Retry, Unknown: true, Err: context.Cause(ctx)}
		}
		c := s.lane("c", exportertest.NewBackend(hangs), nil)
		s.feed("m", 5, 1)
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		for _, x := range []struct {
			r    *running
			took time.Duration
			left series.Counts
		}{{a, 0, samples(5)}, {b, 500 * time.Millisecond, samples(0)}, {c, time.Second, samples(5)}} {
			began := time.Now()
			x.r.cancel()
			require.NoError(t, <-x.r.done)
			x.r.done = nil
			require.LessOrEqual(t, time.Since(began), x.took, x.r.name)
			require.Equal(t, x.left, x.r.check(t).InJournal)
			if x.left.Zero() {
				require.Equal(t, samples(5), x.r.cursor.Committed().Totals.Delivered)
			}
		}
	})
}
