package vfs

import (
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Op is a kind of file operation.
type Op string

// The operations, by the methods of FS and File.
const (
	OpCreate   Op = "create"
	OpOpen     Op = "open"
	OpRemove   Op = "remove"
	OpList     Op = "list"
	OpMkdirAll Op = "mkdir"
	OpSyncDir  Op = "syncdir"
	OpLock     Op = "lock"
	OpRead     Op = "read"
	OpWrite    Op = "write"
	OpSync     Op = "sync"
	OpTruncate Op = "truncate"
	OpSize     Op = "size"
	OpClose    Op = "close"
)

// Fault says which operations fail and how.
type Fault struct {
	Ops     []Op   // kinds that match; none means all
	Path    string // part of the path that matches; empty means all
	Nth     int    // the first matching operation that fails, counted from 1; 0 is 1
	Forever bool   // all matching ones after it fail too
	Err     error  // what they fail with
	// Partial is how many bytes a failing write still writes, at most all but one.
	Partial int

	seen int
}

// Faulty passes operations on to another file system, but those that it was told to
// fail. Closing always closes, even where it fails.
type Faulty struct {
	base FS

	mu     sync.Mutex
	faults []*Fault
	calls  int
	limit  bool
	left   int64
}

// NewFaulty returns a file system over base without faults.
func NewFaulty(base FS) *Faulty { return &Faulty{base: base} }

// Inject adds a fault. It starts to count operations now.
func (f *Faulty) Inject(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, &fault)
}

// Limit makes the disk full after n more bytes were written: the write that crosses
// the limit is cut there and fails with ENOSPC, as do all creations and writes after
// it.
func (f *Faulty) Limit(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit, f.left = true, n
}

// Heal takes all faults and limits away.
func (f *Faulty) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults, f.limit = nil, false
}

// Calls is the number of operations so far.
func (f *Faulty) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// check counts the operation and returns how it fails. For a write of n bytes, keep
// is how many of them are written all the same.
func (f *Faulty) check(op Op, path string, n int) (keep int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	for _, r := range f.faults {
		if len(r.Ops) > 0 && !slices.Contains(r.Ops, op) || !strings.Contains(path, r.Path) {
			continue
		}
		r.seen++
		if first := max(r.Nth, 1); r.seen == first || r.Forever && r.seen > first {
			return min(r.Partial, max(n-1, 0)), pathError(string(op), path, r.Err)
		}
	}
	if f.limit && (op == OpWrite || op == OpCreate) {
		if f.left <= 0 || int64(n) > f.left {
			keep, f.left = int(max(f.left, 0)), 0
			return keep, pathError(string(op), path, syscall.ENOSPC)
		}
		f.left -= int64(n)
	}
	return 0, nil
}

type faultyFile struct {
	File
	fs   *Faulty
	path string
}

// Create implements FS.
func (f *Faulty) Create(path string) (File, error) { return f.file(OpCreate, path, f.base.Create) }

// Open implements FS.
func (f *Faulty) Open(path string) (File, error) { return f.file(OpOpen, path, f.base.Open) }

func (f *Faulty) file(op Op, path string, open func(string) (File, error)) (File, error) {
	if _, err := f.check(op, path, 0); err != nil {
		return nil, err
	}
	file, err := open(path)
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, f, path}, nil
}

// Remove implements FS.
func (f *Faulty) Remove(path string) error { return f.do(OpRemove, path, f.base.Remove) }

// MkdirAll implements FS.
func (f *Faulty) MkdirAll(dir string) error { return f.do(OpMkdirAll, dir, f.base.MkdirAll) }

// SyncDir implements FS.
func (f *Faulty) SyncDir(dir string) error { return f.do(OpSyncDir, dir, f.base.SyncDir) }

func (f *Faulty) do(op Op, path string, call func(string) error) error {
	if _, err := f.check(op, path, 0); err != nil {
		return err
	}
	return call(path)
}

// List implements FS.
func (f *Faulty) List(dir string) ([]string, error) {
	if _, err := f.check(OpList, dir, 0); err != nil {
		return nil, err
	}
	return f.base.List(dir)
}

// Lock implements FS.
func (f *Faulty) Lock(path string) (io.Closer, error) {
	if _, err := f.check(OpLock, path, 0); err != nil {
		return nil, err
	}
	return f.base.Lock(path)
}

func (f *faultyFile) ReadAt(b []byte, off int64) (int, error) {
	if _, err := f.fs.check(OpRead, f.path, len(b)); err != nil {
		return 0, err
	}
	return f.File.ReadAt(b, off)
}

func (f *faultyFile) WriteAt(b []byte, off int64) (int, error) {
	keep, err := f.fs.check(OpWrite, f.path, len(b))
	if err == nil {
		return f.File.WriteAt(b, off)
	}
	n, werr := f.File.WriteAt(b[:keep], off)
	if werr != nil {
		return n, werr
	}
	return n, err
}

func (f *faultyFile) Sync() error {
	if _, err := f.fs.check(OpSync, f.path, 0); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultyFile) Truncate(size int64) error {
	if _, err := f.fs.check(OpTruncate, f.path, 0); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *faultyFile) Size() (int64, error) {
	if _, err := f.fs.check(OpSize, f.path, 0); err != nil {
		return 0, err
	}
	return f.File.Size()
}

func (f *faultyFile) Close() error {
	_, err := f.fs.check(OpClose, f.path, 0)
	if cerr := f.File.Close(); cerr != nil {
		return cerr
	}
	return err
}
