package disk_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

const dir = "/data"

// received is when batch 0 was received, Unix ms.
const received = int64(1_700_000_000_000)

func testConfig(change ...func(*disk.Config)) disk.Config {
	c := disk.DefaultConfig()
	c.SegmentSize = 2 * bytesize.KiB
	c.MaxDisk = bytesize.MiB
	for _, f := range change {
		f(&c)
	}
	return c
}

func fsync(c *disk.Config) { c.Durability = disk.DurabilityFsync }

// noTail makes cursors read everything from the files.
func noTail(c *disk.Config) { c.TailBytes = 0 }

// keepAll keeps segments that all have passed, in spite of the age of the batches.
func keepAll(c *disk.Config) { c.RetainBehind = math.MaxInt64 }

// running is a journal with its Run.
type running struct {
	*disk.Journal
	cancel context.CancelFunc
	ended  chan error
}

func tryOpen(fs vfs.FS, c disk.Config) (*running, error) {
	return tryOpenLogged(fs, c, slog.New(slog.DiscardHandler))
}

func tryOpenLogged(fs vfs.FS, c disk.Config, logger *slog.Logger) (*running, error) {
	j, err := disk.Open(disk.Options{Dir: dir, Config: c, FS: fs, Logger: logger})
	if err != nil {
		return nil, err
	}
	return run(j), nil
}

func run(j *disk.Journal) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Journal: j, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- j.Run(ctx) }()
	return r
}

// stop ends Run and closes the journal.
func (r *running) stop() error {
	r.cancel()
	if err := <-r.ended; err != nil {
		return err
	}
	return r.Close()
}

func open(t testing.TB, fs vfs.FS, change ...func(*disk.Config)) *running {
	t.Helper()
	r, err := tryOpen(fs, testConfig(change...))
	require.NoError(t, err)
	t.Cleanup(func() {
		r.cancel()
		_ = r.Close()
	})
	return r
}

func openCursor(t testing.TB, j journal.Journal, name string) journal.Cursor {
	t.Helper()
	c, err := j.OpenCursor(name)
	require.NoError(t, err)
	return c
}

// newBatch returns a batch that says in its body who it is.
func newBatch(seq, size int) *series.Batch {
	buf := series.NewBuffer(max(size, 8))
	buf.B = buf.B[:max(size, 8)]
	fill(buf.B, seq)
	b := series.NewBatch(buf)
	b.Version = series.V1 + series.Version(seq%2)
	b.Decoded = 3*size + seq
	b.Received = received + int64(seq)
	b.MinTime = int64(seq) - 50
	b.MaxTime = int64(seq) + 50
	if seq%5 == 4 {
		b.MinTime, b.MaxTime = math.MaxInt64, math.MinInt64
	}
	b.Counts = countsOf(seq)
	b.Legacy = seq%3 == 0
	b.CustomBuckets = seq%4 == 1
	b.Series = seq%11 + 1
	b.IDs = make([]series.ID, b.Series)
	b.Epoch = 7
	return b
}

func countsOf(seq int) series.Counts {
	return series.Counts{Samples: uint64(seq%7 + 1), Histograms: uint64(seq % 3), Exemplars: uint64(seq % 2)}
}

func fill(body []byte, seq int) {
	binary.LittleEndian.PutUint64(body, uint64(seq))
	x := uint32(seq)*2654435761 + 1
	for i := 8; i < len(body); i++ {
		x = x*1664525 + 1013904223
		body[i] = byte(x >> 24)
	}
}

// seqOf returns who the batch is, having compared its whole body.
func seqOf(t testing.TB, b *series.Batch) int {
	t.Helper()
	require.GreaterOrEqual(t, len(b.Body), 8)
	seq := int(binary.LittleEndian.Uint64(b.Body))
	want := make([]byte, len(b.Body))
	fill(want, seq)
	require.Equal(t, want, b.Body, "body of batch %d", seq)
	return seq
}

func appendBatch(t testing.TB, j journal.Journal, seq, size int) {
	t.Helper()
	require.NoError(t, tryAppend(j, seq, size))
}

func tryAppend(j journal.Journal, seq, size int) error {
	b := newBatch(seq, size)
	defer b.Release()
	return j.Append(context.Background(), b)
}

func appendMany(t testing.TB, j journal.Journal, from, to, size int) {
	t.Helper()
	for seq := from; seq < to; seq++ {
		appendBatch(t, j, seq, size)
	}
}

// next returns the next record without waiting, and releases it.
func next(t testing.TB, c journal.Cursor) (seq int, rec journal.Record, ok bool) {
	t.Helper()
	rec, ok, err := c.Next(context.Background(), false)
	require.NoError(t, err)
	if !ok {
		return -1, rec, false
	}
	seq = seqOf(t, rec.Batch)
	rec.Batch.Release()
	return seq, rec, true
}

// drain reads to the tail and returns who was there.
func drain(t testing.TB, c journal.Cursor) []int {
	t.Helper()
	var list []int
	for {
		seq, _, ok := next(t, c)
		if !ok {
			return list
		}
		list = append(list, seq)
	}
}

// commitRead commits at the read position with a delivered total for records 0 to n.
func commitRead(t testing.TB, c journal.Cursor, n int) {
	t.Helper()
	st := c.Committed()
	st.Position, st.Horizon = c.Read(), c.Read()
	st.Totals.Delivered = sumTo(n)
	require.NoError(t, c.Commit(st))
}

func sumTo(n int) series.Counts { return sumOf(0, n) }

func sumOf(from, to int) series.Counts {
	var sum series.Counts
	for seq := from; seq < to; seq++ {
		sum.Add(countsOf(seq))
	}
	return sum
}

func sequence(from, to int) []int {
	var list []int
	for ; from < to; from++ {
		list = append(list, from)
	}
	return list
}

// atTail opens cursors before anything is appended, so that they see all of it.
func atTail(t testing.TB, j journal.Journal, names ...string) {
	t.Helper()
	for _, name := range names {
		require.NoError(t, openCursor(t, j, name).Close())
	}
}

// logged collects log lines.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

func (l *logged) containing(part string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for _, line := range l.lines {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return found
}

func segmentPath(id int) string { return fmt.Sprintf("%s/segments/%020d.seg", dir, id) }

// readFile returns a file's content.
func readFile(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	require.NoError(t, err)
	defer f.Close()
	n, err := f.Size()
	require.NoError(t, err)
	b := make([]byte, n)
	if n > 0 {
		_, err = f.ReadAt(b, 0)
		require.NoError(t, err)
	}
	return b
}

// change changes a file in place.
func change(t testing.TB, fs vfs.FS, path string, edit func(vfs.File)) {
	t.Helper()
	f, err := fs.Open(path)
	require.NoError(t, err)
	edit(f)
	require.NoError(t, f.Close())
}

// flip changes one byte of a file.
func flip(t testing.TB, fs vfs.FS, path string, off int64) {
	change(t, fs, path, func(f vfs.File) {
		b := make([]byte, 1)
		_, err := f.ReadAt(b, off)
		require.NoError(t, err)
		b[0] ^= 0x5a
		_, err = f.WriteAt(b, off)
		require.NoError(t, err)
	})
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestMain(m *testing.M) {
	if lockedByChild() {
		return
	}
	goleak.VerifyTestMain(m)
}
