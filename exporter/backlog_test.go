package exporter_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/exporter/exportertest"
	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

func smallSegments(c *disk.Config) { c.SegmentSize, c.TailBytes = 16*bytesize.KiB, 32*bytesize.KiB }

// One dead backend: beyond its bound its own oldest data is given up, counted, and the
// rest goes on; the other backend and the appends do not notice.
func TestMaxBacklog(t *testing.T) {
	const each = 50
	for name, bound := range map[string]func(*exporter.Options){
		"bytes": backlog(64<<10, 0),
		"age":   backlog(0, 20*time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := open(t, vfs.NewMem(), func(c *disk.Config) {
					smallSegments(c)
					c.MaxDisk = 512 * bytesize.KiB
				}, "dead", "well")
				defer s.close()
				dead := s.lane("dead", exportertest.NewBackend(fail(exporter.Retry, 503)), bound)
				well := s.lane("well", exportertest.NewBackend(nil), nil)
				const n = 1000
				for at := range int64(n) {
					s.feed("m", each, at+1) // about 500 bytes in the journal
					time.Sleep(100 * time.Millisecond)
				}
				require.Equal(t, samples(n*each), well.rest(t, time.Minute).Totals.Delivered)
				b := dead.check(t)
				require.Positive(t, b.Totals.GivenUp[exporter.ReasonMaxBacklog].Samples)
				require.Len(t, b.Totals.GivenUp, 1)
				if name == "bytes" {
					require.LessOrEqual(t, b.Bytes, int64(64<<10+20<<10))
					require.GreaterOrEqual(t, b.Bytes, int64(30<<10))
				} else {
					require.LessOrEqual(t, time.Since(b.Oldest), 22*time.Second)
				}
				require.LessOrEqual(t, s.log.lines("Gave up"), 12, "a line a minute for each way")
				dead.backend.Play(nil)
				b = dead.rest(t, time.Minute)
				stored := dead.backend.Stored(nameOf("m", 0))
				require.Len(t, stored, int(b.Totals.Delivered.Samples/each))
				require.EqualValues(t, n, stored[len(stored)-1].Time, "the newest is there")
				require.EqualValues(t, n-len(stored)+1, stored[0].Time, "and everything before it, without a gap")
			})
		})
	}
}

// The bound of the whole disk with drop_oldest: appends are never refused.
func TestDropOldest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), func(c *disk.Config) {
			smallSegments(c)
			c.MaxDisk, c.OnFull = 128*bytesize.KiB, disk.OnFullDropOldest
		}, "dead", "well")
		defer s.close()
		hang := func(ctx context.Context, _ *exportertest.Attempt) (exporter.Receipt, error) {
			<-ctx.Done()
			return exporter.Receipt{}, &exporter.Error{Class: exporter.Retry, Unknown: true, Err: context.Cause(ctx)}
		}
		dead := s.lane("dead", exportertest.NewBackend(hang), both(shards(2, 2), small(100)))
		well := s.lane("well", exportertest.NewBackend(nil), nil)
		const n = 1500
		for at := range int64(n) {
			s.feed("m", 50, at+1)
			time.Sleep(50 * time.Millisecond)
		}
		require.Equal(t, samples(n*50), well.rest(t, time.Minute).Totals.Delivered)
		b := dead.check(t)
		require.Positive(t, b.Totals.GivenUp[exporter.ReasonJournalFull].Samples)
		dead.backend.Play(nil)
		b = dead.check(t)
		stop := s.log.lines("Gave up")
		require.LessOrEqual(t, stop, 8)
		require.NoError(t, dead.stop())
		dead.check(t)
	})
}

