package vfs_test

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

func write(t *testing.T, f vfs.File, off int64, s string) {
	t.Helper()
	n, err := f.WriteAt([]byte(s), off)
	require.NoError(t, err)
	require.Equal(t, len(s), n)
}

func content(t *testing.T, v vfs.FS, p string) string {
	t.Helper()
	f, err := v.Open(p)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	size, err := f.Size()
	require.NoError(t, err)
	b := make([]byte, size)
	if size > 0 {
		_, err = f.ReadAt(b, 0)
		require.NoError(t, err)
	}
	return string(b)
}

// Both file systems, and faults over them, do the same.
func TestContract(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (vfs.FS, string){
		"os":     func(t *testing.T) (vfs.FS, string) { return vfs.OS{}, t.TempDir() },
		"mem":    func(*testing.T) (vfs.FS, string) { return vfs.NewMem(), "/tmp" },
		"faulty": func(*testing.T) (vfs.FS, string) { return vfs.NewFaulty(vfs.NewMem()), "tmp" },
	} {
		t.Run(name, func(t *testing.T) {
			v, root := open(t)
			dir := path.Join(root, "a", "b")
			_, err := v.Create(path.Join(dir, "x"))
			require.ErrorIs(t, err, fs.ErrNotExist)
			_, err = v.List(dir)
			require.ErrorIs(t, err, fs.ErrNotExist)
			require.ErrorIs(t, v.SyncDir(dir), fs.ErrNotExist)
			require.NoError(t, v.MkdirAll(dir))
			require.NoError(t, v.MkdirAll(dir))
			names, err := v.List(dir)
			require.NoError(t, err)
			require.Empty(t, names)

			f, err := v.Create(path.Join(dir, "x"))
			require.NoError(t, err)
			_, err = v.Create(path.Join(dir, "x"))
			require.ErrorIs(t, err, fs.ErrExist)
			_, err = v.Open(path.Join(dir, "y"))
			require.ErrorIs(t, err, fs.ErrNotExist)
			require.ErrorIs(t, v.Remove(path.Join(dir, "y")), fs.ErrNotExist)

			write(t, f, 3, "defg")
			write(t, f, 0, "abc")
			write(t, f, 5, "FGH")
			require.Equal(t, "abcdeFGH", content(t, v, path.Join(dir, "x")))
			b := make([]byte, 4)
			n, err := f.ReadAt(b, 6)
			require.ErrorIs(t, err, io.EOF)
			require.Equal(t, 2, n)
			_, err = f.ReadAt(b, 100)
			require.ErrorIs(t, err, io.EOF)
			_, err = f.ReadAt(b, -1)
			require.Error(t, err)
			require.NoError(t, f.Truncate(2))
			require.NoError(t, f.Truncate(4))
			require.Equal(t, "ab\x00\x00", content(t, v, path.Join(dir, "x")))
			require.NoError(t, f.Sync())
			require.NoError(t, v.SyncDir(dir))

			other, err := v.Create(path.Join(dir, "w"))
			require.NoError(t, err)
			require.NoError(t, other.Close())
			require.ErrorIs(t, other.Close(), fs.ErrClosed)
			require.ErrorIs(t, other.Sync(), fs.ErrClosed)
			require.NoError(t, v.MkdirAll(path.Join(dir, "directory")))
			names, err = v.List(dir)
			require.NoError(t, err)
			require.Equal(t, []string{"w", "x"}, names)

			require.NoError(t, v.Remove(path.Join(dir, "x")))
			_, err = f.ReadAt(b, 0)
			require.NoError(t, err, "an open file outlives its name")
			require.NoError(t, f.Close())

			lock, err := v.Lock(path.Join(dir, "LOCK"))
			require.NoError(t, err)
			_, err = v.Lock(path.Join(dir, "LOCK"))
			require.ErrorIs(t, err, vfs.ErrLocked)
			require.NoError(t, lock.Close())
			lock, err = v.Lock(path.Join(dir, "LOCK"))
			require.NoError(t, err)
			require.NoError(t, lock.Close())
		})
	}
}

func TestKillClone(t *testing.T) {
	m := vfs.NewMem()
	f, err := m.Create("a")
	require.NoError(t, err)
	write(t, f, 0, "kept")
	_, err = m.Lock("LOCK")
	require.NoError(t, err)
	c := m.KillClone()
	write(t, f, 0, "new!")
	require.Equal(t, "kept", content(t, c, "a"))
	_, err = c.Lock("LOCK")
	require.NoError(t, err, "locks die with the process")
	_, err = c.CrashClone(nil).Open("a")
	require.ErrorIs(t, err, fs.ErrNotExist, "the clone was not synced either")
}

