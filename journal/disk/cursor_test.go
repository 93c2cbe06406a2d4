package disk_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, err := tryOpen(vfs.NewMem(), testConfig())
		require.NoError(t, err)
		c := openCursor(t, j, "a")
		_, ok, err := c.Next(context.Background(), false)
		require.NoError(t, err)
		require.False(t, ok)

		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, ok, err = c.Next(ctx, true)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.False(t, ok)

		got := make(chan int, 1)
		go func() {
			rec, _, err := c.Next(context.Background(), true)
			if err != nil {
				t.Error(err)
				return
			}
			got <- seqOf(t, rec.Batch)
			rec.Batch.Release()
		}()
		synctest.Wait()
		require.Empty(t, got)
		appendBatch(t, j, 5, 100)
		require.Equal(t, 5, <-got)

		failed := make(chan error, 1)
		go func() {
			_, _, err := c.Next(context.Background(), true)
			failed <- err
		}()
		synctest.Wait()
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-failed, journal.ErrClosed)
		_, _, err = c.Next(context.Background(), false)
		require.ErrorIs(t, err, journal.ErrClosed)
		require.ErrorIs(t, c.Commit(journal.State{}), journal.ErrClosed)
		_, err = c.Skip(j.Tail())
		require.ErrorIs(t, err, journal.ErrClosed)
		require.NoError(t, c.Close())
		require.NoError(t, j.stop())
	})
}

func TestOpenCursor(t *testing.T) {
	j := open(t, vfs.NewMem())
	appendMany(t, j, 0, 3, 100)
	c := openCursor(t, j, "a")
	require.Equal(t, j.Tail(), c.Read(), "a new cursor starts at the tail")
	_, err := j.OpenCursor("a")
	require.ErrorContains(t, err, "open already")
	_, err = j.OpenCursor("")
	require.Error(t, err)
	appendMany(t, j, 3, 5, 100)
	require.Equal(t, []int{3, 4}, drain(t, c))
	require.NoError(t, c.Close())
	c = openCursor(t, j, "a")
	require.Equal(t, []int{3, 4}, drain(t, c), "nothing was committed")
	for _, name := range []string{"..", ".", "a/b", "ä ö", "%41", "A"} {
		openCursor(t, j, name)
	}
	require.True(t, slices.IsSorted(j.Cursors()))
	require.Len(t, j.Cursors(), 7)
}

