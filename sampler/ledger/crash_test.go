package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/journal/disk/vfs"
	"github.com/sluice-metrics/sluice/sampler/ledger"
)

// small makes the file be rewritten often.
func small(o *ledger.Options) { o.MaxBytes = 4 << 10 }

// Whatever is done in whatever order, with a restart at any time: decisions and counts
// are those of a model.
func TestEqualsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := newLane(rapid.Uint64().Draw(t, "seed"), vfs.NewMem(), small)
		require.NoError(t, a.restart())
		require.NoError(t, a.run(300))
		require.NoError(t, a.restart())
	})
}

// crashing calls after behind each operation that changes the file system.
type crashing struct {
	*vfs.Mem
	after func()
}

type crashingFile struct {
	vfs.File
	fs *crashing
}

func (f *crashing) Create(path string) (vfs.File, error) {
	file, err := f.Mem.Create(path)
	f.after()
	return &crashingFile{file, f}, err
}

func (f *crashing) Open(path string) (vfs.File, error) {
	file, err := f.Mem.Open(path)
	return &crashingFile{file, f}, err
}

func (f *crashing) Remove(path string) error {
	defer f.after()
	return f.Mem.Remove(path)
}

func (f *crashing) SyncDir(dir string) error {
	defer f.after()
	return f.Mem.SyncDir(dir)
}

func (f *crashingFile) WriteAt(b []byte, off int64) (int, error) {
	defer f.fs.after()
	return f.File.WriteAt(b, off)
}

func (f *crashingFile) Truncate(size int64) error {
	defer f.fs.after()
	return f.File.Truncate(size)
}

func (f *crashingFile) Sync() error {
	defer f.fs.after()
	return f.File.Sync()
}

// on is what the lane knew, with the ledger on another file system.
func (a *lane) on(fs vfs.FS, next plan, seed uint64) *lane {
	b := newLane(seed, fs, small)
	b.plan, b.maybe, b.stored = a.plan, append(slices.Clone(a.maybe), next), a.stored
	return b
}

// After a crash behind any operation all decisions that were recorded hold, and the counts
// are those of the cursor: the death of the process in both modes, a power loss when
// records are synced. A decision that was being recorded holds or does not.
func TestCrashMatrix(t *testing.T) {
	for _, sync := range []bool{false, true} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("sync %t/%d", sync, seed), func(t *testing.T) {
				t.Parallel()
				mem := vfs.NewMem()
				fs := &crashing{Mem: mem, after: func() {}}
				a := newLane(seed, fs, small, func(o *ledger.Options) { o.Sync = sync })
				require.NoError(t, a.restart())
				rng := rand.New(rand.NewPCG(seed, 2))
				moments := 0
				var clones []*vfs.Mem
				fs.after = func() {
					moments++
					clones = append(clones, mem.KillClone())
					if sync {
						clones = append(clones, mem.CrashClone(nil), mem.CrashClone(rng), mem.KillClone().CrashClone(rng))
					}
				}
				for range 120 {
					before := *a
					clones = nil
					require.NoError(t, a.step())
					for i, c := range clones {
						b := before.on(c, a.plan, uint64(i))
						require.NoError(t, b.restart(), "moment %d, clone %d", moments, i)
						require.NoError(t, b.run(20), "moment %d, clone %d", moments, i)
						require.NoError(t, b.restart(), "moment %d, clone %d", moments, i)
					}
				}
				require.Greater(t, moments, 80)
			})
		}
	}
}

// Whichever operation fails, once or from then on: what was refused has not taken effect,
// what was taken holds, and when the disk is well again the ledger goes on.
func TestEveryOperationFails(t *testing.T) {
	for _, kind := range []struct {
		name    string
		forever bool
		ops     []vfs.Op
	}{
		{name: "once"},
		{name: "forever", forever: true, ops: []vfs.Op{vfs.OpWrite, vfs.OpSync, vfs.OpCreate, vfs.OpRemove, vfs.OpSyncDir}},
		{name: "uncuttable", forever: true, ops: []vfs.Op{vfs.OpSync, vfs.OpTruncate, vfs.OpRemove}},
	} {
		for _, sync := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, sync %t", kind.name, sync), func(t *testing.T) {
				t.Parallel()
				for n := 1; ; n++ {
					mem := vfs.NewMem()
					fs := vfs.NewFaulty(mem)
					a := newLane(uint64(n)%5, fs, small, func(o *ledger.Options) { o.Sync = sync })
					require.NoError(t, a.restart())
					start := fs.Calls()
					fs.Inject(vfs.Fault{Ops: kind.ops, Nth: n, Forever: kind.forever, Err: syscall.EIO, Partial: n % 90})
					for i := range 70 {
						if err := a.step(); err != nil {
							require.ErrorIs(t, err, syscall.EIO, "operation %d, step %d", n, i)
						}
					}
					calls := fs.Calls() - start
					require.LessOrEqual(t, len(files(t, mem)), 20, "operation %d", n)
					fs.Heal()
					b := *a
					before := b.on(mem.KillClone(), a.plan, 1)
					require.NoError(t, before.restart(), "operation %d: killed before the disk was well", n)
					require.NoError(t, before.run(20), "operation %d", n)
					require.NoError(t, a.run(20), "operation %d", n)
					require.NoError(t, a.restart(), "operation %d", n)
					require.NoError(t, a.force(), "operation %d", n)
					require.Len(t, files(t, mem), 1, "operation %d", n)
					if n > calls {
						require.Greater(t, n, 40)
						return
					}
				}
			})
		}
	}
}
