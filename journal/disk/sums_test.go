package disk_test

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

func sumPath(id int) string { return fmt.Sprintf("%s/sums/%020d.sum", dir, id) }

// summed is a stopped journal of several segments, the last of them full too, and what
// cursor a lags behind in it; cursor b is in the middle of a segment.
func summed(t *testing.T) (fs *vfs.Mem, lag journal.Lag, read int) {
	t.Helper()
	fs = vfs.NewMem()
	j := open(t, fs, large5, noTail)
	_, err := j.SetBackends([]journal.Backend{{Name: "a"}, {Name: "b"}})
	require.NoError(t, err)
	c := openCursor(t, j, "a")
	b := openCursor(t, j, "b")
	for seq := range 40 {
		batch := newBatch(seq, 500)
		if seq%3 == 0 {
			batch.Routed = []series.Counts{{Samples: 1}, {Histograms: 2}}
		}
		require.NoError(t, j.Append(t.Context(), batch))
		batch.Release()
	}
	for range 12 {
		next(t, b)
	}
	require.NoError(t, b.Commit(journal.State{Position: b.Read()}))
	lag = c.Lag()
	require.NoError(t, j.stop())
	return fs, lag, 12
}

func large5(c *disk.Config) { c.SegmentSize, c.MaxDisk = 5*bytesize.KiB, bytesize.MiB }

// A start reads the header of each segment, and records only of the last one and where
// cursors stand; what it finds is the same.
func TestSums(t *testing.T) {
	fs, lag, read := summed(t)
	all := len(segments(t, fs))
	require.Greater(t, all, 4)
	for name, spoil := range map[string]func(fs vfs.FS, path string){
		"whole":   func(vfs.FS, string) {},
		"missing": func(fs vfs.FS, path string) { require.NoError(t, fs.Remove(path)) },
		"empty": func(fs vfs.FS, path string) {
			change(t, fs, path, func(f vfs.File) { require.NoError(t, f.Truncate(0)) })
		},
		"damaged": func(fs vfs.FS, path string) { flip(t, fs, path, 20) },
		"of another": func(fs vfs.FS, path string) {
			b := readFile(t, fs, sumPath(2))
			if path == sumPath(2) {
				b = readFile(t, fs, sumPath(3))
			}
			change(t, fs, path, func(f vfs.File) {
				require.NoError(t, f.Truncate(0))
				_, err := f.WriteAt(b, 0)
				require.NoError(t, err)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := fs.KillClone()
			for id := 1; id < all; id++ {
				spoil(fs, sumPath(id))
			}
			for range 2 { // the second one with what the first one noted
				j := open(t, fs, large5, noTail)
				c, b := openCursor(t, j, "a"), openCursor(t, j, "b")
				require.Equal(t, lag, c.Lag())
				require.Equal(t, int64(40-read), b.Lag().Records)
				require.Equal(t, sequence(0, 40), drain(t, c))
				require.Equal(t, sequence(read, 40), drain(t, b))
				require.Zero(t, c.Damaged())
				require.Zero(t, b.Damaged())
				require.NoError(t, j.stop())
			}
		})
	}
}

// With a sum, a start looks at nothing but the header of a segment, so that a bad place in
// it does not matter either.
func TestSumsSpareReads(t *testing.T) {
	conf := testConfig(noTail, keepAll, func(c *disk.Config) { c.SegmentSize, c.MaxDisk = 64<<10, bytesize.MiB })
	for _, summed := range []bool{true, false} {
		bad := &badDisk{FS: vfs.NewMem(), path: segmentPath(1), from: 30 << 10, to: 60 << 10}
		j, err := tryOpen(bad, conf)
		require.NoError(t, err)
		atTail(t, j, "a")
		appendMany(t, j, 0, 9, 20<<10)
		require.NoError(t, j.stop())
		if !summed {
			require.NoError(t, bad.Remove(sumPath(1)))
		}
		j, err = tryOpen(bad, conf)
		if !summed {
			require.ErrorIs(t, err, syscall.EIO)
			continue
		}
		require.NoError(t, err)
		c := openCursor(t, j, "a")
		require.Equal(t, sumTo(9), c.Lag().Counts)
		require.NoError(t, j.stop())
	}
}

// Sums go with their segments, also where these were removed by others.
func TestSumsGo(t *testing.T) {
	fs, _, _ := summed(t)
	require.NoError(t, fs.Remove(segmentPath(1)))
	j := open(t, fs, large5, func(c *disk.Config) { c.RetainBehind = 0 })
	require.NotContains(t, sums(t, fs), path.Base(sumPath(1)))
	for _, name := range []string{"a", "b"} {
		c := openCursor(t, j, name)
		drain(t, c)
		commitRead(t, c, 40)
	}
	appendMany(t, j, 40, 60, 500)
	require.NoError(t, j.stop())
	for _, name := range sums(t, fs) {
		require.Contains(t, segments(t, fs), strings.TrimSuffix(name, "sum")+"seg")
	}
}

func sums(t *testing.T, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.List(dir + "/sums")
	require.NoError(t, err)
	return names
}

// A sum that cannot be written, read or removed costs time at the next start, and nothing
// else.
func TestSumsFail(t *testing.T) {
	fs := vfs.NewFaulty(vfs.NewMem())
	fs.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpCreate, vfs.OpOpen, vfs.OpWrite, vfs.OpRead, vfs.OpRemove, vfs.OpTruncate}, Path: "/sums/", Forever: true, Err: syscall.EIO})
	for n := range 3 {
		j := open(t, fs)
		c := openCursor(t, j, "a")
		appendMany(t, j, 20*n, 20*n+20, 500)
		require.Equal(t, sequence(20*n, 20*n+20), drain(t, c))
		commitRead(t, c, 20*n+20)
		require.NoError(t, j.stop())
	}
}

// A record whose header was damaged while nobody ran is given up by who has still to pass
// it, once, and not by who has: what is in the journal is what is read and what is lost.
func TestSumsAndDamage(t *testing.T) {
	for _, at := range []int{5, 9, 11, 12, 15, 30} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			fs, _, read := summed(t)
			j := open(t, fs, large5, noTail)
			_, recs := reread(t, openReader(t, j, "b", journal.Position{}))
			require.NoError(t, j.stop())
			p := recs[at].Start
			flip(t, fs, segmentPath(int(p.Segment)), p.Offset)
			for n := range 2 {
				j = open(t, fs, large5, noTail)
				b := openCursor(t, j, "b")
				lag := b.Lag()
				seqs := drain(t, b)
				require.Equal(t, slices.DeleteFunc(sequence(read, 40), func(seq int) bool { return seq == at }), seqs)
				sum := b.Damaged()
				require.Equal(t, at == 30 && n == 0, !sum.Zero(), "it is told where that is known, and only once")
				for _, seq := range seqs {
					sum.Add(recs[seq].Counts)
				}
				require.Equal(t, lag.Counts, sum)
				require.NoError(t, j.stop())
			}
		})
	}
}