// A bound that was reached while a parcel was being made holds for the parcel too.
func TestGivenUpWhileAParcelIsMade(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewFaulty(vfs.NewMem())
		s := open(t, fs, nil, "a")
		r := s.lane("a", exportertest.NewBackend(fail(exporter.Retry, 503)), backlog(0, 10*time.Second))
		defer s.close()
		fs.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpWrite}, Path: "/cursors/", Forever: true, Err: syscall.EIO})
		s.feed("m", 5, 1)
		pause(time.Minute)
		require.Zero(t, r.backend.Attempts(), "nothing is sent before it is written down")
		fs.Heal()
		pause(5 * time.Second)
		require.Equal(t, map[string]series.Counts{exporter.ReasonMaxBacklog: samples(5)}, r.rest(t, time.Second).Totals.GivenUp)
	})
}

// The cursor cannot be written: what was announced goes on, nothing is sent beyond it, and
// when the disk is back so is the lane.
func TestCommitFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewFaulty(vfs.NewMem())
		s := open(t, fs, smallSegments, "a")
		defer s.close()
		r := s.lane("a", exportertest.NewBackend(nil), nil)
		s.feed("m", 5, 1)
		r.rest(t, time.Minute)
		fs.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpWrite}, Path: "/cursors/", Forever: true, Err: syscall.EIO})
		pause(10 * time.Second)
		horizon := r.cursor.Committed().Horizon
		for at := range int64(200) {
			s.feed("m", 50, at+2)
			time.Sleep(50 * time.Millisecond)
		}
		require.Equal(t, horizon, r.cursor.Committed().Horizon)
		sent := r.check(t).Totals.Delivered.Samples
		require.Less(t, sent, uint64(5+200*50), "the horizon was stored for one segment only")
		require.Equal(t, 1, s.log.lines("Nothing is sent before it is written down"))
		require.Equal(t, 1, s.log.lines("cursor cannot be committed"))
		require.Positive(t, r.metric(t, "sluice_lane_commits_total", "outcome", "failed"))
		fs.Heal()
		require.Equal(t, samples(5+200*50), r.rest(t, time.Minute).Totals.Delivered)
		require.Equal(t, 1, s.log.lines("can be written again"))
		pause(2 * time.Second)
		require.Equal(t, samples(5+200*50), r.cursor.Committed().Totals.Delivered)
	})
}

// The last commit fails: Run says so.
func TestLastCommitFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewFaulty(vfs.NewMem())
		s := open(t, fs, nil, "a")
		defer s.close()
		r := s.lane("a", exportertest.NewBackend(nil), nil)
		s.feed("m", 5, 1)
		r.rest(t, time.Minute)
		fs.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpWrite}, Path: "/cursors/", Forever: true, Err: syscall.EIO})
		r.cancel()
		require.ErrorIs(t, <-r.done, syscall.EIO)
		r.done = nil
	})
}

// The journal cannot be read for a while: the lane waits for it and loses nothing.
func TestReadFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewFaulty(vfs.NewMem())
		s := open(t, fs, func(c *disk.Config) { c.TailBytes = 0 }, "a")
		defer s.close()
		r := s.connect("a", exportertest.NewBackend(nil), small(50))
		for at := range int64(200) {
			s.feed("m", 50, at+1)
		}
		fs.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpRead}, Path: "/segments/", Nth: 4, Forever: true, Err: syscall.EIO})
		r.run()
		pause(30 * time.Second)
		require.Positive(t, r.check(t).Totals.Delivered.Samples)
		require.Positive(t, r.Balance().Batches)
		require.Equal(t, 1, s.log.lines("The journal cannot be read"))
		fs.Heal()
		require.Equal(t, samples(10000), r.rest(t, time.Minute).Totals.Delivered)
		require.Equal(t, 1, s.log.lines("can be read again"))
		require.Zero(t, r.Balance().Totals.Redelivered)

		// A journal that was closed is the end.
		require.NoError(t, r.cursor.Close())
		require.Error(t, <-r.done)
		r.done = nil
	})
}

