package disk_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

func openReader(t testing.TB, j journal.Journal, name string, from journal.Position) journal.Reader {
	t.Helper()
	r, err := j.OpenReader(name, from)
	require.NoError(t, err)
	return r
}

// reread reads to the tail.
func reread(t testing.TB, r journal.Reader) (seqs []int, recs []journal.Record) {
	t.Helper()
	for {
		rec, ok, err := r.Next()
		require.NoError(t, err)
		if !ok {
			return seqs, recs
		}
		seqs, recs = append(seqs, seqOf(t, rec.Batch)), append(recs, rec)
		rec.Batch.Release()
	}
}

// A reader gives every record from any position on, whether tail, id log or disk has it,
// and leaves cursors as they are.
func TestReader(t *testing.T) {
	for name, tail := range map[string]bytesize.Size{"from the disk": 0, "some in memory": 8 << 10, "all in memory": bytesize.MiB} {
		t.Run(name, func(t *testing.T) {
			j := open(t, vfs.NewMem(), keepAll, func(c *disk.Config) { c.TailBytes = tail })
			empty := openReader(t, j, "a", journal.Position{})
			_, ok, err := empty.Next()
			require.NoError(t, err)
			require.False(t, ok)
			require.Equal(t, j.Tail(), j.Oldest())

			c := openCursor(t, j, "a")
			appendMany(t, j, 0, 40, 300)
			seqs, recs := reread(t, empty)
			require.Equal(t, sequence(0, 40), seqs)
			require.Equal(t, recs[39].End, empty.Position())
			require.Equal(t, recs[0].Start, j.Oldest())
			for i, rec := range recs {
				require.Equal(t, countsOf(i), rec.Counts)
				r := openReader(t, j, "a", rec.Start)
				seqs, _ := reread(t, r)
				require.Equal(t, sequence(i, 40), seqs)
				require.NoError(t, r.Close())
				r = openReader(t, j, "a", rec.End)
				seqs, _ = reread(t, r)
				require.Equal(t, sequence(i+1, 40), seqs)
				require.NoError(t, r.Close())
			}
			require.Zero(t, c.Committed().Totals)
			require.Equal(t, int64(40), c.Lag().Records)
			require.Equal(t, sequence(0, 40), drain(t, c))

			appendBatch(t, j, 40, 300)
			seqs, _ = reread(t, empty)
			require.Equal(t, []int{40}, seqs, "it goes on where it was")
			require.Zero(t, empty.Damaged())
			require.NoError(t, empty.Close())
			_, _, err = empty.Next()
			require.ErrorIs(t, err, journal.ErrClosed)
			require.NoError(t, empty.Close())
			open := openReader(t, j, "a", journal.Position{})
			require.NoError(t, j.stop())
			_, _, err = open.Next()
			require.ErrorIs(t, err, journal.ErrClosed)
			_, err = j.OpenReader("a", journal.Position{})
			require.ErrorIs(t, err, journal.ErrClosed)
		})
	}
}

// Counts are those of the backend by the list of the segment, also for one without a
// cursor.
func TestReaderCounts(t *testing.T) {
	j := open(t, vfs.NewMem(), keepAll, noTail)
	routed := func(seq int, counts ...series.Counts) {
		b := newBatch(seq, 100)
		b.Routed = counts
		require.NoError(t, j.Append(t.Context(), b))
		b.Release()
	}
	one, two := series.Counts{Samples: 1}, series.Counts{Samples: 2}
	list := func(names ...string) {
		var l []journal.Backend
		for _, n := range names {
			l = append(l, journal.Backend{Name: n})
		}
		_, err := j.SetBackends(l)
		require.NoError(t, err)
	}
	list("a", "b")
	routed(0, one, two)
	appendBatch(t, j, 1, 100)
	list("b")
	routed(2, one)
	for name, want := range map[string][]series.Counts{
		"a": {one, countsOf(1), {}},
		"b": {two, countsOf(1), one},
		"c": {{}, countsOf(1), {}},
	} {
		_, recs := reread(t, openReader(t, j, name, journal.Position{}))
		for i, rec := range recs {
			require.Equal(t, want[i], rec.Counts, "backend %s, record %d", name, i)
		}
	}
}

