package config

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/exporter/tsdb"
)

// Finding is one step on the way to a backend.
type Finding = exporter.Finding

// Inspection is what was found about one backend.
type Inspection struct {
	Backend  string
	Findings []Finding
}

// Inspect talks to all backends at the same time, and returns what it found of each in the
// order of the file. It opens no store: of those it looks whether their directory, below
// dir where they have no path of their own, can be written. It takes as long as ctx or the backends' timeouts allow.
func (c *Config) Inspect(ctx context.Context, dir string) []Inspection {
	list := make([]Inspection, len(c.Backends))
	var wg sync.WaitGroup
	for i := range c.Backends {
		wg.Go(func() { list[i] = Inspection{c.Backends[i].Name, c.Backends[i].inspect(ctx, dir)} })
	}
	wg.Wait()
	return list
}

func (b *Backend) inspect(ctx context.Context, dir string) []Finding {
	if c, ok := b.KindConfig().(*tsdb.Config); ok {
		return []Finding{writable(storeDir(c, b.Name, dir))}
	}
	opened, err := b.Open(OpenOptions{Dir: dir, Instance: "check", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return []Finding{{Step: "open", Text: err.Error()}}
	}
	defer func() { _ = opened.Close() }() // nothing is kept in it
	if i, ok := opened.(exporter.Inspector); ok {
		return i.Inspect(ctx)
	}
	f := Finding{Step: "answer", OK: true, Text: "it answers"}
	if err := opened.Probe(ctx); err != nil {
		f.OK, f.Text = false, err.Error()
	}
	return []Finding{f}
}

// writable says whether a directory can be written, or made.
func writable(dir string) Finding {
	f := Finding{Step: "store", OK: true, Text: dir}
	at := dir
	for {
		if _, err := os.Stat(at); err == nil || filepath.Dir(at) == at {
			break
		}
		at, f.Text = filepath.Dir(at), dir+" will be made"
	}
	file, err := os.CreateTemp(at, ".sluice-check-*")
	if err == nil {
		err = file.Close()
		_ = os.Remove(file.Name()) // it is empty, and named for what it is
	}
	if err != nil {
		return Finding{Step: "store", Text: fmt.Sprintf("%s cannot be written; see --storage.path: %v", dir, err)}
	}
	return f
}
