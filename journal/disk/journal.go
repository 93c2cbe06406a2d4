package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path"
	"slices"
	"sort"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// Options are the inputs of Open.
type Options struct {
	// Dir is the directory of the journal. It is made if needed.
	Dir    string
	Config Config
	// FS is where Dir is; vfs.OS but in tests.
	FS     vfs.FS
	Logger *slog.Logger
	// Retain is what is retained from the start, by owner, as by Journal.Retain: so
	// nothing goes before its owner is there to say what it still needs.
	Retain map[string]journal.Position
	// Registerer takes the metrics. It may be nil in tests.
	Registerer prometheus.Registerer
}

// Journal is a journal.Journal in segment files.
//
// Locks are taken in the order of the fields writing, naming, mu; mu is never held
// during file operations.
type Journal struct {
	dir     string
	config  Config
	fs      vfs.FS
	logger  *slog.Logger
	metrics *metrics
	lock    io.Closer

	requests sync.Pool     // of *request
	kick     chan struct{} // wakes the writer
	stop     chan struct{} // closed by Close
	done     chan struct{} // closed when Run returned

	// writing is held by whoever changes segment files: the writer for a group,
	// SetBackends, Close.
	writing sync.Mutex
	w       writer

	// naming is held while cursors are added, removed or moved by the journal.
	naming sync.Mutex

	mu       sync.Mutex
	queue    []*request
	started  bool // Run was called
	stopped  bool // no append is taken any more
	closed   bool
	segments []*segment
	active   *segment // the one that is written, the last of segments; nil before the next append makes one
	next     uint64   // number of the next segment
	backends []journal.Backend
	tail     tail
	stored   map[string]*storedCursor
	replays  map[*replay]struct{}  // that are open
	retained map[string]*retention // by owner
	gone     journal.Position      // records before it were removed
	floor    journal.Position      // up to which cursors must move for the disk budget; never lowered
	trimming bool                  // the writer is to look for segments that can go
}

var _ journal.Journal = (*Journal)(nil)

// storedCursor is a cursor that is known on the disk. Its state is guarded by
// Journal.mu; its file by Journal.naming while the cursor is not open, and by
// cursor.using while it is.
type storedCursor struct {
	name  string
	file  *stateFile
	state journal.State
	open  *cursor // nil when it is not
}

// Open takes the directory for this process and recovers what it holds. It starts no
// goroutine: appends wait until Run is called. The journal must be closed.
func Open(o Options) (*Journal, error) {
	if err := o.Config.Validate(); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if o.Dir == "" || o.FS == nil || o.Logger == nil {
		return nil, errors.New("BUG: journal opened without directory, file system or logger")
	}
	m, err := newMetrics(o.Registerer, o.Config)
	if err != nil {
		return nil, err
	}
	j := &Journal{
		dir:      o.Dir,
		config:   o.Config,
		fs:       o.FS,
		logger:   o.Logger,
		metrics:  m,
		kick:     make(chan struct{}, 1),
		stop:     make(chan struct{}),
		done:     make(chan struct{}),
		next:     1,
		stored:   map[string]*storedCursor{},
		replays:  map[*replay]struct{}{},
		retained: map[string]*retention{},
	}
	for owner, from := range o.Retain {
		j.retain(owner, from)
	}
	j.requests.New = func() any { return &request{done: make(chan error, 1)} }
	j.tail.limit = int64(o.Config.TailBytes)
	if err := j.takeDirectory(); err != nil {
		m.unregister(o.Registerer)
		return nil, err
	}
	if err := j.recover(); err != nil {
		m.unregister(o.Registerer)
		return nil, errors.Join(fmt.Errorf("open journal in %s: %w", o.Dir, err), j.closeFiles())
	}
	return j, nil
}

func (j *Journal) segmentsDir() string { return path.Join(j.dir, "segments") }
func (j *Journal) cursorsDir() string  { return path.Join(j.dir, "cursors") }

func (j *Journal) sync() bool { return j.config.Durability == DurabilityFsync }

