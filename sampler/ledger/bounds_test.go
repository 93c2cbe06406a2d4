package ledger_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// Beyond its bound the ledger asks to give the oldest up, and at last takes no more
// steps; what is recorded holds.
func TestBounds(t *testing.T) {
	l := start(t, vfs.NewMem(), mark(0, 0), func(o *ledger.Options) { o.MaxSteps = 40 })
	n := 0
	for range 4 {
		begin(t, l, n, 0.5)
		for range 9 {
			n++
			require.NoError(t, l.Step(setting(n, 0.4)))
		}
		n++
		require.NoError(t, l.End(at(n)))
	}
	_, ok := l.Excess()
	require.False(t, ok)
	begin(t, l, n, 0.5)
	upTo, ok := l.Excess()
	require.True(t, ok)
	require.Equal(t, at(10), upTo)

	var err error
	for range 100 {
		n++
		if err = l.Step(setting(n, 0.3)); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, ledger.ErrFull)
	require.NoError(t, l.End(at(n)))
	require.ErrorIs(t, l.Begin(session(n, 0.5)), ledger.ErrFull)
	require.ErrorIs(t, l.Gap(ledger.Gap{From: at(n), To: at(n + 1), Pieces: []ledger.Piece{{At: at(n)}}}), ledger.ErrFull)

	for upTo, ok = l.Excess(); ok; upTo, ok = l.Excess() {
		m := ledger.Mark{Position: at(n), Restore: upTo}
		_, err = l.Settle(ledger.Settlement{Mark: m, Reason: "ledger_full"})
		require.NoError(t, err)
		_, err = l.Settle(ledger.Settlement{Mark: m, Committed: m})
		require.NoError(t, err)
	}
	require.Len(t, l.Timeline(at(0)), 4, "no more than that had to go")
	require.NoError(t, l.Begin(session(n, 0.5)))
}

func TestASingleSessionBeyondTheBounds(t *testing.T) {
	l := start(t, vfs.NewMem(), mark(0, 0), func(o *ledger.Options) { o.MaxBytes = 10_000 })
	begin(t, l, 3, 0.5)
	for n := 4; n < 50; n++ {
		require.NoError(t, l.Step(setting(n, 0.4)))
	}
	upTo, ok := l.Excess()
	require.True(t, ok)
	require.Equal(t, at(3), upTo, "there is nothing to give up: it has to be ended, and another one begun")
}

// History ends after its time, and says of which times something may be forgotten.
func TestHistory(t *testing.T) {
	c := &clock{epoch}
	fs := vfs.NewMem()
	l := start(t, fs, mark(0, 0), c.use, func(o *ledger.Options) { o.History, o.Backfill = time.Hour, false })
	begin(t, l, 0, 0.5)
	require.NoError(t, l.End(at(5)))
	settle(t, l, mark(5, 0), withheld(2, 10, 4))
	require.NoError(t, func() error {
		_, err := l.Settle(ledger.Settlement{Mark: mark(6, 0), Committed: mark(5, 0)})
		return err
	}())
	require.Zero(t, l.View().Since)
	c.now = c.now.Add(59 * time.Minute)
	settle(t, l, mark(7, 0))
	require.Len(t, l.Entries(), 1)
	c.now = c.now.Add(2 * time.Minute)
	settle(t, l, mark(8, 0))
	require.Empty(t, l.Entries())
	require.Equal(t, minute(2), l.View().Since)
	require.Equal(t, samples(6), l.View().Withheld, "that it was withheld is not forgotten")
	begin(t, l, 9, 0.5)
	view, err := ledger.Read(fs, dir, backend)
	require.NoError(t, err)
	require.Equal(t, samples(6), view.Withheld)
}

// In history neighbouring steps are put together, without a change of the sums.
func TestHistoryIsCoarse(t *testing.T) {
	fs := vfs.NewMem()
	l := start(t, fs, mark(0, 0))
	begin(t, l, 0, 0.9)
	deltas := []ledger.Delta{withheld(0, 10, 9)}
	for i := 1; i < 1000; i++ {
		require.NoError(t, l.Step(setting(i, 0.9-float64(i)/2000)))
		deltas = append(deltas, withheld(i, 10, uint64(i%10)))
	}
	require.NoError(t, l.End(at(1000)))
	settle(t, l, mark(1000, 0), deltas...)
	before := l.Entries()[0]
	_, err := l.Settle(ledger.Settlement{Mark: mark(1000, 1000), Committed: mark(1000, 0), Reason: "asked"})
	require.NoError(t, err)
	require.Len(t, l.Entries()[0].Steps, 1000, "the cursor may come back")
	_, err = l.Settle(ledger.Settlement{Mark: mark(1001, 1000), Committed: mark(1000, 1000)})
	require.NoError(t, err)
	after := l.Entries()[0]
	require.LessOrEqual(t, len(after.Steps), 128)
	var sum ledger.Tally
	for _, s := range after.Steps {
		sum.Add(s.Tally)
	}
	require.Equal(t, before.Totals, sum)
	require.Equal(t, before.Totals, after.Totals)
	require.Equal(t, before.Steps[999].Rate, after.Steps[len(after.Steps)-1].Rate)
	l = start(t, fs, mark(1001, 1000))
	require.Equal(t, []ledger.Entry{after}, l.Entries())
}