// Ids come from the tail and the id log, and stay in use until the reader is done with
// them, wherever they came from. A reader keeps nothing in the tail.
func TestReaderHoldsIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, err := tryOpen(vfs.NewMem(), testConfig(keepAll, func(c *disk.Config) { c.TailBytes = 4 << 10 }))
		require.NoError(t, err)
		c := openCursor(t, j, "a")
		start := time.Now()
		for seq := range 20 {
			appendNow(t, j, seq, 300)
			time.Sleep(time.Minute)
		}
		r := openReader(t, j, "a", journal.Position{})
		_, recs := reread(t, r)
		for _, rec := range recs {
			require.Len(t, rec.Batch.IDs, rec.Batch.Series, "the cursor keeps them known")
		}
		oldest := func() time.Time {
			ms, ok := j.IDsOldest()
			require.True(t, ok)
			return time.UnixMilli(ms)
		}
		require.Equal(t, start.UnixMilli(), oldest().UnixMilli())
		drain(t, c)
		commitRead(t, c, 20)
		require.Equal(t, start.UnixMilli(), oldest().UnixMilli(), "the reader is not done")
		r.Done(recs[7].Start)
		require.Equal(t, start.Add(7*time.Minute).UnixMilli(), oldest().UnixMilli())
		r.Done(recs[3].Start)
		require.Equal(t, start.Add(7*time.Minute).UnixMilli(), oldest().UnixMilli())
		r.Done(recs[19].End)
		_, ok := j.IDsOldest()
		require.False(t, ok)

		late := openReader(t, j, "a", recs[5].Start)
		began := time.Now()
		_, again := reread(t, late)
		require.Len(t, again, 15)
		for _, rec := range again {
			require.Nil(t, rec.Batch.IDs)
		}
		time.Sleep(time.Hour)
		require.Equal(t, began.UnixMilli(), oldest().UnixMilli(), "the caller may have looked them up then")
		require.NoError(t, late.Close())
		_, ok = j.IDsOldest()
		require.False(t, ok, "closed is done")
		require.NoError(t, j.stop())
	})
}

// A reader that is overtaken by the removal of segments says so once and goes on, also
// when that was before a restart; one that had read all of it does not.
func TestReaderGone(t *testing.T) {
	fs := vfs.NewMem()
	j := open(t, fs, tight)
	c := openCursor(t, j, "a")
	slow, whole := openReader(t, j, "a", journal.Position{}), openReader(t, j, "a", journal.Position{})
	appendMany(t, j, 0, 20, 500)
	_, recs := reread(t, whole)
	rec, ok, err := slow.Next()
	require.NoError(t, err)
	require.True(t, ok)
	rec.Batch.Release()
	drain(t, c)
	commitRead(t, c, 20)
	appendMany(t, j, 20, 30, 500)
	require.NotEqual(t, recs[0].Start, j.Oldest(), "segments had to go")

	check := func(r journal.Reader, from journal.Position) {
		t.Helper()
		oldest := j.Oldest()
		_, ok, err = r.Next()
		var gone *journal.GoneError
		require.ErrorAs(t, err, &gone)
		require.ErrorContains(t, err, from.String())
		require.Equal(t, journal.GoneError{From: from, To: oldest}, *gone)
		require.False(t, ok)
		require.Equal(t, oldest, r.Position())
		seqs, _ := reread(t, r)
		require.Equal(t, sequence(seqs[0], 30), seqs)
		require.Zero(t, r.Damaged())
	}
	check(slow, recs[0].End)
	check(openReader(t, j, "a", recs[2].Start), recs[2].Start)
	seqs, _ := reread(t, whole)
	require.Equal(t, sequence(20, 30), seqs)
	// The boundary itself is not before what is gone.
	first := 0
	for recs[first].Start.Before(j.Oldest()) {
		first++
	}
	require.NoError(t, j.stop())

	j = open(t, fs, tight)
	check(openReader(t, j, "a", recs[2].Start), recs[2].Start)
	for _, from := range []journal.Position{{}, recs[first].Start, recs[first-1].End} {
		seqs, _ = reread(t, openReader(t, j, "a", from))
		require.Equal(t, sequence(first, 30), seqs)
	}
}