func TestCrashClone(t *testing.T) {
	m := vfs.NewMem()
	require.NoError(t, m.MkdirAll("d"))
	f, err := m.Create("d/a")
	require.NoError(t, err)
	write(t, f, 0, "synced")
	require.NoError(t, f.Sync())
	_, err = m.CrashClone(nil).Open("d/a")
	require.ErrorIs(t, err, fs.ErrNotExist, "the name was not synced")
	require.NoError(t, m.SyncDir("d"))
	write(t, f, 6, " not")
	require.NoError(t, f.Truncate(8))
	require.Equal(t, "synced", content(t, m.CrashClone(nil), "d/a"))
	require.NoError(t, m.Remove("d/a"))
	require.Equal(t, "synced", content(t, m.CrashClone(nil), "d/a"), "the removal was not synced")
	require.NoError(t, m.SyncDir("d"))
	_, err = m.CrashClone(nil).Open("d/a")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// A power loss may leave any part of what was not synced, but always what was.
func TestTornClone(t *testing.T) {
	m := vfs.NewMem()
	f, err := m.Create("a")
	require.NoError(t, err)
	old := make([]byte, 10_000)
	write(t, f, 0, string(old))
	require.NoError(t, f.Sync())
	require.NoError(t, m.SyncDir("."))
	fresh := make([]byte, 15_000)
	for i := range fresh {
		fresh[i] = 'n'
	}
	write(t, f, 5_000, string(fresh))
	rng := rand.New(rand.NewPCG(1, 1))
	sizes := map[int]bool{}
	holes := 0
	for range 200 {
		got := content(t, m.CrashClone(rng), "a")
		require.Equal(t, string(old[:5_000]), got[:5_000])
		require.GreaterOrEqual(t, len(got), 10_000)
		sizes[len(got)] = true
		if len(got) == 20_000 && got[19_999] == 'n' && got[5_000] == 0 {
			holes++
		}
	}
	require.Greater(t, len(sizes), 10)
	require.Positive(t, holes, "a later page without an earlier one")
}

func TestFaults(t *testing.T) {
	broken := errors.New("broken")
	v := vfs.NewFaulty(vfs.NewMem())
	f, err := v.Create("a")
	require.NoError(t, err)

	v.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpWrite}, Path: "a", Nth: 2, Err: broken, Partial: 3})
	write(t, f, 0, "first")
	n, err := f.WriteAt([]byte("second"), 5)
	require.ErrorIs(t, err, broken)
	require.Equal(t, 3, n)
	require.Equal(t, "firstsec", content(t, v, "a"))
	write(t, f, 5, "second")

	v.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpSync}, Path: "b", Err: broken})
	require.NoError(t, f.Sync(), "another path")
	v.Inject(vfs.Fault{Ops: []vfs.Op{vfs.OpSync}, Nth: 2, Forever: true, Err: broken})
	require.NoError(t, f.Sync())
	for range 3 {
		require.ErrorIs(t, f.Sync(), broken)
	}
	v.Heal()
	require.NoError(t, f.Sync())

	v.Limit(4)
	write(t, f, 0, "xx")
	n, err = f.WriteAt([]byte("yyyyy"), 2)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, 2, n)
	_, err = f.WriteAt([]byte("z"), 4)
	require.ErrorIs(t, err, syscall.ENOSPC)
	_, err = v.Create("c")
	require.ErrorIs(t, err, syscall.ENOSPC)
	v.Heal()
	require.Equal(t, "xxyytsecond", content(t, v, "a"))

	before := v.Calls()
	v.Inject(vfs.Fault{Err: broken, Forever: true})
	for _, call := range []func() error{
		func() error { _, err := v.Open("a"); return err },
		func() error { _, err := v.List("."); return err },
		func() error { _, err := v.Lock("l"); return err },
		func() error { _, err := f.Size(); return err },
		func() error { _, err := f.ReadAt(make([]byte, 1), 0); return err },
		func() error { return v.Remove("a") },
		func() error { return v.MkdirAll("d") },
		func() error { return v.SyncDir(".") },
		func() error { return f.Truncate(0) },
		f.Close,
	} {
		require.ErrorIs(t, call(), broken)
	}
	require.Equal(t, before+10, v.Calls())
	v.Heal()
	require.ErrorIs(t, f.Close(), fs.ErrClosed, "it was closed all the same")
	require.Equal(t, "xxyytsecond", content(t, v, "a"))
}