func (j *Journal) takeDirectory() error {
	for _, dir := range []string{j.segmentsDir(), j.cursorsDir(), j.sumsDir()} {
		if err := j.fs.MkdirAll(dir); err != nil {
			return fmt.Errorf("make the directory of the journal (choose another with --storage.path): %w", err)
		}
	}
	lock, err := j.fs.Lock(path.Join(j.dir, "LOCK"))
	switch {
	case errors.Is(err, vfs.ErrLocked):
		return fmt.Errorf("data directory %s is in use by another process: stop that one, or give this one a directory of its own with --storage.path: %w", j.dir, err)
	case err != nil:
		return fmt.Errorf("lock data directory %s: %w", j.dir, err)
	}
	j.lock = lock
	if !j.sync() {
		return nil
	}
	if err := j.fs.SyncDir(j.dir); err != nil {
		return errors.Join(fmt.Errorf("sync data directory %s: %w", j.dir, err), lock.Close())
	}
	return nil
}

// Tail implements journal.Journal.
func (j *Journal) Tail() journal.Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.tailLocked()
}

func (j *Journal) tailLocked() journal.Position {
	if j.active != nil {
		return journal.Position{Segment: j.active.id, Offset: j.active.end}
	}
	return journal.Position{Segment: j.next}
}

// SetBackends implements journal.Journal. The segment with the list is made by the
// next append; the position returned is before its first record.
func (j *Journal) SetBackends(list []journal.Backend) (journal.Position, error) {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return journal.Position{}, journal.ErrClosed
	}
	j.backends = slices.Clone(list)
	sealed := j.active
	j.active = nil
	p := j.tailLocked()
	j.mu.Unlock()
	j.w.seal()
	if sealed != nil {
		j.writeSum(sealed)
	}
	return p, nil
}

// Cursors implements journal.Journal. The names are sorted.
func (j *Journal) Cursors() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Sorted(maps.Keys(j.stored))
}

// OpenCursor implements journal.Journal.
func (j *Journal) OpenCursor(name string) (journal.Cursor, error) {
	if name == "" {
		return nil, errors.New("open journal cursor: the name is empty")
	}
	j.naming.Lock()
	defer j.naming.Unlock()
	j.mu.Lock()
	closed, s := j.closed, j.stored[name]
	isOpen := s != nil && s.open != nil
	j.mu.Unlock()
	switch {
	case closed:
		return nil, journal.ErrClosed
	case s == nil:
		var err error
		if s, err = j.storeCursor(name); err != nil {
			return nil, fmt.Errorf("open journal cursor %q: %w", name, err)
		}
	case isOpen:
		return nil, fmt.Errorf("open journal cursor %q: it is open already", name)
	}
	c, err := j.newCursor(s)
	if err != nil {
		return nil, fmt.Errorf("open journal cursor %q: %w", name, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil, journal.ErrClosed
	}
	s.open = c
	if s.state.Position.Before(j.floor) {
		signal(c.floored)
	}
	return c, nil
}

// storeCursor makes the file of a new cursor at the tail. Records appended meanwhile
// are behind its position.
func (j *Journal) storeCursor(name string) (*storedCursor, error) {
	s := &storedCursor{name: name}
	j.mu.Lock()
	tail := j.tailLocked()
	s.state = journal.State{Position: tail, Horizon: tail}
	// Listed before it is stored, so that no segment behind it goes meanwhile.
	j.stored[name] = s
	j.mu.Unlock()
	var err error
	s.file, err = createState(j.fs, path.Join(j.cursorsDir(), cursorFileName(name)), s.state, j.sync())
	if err == nil && j.sync() {
		if err = j.fs.SyncDir(j.cursorsDir()); err != nil {
			err = errors.Join(fmt.Errorf("sync the directory of cursors: %w", err), s.file.close(), j.fs.Remove(s.file.path))
		}
	}
	if err != nil {
		j.mu.Lock()
		delete(j.stored, name)
		j.mu.Unlock()
		return nil, err
	}
	return s, nil
}

// DropCursor implements journal.Journal.
func (j *Journal) DropCursor(name string) (journal.State, journal.Lag, error) {
	j.naming.Lock()
	defer j.naming.Unlock()
	j.mu.Lock()
	closed, s := j.closed, j.stored[name]
	isOpen := s != nil && s.open != nil
	j.mu.Unlock()
	switch {
	case closed:
		return journal.State{}, journal.Lag{}, journal.ErrClosed
	case s == nil:
		return journal.State{}, journal.Lag{}, fmt.Errorf("drop journal cursor %q: there is none of this name", name)
	case isOpen:
		return journal.State{}, journal.Lag{}, fmt.Errorf("drop journal cursor %q: it is open", name)
	}
	c, err := j.newCursor(s)
	if err != nil {
		return journal.State{}, journal.Lag{}, fmt.Errorf("drop journal cursor %q: %w", name, err)
	}
	lag := c.Lag()
	if err := j.fs.Remove(s.file.path); err != nil {
		return journal.State{}, journal.Lag{}, fmt.Errorf("drop journal cursor %q: %w", name, err)
	}
	j.mu.Lock()
	delete(j.stored, name)
	j.trimming = true
	j.mu.Unlock()
	j.wake()
	err = s.file.close()
	if j.sync() {
		err = errors.Join(err, j.fs.SyncDir(j.cursorsDir()))
	}
	if err != nil {
		j.logger.Warn("The file of a dropped journal cursor may come back after a power loss.", "cursor", name, "err", err)
	}
	return s.state.Clone(), lag, nil
}

// Close stops Run and waits for it, closes all cursors and readers, and gives the directory back.
// Appends that wait get ErrClosed.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed, j.stopped = true, true
	started := j.started
	j.mu.Unlock()
	close(j.stop)
	if started {
		<-j.done
	}
	j.mu.Lock()
	waiting := j.queue
	j.queue = nil
	var open []io.Closer
	for _, s := range j.stored {
		if s.open != nil {
			open = append(open, s.open)
		}
	}
	for r := range j.replays {
		open = append(open, r)
	}
	j.mu.Unlock()
	for _, r := range waiting {
		r.batch.Release()
		r.done <- journal.ErrClosed
	}
	var errs []error
	for _, c := range open {
		errs = append(errs, c.Close())
	}
	j.writing.Lock()
	defer j.writing.Unlock()
	j.naming.Lock()
	defer j.naming.Unlock()
	j.mu.Lock()
	j.tail.clear()
	j.mu.Unlock()
	errs = append(errs, j.finish(), j.closeFiles())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close journal in %s: %w", j.dir, err)
	}
	return nil
}

