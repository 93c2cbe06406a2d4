package gateway

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// announceEvery is how often it is looked whether a backend has taken something.
const announceEvery = 500 * time.Millisecond

// announce logs what a start has found: what is kept in the data directory, and of each
// backend, once it has taken something, in which protocol. That one fails its lane tells.
func (g *Gateway) announce(ctx context.Context) {
	lines := *g.lines.Load()
	before := make(map[*line]uint64, len(lines))
	var waiting uint64
	for _, l := range lines {
		b := l.lane().Balance()
		before[l] = b.Totals.Delivered.Samples + b.Totals.Delivered.Histograms
		waiting += b.InJournal.Samples + b.InJournal.Histograms
	}
	size, err := sizeOf(g.o.StoragePath)
	if err != nil {
		g.o.Logger.Warn("The data directory cannot be read as a whole", "dir", g.o.StoragePath, "err", err)
	}
	g.o.Logger.Info("Data directory", "dir", g.o.StoragePath, "size", fmt.Sprintf("%.1fMiB", float64(size)/(1<<20)), "undelivered_samples", waiting)
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	for len(before) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for l, n := range before {
			b := l.lane().Balance()
			if b.Totals.Delivered.Samples+b.Totals.Delivered.Histograms > n {
				l.logger.Info("The backend takes what it is sent", "protocol", l.protocol())
				delete(before, l)
			}
		}
	}
}

// protocol is how the backend is spoken to at present.
func (l *line) protocol() string {
	if b, ok := l.backend.(interface{ Protocol() string }); ok {
		return b.Protocol()
	}
	return l.config.Kind()
}

// sizeOf is the size of the files below a directory. Files that go away meanwhile do not
// count.
func sizeOf(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if path == dir {
				return err
			}
			return nil
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n, err
}