// A reader steps over each damaged byte as a cursor does, and says what that cost.
func TestReaderDamage(t *testing.T) {
	base, recs := oneSegment(t, true)
	path := segmentPath(int(recs[0].Start.Segment))
	for off := recs[0].Start.Offset; off < int64(len(readFile(t, base, path))); off += 3 {
		fs := base.KillClone()
		j, err := disk.Open(disk.Options{Dir: dir, Config: testConfig(large), FS: fs, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		flip(t, fs, path, off)
		i := hit(recs, off)
		r := openReader(t, j, "a", recs[0].Start)
		seqs, _ := reread(t, r)
		require.Equal(t, append(sequence(0, i), sequence(i+1, len(recs))...), seqs, "offset %d", off)
		if got := r.Damaged(); got != (series.Counts{}) {
			require.Equal(t, countsOf(i), got)
		}
		require.Zero(t, r.Damaged())
		require.NoError(t, j.Close())
	}
}

// badDisk fails to read a range of a file, or to open it where the range is empty.
type badDisk struct {
	vfs.FS
	path     string
	from, to int64
}

type badFile struct {
	vfs.File
	disk *badDisk
}

func (d *badDisk) Open(path string) (vfs.File, error) {
	f, err := d.FS.Open(path)
	if err != nil || path != d.path {
		return f, err
	}
	if d.from == d.to {
		return nil, errors.Join(f.Close(), syscall.EIO)
	}
	return &badFile{f, d}, nil
}

func (f *badFile) ReadAt(b []byte, off int64) (int, error) {
	if off >= f.disk.to || off+int64(len(b)) <= f.disk.from {
		return f.File.ReadAt(b, off)
	}
	n, err := f.File.ReadAt(b[:max(f.disk.from-off, 0)], off)
	return n, errors.Join(err, syscall.EIO)
}

// Where the disk fails to give something, Next says so again and again, and StepOver gives
// up no more than has to be: the record, or what is left of the segment.
func TestStepOver(t *testing.T) {
	for name, c := range map[string]struct {
		bad  func(first, second journal.Record) (from, to int64)
		lost []int
	}{
		"body":             {func(_, r journal.Record) (int64, int64) { return r.End.Offset - 200, r.End.Offset - 100 }, []int{1}},
		"body, near start": {func(_, r journal.Record) (int64, int64) { return r.Start.Offset + 200, r.Start.Offset + 300 }, []int{1}},
		"header":           {func(_, r journal.Record) (int64, int64) { return r.Start.Offset + 9, r.Start.Offset + 10 }, []int{1, 2}},
		"first header":     {func(r, _ journal.Record) (int64, int64) { return r.Start.Offset, r.Start.Offset + 10 }, []int{0, 1, 2}},
		"open":             {func(_, _ journal.Record) (int64, int64) { return 0, 0 }, []int{0, 1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			bad := &badDisk{FS: vfs.NewMem()}
			var lines logged
			conf := testConfig(noTail, keepAll, func(c *disk.Config) { c.SegmentSize, c.MaxDisk = 64<<10, bytesize.MiB })
			j, err := tryOpenLogged(bad, conf, lines.logger())
			require.NoError(t, err)
			cursor := openCursor(t, j, "a")
			appendMany(t, j, 0, 9, 20<<10)
			_, recs := reread(t, openReader(t, j, "a", journal.Position{}))
			require.Equal(t, recs[0].Start.Segment, recs[2].Start.Segment)
			require.NotEqual(t, recs[0].Start.Segment, recs[3].Start.Segment)
			reader := openReader(t, j, "a", journal.Position{})
			bad.from, bad.to = c.bad(recs[0], recs[1])
			bad.path = segmentPath(int(recs[0].Start.Segment))

			var want []int
			var lost series.Counts
			for seq := range recs {
				if len(c.lost) > 0 && seq >= c.lost[0] && seq <= c.lost[len(c.lost)-1] {
					lost.Add(countsOf(seq))
				} else {
					want = append(want, seq)
				}
			}
			for who, x := range map[string]struct {
				next     func() (journal.Record, bool, error)
				stepOver func() error
				damaged  func() series.Counts
			}{
				"cursor": {func() (journal.Record, bool, error) { return cursor.Next(t.Context(), false) }, cursor.StepOver, cursor.Damaged},
				"reader": {reader.Next, reader.StepOver, reader.Damaged},
			} {
				var seqs []int
				for failures := 0; ; {
					rec, ok, err := x.next()
					if err != nil {
						require.ErrorIs(t, err, syscall.EIO, who)
						require.Equal(t, c.lost[0], len(seqs), who)
						if failures++; failures == 3 {
							require.NoError(t, x.stepOver())
						}
						require.LessOrEqual(t, failures, 3)
						continue
					}
					if !ok {
						require.Equal(t, 3, failures)
						break
					}
					seqs = append(seqs, seqOf(t, rec.Batch))
					rec.Batch.Release()
					if len(seqs) != c.lost[0] {
						require.NoError(t, x.stepOver(), "nothing to step over")
					}
				}
				require.Equal(t, want, seqs, who)
				require.Equal(t, lost, x.damaged(), who)
			}
			require.Len(t, lines.containing("Stepped over"), 1)
			require.Len(t, lines.containing("input/output error"), 1)
			late := openReader(t, j, "a", recs[2].Start)
			_, _, err = late.Next()
			if from, to := bad.from, bad.to; from == to {
				require.ErrorIs(t, err, syscall.EIO, "a reader is opened all the same")
				require.NoError(t, late.StepOver())
				seqs, _ := reread(t, late)
				require.Equal(t, sequence(3, 9), seqs)
			}
			require.NoError(t, late.Close())
			require.Equal(t, sumTo(9), cursor.Lag().Counts, "nothing is committed yet")
			commitRead(t, cursor, 9)
			require.Zero(t, cursor.Lag())
			require.NoError(t, j.stop())
		})
	}
}

// A whole segment is given up by a cursor also when its file cannot be read.
func TestSkipUnreadable(t *testing.T) {
	fs := vfs.NewFaulty(vfs.NewMem())
	j := open(t, fs, noTail)
	c := openCursor(t, j, "a")
	appendMany(t, j, 0, 20, 500)
	_, recs := reread(t, openReader(t, j, "a", journal.Position{}))
	first := recs[0].Start.Segment
	fs.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpRead, vfs.OpOpen}, Path: segmentPath(int(first)), Err: syscall.EIO, Forever: true})
	_, err := c.Skip(recs[1].Start)
	require.ErrorIs(t, err, syscall.EIO)
	lag, err := c.Skip(journal.Position{Segment: first + 1})
	require.NoError(t, err)
	n := int(lag.Records)
	require.Positive(t, n)
	require.Equal(t, sumTo(n), lag.Counts)
	require.Equal(t, received, lag.Oldest.UnixMilli())
	require.Equal(t, sequence(n, 20), drain(t, c))
	commitRead(t, c, 20)
	require.Zero(t, c.Lag())
}