// What can never be read again is given up after a while: what is behind it must not wait
// for ever.
func TestReadFailsForGood(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewFaulty(vfs.NewMem())
		s := open(t, fs, func(c *disk.Config) { c.TailBytes = 0 }, "a")
		defer s.close()
		r := s.connect("a", exportertest.NewBackend(nil), small(50))
		for at := range int64(200) {
			s.feed("m", 50, at+1)
		}
		fs.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpRead}, Path: "/segments/", Nth: 4, Forever: true, Err: syscall.EIO})
		r.run()
		pause(90 * time.Second)
		fs.Heal()
		s.feed("m", 50, 1000)
		totals := r.rest(t, time.Minute).Totals
		lost := totals.Rejected[exporter.ReasonUnreadable].Samples
		require.Positive(t, lost)
		require.Equal(t, uint64(10050), totals.Delivered.Samples+lost)
		require.Positive(t, totals.Delivered.Samples)
	})
}

// A damaged record costs itself: it is counted, and what comes behind it is neither lost
// nor taken for settled before it is.
func TestDamagedRecord(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := open(t, mem, func(c *disk.Config) { c.TailBytes = 0 }, "a")
		backend := exportertest.NewBackend(fail(exporter.Retry, 503))
		r := s.connect("a", backend, small(10))
		for at := range int64(5) {
			s.feed("m", 10, at+1)
		}
		spoil(t, mem, "/data/segments/00000000000000000001.seg", 0) // the body of the first record
		r.run()
		pause(5 * time.Second)
		b := r.check(t)
		require.Equal(t, map[string]series.Counts{exporter.ReasonUnreadable: samples(10)}, b.Totals.Rejected)
		require.Equal(t, samples(40), b.InJournal)

		// Nothing was delivered: a crash now must leave the rest to be sent.
		s, _ = s.kill(mem)
		s.start("a")
		backend.Play(nil)
		r = s.lane("a", backend, nil)
		b = r.rest(t, time.Minute)
		require.Equal(t, samples(40), b.Totals.Delivered)
		require.Equal(t, samples(10), b.Totals.Rejected[exporter.ReasonUnreadable])
		require.Len(t, backend.Stored(nameOf("m", 0)), 4)
		s.close()
	})
}

// spoil changes a byte in the body of the n-th record of a segment.
func spoil(t *testing.T, fs vfs.FS, path string, n int) {
	t.Helper()
	f, err := fs.Open(path)
	require.NoError(t, err)
	size, err := f.Size()
	require.NoError(t, err)
	b := make([]byte, size)
	_, err = f.ReadAt(b, 0)
	require.NoError(t, err)
	at := 0
	for range n + 1 {
		at += bytesIndex(b[at:], "__name__")
		at++
	}
	_, err = f.WriteAt([]byte{b[at] ^ 0x55}, int64(at))
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func bytesIndex(b []byte, s string) int {
	for i := range b {
		if string(b[i:min(i+len(s), len(b))]) == s {
			return i
		}
	}
	panic("BUG: not found")
}

// One parcel that is retried for ever does not stop the others until the lane has read as
// far ahead as it may; then it goes on where it was. That holds also where nearly nothing
// in the journal is for the backend.
func TestOneParcelIsStuck(t *testing.T) {
	for _, selector := range []string{"", ` {__name__=~"stuck|m"}`} {
		bubble(t, func(t *testing.T) {
			s := open(t, vfs.NewMem(), nil, "a"+selector)
			defer s.close()
			free := make(chan struct{})
			r := s.lane("a", exportertest.NewBackend(func(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
				if a.Arrivals[0].Series == nameOf("stuck", 0) {
					select {
					case <-free:
					default:
						return exporter.Receipt{}, errors.New("no")
					}
				}
				return accept(ctx, a)
			}), shards(2, 2))
			s.feed("stuck", 1, 1)
			pause(time.Second)
			const n = 20000
			name := "m"
			if selector != "" {
				name = "other"
			}
			for at := range int64(n) {
				s.feed(name, 1, at+1)
			}
			pause(time.Minute)
			b := r.check(t)
			if selector == "" {
				require.InDelta(t, 1<<14, float64(b.Totals.Delivered.Samples), 3)
			}
			require.InDelta(t, n-1<<14, float64(b.Batches), 4)
			close(free)
			r.rest(t, time.Minute)
		})
	}
}
