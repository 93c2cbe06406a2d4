package disk_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

func TestRoundTrip(t *testing.T) {
	for name, change := range map[string]func(*disk.Config){"tail": func(*disk.Config) {}, "disk": noTail} {
		t.Run(name, func(t *testing.T) {
			j := open(t, vfs.NewMem(), change)
			_, err := j.SetBackends([]journal.Backend{{Name: "a", Digest: "1"}, {Name: "b", Digest: "2"}})
			require.NoError(t, err)
			a, b := openCursor(t, j, "a"), openCursor(t, j, "b")
			var sent []*series.Batch
			for seq := range 40 {
				batch := newBatch(seq, 10+seq*13)
				if seq%2 == 0 {
					batch.Routed = []series.Counts{{Samples: uint64(seq)}, {Exemplars: 1}}
				}
				require.NoError(t, j.Append(context.Background(), batch))
				sent = append(sent, batch)
			}
			end := journal.Position{}
			for seq, want := range sent {
				for i, c := range []journal.Cursor{a, b} {
					rec, ok, err := c.Next(context.Background(), false)
					require.NoError(t, err)
					require.True(t, ok)
					require.Equal(t, seq, seqOf(t, rec.Batch))
					require.Equal(t, want.Version, rec.Batch.Version)
					require.Equal(t, want.Decoded, rec.Batch.Decoded)
					require.Equal(t, want.Received, rec.Batch.Received)
					require.Equal(t, want.MinTime, rec.Batch.MinTime)
					require.Equal(t, want.MaxTime, rec.Batch.MaxTime)
					require.Equal(t, want.Counts, rec.Batch.Counts)
					require.Equal(t, want.Legacy, rec.Batch.Legacy)
					require.Equal(t, want.CustomBuckets, rec.Batch.CustomBuckets)
					require.Equal(t, want.Series, rec.Batch.Series)
					require.Equal(t, want.Routed, rec.Batch.Routed)
					require.Equal(t, name == "tail", rec.Batch == want)
					counts := want.Counts
					if want.Routed != nil {
						counts = want.Routed[i]
					}
					require.Equal(t, counts, rec.Counts)
					require.True(t, rec.Start.Before(rec.End))
					require.Equal(t, rec.Start.Segment, rec.End.Segment)
					require.False(t, rec.Start.Before(end))
					require.Equal(t, rec.End, c.Read())
					rec.Batch.Release()
					if i == 1 {
						end = rec.End
					}
				}
				want.Release()
			}
			require.Equal(t, end, j.Tail())
			require.Greater(t, end.Segment, uint64(5), "the test must pass over several segments")
		})
	}
}

func TestOperatingSystem(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "journal")
	start := func() *running {
		c := testConfig(fsync)
		j, err := disk.Open(disk.Options{Dir: dir, Config: c, FS: vfs.OS{}, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		return run(j)
	}
	j := start()
	c := openCursor(t, j, "a/b")
	appendMany(t, j, 0, 30, 300)
	for range 10 {
		next(t, c)
	}
	commitRead(t, c, 10)
	require.NoError(t, j.stop())

	j = start()
	require.Equal(t, []string{"a/b"}, j.Cursors())
	c = openCursor(t, j, "a/b")
	require.Equal(t, sumTo(10), c.Committed().Totals.Delivered)
	require.Equal(t, sumOf(10, 30), c.Lag().Counts)
	require.Equal(t, sequence(10, 30), drain(t, c))
	appendMany(t, j, 30, 40, 300)
	require.Equal(t, sequence(30, 40), drain(t, c))
	require.NoError(t, j.stop())
}

func TestAppendWaitsForRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, err := disk.Open(disk.Options{Dir: dir, Config: testConfig(), FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		answer := make(chan error, 1)
		go func() { answer <- tryAppend(j, 1, 100) }()
		synctest.Wait()
		require.Empty(t, answer)
		r := run(j)
		require.NoError(t, <-answer)
		require.NoError(t, r.stop())
		require.ErrorIs(t, tryAppend(j, 2, 100), journal.ErrClosed)
	})
}

func TestCloseAnswersAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, err := disk.Open(disk.Options{Dir: dir, Config: testConfig(), FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		answer := make(chan error, 1)
		go func() { answer <- tryAppend(j, 1, 100) }()
		synctest.Wait()
		require.NoError(t, j.Close())
		require.ErrorIs(t, <-answer, journal.ErrClosed)
		require.ErrorIs(t, j.Run(context.Background()), journal.ErrClosed)
		_, err = j.OpenCursor("a")
		require.ErrorIs(t, err, journal.ErrClosed)
		_, err = j.SetBackends(nil)
		require.ErrorIs(t, err, journal.ErrClosed)
		require.NoError(t, j.Close())
	})
}

