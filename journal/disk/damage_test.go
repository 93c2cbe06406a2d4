package disk_test

import (
	"fmt"
	iofs "io/fs"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// oneSegment holds eight records in its first segment, of which it returns the
// places. With newer a second segment follows with two more.
func oneSegment(t testing.TB, newer bool) (*vfs.Mem, []journal.Record) {
	t.Helper()
	fs := vfs.NewMem()
	j := open(t, fs, large)
	atTail(t, j, "a")
	look := openCursor(t, j, "look")
	_, err := j.SetBackends([]journal.Backend{{Name: "a", Digest: "1"}})
	require.NoError(t, err)
	appendMany(t, j, 0, 8, 40)
	if newer {
		_, err := j.SetBackends([]journal.Backend{{Name: "a", Digest: "2"}})
		require.NoError(t, err)
		appendMany(t, j, 8, 10, 40)
	}
	var recs []journal.Record
	for {
		_, rec, ok := next(t, look)
		if !ok {
			break
		}
		recs = append(recs, rec)
	}
	require.NoError(t, j.stop())
	return fs, recs
}

func large(c *disk.Config) {
	c.SegmentSize, c.MaxDisk = bytesize.MiB, 8*bytesize.MiB
	c.RetainBehind = 1 << 62
}

// hit is which record a byte of the first segment belongs to, -1 for the header.
func hit(recs []journal.Record, off int64) int {
	for i, rec := range recs {
		if rec.Start.Segment == recs[0].Start.Segment && rec.Start.Offset <= off && off < rec.End.Offset {
			return i
		}
	}
	return -1
}

// One damaged byte costs at most the record it stands in, wherever it is, whether the
// damage comes while the journal runs or before it starts, in the newest segment or an
// older one.
func TestDamagedByte(t *testing.T) {
	for _, newer := range []bool{false, true} {
		for _, live := range []bool{false, true} {
			t.Run(fmt.Sprintf("newer=%t,live=%t", newer, live), func(t *testing.T) {
				t.Parallel()
				base, recs := oneSegment(t, newer)
				path := segmentPath(int(recs[0].Start.Segment))
				for off := range recs[7].End.Offset {
					fs := base.KillClone()
					if !live {
						flip(t, fs, path, off)
					}
					j, err := tryOpen(fs, testConfig(large, noTail))
					require.NoError(t, err)
					if live {
						flip(t, fs, path, off)
					}
					c := openCursor(t, j, "a")
					lag := c.Lag()
					var want []int
					var lost series.Counts
					for seq := range recs {
						if seq == hit(recs, off) {
							lost = countsOf(seq)
							continue
						}
						want = append(want, seq)
					}
					require.Equal(t, want, drain(t, c), "offset %d", off)
					appendBatch(t, j, 100, 40)
					require.Equal(t, []int{100}, drain(t, c), "offset %d", off)
					damaged := c.Damaged()
					if live {
						require.Equal(t, lost, damaged, "offset %d: what the journal knew of it", off)
						require.Equal(t, sumTo(len(recs)), lag.Counts)
					}
					total := lag.Counts
					total.Add(countsOf(100))
					require.Equal(t, total, c.Lag().Counts, "offset %d", off)
					require.NoError(t, c.Commit(journal.State{Position: c.Read()}))
					require.Equal(t, journal.Lag{}, c.Lag())
					require.NoError(t, j.stop())
				}
			})
		}
	}
}

// Damage is logged and counted once, with what is known of it, for all cursors. What a
// record with a damaged header held is known from the sum file of the segment.
func TestDamageIsReportedOnce(t *testing.T) {
	for _, summed := range []bool{true, false} {
		fs, recs := oneSegment(t, true)
		id := int(recs[0].Start.Segment)
		path := segmentPath(id)
		flip(t, fs, path, recs[2].End.Offset-1) // a body
		flip(t, fs, path, recs[5].Start.Offset) // a header
		lost := countsOf(2)
		if summed {
			lost.Add(countsOf(5))
		} else {
			require.NoError(t, fs.Remove(sumPath(id)))
		}
		var lines logged
		reg := prometheus.NewRegistry()
		d, err := disk.Open(disk.Options{Dir: dir, Config: testConfig(large, noTail), FS: fs, Logger: lines.logger(), Registerer: reg})
		require.NoError(t, err)
		j := run(d)
		c := openCursor(t, j, "a")
		require.Equal(t, []int{0, 1, 3, 4, 6, 7, 8, 9}, drain(t, c))
		require.Equal(t, lost, c.Damaged())
		require.Zero(t, c.Damaged())
		require.NoError(t, c.Close())
		require.Equal(t, []int{0, 1, 3, 4, 6, 7, 8, 9}, drain(t, openCursor(t, j, "a")))
		found := lines.containing("damaged record")
		require.Len(t, found, 2)
		require.Contains(t, found[0], path)
		require.Contains(t, found[0], fmt.Sprintf("offset=%d bytes=%d samples=%d", recs[2].Start.Offset, recs[2].End.Offset-recs[2].Start.Offset, countsOf(2).Samples))
		require.Contains(t, found[1], fmt.Sprintf("offset=%d bytes=%d", recs[5].Start.Offset, recs[5].End.Offset-recs[5].Start.Offset))
		require.Equal(t, 2., gauge(t, reg, "sluice_journal_damaged_records_total"))
		require.Equal(t, float64(recs[2].End.Offset-recs[2].Start.Offset+recs[5].End.Offset-recs[5].Start.Offset), gauge(t, reg, "sluice_journal_damaged_bytes_total"))
		require.NoError(t, j.stop())
	}
}

// Commits on both sides of a damaged record are possible, and skipping over it counts
// it.
func TestDamageAndBoundaries(t *testing.T) {
	fs, recs := oneSegment(t, true)
	flip(t, fs, segmentPath(int(recs[0].Start.Segment)), recs[3].End.Offset-1)
	j := open(t, fs, large, noTail)
	c := openCursor(t, j, "a")
	for range 4 {
		next(t, c)
	}
	require.NoError(t, c.Commit(journal.State{Position: recs[2].End}))
	require.Equal(t, sumOf(3, 10), c.Lag().Counts)
	require.Equal(t, time.UnixMilli(received+3), c.Lag().Oldest)
	require.NoError(t, c.Commit(journal.State{Position: recs[3].End}))
	require.Equal(t, sumOf(4, 10), c.Lag().Counts)
	require.NoError(t, c.Close())

	look := openCursor(t, j, "a")
	lag, err := look.Skip(recs[8].Start)
	require.NoError(t, err)
	require.Equal(t, sumOf(4, 8), lag.Counts)
}

// Wherever the newest segment ends, all whole records are there and the rest is cut
// and said so.
func TestTornTail(t *testing.T) {
	base, recs := oneSegment(t, false)
	path := segmentPath(int(recs[0].Start.Segment))
	for size := range recs[7].End.Offset {
		for _, zeros := range []int64{0, 50, 5000} {
			fs := base.KillClone()
			change(t, fs, path, func(f vfs.File) {
				require.NoError(t, f.Truncate(size))
				require.NoError(t, f.Truncate(size+zeros))
			})
			whole := 0
			end := recs[0].Start.Offset
			for whole < len(recs) && recs[whole].End.Offset <= size {
				end = recs[whole].End.Offset
				whole++
			}
			var lines logged
			j, err := tryOpenLogged(fs, testConfig(large), lines.logger())
			require.NoError(t, err)
			c := openCursor(t, j, "a")
			require.Equal(t, sumTo(whole), c.Lag().Counts)
			require.Equal(t, sequence(0, whole), drain(t, c), "size %d", size)
			switch {
			case size < recs[0].Start.Offset/2: // not even one copy of the header
				require.Len(t, lines.containing("not finished"), 1, "size %d zeros %d", size, zeros)
				_, err := fs.Open(path)
				require.ErrorIs(t, err, iofs.ErrNotExist)
			case size+zeros > end:
				require.Len(t, lines.containing("Cut an incomplete record"), 1, "size %d zeros %d", size, zeros)
				require.Contains(t, lines.containing("Cut an incomplete record")[0], fmt.Sprintf("bytes=%d", size+zeros-end))
				require.Len(t, readFile(t, fs, path), int(end))
			}
			appendBatch(t, j, 50, 40)
			require.Equal(t, []int{50}, drain(t, c))
			require.Zero(t, c.Damaged())
			require.NoError(t, j.stop())
			j, err = tryOpen(fs, testConfig(large))
			require.NoError(t, err)
			require.Equal(t, append(sequence(0, whole), 50), drain(t, openCursor(t, j, "a")))
			require.NoError(t, j.stop())
		}
	}
}

// When both copies of a segment's header are gone its records are still read.
func TestSegmentHeaderGone(t *testing.T) {
	for _, newer := range []bool{false, true} {
		fs, recs := oneSegment(t, newer)
		path := segmentPath(int(recs[0].Start.Segment))
		flip(t, fs, path, 1)
		flip(t, fs, path, recs[0].Start.Offset-1)
		var lines logged
		j, err := tryOpenLogged(fs, testConfig(large, noTail), lines.logger())
		require.NoError(t, err)
		require.Len(t, lines.containing("header of a journal segment is damaged"), 1)
		c := openCursor(t, j, "a")
		require.Equal(t, sequence(0, len(recs)), drain(t, c))
		require.NoError(t, j.stop())
	}
}

func TestUnknownFormat(t *testing.T) {
	fs, _ := oneSegment(t, true)
	// The format stands behind the magic; with a fitting CRC it would be a newer
	// version's file. This one is made by hand.
	f, err := fs.Create(segmentPath(77))
	require.NoError(t, err)
	_, err = f.WriteAt(disk.SegmentOfVersion(9), 0)
	require.NoError(t, err)
	_, err = tryOpen(fs, testConfig(large))
	require.ErrorContains(t, err, segmentPath(77))
	require.ErrorContains(t, err, "newer version")
	require.ErrorContains(t, err, "--storage.path")
}

func TestForeignFilesAreLeftAlone(t *testing.T) {
	fs, recs := oneSegment(t, true)
	for _, name := range []string{"/segments/notes.txt", "/segments/1.seg", "/cursors/.x", "/cursors/%zz"} {
		f, err := fs.Create(dir + name)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	var lines logged
	j, err := tryOpenLogged(fs, testConfig(large), lines.logger())
	require.NoError(t, err)
	require.Len(t, lines.containing("left alone"), 4)
	require.Equal(t, sequence(0, len(recs)), drain(t, openCursor(t, j, "a")))
	require.NoError(t, j.stop())
	require.Empty(t, readFile(t, fs, dir+"/segments/notes.txt"))
}

// Each byte of the newest stored state may be damaged: then the one before it holds.
func TestDamagedState(t *testing.T) {
	base, recs := oneSegment(t, true)
	j := open(t, base, large)
	c := openCursor(t, j, "a")
	first := journal.State{Position: recs[2].Start, Totals: journal.Totals{Delivered: sumTo(2)}}
	second := journal.State{Position: recs[5].Start, Totals: journal.Totals{Delivered: sumTo(5)}}
	drain(t, c)
	require.NoError(t, c.Commit(first))
	require.NoError(t, c.Commit(second))
	require.NoError(t, j.stop())

	file := dir + "/cursors/a"
	content := readFile(t, base, file)
	for off := range content {
		fs := base.KillClone()
		flip(t, fs, file, int64(off))
		j, err := disk.Open(disk.Options{Dir: dir, Config: testConfig(large), FS: fs, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		require.Contains(t, []journal.State{first, second}, openCursor(t, j, "a").Committed(), "offset %d", off)
		require.NoError(t, j.Close())
	}

	fs := base.KillClone()
	change(t, fs, file, func(f vfs.File) { require.NoError(t, f.Truncate(7)) })
	var lines logged
	j, err := tryOpenLogged(fs, testConfig(large), lines.logger())
	require.NoError(t, err)
	require.Len(t, lines.containing("Both stored states"), 1)
	c = openCursor(t, j, "a")
	require.Equal(t, j.Tail(), c.Committed().Horizon, "all of it may have been sent")
	require.Equal(t, sequence(0, 10), drain(t, c))
	require.NoError(t, c.Commit(second))
	require.NoError(t, j.stop())
	j, err = tryOpen(fs, testConfig(large))
	require.NoError(t, err)
	require.Equal(t, second, openCursor(t, j, "a").Committed())
	require.NoError(t, j.stop())
}

// Bytes of a record inside of a body are not taken for a record, even when the record
// around them is damaged.
func TestRecordInsideOfABody(t *testing.T) {
	fs, recs := oneSegment(t, true)
	path := segmentPath(int(recs[0].Start.Segment))
	whole := readFile(t, fs, path)
	inner := whole[recs[1].Start.Offset:recs[4].End.Offset]
	j := open(t, fs, large, noTail)
	c := openCursor(t, j, "b")
	buf := series.NewBuffer(len(inner))
	buf.B = append(buf.B, inner...)
	b := series.NewBatch(buf)
	require.NoError(t, j.Append(t.Context(), b))
	b.Release()
	appendBatch(t, j, 60, 40)
	start := j.Tail()
	look := openCursor(t, j, "b2")
	require.Equal(t, start, look.Read())
	outer := c.Read().Segment
	content := readFile(t, fs, segmentPath(int(outer)))
	flip(t, fs, segmentPath(int(outer)), firstRecord(content))
	require.Equal(t, []int{60}, drain(t, c))
}

// firstRecord is where the first record of a segment starts: behind the two copies of
// its header.
func firstRecord(segment []byte) int64 { return disk.HeaderSize(segment) }
