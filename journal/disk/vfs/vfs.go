// Package vfs is the narrow seam between the journal and the file system: the
// operating system's, one in memory that can be cloned as a crash would leave it,
// and one that fails on demand.
package vfs

import (
	"errors"
	"io"
)

// ErrLocked is returned by FS.Lock when somebody else holds the lock.
var ErrLocked = errors.New("locked by another process")

// FS is what the journal needs of a file system. Paths are slash-separated. Errors
// can be examined with errors.Is (fs.ErrNotExist, syscall.ENOSPC, …). All methods
// may be called from several goroutines.
type FS interface {
	// Create makes a new file, open for reading and writing. It is an error when the
	// name exists. The name survives a power loss only after SyncDir.
	Create(path string) (File, error)
	// Open opens an existing file for reading and writing.
	Open(path string) (File, error)
	// Remove deletes a file. Open handles stay usable.
	Remove(path string) error
	// List returns the sorted names of the files in dir.
	List(dir string) ([]string, error)
	// MkdirAll makes a directory and its parents where they do not exist.
	MkdirAll(dir string) error
	// SyncDir makes creations and removals in dir survive a power loss.
	SyncDir(dir string) error
	// Lock takes the exclusive lock on a file, which it creates if needed, until the
	// result is closed or the process ends. It returns ErrLocked at once when the
	// lock is taken.
	Lock(path string) (io.Closer, error)
}

// File is an open file. ReadAt and WriteAt may be called from several goroutines.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes what was written survive a power loss.
	Sync() error
	// Truncate changes the length of the file.
	Truncate(size int64) error
	// Size is the length of the file in bytes.
	Size() (int64, error)
}