// A batch whose append was given up stays the journal's until the writer is done.
func TestAppendGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, err := disk.Open(disk.Options{Dir: dir, Config: testConfig(), FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		c := openCursor(t, j, "a")
		ctx, cancel := context.WithCancel(context.Background())
		answer := make(chan error, 1)
		go func() {
			b := newBatch(1, 100)
			answer <- j.Append(ctx, b)
			b.Release()
		}()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-answer, context.Canceled)
		require.ErrorIs(t, j.Append(ctx, newBatch(2, 10)), context.Canceled)
		// Later appends must not get what still belongs to the writer.
		for seq := 10; seq < 14; seq++ {
			go func() { answer <- tryAppend(j, seq, 100) }()
			synctest.Wait()
		}
		r := run(j)
		for range 4 {
			require.NoError(t, <-answer)
		}
		require.Equal(t, []int{1, 10, 11, 12, 13}, drain(t, c))
		require.NoError(t, r.stop())
	})
}

// counting counts the syncs of segments.
type counting struct {
	vfs.FS
	mu    sync.Mutex
	syncs int
	gate  chan struct{} // when not nil, each sync takes a token
}

type countingFile struct {
	vfs.File
	fs *counting
}

func (c *counting) Create(path string) (vfs.File, error) {
	f, err := c.FS.Create(path)
	return &countingFile{f, c}, err
}

func (f *countingFile) Sync() error {
	f.fs.mu.Lock()
	f.fs.syncs++
	gate := f.fs.gate
	f.fs.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return f.File.Sync()
}

// Appends that come while a sync runs share the next one.
func TestGroupSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &counting{FS: vfs.NewMem(), gate: make(chan struct{})}
		j, err := tryOpen(fs, testConfig(fsync, func(c *disk.Config) { c.SegmentSize = bytesize.MiB; c.MaxDisk *= 8 }))
		require.NoError(t, err)
		var wg sync.WaitGroup
		add := func(seq int) {
			wg.Go(func() {
				if err := tryAppend(j, seq, 100); err != nil {
					t.Error(err)
				}
			})
		}
		add(0)
		synctest.Wait()
		for seq := 1; seq < 20; seq++ {
			add(seq)
		}
		synctest.Wait()
		require.Equal(t, 1, fs.syncs)
		close(fs.gate)
		wg.Wait()
		require.Equal(t, 2, fs.syncs)
		require.NoError(t, j.stop())
	})
}

func gauge(t testing.TB, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			sum := 0.
			for _, m := range f.GetMetric() {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
			return sum
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	o := disk.Options{Dir: dir, Config: testConfig(fsync, keepAll), FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), Registerer: reg}
	d, err := disk.Open(o)
	require.NoError(t, err)
	_, err = disk.Open(disk.Options{Dir: "/other", Config: o.Config, FS: vfs.NewMem(), Logger: o.Logger, Registerer: reg})
	require.ErrorContains(t, err, "register")
	j := run(d)
	appendMany(t, j, 0, 10, 500)
	require.NoError(t, j.stop())
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
	for name, want := range map[string]float64{
		"sluice_journal_appended_records_total":   10,
		"sluice_journal_append_duration_seconds":  10,
		"sluice_journal_fsync_duration_seconds":   10,
		"sluice_journal_write_errors_total":       0,
		"sluice_journal_segments":                 4,
		"sluice_journal_disk_limit_bytes":         1 << 20,
		"sluice_journal_tail_bytes":               0,
		"sluice_journal_damaged_records_total":    0,
		"sluice_journal_damaged_bytes_total":      0,
		"sluice_journal_torn_bytes_cut_total":     0,
		"sluice_journal_durability_info":          1,
		"sluice_journal_truncated_segments_total": 0,
	} {
		require.Equal(t, want, gauge(t, reg, name), name)
	}
	appended := gauge(t, reg, "sluice_journal_appended_bytes_total")
	require.Greater(t, appended, 5000.)
	require.Greater(t, gauge(t, reg, "sluice_journal_disk_bytes"), appended)
}

// A journal that could not be opened leaves no metrics in the way of the next try.
func TestOpenAgainAfterFailure(t *testing.T) {
	reg := prometheus.NewRegistry()
	fs := vfs.NewFaulty(vfs.NewMem())
	o := disk.Options{Dir: dir, Config: testConfig(), FS: fs, Logger: slog.New(slog.DiscardHandler), Registerer: reg}
	for _, op := range []vfs.Op{vfs.OpMkdirAll, vfs.OpLock, vfs.OpList} {
		fs.Inject(vfs.Fault{Ops: []vfs.Op{op}, Err: errors.New("broken")})
		_, err := disk.Open(o)
		require.ErrorContains(t, err, "broken")
	}
	d, err := disk.Open(o)
	require.NoError(t, err)
	require.NoError(t, d.Close())
}

