package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
)

// pageSize is the unit in which CrashClone tears writes.
const pageSize = 4096

// Mem is a file system in memory that knows what of it a crash would leave.
// Directories survive a crash as soon as they are made.
type Mem struct {
	mu      sync.Mutex
	entries map[string]*memNode // as running programs see them
	durable map[string]*memNode // as SyncDir left them
	dirs    map[string]bool
	locks   map[string]bool
}

type memNode struct {
	data    []byte // as running programs see it
	synced  []byte // as the last Sync left it
	pending []memChange
}

// memChange is a write, or with data nil a truncation to off, since the last Sync.
type memChange struct {
	off  int64
	data []byte
}

type memFile struct {
	fs     *Mem
	path   string
	node   *memNode
	closed bool
}

// NewMem returns an empty file system.
func NewMem() *Mem {
	return &Mem{
		entries: map[string]*memNode{},
		durable: map[string]*memNode{},
		dirs:    map[string]bool{".": true, "/": true},
		locks:   map[string]bool{},
	}
}

// KillClone returns what the death of the process leaves: all that was written, and
// no locks. What was not synced may still be lost by a CrashClone of the clone.
func (m *Mem) KillClone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMem()
	c.dirs = maps.Clone(m.dirs)
	clones := map[*memNode]*memNode{}
	clone := func(n *memNode) *memNode {
		if clones[n] == nil {
			clones[n] = &memNode{
				data:    slices.Clone(n.data),
				synced:  slices.Clone(n.synced),
				pending: slices.Clone(n.pending), // a change is never altered
			}
		}
		return clones[n]
	}
	for p, n := range m.entries {
		c.entries[p] = clone(n)
	}
	for p, n := range m.durable {
		c.durable[p] = clone(n)
	}
	return c
}

// CrashClone returns what a power loss leaves: with rng nil exactly what was synced;
// otherwise also a random part of what was not, of names as well as of data: a
// prefix of the writes with the last one torn, or any selection of their pages.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMem()
	c.dirs = maps.Clone(m.dirs)
	paths := map[string]bool{}
	for p := range m.entries {
		paths[p] = true
	}
	for p := range m.durable {
		paths[p] = true
	}
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		n := m.durable[p]
		if m.entries[p] != n && rng != nil && rng.IntN(2) == 0 {
			n = m.entries[p]
		}
		if n == nil {
			continue
		}
		left := n.afterCrash(rng)
		node := &memNode{data: left, synced: slices.Clone(left)}
		c.entries[p], c.durable[p] = node, node
	}
	return c
}

func (n *memNode) afterCrash(rng *rand.Rand) []byte {
	b := slices.Clone(n.synced)
	if rng == nil || len(n.pending) == 0 {
		return b
	}
	if rng.IntN(2) == 0 {
		whole := rng.IntN(len(n.pending) + 1)
		for _, ch := range n.pending[:whole] {
			b = ch.apply(b)
		}
		if whole < len(n.pending) {
			if ch := n.pending[whole]; len(ch.data) > 0 {
				ch.data = ch.data[:rng.IntN(len(ch.data))]
				b = ch.apply(b)
			}
		}
		return b
	}
	for _, ch := range n.pending {
		for _, page := range ch.pages() {
			if rng.IntN(2) == 0 {
				b = page.apply(b)
			}
		}
	}
	return b
}

// pages divides a write at the page boundaries of the file.
func (ch memChange) pages() []memChange {
	if ch.data == nil {
		return []memChange{ch}
	}
	var list []memChange
	for len(ch.data) > 0 {
		n := min(int64(len(ch.data)), pageSize-ch.off%pageSize)
		list = append(list, memChange{ch.off, ch.data[:n]})
		ch = memChange{ch.off + n, ch.data[n:]}
	}
	return list
}

func (ch memChange) apply(b []byte) []byte {
	if ch.data == nil {
		return resize(b, ch.off)
	}
	if end := ch.off + int64(len(ch.data)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[ch.off:], ch.data)
	return b
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size]
	}
	old := len(b)
	b = slices.Grow(b, int(size)-old)[:size]
	clear(b[old:])
	return b
}

func pathError(op, p string, err error) error {
	return &fs.PathError{Op: op, Path: p, Err: err}
}

// Create implements FS.
func (m *Mem) Create(p string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case !m.dirs[path.Dir(p)]:
		return nil, pathError("create", p, fs.ErrNotExist)
	case m.entries[p] != nil:
		return nil, pathError("create", p, fs.ErrExist)
	}
	n := &memNode{}
	m.entries[p] = n
	return &memFile{fs: m, path: p, node: n}, nil
}

// Open implements FS.
func (m *Mem) Open(p string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.entries[p]
	if n == nil {
		return nil, pathError("open", p, fs.ErrNotExist)
	}
	return &memFile{fs: m, path: p, node: n}, nil
}

// Remove implements FS.
func (m *Mem) Remove(p string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entries[p] == nil {
		return pathError("remove", p, fs.ErrNotExist)
	}
	delete(m.entries, p)
	return nil
}

// List implements FS.
func (m *Mem) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirs[path.Clean(dir)] {
		return nil, pathError("list", dir, fs.ErrNotExist)
	}
	var names []string
	for p := range m.entries {
		if path.Dir(p) == path.Clean(dir) {
			names = append(names, path.Base(p))
		}
	}
	slices.Sort(names)
	return names, nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for d := path.Clean(dir); !m.dirs[d]; d = path.Dir(d) {
		m.dirs[d] = true
	}
	return nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirs[path.Clean(dir)] {
		return pathError("syncdir", dir, fs.ErrNotExist)
	}
	maps.DeleteFunc(m.durable, func(p string, _ *memNode) bool { return path.Dir(p) == path.Clean(dir) })
	for p, n := range m.entries {
		if path.Dir(p) == path.Clean(dir) {
			m.durable[p] = n
		}
	}
	return nil
}

// Lock implements FS.
func (m *Mem) Lock(p string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[p] {
		return nil, pathError("lock", p, ErrLocked)
	}
	m.locks[p] = true
	return &memLock{fs: m, path: p}, nil
}

type memLock struct {
	fs   *Mem
	path string
}

func (l *memLock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	delete(l.fs.locks, l.path)
	return nil
}

func (f *memFile) use(op string) error {
	if f.closed {
		return pathError(op, f.path, fs.ErrClosed)
	}
	return nil
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.use("read"); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("read", f.path, fmt.Errorf("negative offset %d", off))
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.use("write"); err != nil {
		return 0, err
	}
	if len(b) == 0 {
		return 0, nil
	}
	ch := memChange{off, slices.Clone(b)}
	f.node.data = ch.apply(f.node.data)
	f.node.pending = append(f.node.pending, ch)
	return len(b), nil
}

func (f *memFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.use("truncate"); err != nil {
		return err
	}
	ch := memChange{off: size}
	f.node.data = ch.apply(f.node.data)
	f.node.pending = append(f.node.pending, ch)
	return nil
}

func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.use("sync"); err != nil {
		return err
	}
	for _, ch := range f.node.pending {
		f.node.synced = ch.apply(f.node.synced)
	}
	f.node.pending = nil
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.use("size"); err != nil {
		return 0, err
	}
	return int64(len(f.node.data)), nil
}

func (f *memFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.use("close"); err != nil {
		return err
	}
	f.closed = true
	return nil
}
