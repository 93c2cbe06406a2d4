package tsdb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/prometheus/prometheus/tsdb/wlog"

	"github.com/sluice-metrics/sluice/exporter"
)

var _ exporter.Syncer = (*Backend)(nil)

// syncer remembers up to which file each of the store's logs is on the disk.
type syncer struct {
	mu   sync.Mutex
	last map[string]int // by directory: number of the newest segment at the last Sync
}

// Sync implements exporter.Syncer. The store itself syncs a log segment only once it is
// full; what is appended goes through the page cache into the segments of two logs
// before a Send returns, so syncing these files is enough to find it after a loss of
// power.
func (b *Backend) Sync() error {
	b.syncer.mu.Lock()
	defer b.syncer.mu.Unlock()
	if b.syncer.last == nil {
		b.syncer.last = map[string]int{}
	}
	for _, name := range []string{"wal", wlog.WblDirName} {
		if err := b.syncer.sync(filepath.Join(b.dir, name)); err != nil {
			return fmt.Errorf("embedded store %s: sync its log: %w", b.name, err)
		}
	}
	return nil
}

func (s *syncer) sync(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the log of out-of-order samples comes with the first of them
	}
	if err != nil {
		return err
	}
	newest := s.last[dir]
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil || n < s.last[dir] || e.IsDir() {
			continue // a checkpoint, or a segment that was full before the last Sync
		}
		if err := syncFile(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		newest = max(newest, n)
	}
	s.last[dir] = newest
	return syncFile(dir)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
