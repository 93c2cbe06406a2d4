package disk_test

import (
	"context"
	"log/slog"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

func segments(t testing.TB, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.List(dir + "/segments")
	require.NoError(t, err)
	return names
}

// diskBytes is the size of all segment files.
func diskBytes(t testing.TB, fs vfs.FS) int64 {
	t.Helper()
	sum := int64(0)
	for _, name := range segments(t, fs) {
		sum += int64(len(readFile(t, fs, dir+"/segments/"+name)))
	}
	return sum
}

// appendNow appends a batch that is received now.
func appendNow(t testing.TB, j journal.Journal, seq, size int) {
	t.Helper()
	b := newBatch(seq, size)
	b.Received = time.Now().UnixMilli()
	require.NoError(t, j.Append(context.Background(), b))
	b.Release()
}

func TestRetainBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		j, err := tryOpen(fs, testConfig(func(c *disk.Config) { c.RetainBehind = model.Duration(5 * time.Minute) }))
		require.NoError(t, err)
		fast, slow := openCursor(t, j, "fast"), openCursor(t, j, "slow")
		for seq := range 20 {
			appendNow(t, j, seq, 500)
		}
		all := len(segments(t, fs))
		require.Greater(t, all, 4)
		drain(t, fast)
		commitRead(t, fast, 20)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.Len(t, segments(t, fs), all, "a slow cursor keeps everything")

		for range 7 {
			next(t, slow)
		}
		commitRead(t, slow, 7)
		synctest.Wait()
		left := segments(t, fs)
		require.Less(t, len(left), all)
		require.Equal(t, segmentPath(int(slow.Committed().Position.Segment)), dir+"/segments/"+left[0])

		for seq := 20; seq < 30; seq++ {
			appendNow(t, j, seq, 500)
		}
		require.NoError(t, fast.Close(), "a cursor that is not open counts too")
		drain(t, slow)
		commitRead(t, slow, 30)
		synctest.Wait()
		require.Equal(t, int(slow.Committed().Position.Segment)-int(fast.Committed().Position.Segment)+1, len(segments(t, fs)))
		_, _, err = j.DropCursor("fast")
		require.NoError(t, err)
		synctest.Wait()
		young := len(segments(t, fs))
		require.Greater(t, young, 1, "younger than retain_behind")
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		require.Len(t, segments(t, fs), young)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Len(t, segments(t, fs), 1, "the newest always stays")
		appendNow(t, j, 30, 500)
		require.Equal(t, []int{30}, drain(t, slow))
		require.NoError(t, j.stop())
	})
}

// The newest segment and the cursors keep the numbers growing over a restart.
func TestNumbersAreNeverUsedTwice(t *testing.T) {
	fs := vfs.NewMem()
	j := open(t, fs, func(c *disk.Config) { c.RetainBehind = 0 })
	c := openCursor(t, j, "a")
	appendMany(t, j, 0, 20, 500)
	drain(t, c)
	commitRead(t, c, 20)
	last := j.Tail()
	require.NoError(t, j.stop())
	for _, name := range segments(t, fs) {
		require.NoError(t, fs.Remove(dir+"/segments/"+name))
	}
	j = open(t, fs)
	c = openCursor(t, j, "a")
	require.True(t, last.Before(j.Tail()))
	appendBatch(t, j, 20, 500)
	require.Equal(t, []int{20}, drain(t, c))
}

func tight(c *disk.Config) { c.MaxDisk = 16 * bytesize.KiB; c.RetainBehind = 1 << 62 }

func TestFullRefuse(t *testing.T) {
	fs := vfs.NewMem()
	var lines logged
	j, err := tryOpenLogged(fs, testConfig(tight), lines.logger())
	require.NoError(t, err)
	c := openCursor(t, j, "a")
	n := 0
	for ; ; n++ {
		require.Less(t, n, 100, "nothing is refused")
		err := tryAppend(j, n, 500)
		require.LessOrEqual(t, diskBytes(t, fs), int64(16<<10))
		if err != nil {
			require.ErrorIs(t, err, journal.ErrFull)
			require.ErrorContains(t, err, "16KiB")
			break
		}
	}
	require.Greater(t, n, 20)
	for range 3 {
		require.ErrorIs(t, tryAppend(j, n, 500), journal.ErrFull)
	}
	require.Len(t, lines.containing("journal is full"), 1)
	require.Zero(t, c.Floor())
	for range 8 {
		next(t, c)
	}
	commitRead(t, c, 8)
	appendBatch(t, j, n, 500)
	require.Len(t, lines.containing("has room again"), 1)
	require.Equal(t, sequence(8, n+1), drain(t, c), "nothing was dropped")
	require.NoError(t, j.stop())
}

