package ledger_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

const (
	dir     = "/data/ledger"
	backend = "main/eu"
)

// epoch is when tests begin.
var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// clock is a clock that stands unless it is set.
type clock struct{ now time.Time }

func options(fs vfs.FS, change ...func(*ledger.Options)) ledger.Options {
	o := ledger.Options{
		Dir: dir, Backend: backend, FS: fs, Backfill: true,
		Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return epoch },
	}
	for _, f := range change {
		f(&o)
	}
	return o
}

func synced(o *ledger.Options) { o.Sync = true }

func (c *clock) use(o *ledger.Options) { o.Now = func() time.Time { return c.now } }

// at is where record n starts. A segment has ten.
func at(n int) journal.Position {
	return journal.Position{Segment: uint64(1 + n/10), Offset: int64(n%10) * 100}
}

func mark(position, restore int) ledger.Mark {
	return ledger.Mark{Position: at(position), Restore: at(restore)}
}

func samples(n uint64) series.Counts { return series.Counts{Samples: n} }

func open(t testing.TB, fs vfs.FS, change ...func(*ledger.Options)) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(options(fs, change...))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// start opens the ledger and resumes at a mark.
func start(t testing.TB, fs vfs.FS, m ledger.Mark, change ...func(*ledger.Options)) *ledger.Ledger {
	t.Helper()
	l := open(t, fs, change...)
	resume(t, l, m)
	return l
}

func resume(t testing.TB, l *ledger.Ledger, m ledger.Mark) ledger.Resumed {
	t.Helper()
	r, err := l.Resume(ledger.Resumption{Mark: m})
	require.NoError(t, err)
	return r
}

func begin(t testing.TB, l *ledger.Ledger, n int, rate float64) {
	t.Helper()
	require.NoError(t, l.Begin(session(n, rate)))
}

func session(n int, rate float64) ledger.Session {
	return ledger.Session{
		From: at(n), Rebuild: at(max(n-5, 0)), Digest: "d1", Config: []byte("config one"),
		Setting: ledger.Setting{Time: minute(n), Rate: rate, Pressure: 1 - rate},
	}
}

func setting(n int, rate float64) ledger.Setting {
	return ledger.Setting{At: at(n), Time: minute(n), Rate: rate, Pressure: 1 - rate}
}

// minute is n minutes after the epoch.
func minute(n int) ledger.Time {
	return ledger.TimeOf(epoch.Add(time.Duration(n) * time.Minute))
}

// withheld is a delta of which record n was received, and its samples taken, in minute n.
func withheld(n int, taken, kept uint64) ledger.Delta {
	return ledger.Delta{At: at(n), Classes: map[string]uint64{"low": taken - kept}, Tally: ledger.Tally{
		Taken: samples(taken), Withheld: samples(taken - kept), First: minute(n), Last: minute(n), Min: minute(n), Max: minute(n),
	}}
}

func givenBack(n int, count uint64) ledger.Delta {
	return ledger.Delta{At: at(n), Tally: ledger.Tally{GivenBack: samples(count)}}
}

// settle settles and takes the state for stored.
func settle(t testing.TB, l *ledger.Ledger, m ledger.Mark, deltas ...ledger.Delta) ledger.Settled {
	t.Helper()
	s, err := l.Settle(ledger.Settlement{Mark: m, Deltas: deltas})
	require.NoError(t, err)
	return s
}

// files are what the ledger has on the disk.
func files(t testing.TB, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.List(dir)
	require.NoError(t, err)
	return names
}

// content reads the only file of the ledger.
func content(t testing.TB, fs vfs.FS) []byte {
	t.Helper()
	names := files(t, fs)
	require.Len(t, names, 1)
	f, err := fs.Open(dir + "/" + names[0])
	require.NoError(t, err)
	size, err := f.Size()
	require.NoError(t, err)
	b := make([]byte, size)
	_, err = f.ReadAt(b, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return b
}

// holding is a file system with one file of the ledger.
func holding(t testing.TB, name string, b []byte) *vfs.Mem {
	t.Helper()
	fs := vfs.NewMem()
	require.NoError(t, fs.MkdirAll(dir))
	f, err := fs.Create(dir + "/" + name)
	require.NoError(t, err)
	_, err = f.WriteAt(b, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return fs
}
