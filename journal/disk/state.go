package disk

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/url"
	"strings"

	"github.com/sluice-metrics/sluice/journal"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

const (
	slotSize   = 16 << 10
	slotHeader = 16 // sequence number 8, length 4, CRC-32C 4
)

// stateFile is the file of one cursor: two slots, written alternately, so that the
// newest good state is never overwritten. A slot whose write or sync failed is
// written again before the other one is touched.
type stateFile struct {
	fs   vfs.FS
	path string
	file vfs.File // nil after a failure: the next write opens it again
	seq  uint64   // of the newest good slot
	slot int      // the newest good slot
	buf  []byte
}

// errNoState is returned when neither slot of a file is good.
var errNoState = errors.New("neither of the two stored states can be read")

// createState makes the file of a new cursor and stores its first state.
func createState(fs vfs.FS, path string, st journal.State, sync bool) (*stateFile, error) {
	f, err := fs.Create(path)
	if err != nil {
		return nil, fmt.Errorf("create cursor file: %w", err)
	}
	sf := &stateFile{fs: fs, path: path, file: f, slot: 1}
	if err := sf.write(st, sync); err != nil {
		return nil, errors.Join(err, sf.close(), fs.Remove(path))
	}
	return sf, nil
}

// openState opens the file of a known cursor and returns its newest good state. With
// errNoState the file is returned too and can be written.
func openState(fs vfs.FS, path string) (*stateFile, journal.State, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, journal.State{}, fmt.Errorf("open cursor file: %w", err)
	}
	sf := &stateFile{fs: fs, path: path, file: f, slot: 1}
	var newest journal.State
	found := false
	b := make([]byte, slotSize)
	for slot := range 2 {
		n, err := f.ReadAt(b, int64(slot)*slotSize)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, newest, errors.Join(fmt.Errorf("read cursor file: %w", err), f.Close())
		}
		if seq, st, ok := parseSlot(b[:n]); ok && seq > sf.seq {
			sf.seq, sf.slot, newest, found = seq, slot, st, true
		}
	}
	if !found {
		return sf, newest, errNoState
	}
	return sf, newest, nil
}

func parseSlot(b []byte) (seq uint64, st journal.State, ok bool) {
	if len(b) < slotHeader {
		return 0, st, false
	}
	seq = binary.LittleEndian.Uint64(b)
	n := binary.LittleEndian.Uint32(b[8:])
	if n > uint32(len(b)-slotHeader) || slotCRC(b[:slotHeader+n]) != binary.LittleEndian.Uint32(b[12:]) {
		return 0, st, false
	}
	return seq, st, json.Unmarshal(b[slotHeader:slotHeader+n], &st) == nil
}

func slotCRC(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], crcTable()), crcTable(), b[slotHeader:])
}

// write stores the state in the older slot.
func (f *stateFile) write(st journal.State, sync bool) error {
	text, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encode the state of a cursor: %w", err)
	}
	if len(text) > slotSize-slotHeader {
		return fmt.Errorf("the state of cursor file %s takes %d bytes, more than its slot of %d", f.path, len(text), slotSize-slotHeader)
	}
	if f.file == nil {
		if f.file, err = f.fs.Open(f.path); err != nil {
			return fmt.Errorf("open cursor file again: %w", err)
		}
	}
	b := binary.LittleEndian.AppendUint64(f.buf[:0], f.seq+1)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	b = append(b, 0, 0, 0, 0)
	b = append(b, text...)
	binary.LittleEndian.PutUint32(b[12:], slotCRC(b))
	f.buf = b
	slot := 1 - f.slot
	if _, err := f.file.WriteAt(b, int64(slot)*slotSize); err != nil {
		return errors.Join(fmt.Errorf("write cursor file: %w", err), f.close())
	}
	if sync {
		if err := f.file.Sync(); err != nil {
			return errors.Join(fmt.Errorf("sync cursor file: %w", err), f.close())
		}
	}
	f.slot = slot
	f.seq++
	return nil
}

func (f *stateFile) close() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}

// cursorFileName is a file name for any name of a cursor but the empty one.
func cursorFileName(name string) string {
	s := url.PathEscape(name)
	if strings.HasPrefix(s, ".") {
		s = "%2E" + s[1:]
	}
	return s
}

func parseCursorFileName(file string) (string, bool) {
	name, err := url.PathUnescape(file)
	return name, err == nil && name != "" && cursorFileName(name) == file
}