// Segments that are only retained go before anything is refused.
func TestFullTakesRetained(t *testing.T) {
	for _, onFull := range []disk.OnFull{disk.OnFullRefuse, disk.OnFullDropOldest} {
		fs := vfs.NewMem()
		j := open(t, fs, tight, func(c *disk.Config) { c.OnFull = onFull })
		c := openCursor(t, j, "a")
		for seq := range 200 {
			appendBatch(t, j, seq, 500)
			require.LessOrEqual(t, diskBytes(t, fs), int64(16<<10))
			got, _, _ := next(t, c)
			require.Equal(t, seq, got)
			commitRead(t, c, seq+1)
			require.Zero(t, c.Floor())
		}
		require.Greater(t, diskBytes(t, fs), int64(8<<10), "they do not go before")
	}
}

func TestFullDropOldest(t *testing.T) {
	fs := vfs.NewMem()
	var lines logged
	j, err := tryOpenLogged(fs, testConfig(tight, func(c *disk.Config) { c.OnFull = disk.OnFullDropOldest }), lines.logger())
	require.NoError(t, err)
	good, bad := openCursor(t, j, "good"), openCursor(t, j, "bad")
	atTail(t, j, "gone")
	given := series.Counts{}
	refused := 0
	seq := 0
	for seq < 200 {
		require.Less(t, refused, 10)
		if err := tryAppend(j, seq, 500); err != nil {
			require.ErrorIs(t, err, journal.ErrFull)
			refused++
		} else {
			got, _, _ := next(t, good)
			require.Equal(t, seq, got)
			commitRead(t, good, seq+1)
			require.Zero(t, good.Floor(), "who keeps up gives nothing up")
			seq++
		}
		require.LessOrEqual(t, diskBytes(t, fs), int64(16<<10))
		if seq < 100 && refused == 0 {
			continue // the exporter does not look yet
		}
		if floor := bad.Floor(); floor != (journal.Position{}) {
			lag, err := bad.Skip(floor)
			require.NoError(t, err)
			given.Add(lag.Counts)
			require.NoError(t, bad.Commit(journal.State{Position: bad.Read(), Totals: journal.Totals{
				GivenUp: map[string]series.Counts{"journal_full": given},
			}}))
			require.Zero(t, bad.Floor())
		}
	}
	require.Equal(t, 1, refused, "only while nobody obeyed")
	total := bad.Committed().Totals.GivenUp["journal_full"]
	total.Add(bad.Lag().Counts)
	require.Equal(t, sumTo(200), total)
	rest := drain(t, bad)
	require.Equal(t, sequence(rest[0], 200), rest)

	require.NotEmpty(t, lines.containing("not in use gave up"))
	gone := openCursor(t, j, "gone")
	st := gone.Committed()
	total = st.Totals.GivenUp["journal_full"]
	total.Add(gone.Lag().Counts)
	require.Equal(t, sumTo(200), total, "what the journal gave up for it is counted")
	rest = drain(t, gone)
	require.Equal(t, sequence(rest[0], 200), rest)
	require.NoError(t, j.stop())

	j = open(t, fs, tight)
	require.Equal(t, st, openCursor(t, j, "gone").Committed())
}

// A cursor that was closed after the floor was raised is moved too.
func TestDropOldestAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		j, err := tryOpen(fs, testConfig(tight, func(c *disk.Config) { c.OnFull = disk.OnFullDropOldest }))
		require.NoError(t, err)
		c := openCursor(t, j, "a")
		seq := 0
		for ; tryAppend(j, seq, 500) == nil; seq++ {
			require.Less(t, seq, 100, "nothing is refused")
		}
		require.NotZero(t, c.Floor())
		require.NoError(t, c.Close())
		synctest.Wait()
		appendBatch(t, j, seq, 500)
		require.NoError(t, j.stop())
	})
}

// A full file system refuses what does not fit, keeps all the rest, and goes on as
// soon as there is room, without leaving files behind.
func TestNoSpace(t *testing.T) {
	for _, mode := range []func(*disk.Config){func(*disk.Config) {}, fsync} {
		mem := vfs.NewMem()
		fs := vfs.NewFaulty(mem)
		var lines logged
		reg := prometheus.NewRegistry()
		d, err := disk.Open(disk.Options{Dir: dir, Config: testConfig(mode), FS: fs, Logger: lines.logger(), Registerer: reg})
		require.NoError(t, err)
		j := run(d)
		c := openCursor(t, j, "a")
		appendMany(t, j, 0, 5, 500)
		fs.Limit(1700)
		n := 5
		for ; ; n++ {
			require.Less(t, n, 100, "nothing is refused")
			if err := tryAppend(j, n, 500); err != nil {
				require.ErrorIs(t, err, syscall.ENOSPC)
				break
			}
		}
		require.Equal(t, 7, n)
		files := len(segments(t, fs))
		for range 10 {
			require.ErrorIs(t, tryAppend(j, n, 500), syscall.ENOSPC)
		}
		require.Len(t, segments(t, fs), files)
		require.Len(t, lines.containing("could not be written"), 1)
		require.Equal(t, 11., gauge(t, reg, "sluice_journal_write_errors_total"))
		require.Equal(t, sequence(0, n), drain(t, c), "delivery goes on")
		fs.Heal()
		appendMany(t, j, n, n+5, 500)
		require.Len(t, lines.containing("can be written again"), 1)
		require.Equal(t, sequence(n, n+5), drain(t, c))
		require.NoError(t, j.stop())
		j2, err := tryOpen(mem, testConfig(mode))
		require.NoError(t, err)
		require.Equal(t, sequence(0, n+5), drain(t, openCursor(t, j2, "a")))
		require.NoError(t, j2.stop())
	}
}