func (j *Journal) closeFiles() error {
	var errs []error
	for _, s := range j.stored {
		if s.file != nil {
			errs = append(errs, s.file.close())
		}
	}
	return errors.Join(append(errs, j.lock.Close())...)
}

// locate returns the segment with the first record at or behind p and where in it
// that record starts; nil when p is the tail or behind it. j.mu is held.
func (j *Journal) locate(p journal.Position) (*segment, int64) {
	i := sort.Search(len(j.segments), func(i int) bool { return j.segments[i].id >= p.Segment })
	for ; i < len(j.segments); i++ {
		s, off := j.segments[i], j.segments[i].first
		if s.id == p.Segment {
			off = max(off, p.Offset)
		}
		if off < s.end {
			return s, off
		}
	}
	return nil, 0
}

// canonical returns one position for all that have no record between them. j.mu is
// held.
func (j *Journal) canonical(p journal.Position) journal.Position {
	s, off := j.locate(p)
	if s == nil {
		return journal.Position{Segment: ^uint64(0)}
	}
	return journal.Position{Segment: s.id, Offset: off}
}

// wake makes the writer look at its work.
func (j *Journal) wake() { signal(j.kick) }

// Run writes what is appended and removes segments that are not needed any more,
// until ctx ends or the journal is closed. Appends that wait then are still written;
// later ones get ErrClosed. It is called once.
func (j *Journal) Run(ctx context.Context) error {
	j.mu.Lock()
	switch {
	case j.started:
		j.mu.Unlock()
		return errors.New("BUG: journal run twice")
	case j.closed:
		j.mu.Unlock()
		return journal.ErrClosed
	}
	j.started = true
	j.mu.Unlock()
	defer close(j.done)
	j.loop(ctx)
	j.mu.Lock()
	j.stopped = true
	j.mu.Unlock()
	j.turn()
	return nil
}
