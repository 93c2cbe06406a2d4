package disk_test

import (
	"log/slog"
	"math"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

var errRemove = syscall.EACCES

// Segments that somebody retains stay although all cursors have passed them, until he
// moves on.
func TestRetain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		reg := prometheus.NewRegistry()
		conf := testConfig(func(c *disk.Config) { c.RetainBehind = model.Duration(time.Minute) })
		d, err := disk.Open(disk.Options{Dir: dir, Config: conf, FS: fs, Logger: slog.New(slog.DiscardHandler), Registerer: reg})
		require.NoError(t, err)
		j := run(d)
		c := openCursor(t, j, "a")
		for seq := range 30 {
			appendNow(t, j, seq, 500)
		}
		_, recs := reread(t, openReader(t, j, "a", journal.Position{}))
		j.Retain("x", recs[4].Start)
		j.Retain("y", recs[20].Start)
		drain(t, c)
		commitRead(t, c, 30)
		require.Zero(t, gauge(t, reg, "sluice_journal_retained_bytes"), "they are younger than retain_behind")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		oldest := func() int { return int(j.Oldest().Segment) }
		require.Equal(t, int(recs[4].Start.Segment), oldest())
		newest := readFile(t, fs, segmentPath(int(recs[29].Start.Segment)))
		require.Equal(t, float64(diskBytes(t, fs)-int64(len(newest))), gauge(t, reg, "sluice_journal_retained_bytes"))
		seqs, _ := reread(t, openReader(t, j, "a", recs[4].Start))
		require.Equal(t, sequence(4, 30), seqs)

		j.Retain("x", recs[9].Start)
		synctest.Wait()
		require.Equal(t, int(recs[9].Start.Segment), oldest())
		j.Retain("x", journal.Position{})
		synctest.Wait()
		require.Equal(t, int(recs[20].Start.Segment), oldest())
		j.Retain("y", recs[29].End)
		synctest.Wait()
		require.Len(t, segments(t, fs), 1)
		require.Zero(t, gauge(t, reg, "sluice_journal_retained_bytes"))
		require.NoError(t, j.stop())
	})
}

// What is retained by Options holds from the start, before anybody could call Retain.
func TestRetainAtOpen(t *testing.T) {
	for _, retained := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			fs := vfs.NewMem()
			j, err := tryOpen(fs, testConfig(keepAll))
			require.NoError(t, err)
			c := openCursor(t, j, "a")
			for seq := range 20 {
				appendNow(t, j, seq, 500)
			}
			_, recs := reread(t, openReader(t, j, "a", journal.Position{}))
			drain(t, c)
			commitRead(t, c, 20)
			require.NoError(t, j.stop())

			o := disk.Options{Dir: dir, Config: testConfig(func(c *disk.Config) { c.RetainBehind = 0 }), FS: fs, Logger: slog.New(slog.DiscardHandler)}
			if retained {
				o.Retain = map[string]journal.Position{"x": recs[6].Start}
			}
			d, err := disk.Open(o)
			require.NoError(t, err)
			j = run(d)
			time.Sleep(time.Minute)
			synctest.Wait()
			r := openReader(t, j, "a", recs[6].Start)
			if retained {
				seqs, _ := reread(t, r)
				require.Equal(t, sequence(6, 20), seqs)
			} else {
				_, _, err := r.Next()
				var gone *journal.GoneError
				require.ErrorAs(t, err, &gone)
			}
			require.NoError(t, j.stop())
		})
	}
}

// When the budget binds, what is retained goes first, the oldest of it, and nothing is
// refused or given up by a cursor for its sake. It is logged once for each owner.
func TestFullTakesRetainedByOwners(t *testing.T) {
	for _, onFull := range []disk.OnFull{disk.OnFullRefuse, disk.OnFullDropOldest} {
		t.Run(string(onFull), func(t *testing.T) {
			fs := vfs.NewMem()
			var lines logged
			j, err := tryOpenLogged(fs, testConfig(tight, func(c *disk.Config) { c.OnFull, c.RetainBehind = onFull, 0 }), lines.logger())
			require.NoError(t, err)
			c := openCursor(t, j, "a")
			j.Retain("x", j.Oldest())
			for seq := range 100 {
				appendBatch(t, j, seq, 500)
				require.LessOrEqual(t, diskBytes(t, fs), int64(16<<10))
				got, _, _ := next(t, c)
				require.Equal(t, seq, got)
				commitRead(t, c, seq+1)
				require.Zero(t, c.Floor())
			}
			require.Greater(t, diskBytes(t, fs), int64(8<<10), "as long as there is room it stays")
			require.Len(t, lines.containing("owner=x"), 1)
			seqs, _ := reread(t, openReader(t, j, "a", j.Oldest()))
			require.Equal(t, sequence(seqs[0], 100), seqs)

			j.Retain("x", j.Oldest())
			appendMany(t, j, 100, 120, 500)
			drain(t, c)
			commitRead(t, c, 120)
			appendMany(t, j, 120, 140, 500)
			require.Len(t, lines.containing("owner=x"), 2, "again, after the owner knew and moved on")
			require.NoError(t, j.stop())
		})
	}
}

