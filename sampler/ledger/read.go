package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

// Read returns what the ledger of a backend says, without changing it: also while it is
// in use, when it may miss the newest records, and while no gateway runs, when counts
// that the cursor did not get to are in it. A backend without a ledger has an empty one.
func Read(v vfs.FS, dir, backend string) (View, error) {
	found, err := load(v, dir, backend)
	if err != nil {
		return View{}, fmt.Errorf("read the ledger of backend %s in %s: %w", backend, dir, err)
	}
	return found.state.view(backend), nil
}

// Needed is from where on the journal is needed to give back what the view says is owed;
// see Ledger.Needed. It serves before the journal is open.
func (v *View) Needed() (from journal.Position, ok bool) {
	for i := range v.Entries {
		if e := &v.Entries[i]; e.Closed == 0 && (!ok || e.Rebuild.Before(from)) {
			from, ok = e.Rebuild, true
		}
	}
	return from, ok
}

// Backends lists the backends that have a ledger in the directory.
func Backends(v vfs.FS, dir string) ([]string, error) {
	names, err := v.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the ledgers in %s: %w", dir, err)
	}
	var list []string
	for _, name := range names {
		if b, _, ok := parseFileName(name); ok && !slices.Contains(list, b) {
			list = append(list, b)
		}
	}
	return list, nil
}

// Remove deletes the ledger of a backend that is no more. It must not be open.
func Remove(v vfs.FS, dir, backend string) error {
	generations, err := list(v, dir, backend)
	if err != nil {
		return err
	}
	var errs []error
	for _, g := range generations {
		errs = append(errs, v.Remove(dir+"/"+fileName(backend, g)))
	}
	if len(generations) > 0 {
		errs = append(errs, v.SyncDir(dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the ledger of backend %s in %s: %w", backend, dir, err)
	}
	return nil
}