// A full file system first takes what is only retained.
func TestNoSpaceTakesRetained(t *testing.T) {
	fs := vfs.NewFaulty(vfs.NewMem())
	j := open(t, fs, keepAll)
	c := openCursor(t, j, "a")
	appendMany(t, j, 0, 20, 500)
	drain(t, c)
	commitRead(t, c, 20)
	before := len(segments(t, fs))
	fs.Limit(0)
	require.ErrorIs(t, tryAppend(j, 20, 500), syscall.ENOSPC)
	require.Equal(t, before-1, len(segments(t, fs)))
}

// A failed write refuses itself and the rest of its group, not what was whole before
// it, and the next request goes to a new segment.
func TestFailedWriteStartsANewSegment(t *testing.T) {
	for _, mode := range []func(*disk.Config){func(*disk.Config) {}, fsync} {
		synctest.Test(t, func(t *testing.T) {
			mem := vfs.NewMem()
			fs := vfs.NewFaulty(mem)
			d, err := disk.Open(disk.Options{Dir: dir, Config: testConfig(mode, large), FS: fs, Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			c := openCursor(t, d, "a")
			// The first write is the header's.
			fs.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpWrite}, Path: "segments", Nth: 3, Err: syscall.EIO, Partial: 100})
			answers := make([]error, 3)
			for seq := range answers {
				go func() { answers[seq] = tryAppend(d, seq, 300) }()
				synctest.Wait()
			}
			j := run(d)
			synctest.Wait()
			require.NoError(t, answers[0])
			require.ErrorIs(t, answers[1], syscall.EIO)
			require.ErrorIs(t, answers[2], syscall.EIO)
			_, rec, ok := next(t, c)
			require.True(t, ok)
			require.Len(t, readFile(t, mem, segmentPath(1)), int(rec.End.Offset), "what was written of it is cut off")
			appendBatch(t, j, 3, 300)
			require.Equal(t, uint64(2), j.Tail().Segment)
			require.Equal(t, []int{3}, drain(t, c))
			require.NoError(t, j.stop())
		})
	}
}

// What could neither be synced nor cut off does not come back once the next segment
// says where the one before it ends.
func TestUncutGarbage(t *testing.T) {
	mem := vfs.NewMem()
	fs := vfs.NewFaulty(mem)
	c := testConfig(fsync, large)
	j, err := tryOpenLogged(fs, c, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	atTail(t, j, "a")
	appendBatch(t, j, 0, 500)
	fs.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpSync}, Err: syscall.EIO})
	fs.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpTruncate}, Err: syscall.EIO})
	require.ErrorIs(t, tryAppend(j, 1, 500), syscall.EIO)
	require.Greater(t, len(readFile(t, mem, segmentPath(1))), 1000, "it is in the file")
	appendBatch(t, j, 2, 500)
	require.Equal(t, uint64(2), j.Tail().Segment)
	clone := mem.KillClone()
	require.Equal(t, []int{0, 2}, drain(t, openCursor(t, j, "a")))
	require.NoError(t, j.stop())

	j, err = tryOpen(clone, c)
	require.NoError(t, err)
	require.Equal(t, []int{0, 2}, drain(t, openCursor(t, j, "a")))
	require.NoError(t, j.stop())
}

// After a failed sync the same file is never synced again.
func TestNoSyncAfterFailedSync(t *testing.T) {
	mem := vfs.NewMem()
	fs := vfs.NewFaulty(mem)
	j, err := tryOpen(fs, testConfig(fsync, large))
	require.NoError(t, err)
	atTail(t, j, "a")
	appendBatch(t, j, 0, 500)
	fs.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpSync}, Path: segmentPath(1), Forever: true, Err: syscall.EIO})
	require.ErrorIs(t, tryAppend(j, 1, 500), syscall.EIO)
	appendMany(t, j, 2, 5, 500)
	require.Equal(t, []int{0, 2, 3, 4}, drain(t, openCursor(t, j, "a")))
	require.NoError(t, j.stop(), "closing does not sync it either")
}