// A segment whose file cannot be removed stays part of the journal for readers.
func TestRetainedStaysWhenRemovalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewFaulty(vfs.NewMem())
		j, err := tryOpen(fs, testConfig(func(c *disk.Config) { c.RetainBehind = 0 }))
		require.NoError(t, err)
		c := openCursor(t, j, "a")
		for seq := range 20 {
			appendNow(t, j, seq, 500)
		}
		oldest := j.Oldest()
		fs.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpRemove}, Err: errRemove, Forever: true})
		drain(t, c)
		commitRead(t, c, 20)
		synctest.Wait()
		require.Equal(t, oldest, j.Oldest())
		seqs, _ := reread(t, openReader(t, j, "a", oldest))
		require.Equal(t, sequence(0, 20), seqs)
		fs.Heal()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.NotEqual(t, oldest, j.Oldest())
		require.NoError(t, j.stop())
	})
}

// A cursor is told when it is to give something up, also when that was so before it was
// opened.
func TestFloorRaised(t *testing.T) {
	fs := vfs.NewMem()
	j := open(t, fs, tight, func(c *disk.Config) { c.OnFull = disk.OnFullDropOldest })
	c := openCursor(t, j, "a")
	told := func() bool {
		select {
		case <-c.FloorRaised():
			return true
		default:
			return false
		}
	}
	for seq := 0; c.Floor() == (journal.Position{}); seq++ {
		require.Less(t, seq, 100)
		require.False(t, told())
		appendBatch(t, j, seq, 500)
	}
	require.True(t, told())
	require.False(t, told())
	require.NoError(t, c.Close())
}

// The journal's PositionAt is that of cursors.
func TestJournalPositionAt(t *testing.T) {
	j := open(t, vfs.NewMem(), keepAll)
	require.Equal(t, j.Tail(), j.PositionAt(time.Time{}))
	appendMany(t, j, 0, 20, 500)
	_, recs := reread(t, openReader(t, j, "a", journal.Position{}))
	require.Equal(t, recs[0].Start, j.PositionAt(time.Time{}))
	for i, rec := range recs {
		require.Equal(t, rec.Start, j.PositionAt(time.UnixMilli(received+int64(i))))
	}
	require.Equal(t, j.Tail(), j.PositionAt(time.UnixMilli(received+20)))
}

// A state with all that is counted, under many reasons and with the largest numbers, fits
// into its slot.
func TestLargeStateFits(t *testing.T) {
	most := series.Counts{Samples: math.MaxUint64, Histograms: math.MaxUint64, Exemplars: math.MaxUint64}
	far := journal.Position{Segment: math.MaxUint64 - 1, Offset: math.MaxInt64}
	st := journal.State{Horizon: far, Restore: journal.Restore{Position: far, Horizon: far}}
	st.Totals = journal.Totals{
		Delivered: most, Redelivered: most, Withheld: most, Restored: most,
		Rejected: map[string]series.Counts{}, GivenUp: map[string]series.Counts{},
	}
	for i := range 50 {
		reason := "a_reason_as_long_as_they_come_" + string(rune('A'+i))
		st.Totals.Rejected[reason], st.Totals.GivenUp[reason] = most, most
	}
	fs := vfs.NewMem()
	j := open(t, fs)
	c := openCursor(t, j, "a")
	st.Position = c.Read()
	require.NoError(t, c.Commit(st))
	require.NoError(t, j.stop())
	j = open(t, fs)
	require.Equal(t, st, openCursor(t, j, "a").Committed())
}