func TestManySmallRecords(t *testing.T) {
	j := open(t, vfs.NewMem(), noTail, func(c *disk.Config) { c.SegmentSize, c.MaxDisk = 64*bytesize.KiB, 16*bytesize.MiB })
	c := openCursor(t, j, "a")
	const n = 20_000
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for seq := w; seq < n; seq += 4 {
				if err := tryAppend(j, seq, 8); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, sumTo(n), c.Lag().Counts)
	got := drain(t, c)
	slices.Sort(got)
	require.Equal(t, sequence(0, n), got)
}

func TestRecordLargerThanASegment(t *testing.T) {
	fs := vfs.NewMem()
	j := open(t, fs, noTail)
	c := openCursor(t, j, "a")
	appendBatch(t, j, 0, 100)
	appendBatch(t, j, 1, 100_000)
	appendBatch(t, j, 2, 100)
	appendBatch(t, j, 3, 50_000)
	require.Equal(t, sequence(0, 4), drain(t, c))
	require.Equal(t, uint64(4), j.Tail().Segment)
	require.NoError(t, j.stop())
	j = open(t, fs)
	require.Equal(t, sequence(0, 4), drain(t, openCursor(t, j, "a")))
}

// A header that is larger than the headroom is written all the same.
func TestManyBackends(t *testing.T) {
	fs := vfs.NewMem()
	j := open(t, fs, noTail, func(c *disk.Config) { c.SegmentSize, c.MaxDisk = bytesize.MiB, 8*bytesize.MiB })
	const n = 500
	list := make([]journal.Backend, n)
	routed := make([]series.Counts, n)
	for i := range list {
		list[i] = journal.Backend{Name: string(rune('a'+i%26)) + string(rune('0'+i/26)), Digest: "d"}
		routed[i] = series.Counts{Samples: uint64(1_000_000 + i)}
	}
	_, err := j.SetBackends(list)
	require.NoError(t, err)
	c := openCursor(t, j, list[n-1].Name)
	for seq := range 3 {
		b := newBatch(seq, 2000)
		b.Routed = routed
		require.NoError(t, j.Append(context.Background(), b))
		b.Release()
	}
	for range 3 {
		_, rec, ok := next(t, c)
		require.True(t, ok)
		require.Equal(t, routed[n-1], rec.Counts)
	}
	require.NoError(t, j.stop())
	j = open(t, fs)
	require.Equal(t, series.Counts{Samples: 3 * (1_000_000 + n - 1)}, openCursor(t, j, list[n-1].Name).Lag().Counts)
}

// Readers that keep up, that lag and that skip, while several append.
func TestConcurrent(t *testing.T) {
	j := open(t, vfs.NewMem(), func(c *disk.Config) { c.TailBytes = 64 * bytesize.KiB; c.SegmentSize = 16 * bytesize.KiB })
	const appenders, each = 4, 300
	ctx := within(t, time.Minute)
	var wg sync.WaitGroup
	for _, name := range []string{"x", "y", "z"} {
		c := openCursor(t, j, name)
		wg.Go(func() {
			last := map[int]int{}
			var delivered series.Counts
			for n := 1; n <= appenders*each; n++ {
				rec, ok, err := c.Next(ctx, true)
				if err != nil || !ok {
					t.Error(n, ok, err)
					return
				}
				seq := seqOf(t, rec.Batch)
				rec.Batch.Release()
				delivered.Add(rec.Counts)
				if seq < last[seq%appenders] {
					t.Errorf("batch %d after %d", seq, last[seq%appenders])
				}
				last[seq%appenders] = seq
				if n%(len(name)+17) == 0 || n == appenders*each {
					st := journal.State{Position: rec.End, Totals: journal.Totals{Delivered: delivered}}
					if err := c.Commit(st); err != nil {
						t.Error(err)
					}
					c.Lag()
					c.PositionAt(1000, time.Time{})
				}
			}
			if lag := c.Lag(); lag != (journal.Lag{}) {
				t.Error(lag)
			}
			if want := sumTo(appenders * each); delivered != want {
				t.Error(delivered, want)
			}
		})
	}
	for a := range appenders {
		wg.Go(func() {
			for seq := a; seq < appenders*each; seq += appenders {
				if err := tryAppend(j, seq, 50+seq%700); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestConfig(t *testing.T) {
	c := disk.DefaultConfig()
	require.NoError(t, c.Validate())
	bad := disk.Config{Durability: "maybe", OnFull: "explode", SegmentSize: 0, RetainBehind: -1, TailBytes: -1}
	err := bad.Validate()
	for _, field := range []string{"durability", "on_full", "segment_size", "retain_behind", "tail_bytes"} {
		require.ErrorContains(t, err, field)
	}
	c.MaxDisk = 3 * c.SegmentSize
	require.ErrorContains(t, c.Validate(), "max_disk")
}