func TestDropCursor(t *testing.T) {
	fs := vfs.NewMem()
	j := open(t, fs)
	c := openCursor(t, j, "a")
	appendMany(t, j, 0, 20, 300)
	for range 7 {
		next(t, c)
	}
	commitRead(t, c, 7)
	want := c.Committed()
	_, _, err := j.DropCursor("a")
	require.ErrorContains(t, err, "open")
	require.NoError(t, c.Close())
	st, lag, err := j.DropCursor("a")
	require.NoError(t, err)
	require.Equal(t, want, st)
	require.Equal(t, sumOf(7, 20), lag.Counts)
	require.Equal(t, int64(13), lag.Records)
	require.Equal(t, time.UnixMilli(received+7), lag.Oldest)
	_, _, err = j.DropCursor("a")
	require.ErrorContains(t, err, "none of this name")
	require.Empty(t, j.Cursors())
	names, err := fs.List(dir + "/cursors")
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestCommit(t *testing.T) {
	for name, change := range map[string]func(*disk.Config){"tail": func(*disk.Config) {}, "disk": noTail} {
		t.Run(name, func(t *testing.T) {
			j := open(t, vfs.NewMem(), change, keepAll)
			c := openCursor(t, j, "a")
			appendMany(t, j, 0, 20, 300)
			var recs []journal.Record
			for range 12 {
				_, rec, _ := next(t, c)
				recs = append(recs, rec)
			}
			commit := func(p journal.Position) error { return c.Commit(journal.State{Position: p}) }
			require.Equal(t, sumTo(20), c.Lag().Counts, "reading is not committing")
			require.Equal(t, time.UnixMilli(received), c.Lag().Oldest)

			inside := recs[4].Start
			inside.Offset++
			require.ErrorContains(t, commit(inside), "boundary")
			require.ErrorContains(t, commit(j.Tail()), "not between", "the tail was not read yet")
			far := j.Tail()
			far.Segment += 5
			require.ErrorContains(t, commit(far), "not between")

			require.NoError(t, commit(recs[4].End))
			require.Equal(t, sumOf(5, 20), c.Lag().Counts)
			require.Equal(t, int64(15), c.Lag().Records)
			require.Equal(t, time.UnixMilli(received+5), c.Lag().Oldest)
			require.ErrorContains(t, commit(recs[2].End), "not between")

			require.NoError(t, commit(recs[7].Start), "the start of a record is the end of the one before")
			require.Equal(t, sumOf(7, 20), c.Lag().Counts)
			require.NoError(t, commit(recs[7].Start), "committing totals without moving")
			require.NoError(t, commit(c.Read()))
			require.Equal(t, sumOf(12, 20), c.Lag().Counts)
			require.Equal(t, time.UnixMilli(received+12), c.Lag().Oldest)

			require.Equal(t, sequence(12, 20), drain(t, c))
			require.NoError(t, commit(j.Tail()))
			require.Equal(t, journal.Lag{}, c.Lag())
		})
	}
}

func TestCommittedIsACopy(t *testing.T) {
	j := open(t, vfs.NewMem())
	c := openCursor(t, j, "a")
	st := c.Committed()
	st.Totals.Rejected = map[string]series.Counts{"bad": {Samples: 1}}
	require.NoError(t, c.Commit(st))
	st.Totals.Rejected["bad"] = series.Counts{Samples: 2}
	c.Committed().Totals.Rejected["bad"] = series.Counts{Samples: 3}
	require.Equal(t, uint64(1), c.Committed().Totals.Rejected["bad"].Samples)
	st.Totals.Rejected = map[string]series.Counts{string(make([]byte, 20<<10)): {}}
	require.ErrorContains(t, c.Commit(st), "slot")
	require.Equal(t, uint64(1), c.Committed().Totals.Rejected["bad"].Samples)
}

func TestSkip(t *testing.T) {
	for name, change := range map[string]func(*disk.Config){"tail": func(*disk.Config) {}, "disk": noTail} {
		t.Run(name, func(t *testing.T) {
			j := open(t, vfs.NewMem(), change, keepAll)
			c, look := openCursor(t, j, "a"), openCursor(t, j, "look")
			appendMany(t, j, 0, 30, 300)
			var recs []journal.Record
			for range 30 {
				_, rec, _ := next(t, look)
				recs = append(recs, rec)
			}
			next(t, c)
			to := recs[20].Start
			to.Offset -= 3
			lag, err := c.Skip(to)
			require.NoError(t, err)
			require.Equal(t, recs[20].Start, c.Read())
			require.Equal(t, int64(19), lag.Records)
			require.Equal(t, sumOf(1, 20), lag.Counts)
			require.Equal(t, time.UnixMilli(received+1), lag.Oldest)
			require.Equal(t, sumTo(30), c.Lag().Counts)

			lag, err = c.Skip(recs[5].Start)
			require.NoError(t, err)
			require.Equal(t, journal.Lag{}, lag, "never backwards")
			seq, _, _ := next(t, c)
			require.Equal(t, 20, seq)

			require.NoError(t, c.Commit(journal.State{Position: recs[13].Start}), "a boundary inside of what was skipped")
			require.Equal(t, sumOf(13, 30), c.Lag().Counts)
			require.Equal(t, time.UnixMilli(received+13), c.Lag().Oldest)
			inside := recs[15].Start
			inside.Offset += 5
			require.Error(t, c.Commit(journal.State{Position: inside}))
			require.NoError(t, c.Commit(journal.State{Position: recs[20].End}))
			require.Equal(t, sumOf(21, 30), c.Lag().Counts)

			lag, err = c.Skip(journal.Position{Segment: math.MaxUint64})
			require.NoError(t, err)
			require.Equal(t, sumOf(21, 30), lag.Counts)
			require.Equal(t, j.Tail(), c.Read())
			require.NoError(t, c.Commit(journal.State{Position: c.Read()}))
			require.Equal(t, journal.Lag{}, c.Lag())
			appendBatch(t, j, 30, 300)
			require.Equal(t, []int{30}, drain(t, c))
		})
	}
}

func TestPositionAt(t *testing.T) {
	j := open(t, vfs.NewMem(), keepAll)
	c := openCursor(t, j, "a")
	appendMany(t, j, 0, 30, 300)
	var recs []journal.Record
	for {
		_, rec, ok := next(t, c)
		if !ok {
			break
		}
		recs = append(recs, rec)
	}
	require.Equal(t, recs[0].Start, c.PositionAt(0, time.Time{}))
	require.Equal(t, recs[0].Start, c.PositionAt(1<<30, time.UnixMilli(1)))
	for n := range recs {
		require.Equal(t, recs[n].Start, c.PositionAt(0, time.UnixMilli(received+int64(n))), "received with or after %d", n)
		bytes := int64(0)
		for _, rec := range recs[n:] {
			bytes += rec.End.Offset - rec.Start.Offset
		}
		require.Equal(t, recs[n].Start, c.PositionAt(bytes, time.Time{}), "bytes from %d", n)
		require.Equal(t, recs[n].Start, c.PositionAt(bytes+1, time.Time{}))
		require.Equal(t, recs[max(n, 12)].Start, c.PositionAt(bytes, time.UnixMilli(received+12)))
	}
	require.Equal(t, j.Tail(), c.PositionAt(1, time.Time{}))
	require.Equal(t, j.Tail(), c.PositionAt(0, time.UnixMilli(received+1000)))
}

func TestSetBackends(t *testing.T) {
	fs := vfs.NewMem()
	j := open(t, fs)
	appendBatch(t, j, 0, 100)
	c := openCursor(t, j, "b")
	from, err := j.SetBackends([]journal.Backend{{Name: "a"}, {Name: "b"}})
	require.NoError(t, err)
	require.Equal(t, from, j.Tail())
	bad := newBatch(1, 100)
	bad.Routed = []series.Counts{{Samples: 1}}
	require.ErrorContains(t, j.Append(context.Background(), bad), "counted for 1 backends")
	bad.Release()
	for seq := 1; seq < 4; seq++ {
		b := newBatch(seq, 100)
		b.Routed = []series.Counts{{Samples: 100}, {Samples: 5}}
		require.NoError(t, j.Append(context.Background(), b))
		b.Release()
	}
	require.Equal(t, series.Counts{Samples: 15}, c.Lag().Counts)
	_, rec, ok := next(t, c)
	require.True(t, ok)
	require.False(t, rec.Start.Before(from))
	require.Equal(t, series.Counts{Samples: 5}, rec.Counts)
	other := openCursor(t, j, "c")
	require.NoError(t, c.Close())
	require.NoError(t, other.Close())
	require.NoError(t, j.stop())

	j = open(t, fs)
	require.Equal(t, series.Counts{Samples: 15}, openCursor(t, j, "b").Lag().Counts, "counts are in the files")
}

func TestRecount(t *testing.T) {
	for name, change := range map[string]func(*disk.Config){"tail": func(*disk.Config) {}, "disk": noTail} {
		t.Run(name, func(t *testing.T) {
			j := open(t, vfs.NewMem(), change, keepAll)
			_, err := j.SetBackends([]journal.Backend{{Name: "a", Digest: "old"}})
			require.NoError(t, err)
			c := openCursor(t, j, "a")
			appendMany(t, j, 0, 20, 300)
			for range 3 {
				next(t, c)
			}
			commitRead(t, c, 3)
			require.NoError(t, c.Close())
			_, err = j.SetBackends([]journal.Backend{{Name: "a", Digest: "new"}})
			require.NoError(t, err)
			appendMany(t, j, 20, 25, 300)

			c = openCursor(t, j, "a")
			calls := 0
			count := func(b *series.Batch) (series.Counts, error) {
				calls++
				return series.Counts{Samples: uint64(seqOf(t, b))}, nil
			}
			require.NoError(t, c.Recount(context.Background(), count))
			require.Equal(t, 17, calls, "only records of the old list")
			want := func(from, to int) series.Counts {
				var sum series.Counts
				for seq := from; seq < to; seq++ {
					if seq < 20 {
						sum.Add(series.Counts{Samples: uint64(seq)})
					} else {
						sum.Add(countsOf(seq))
					}
				}
				return sum
			}
			require.Equal(t, want(3, 25), c.Lag().Counts)
			seq, rec, _ := next(t, c)
			require.Equal(t, 3, seq)
			require.Equal(t, series.Counts{Samples: 3}, rec.Counts)
			require.NoError(t, c.Commit(journal.State{Position: rec.End}))
			require.Equal(t, want(4, 25), c.Lag().Counts)

			look := openCursor(t, j, "look")
			require.NoError(t, look.Close())
			p := c.PositionAt(0, time.UnixMilli(received+18))
			lag, err := c.Skip(p)
			require.NoError(t, err)
			require.Equal(t, want(4, 18), lag.Counts)
			require.NoError(t, c.Commit(journal.State{Position: c.Read()}))
			require.Equal(t, want(18, 25), c.Lag().Counts)
			for n := 18; n < 25; n++ {
				seq, rec, _ := next(t, c)
				require.Equal(t, n, seq)
				require.Equal(t, want(n, n+1), rec.Counts)
			}
			require.Equal(t, want(18, 25), c.Lag().Counts)
			require.Zero(t, c.Damaged())
			require.NoError(t, c.Close())

			c = openCursor(t, j, "a")
			broken := errors.New("broken")
			require.ErrorIs(t, c.Recount(context.Background(), func(*series.Batch) (series.Counts, error) {
				return series.Counts{}, broken
			}), broken)
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			require.ErrorIs(t, c.Recount(ctx, count), context.Canceled)
		})
	}
}

func TestRecountDoesNothingWhereHeadersFit(t *testing.T) {
	fs := vfs.NewMem()
	list := []journal.Backend{{Name: "a", Digest: "same"}}
	j := open(t, fs)
	_, err := j.SetBackends(list)
	require.NoError(t, err)
	atTail(t, j, "a")
	appendMany(t, j, 0, 10, 300)
	require.NoError(t, j.stop())
	j = open(t, fs)
	_, err = j.SetBackends(append(list, journal.Backend{Name: "b", Digest: "new"}))
	require.NoError(t, err)
	c := openCursor(t, j, "a")
	require.NoError(t, c.Recount(context.Background(), func(*series.Batch) (series.Counts, error) {
		t.Error("counted")
		return series.Counts{}, nil
	}))
	require.Equal(t, sumTo(10), c.Lag().Counts)
}

// What cursors have passed leaves the memory at once, what does not fit is read from
// the disk.
func TestTail(t *testing.T) {
	reg := prometheus.NewRegistry()
	logger := slog.New(slog.DiscardHandler)
	config := testConfig(func(c *disk.Config) { c.TailBytes = 20 * bytesize.KiB })
	d, err := disk.Open(disk.Options{Dir: dir, Config: config, FS: vfs.NewMem(), Logger: logger, Registerer: reg})
	require.NoError(t, err)
	j := run(d)
	defer func() { require.NoError(t, j.stop()) }()
	inMemory := func() float64 { return gauge(t, reg, "sluice_journal_tail_bytes") }

	appendMany(t, j, 0, 5, 500)
	require.Zero(t, inMemory(), "nobody would read it")
	fast, slow := openCursor(t, j, "fast"), openCursor(t, j, "slow")
	appendMany(t, j, 5, 10, 500)
	held := inMemory()
	require.Positive(t, held)
	drain(t, fast)
	require.Equal(t, held, inMemory())
	next(t, slow)
	require.Less(t, inMemory(), held)
	drain(t, slow)
	require.Zero(t, inMemory())

	sent := map[int]*series.Batch{}
	for seq := 10; seq < 60; seq++ {
		sent[seq] = newBatch(seq, 500)
		require.NoError(t, j.Append(context.Background(), sent[seq]))
		defer sent[seq].Release()
	}
	require.LessOrEqual(t, inMemory(), 20.*1024)
	fromMemory := 0
	for seq := 10; seq < 60; seq++ {
		rec, ok, err := slow.Next(context.Background(), false)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, seq, seqOf(t, rec.Batch))
		if rec.Batch == sent[seq] {
			fromMemory++
		} else {
			require.Zero(t, fromMemory, "the newest are in memory")
		}
		rec.Batch.Release()
	}
	require.Positive(t, fromMemory)
	require.Less(t, fromMemory, 50)
	require.NoError(t, fast.Close())
	require.Zero(t, inMemory(), "nobody who is open has to read it")
}