// concurrentRecords is how many records TestReadersConcurrent appends.
const concurrentRecords = 1000

// Readers go on while records are appended, committed, given up, retained and removed.
// Each sees every record, in order, but those that it is told are gone.
func TestReadersConcurrent(t *testing.T) {
	const readers = 4
	for _, onFull := range []disk.OnFull{disk.OnFullRefuse, disk.OnFullDropOldest} {
		j := open(t, vfs.NewMem(), func(c *disk.Config) {
			c.OnFull, c.MaxDisk, c.RetainBehind, c.TailBytes = onFull, 24<<10, 0, 8<<10
		})
		ctx := within(t, time.Minute)
		c := openCursor(t, j, "a")
		var work sync.WaitGroup
		work.Go(func() {
			for seq := 0; seq < concurrentRecords; {
				switch err := tryAppend(j, seq, 300); {
				case err == nil:
					seq++
				case !errors.Is(err, journal.ErrFull):
					t.Error(err)
					return
				}
			}
		})
		work.Go(func() {
			for n := 0; n < concurrentRecords; n++ {
				rec, ok, err := c.Next(ctx, true)
				if err != nil || !ok {
					t.Error("cursor", err)
					return
				}
				seq, err := identify(rec.Batch)
				rec.Batch.Release()
				if err != nil {
					t.Error(err)
					return
				}
				n = seq
				if err := c.Commit(journal.State{Position: rec.End}); err != nil {
					t.Error(err)
					return
				}
				if to := c.Floor(); to != (journal.Position{}) {
					if _, err := c.Skip(to); err != nil {
						t.Error(err)
						return
					}
				}
				j.IDsOldest()
			}
		})
		for k := range readers {
			r := openReader(t, j, "a", journal.Position{})
			work.Go(func() { readAlong(ctx, t, j, r, uint64(k)) })
		}
		work.Wait()
		require.NoError(t, j.stop())
	}
}

// readAlong is reader k, which reads until the last record was there.
func readAlong(ctx context.Context, t *testing.T, j *running, r journal.Reader, k uint64) {
	rng := rand.New(rand.NewPCG(k, 11))
	owner := fmt.Sprint("owner ", k)
	defer j.Retain(owner, journal.Position{})
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	last, lost := -1, false
	for last < concurrentRecords-1 && ctx.Err() == nil {
		rec, ok, err := r.Next()
		var gone *journal.GoneError
		switch {
		case errors.As(err, &gone):
			if !gone.From.Before(gone.To) {
				t.Errorf("gone from %s to %s", gone.From, gone.To)
			}
			lost = true
			continue
		case err != nil:
			t.Error(err)
			return
		case !ok:
			continue
		}
		seq, err := identify(rec.Batch)
		rec.Batch.Release()
		if err != nil || seq <= last || seq != last+1 && !lost {
			t.Errorf("reader %d: record %d after %d, told of a loss %v: %v", k, seq, last, lost, err)
			return
		}
		last, lost = seq, false
		switch rng.IntN(6) {
		case 0:
			r.Done(rec.Start)
		case 1:
			j.Retain(owner, rec.End)
		case 2:
			j.Oldest()
		}
	}
	if last != concurrentRecords-1 {
		t.Errorf("reader %d ended at record %d", k, last)
	}
}
