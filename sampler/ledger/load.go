package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"

	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// maxFile bounds what is read of a file.
const maxFile = 1 << 30

// loaded is what the files of a ledger amount to.
type loaded struct {
	state      *state
	litter     []string // files that do not count
	generation uint64   // of the newest of them; 0 when there is none
	path       string   // of the one that counts; empty when none does
	size       int64    // of its records
	damaged    bool     // records behind damagedAt are lost
	damagedAt  int64
	complete   bool // has a Ready
	steps      int  // of the entry that was begun last in the snapshot
}

// load reads the newest complete file of a ledger. One that is not complete was being
// written when the process died, and nothing had taken effect that only it says. If there
// is only such a one, it is damaged, or it is the first: then it says nothing.
func load(v vfs.FS, dir, backend string) (*loaded, error) {
	generations, err := list(v, dir, backend)
	if err != nil {
		return nil, err
	}
	empty := &loaded{state: newState()}
	best := empty
	for _, g := range slices.Backward(generations) {
		p := path.Join(dir, fileName(backend, g))
		found, err := loadFile(v, p, backend)
		if err != nil {
			return nil, err
		}
		if found.complete {
			best = found
			break
		}
		if found.damaged = found.damaged || g > 1; found.damaged && best == empty {
			best = found
		}
	}
	if best.damaged && !best.complete {
		best.salvage()
	}
	for _, g := range generations {
		if p := path.Join(dir, fileName(backend, g)); p != best.path {
			best.litter = append(best.litter, p)
		}
		best.generation = max(best.generation, g)
	}
	best.state.damaged = best.damaged
	return best, nil
}

// list returns the numbers of the files of a ledger, in order.
func list(v vfs.FS, dir, backend string) ([]uint64, error) {
	names, err := v.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the ledgers: %w", err)
	}
	var generations []uint64
	for _, name := range names {
		if b, g, ok := parseFileName(name); ok && b == backend {
			generations = append(generations, g)
		}
	}
	slices.Sort(generations)
	return generations, nil
}

func loadFile(v vfs.FS, p, backend string) (*loaded, error) {
	b, err := readAll(v, p)
	if err != nil {
		return nil, err
	}
	l, err := parse(b, backend)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	l.path = p
	return l, nil
}

func readAll(v vfs.FS, p string) (b []byte, err error) {
	f, err := v.Open(p)
	if err != nil {
		return nil, fmt.Errorf("open the file of a ledger: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("read the file of a ledger: %w", err)
	}
	if size > maxFile {
		return nil, fmt.Errorf("the file of a ledger %s has %d bytes, and none is larger than %d: it is not one", p, size, int64(maxFile))
	}
	b = make([]byte, size)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the file of a ledger: %w", err)
	}
	return b[:n], nil
}

// parse replays the records of a file. Its error is about the format; damage is no error.
func parse(b []byte, backend string) (*loaded, error) {
	l := &loaded{state: newState()}
	at, number := 0, uint64(0)
	for {
		n, payload, ok := parseFrame(b[at:])
		if !ok || n != number {
			break
		}
		if err := l.replay(payload, backend); errors.Is(err, errVersion) {
			return nil, err
		} else if err != nil {
			break
		}
		at += frameHeader + len(payload)
		number++
	}
	rest := bytes.TrimRight(b[at:], "\x00")
	l.size = int64(at + len(rest))
	l.damagedAt = int64(at)
	// The frame at the start of the rest is a good one when its record was not.
	l.damaged = framesFollow(rest, number)
	return l, nil
}

// replay applies a record. A file begins with its header; a snapshot ends with Ready.
func (l *loaded) replay(payload []byte, backend string) error {
	var r record
	if err := json.Unmarshal(payload, &r); err != nil {
		return fmt.Errorf("%w: %w", errRecord, err)
	}
	switch {
	case r.Header != nil:
		if r.Header.Version != formatVersion {
			return fmt.Errorf("format %d: %w", r.Header.Version, errVersion)
		}
		if r.Header.Backend != backend {
			return fmt.Errorf("%w: it is of backend %s", errRecord, r.Header.Backend)
		}
		return nil
	case r.Ready:
		if e := l.state.last(); e != nil && len(e.Steps) < l.steps {
			return errRecord
		}
		l.complete = true
		return nil
	case l.complete && (r.State != nil || r.Config != nil || r.Entry != nil || r.More != nil):
		return errRecord
	case r.State != nil || r.Config != nil || r.Entry != nil || r.More != nil:
		if r.Entry != nil {
			l.steps = r.Entry.Steps
		}
		return l.state.restore(&r)
	}
	if err := l.state.check(&r); err != nil {
		return err
	}
	l.state.apply(&r)
	return nil
}
