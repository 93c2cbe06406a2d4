package disk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// script is a random run of appends, reads and commits against one journal, which
// knows at every moment what it was promised.
type script struct {
	rng *rand.Rand
	fs  vfs.FS
	cfg disk.Config
	j   *running
	c   journal.Cursor // of "a", which commits

	mu        sync.Mutex
	step      map[int]int     // in which step a batch was appended
	started   map[int]bool    // Append was called
	acked     map[int]bool    // Append returned nil
	refused   map[int]bool    // Append returned an error
	committed journal.State   // the last one whose Commit returned nil
	trying    []journal.State // those after it whose Commit did not
	consumed  []int           // by "a", up to its last read
	settled   map[journal.Position]int
	opened    bool // "a" is stored
	restarted bool
}

func newScript(seed uint64, fs vfs.FS, cfg disk.Config) *script {
	return &script{
		rng: rand.New(rand.NewPCG(seed, 1)), fs: fs, cfg: cfg,
		step: map[int]int{}, started: map[int]bool{}, acked: map[int]bool{}, refused: map[int]bool{},
		settled: map[journal.Position]int{},
	}
}

// promise is a copy of what a script knew at one moment.
type promise struct {
	acked, started map[int]bool
	step           map[int]int
	committed      journal.State
	trying         []journal.State
	settled        map[journal.Position]int
	consumed       []int
	opened         bool
}

func (s *script) promise() promise {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := promise{
		acked: map[int]bool{}, started: map[int]bool{}, step: map[int]int{},
		committed: s.committed, trying: slices.Clone(s.trying),
		settled: map[journal.Position]int{}, consumed: slices.Clone(s.consumed), opened: s.opened,
	}
	for k := range s.acked {
		p.acked[k] = true
	}
	for k, v := range s.step {
		p.step[k] = v
	}
	for k := range s.started {
		p.started[k] = true
	}
	for k, v := range s.settled {
		p.settled[k] = v
	}
	return p
}

