package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

const (
	fileSuffix = ".ledger"
	// maxReserve bounds store.reserve.
	maxReserve = 64 << 10
	// maxLitter bounds store.litter while a sick disk lets files be made and not removed.
	maxLitter = 16
)

// store is the files of a ledger. Only one of them is written.
//
// A file is never written again after a failure, nor after a restart: what is in it
// behind its good part is not known. The state is written to a new file, with the next
// number, instead. It counts from the moment that its Ready, and so everything before it, can
// be read.
type store struct {
	fs      vfs.FS
	dir     string
	backend string
	sync    bool
	// reserve is how many zeros a file has behind its end, so that a full disk does not at
	// once keep cursors from moving on, which is what makes room.
	reserve int64

	file       vfs.File // nil when the next record needs a new file
	path       string
	generation uint64 // of the newest file; 0 when there never was one
	number     uint64 // of the next frame
	end        int64  // where it goes
	allocated  int64  // length of the file, zeros behind end
	live       int64  // what of it the state took when it was written
	old        string // the file that counts while path does not yet
	// litter are files that need not count: what they say is in an older one, or in no
	// record that was told to be written. They go when they can be removed.
	litter []string
	// behind says that what is on the disk does not amount to the state.
	behind bool
	buf    []byte
}

// usable reports whether a record can be appended.
func (s *store) usable() bool { return s.file != nil && !s.behind }

// size is the length of what was written.
func (s *store) size() int64 { return s.end }

// append writes a payload. After an error it is not in the file, or the file is not
// used any more.
func (s *store) append(payload []byte) error {
	s.extend(frameHeader + int64(len(payload)))
	s.buf = appendFrame(s.buf[:0], s.number, payload)
	if _, err := s.file.WriteAt(s.buf, s.end); err != nil {
		return s.fail(fmt.Errorf("write %s: %w", s.path, err))
	}
	if s.sync {
		if err := s.file.Sync(); err != nil {
			return s.fail(fmt.Errorf("sync %s: %w", s.path, err))
		}
	}
	s.end += int64(len(s.buf))
	s.allocated = max(s.allocated, s.end)
	s.number++
	return nil
}

// extend keeps zeros behind the record that is going to be written. That there is no room
// for them is found out when there is none for a record.
func (s *store) extend(n int64) {
	if s.end+n+s.reserve/2 <= s.allocated {
		return
	}
	to := s.end + n + s.reserve
	if _, err := s.file.WriteAt(make([]byte, to-s.allocated), s.allocated); err == nil {
		s.allocated = to
	}
}

// fail gives the file up, without what the failed write may have left of a record.
func (s *store) fail(err error) error {
	s.behind = true
	return errors.Join(err, s.file.Truncate(s.end), s.close())
}

func (s *store) close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	if err != nil {
		return fmt.Errorf("close %s: %w", s.path, err)
	}
	return nil
}

// rewrite writes the state to a new file, and takes the others away. After an error the
// old file is used on where that is possible.
func (s *store) rewrite(st *state) error {
	if err := s.fs.MkdirAll(s.dir); err != nil {
		return fmt.Errorf("make the directory of the ledgers: %w", err)
	}
	if s.sweep(); len(s.litter) > maxLitter {
		return fmt.Errorf("no file can be made for the ledger while %d in %s cannot be removed", len(s.litter), s.dir)
	}
	s.generation++
	next := &store{fs: s.fs, dir: s.dir, backend: s.backend, sync: s.sync, reserve: s.reserve, generation: s.generation}
	next.path = path.Join(s.dir, fileName(s.backend, s.generation))
	f, err := s.fs.Create(next.path)
	if err != nil {
		return fmt.Errorf("create a file for the ledger: %w", err)
	}
	next.file = f
	if err := next.begin(st); err != nil {
		return s.abandon(next, err)
	}
	if err := next.ready(); err != nil {
		// It may count from now on, so the old one must not get anything that it lacks.
		s.behind = true
		return s.abandon(next, err)
	}
	next.litter = s.litter
	for _, p := range []string{s.old, s.path} {
		if p != "" {
			next.litter = append(next.litter, p)
		}
	}
	_ = s.close() // nothing of it is needed any more
	*s = *next
	s.sweep()
	return nil
}

// abandon takes a file away that could not be completed.
func (s *store) abandon(next *store, err error) error {
	err = errors.Join(err, next.close())
	if rerr := s.fs.Remove(next.path); rerr != nil {
		s.litter = append(s.litter, next.path)
		return errors.Join(err, rerr)
	}
	if !s.behind {
		s.generation-- // a first file that is not complete is no damage
	}
	return err
}

// begin writes header and snapshot, and makes the name of the file durable.
func (s *store) begin(st *state) error {
	list := append([]*record{{Header: &headerRecord{formatVersion, s.backend}}}, st.snapshot()...)
	for _, r := range list {
		payload, err := r.encode()
		if err != nil {
			return err
		}
		s.buf = appendFrame(s.buf, s.number, payload)
		s.number++
	}
	if _, err := s.file.WriteAt(s.buf, 0); err != nil {
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	s.end = int64(len(s.buf))
	s.allocated = s.end
	s.buf = nil
	s.extend(0)
	if err := s.fs.SyncDir(s.dir); err != nil {
		return fmt.Errorf("sync the directory of the ledgers: %w", err)
	}
	return nil
}

// ready makes the file count. It is synced in any case, since others are removed then.
func (s *store) ready() error {
	payload, err := (&record{Ready: true}).encode()
	if err != nil {
		return err
	}
	if err := s.append(payload); err != nil {
		return err
	}
	s.live = s.end
	if s.sync {
		return nil
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", s.path, err)
	}
	return nil
}

// sweep removes the litter. What cannot be removed is tried again.
func (s *store) sweep() {
	s.litter = slices.DeleteFunc(s.litter, func(p string) bool {
		err := s.fs.Remove(p)
		return err == nil || errors.Is(err, fs.ErrNotExist)
	})
}

// fileName is the name of a ledger's file.
func fileName(backend string, generation uint64) string {
	return fmt.Sprintf("%s.%010d%s", escape(backend), generation, fileSuffix)
}

// escape makes a name of a file out of any name of a backend but the empty one.
func escape(backend string) string {
	name := url.PathEscape(backend)
	if strings.HasPrefix(name, ".") {
		name = "%2E" + name[1:]
	}
	return name
}

func parseFileName(name string) (backend string, generation uint64, ok bool) {
	name, ok = strings.CutSuffix(name, fileSuffix)
	dot := strings.LastIndexByte(name, '.')
	if !ok || dot < 0 {
		return "", 0, false
	}
	generation, err := strconv.ParseUint(name[dot+1:], 10, 64)
	if err != nil {
		return "", 0, false
	}
	backend, err = url.PathUnescape(name[:dot])
	if err != nil || backend == "" || fileName(backend, generation) != name+fileSuffix {
		return "", 0, false
	}
	return backend, generation, true
}