// The file is written anew before it is much larger than what it says.
func TestRewriting(t *testing.T) {
	fs := vfs.NewMem()
	l := start(t, fs, mark(0, 0), func(o *ledger.Options) { o.MaxBytes = 16 << 10 })
	begin(t, l, 0, 0.5)
	for i := 1; i < 2000; i++ {
		m := mark(i, 0)
		_, err := l.Settle(ledger.Settlement{Mark: m, Committed: mark(i-1, 0), Deltas: []ledger.Delta{withheld(i-1, 10, 9)}})
		require.NoError(t, err)
		require.Len(t, files(t, fs), 1)
	}
	require.LessOrEqual(t, len(strings.TrimRight(string(content(t, fs)), "\x00")), 16<<10)
	require.Equal(t, samples(1999), l.Debt().Counts)
	view := l.View()
	again := start(t, fs, mark(1999, 0))
	require.Equal(t, view, again.View())
	again = start(t, fs, mark(1998, 0))
	require.Equal(t, samples(1998), again.Debt().Counts, "what may be taken back still can be")
}

// fullDisk is a file system on which, when it is full, no file grows.
type fullDisk struct {
	*vfs.Mem
	full bool
}

type fullFile struct {
	vfs.File
	fs *fullDisk
}

func (f *fullDisk) Create(path string) (vfs.File, error) {
	if f.full {
		return nil, syscall.ENOSPC
	}
	file, err := f.Mem.Create(path)
	return &fullFile{file, f}, err
}

func (f *fullFile) WriteAt(b []byte, off int64) (int, error) {
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	if f.fs.full && off+int64(len(b)) > size {
		return 0, syscall.ENOSPC
	}
	return f.File.WriteAt(b, off)
}

// A full disk does not at once keep a cursor from moving on, which makes room. When it
// does at last, nothing of what was refused has taken effect.
func TestFullDisk(t *testing.T) {
	fs := &fullDisk{Mem: vfs.NewMem()}
	l := start(t, fs, mark(0, 0), synced)
	begin(t, l, 0, 0.5)
	fs.full = true
	n := 0
	delta := func() ledger.Settlement {
		return ledger.Settlement{Mark: mark(n+1, 0), Deltas: []ledger.Delta{withheld(n, 10, 5)}}
	}
	var err error
	for ; ; n++ {
		if _, err = l.Settle(delta()); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Greater(t, n, 150)
	require.Equal(t, samples(uint64(5*n)), l.Debt().Counts)
	_, err = l.Settle(delta())
	require.ErrorIs(t, err, syscall.ENOSPC)
	fs.full = false
	_, err = l.Settle(delta())
	require.NoError(t, err)
	require.Equal(t, samples(uint64(5*n+5)), start(t, fs.Mem, mark(n+1, 0)).Debt().Counts)
}

// A record that was refused is not there after a restart either, where the disk lets it
// be cut off.
func TestRefusedRecordsAreCutOff(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpWrite, vfs.OpSync} {
		mem := vfs.NewMem()
		fs := vfs.NewFaulty(mem)
		l := start(t, fs, mark(0, 0), synced)
		begin(t, l, 0, 0.5)
		view := l.View()
		fs.Inject(vfs.Fault{Ops: []vfs.Op{op}, Err: syscall.EIO, Partial: 1 << 20})
		require.ErrorIs(t, l.Step(setting(1, 0.4)), syscall.EIO)
		require.Equal(t, view, l.View())
		require.Equal(t, view, start(t, mem.KillClone(), mark(0, 0)).View())
		require.NoError(t, l.Step(setting(1, 0.3)))
		require.Equal(t, l.View(), start(t, mem.CrashClone(nil), mark(0, 0)).View())
	}
}