// open opens the journal, again after a failure. It gives up after a few.
func (s *script) open() error {
	var err error
	for range 3 {
		if s.j, err = tryOpen(s.fs, s.cfg); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	return s.openCursor()
}

func (s *script) openCursor() error {
	var c journal.Cursor
	var err error
	for range 3 {
		if c, err = s.j.OpenCursor("a"); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c = c
	s.restarted = true
	if !s.opened {
		s.opened = true
		s.restarted = false
		s.committed = c.Committed()
		s.settled[s.committed.Position] = 0
	}
	n, ok := s.settled[c.Committed().Position]
	if !ok {
		return fmt.Errorf("the cursor came back at %v, which was never committed", c.Committed().Position)
	}
	s.consumed = s.consumed[:n]
	return nil
}

// run does n random things.
func (s *script) run(n int) error {
	seq := 0
	for step := range n {
		switch s.rng.IntN(10) {
		case 0, 1, 2:
			s.append(step, seq, 1)
			seq++
		case 3, 4:
			group := 2 + s.rng.IntN(4)
			s.append(step, seq, group)
			seq += group
		case 5, 6, 7:
			for range s.rng.IntN(4) {
				if err := s.read(); err != nil {
					return err
				}
			}
		case 8:
			s.commit()
		case 9:
			switch s.rng.IntN(3) {
			case 0:
				_, err := s.j.SetBackends([]journal.Backend{{Name: "a", Digest: fmt.Sprint(step)}})
				if err != nil {
					return err
				}
			case 1:
				_ = s.j.stop()
				if err := s.open(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// append appends some at once.
func (s *script) append(step, seq, group int) {
	var wg sync.WaitGroup
	for i := range group {
		size := 8 + s.rng.IntN(900)
		if s.rng.IntN(12) == 0 {
			size += 6000
		}
		n := seq + i
		s.mu.Lock()
		s.step[n], s.started[n] = step, true
		s.mu.Unlock()
		wg.Go(func() {
			err := tryAppend(s.j, n, size)
			s.mu.Lock()
			defer s.mu.Unlock()
			if err == nil {
				s.acked[n] = true
			} else {
				s.refused[n] = true
			}
		})
	}
	wg.Wait()
}

func (s *script) read() error {
	for range 3 {
		rec, ok, err := s.c.Next(context.Background(), false)
		if err != nil {
			continue // a fault of the file system, to be tried again
		}
		if ok {
			n, err := identify(rec.Batch)
			rec.Batch.Release()
			if err != nil {
				return err
			}
			s.mu.Lock()
			s.consumed = append(s.consumed, n)
			s.settled[rec.End] = len(s.consumed)
			s.mu.Unlock()
		}
		return nil
	}
	return errors.New("reading failed three times")
}

func (s *script) commit() {
	s.mu.Lock()
	var sum series.Counts
	for _, n := range s.consumed {
		sum.Add(countsOf(n))
	}
	st := journal.State{Position: s.c.Read(), Horizon: s.c.Read(), Totals: journal.Totals{Delivered: sum}}
	s.settled[st.Position] = len(s.consumed)
	s.trying = append(s.trying, st)
	s.mu.Unlock()
	err := s.c.Commit(st)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.committed, s.trying = st, nil
	}
}

func identify(b *series.Batch) (int, error) {
	want := make([]byte, len(b.Body))
	n := 0
	for i := 7; i >= 0; i-- {
		n = n<<8 | int(b.Body[i])
	}
	fill(want, n)
	if !slices.Equal(want, b.Body) {
		return 0, fmt.Errorf("the body of batch %d is not what was appended", n)
	}
	return n, nil
}

// verify opens what a crash left and compares it with what was promised before.
func (p promise) verify(t *testing.T, fs *vfs.Mem, cfg disk.Config) {
	t.Helper()
	j, err := tryOpen(fs, cfg)
	require.NoError(t, err)
	if !p.opened {
		require.NoError(t, j.stop())
		return
	}
	c := openCursor(t, j, "a")
	got := c.Committed()
	allowed := append(slices.Clone(p.trying), p.committed)
	require.Contains(t, allowed, got, "the stored state")
	before, ok := p.settled[got.Position]
	require.True(t, ok)

	lag := c.Lag()
	var rest []int
	var sum, damaged series.Counts
	for {
		n, rec, ok := next(t, c)
		damaged.Add(c.Damaged())
		if !ok {
			break
		}
		require.Equal(t, countsOf(n), rec.Counts)
		sum.Add(rec.Counts)
		rest = append(rest, n)
	}
	sum.Add(damaged)
	require.Equal(t, lag.Counts, sum, "lag is what can be read, and what is known to be damaged")
	require.Equal(t, lag.Counts, c.Lag().Counts)

	all := append(slices.Clone(p.consumed[:before]), rest...)
	seen := map[int]bool{}
	step := 0
	for _, n := range all {
		require.False(t, seen[n], "batch %d is there twice", n)
		seen[n] = true
		require.True(t, p.started[n], "batch %d was never appended", n)
		require.GreaterOrEqual(t, p.step[n], step, "batch %d is out of order", n)
		step = p.step[n]
	}
	for n := range p.acked {
		require.True(t, seen[n], "batch %d was acknowledged and is lost", n)
	}

	const more = 1_000_000
	appendBatch(t, j, more, 300)
	require.Equal(t, []int{more}, drain(t, c), "the journal goes on after the crash")
	require.NoError(t, j.stop())
	j, err = tryOpen(fs, cfg)
	require.NoError(t, err)
	require.Equal(t, append(rest, more), drain(t, openCursor(t, j, "a")), "and says the same after another start")
	require.NoError(t, j.stop())
}

// crashing takes clones of a file system in memory after each operation that changes
// it.
type crashing struct {
	*vfs.Mem
	mu    sync.Mutex
	after func(*vfs.Mem)
}

func (f *crashing) changed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after(f.Mem)
}

type crashingFile struct {
	vfs.File
	fs *crashing
}

func (f *crashing) Create(path string) (vfs.File, error) {
	file, err := f.Mem.Create(path)
	f.changed()
	return &crashingFile{file, f}, err
}

func (f *crashing) Open(path string) (vfs.File, error) {
	file, err := f.Mem.Open(path)
	return &crashingFile{file, f}, err
}

func (f *crashing) Remove(path string) error {
	defer f.changed()
	return f.Mem.Remove(path)
}

func (f *crashing) SyncDir(dir string) error {
	defer f.changed()
	return f.Mem.SyncDir(dir)
}

func (f *crashing) Lock(path string) (io.Closer, error) { return f.Mem.Lock(path) }

func (f *crashingFile) WriteAt(b []byte, off int64) (int, error) {
	defer f.fs.changed()
	return f.File.WriteAt(b, off)
}

func (f *crashingFile) Truncate(size int64) error {
	defer f.fs.changed()
	return f.File.Truncate(size)
}

func (f *crashingFile) Sync() error {
	defer f.fs.changed()
	return f.File.Sync()
}

// After a crash behind any operation everything acknowledged is there, once and in
// order, and the accounting holds: the death of the process in both durabilities, a
// power loss in fsync.
func TestCrashMatrix(t *testing.T) {
	for _, mode := range []func(*disk.Config){func(*disk.Config) {}, fsync} {
		cfg := testConfig(mode)
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%s/%d", cfg.Durability, seed), func(t *testing.T) {
				t.Parallel()
				type moment struct {
					promise promise
					clones  []*vfs.Mem
				}
				var moments []moment
				rng := rand.New(rand.NewPCG(seed, 2))
				fs := &crashing{Mem: vfs.NewMem()}
				s := newScript(seed, fs, cfg)
				fs.after = func(m *vfs.Mem) {
					now := moment{promise: s.promise(), clones: []*vfs.Mem{m.KillClone()}}
					if cfg.Durability == disk.DurabilityFsync {
						now.clones = append(now.clones, m.CrashClone(nil), m.CrashClone(rng), m.CrashClone(rng), m.KillClone().CrashClone(rng))
					}
					moments = append(moments, now)
				}
				require.NoError(t, s.open())
				require.NoError(t, s.run(60))
				require.NoError(t, s.j.stop())
				require.Greater(t, len(moments), 50)
				for i, m := range moments {
					for kind, clone := range m.clones {
						if !t.Run(fmt.Sprintf("%d/%d", i, kind), func(t *testing.T) { m.promise.verify(t, clone, cfg) }) {
							return
						}
					}
				}
			})
		}
	}
}

// Whichever operation fails, once or from then on: what was acknowledged is read once
// and in order, what was refused is not read, and after the disk is well again the
// journal goes on.
func TestEveryOperationFails(t *testing.T) {
	for _, mode := range []func(*disk.Config){func(*disk.Config) {}, fsync} {
		cfg := testConfig(mode)
		for _, kind := range []failure{
			{name: "once"},
			{name: "forever", forever: true, ops: []vfs.Op{vfs.OpWrite, vfs.OpSync, vfs.OpCreate, vfs.OpRemove}},
			// What can neither be synced nor cut may come back after a restart.
			{name: "uncuttable", forever: true, ops: []vfs.Op{vfs.OpWrite, vfs.OpSync, vfs.OpTruncate}, comeBack: true},
		} {
			t.Run(fmt.Sprintf("%s/%s", cfg.Durability, kind.name), func(t *testing.T) {
				t.Parallel()
				for n := 1; ; n++ {
					if done := failAt(t, cfg, n, kind); done {
						require.Greater(t, n, 100)
						return
					}
				}
			})
		}
	}
}

// failure says how operations fail.
type failure struct {
	name     string
	forever  bool
	ops      []vfs.Op
	comeBack bool // refused batches may be delivered, but only after a restart
}

// failAt runs a script in which the n-th operation fails, and reports whether it had
// fewer operations.
func failAt(t *testing.T, cfg disk.Config, n int, kind failure) (done bool) {
	t.Helper()
	mem := vfs.NewMem()
	fs := vfs.NewFaulty(mem)
	fault := vfs.Fault{Ops: kind.ops, Nth: n, Forever: kind.forever, Err: syscall.EIO, Partial: n % 40}
	s := newScript(uint64(n), fs, cfg)
	fs.Inject(fault)
	if err := s.open(); err != nil {
		require.ErrorIs(t, err, syscall.EIO, "operation %d", n)
		require.True(t, kind.forever, "opening failed three times with one fault: %v", err)
		fs.Heal()
		if s.j != nil {
			_ = s.j.stop()
		}
		return false
	}
	s.rng = rand.New(rand.NewPCG(uint64(n)%7, 3))
	if err := s.run(40); err != nil {
		require.ErrorIs(t, err, syscall.EIO, "operation %d", n)
		fs.Heal()
		require.NoError(t, s.open())
	}
	calls := fs.Calls()
	fs.Heal()
	s.append(100, 10_000, 1)
	require.True(t, s.acked[10_000], "operation %d: the disk is well again", n)
	for len(s.consumed) == 0 || s.consumed[len(s.consumed)-1] != 10_000 {
		require.NoError(t, s.read())
	}
	s.check(t, n, kind.comeBack && s.restarted)
	s.commit()
	require.Equal(t, journal.Lag{}, s.c.Lag(), "operation %d", n)
	require.Zero(t, s.c.Damaged())
	left := s.promise()
	_ = s.j.stop()
	left.verify(t, mem, cfg)
	return n > calls
}

func (s *script) check(t *testing.T, op int, comeBack bool) {
	t.Helper()
	seen := map[int]bool{}
	step := 0
	for _, n := range s.consumed {
		require.False(t, seen[n], "operation %d: batch %d twice", op, n)
		seen[n] = true
		require.False(t, s.refused[n] && !comeBack, "operation %d: batch %d was refused and is delivered", op, n)
		require.GreaterOrEqual(t, s.step[n], step, "operation %d: batch %d out of order", op, n)
		step = s.step[n]
	}
	for n := range s.acked {
		require.True(t, seen[n], "operation %d: batch %d was acknowledged and is lost", op, n)
	}
}
