package testutil

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// SluiceOptions configure a Sluice.
type SluiceOptions struct {
	Config string   // text of the configuration file; empty starts without one
	Args   []string // further flags
	Env    []string
	// Limit bounds the time until it is ready; 0 is 30 s.
	Limit time.Duration
}

// Sluice is the built program, which may be killed and started again on the same
// address and data. Its methods are called from one goroutine.
type Sluice struct {
	*Process
	Address string // host:port
	Data    string // --storage.path
	File    string // --config.file
	opts    SluiceOptions
	path    string
	limit   int64 // of a file's size; 0 is none
}

// NewSluice prepares a Sluice with an address and a data folder of its own, without
// starting it.
func NewSluice(t testing.TB, opts SluiceOptions) *Sluice {
	t.Helper()
	dir := t.TempDir()
	s := &Sluice{
		Address: FreeAddress(t), Data: filepath.Join(dir, "data"), File: filepath.Join(dir, "sluice.yaml"),
		opts: opts, path: BuildSluice(t),
	}
	if s.opts.Limit == 0 {
		s.opts.Limit = 30 * time.Second
	}
	if opts.Config != "" {
		s.Configure(t, opts.Config)
	}
	return s
}

// StartSluice starts a Sluice and waits until it is ready.
func StartSluice(t testing.TB, opts SluiceOptions) *Sluice {
	t.Helper()
	s := NewSluice(t, opts)
	s.Start(t)
	return s
}

// Configure writes the configuration file; a running Sluice reads it at a reload.
func (s *Sluice) Configure(t testing.TB, config string) {
	t.Helper()
	require.NoError(t, os.WriteFile(s.File, []byte(config), 0o600))
	s.opts.Config = config
}

// Start starts the program, after Kill or Stop again, and waits until it is ready.
func (s *Sluice) Start(t testing.TB) {
	t.Helper()
	s.Launch(t)
	AwaitReady(t, s.Process, s.URL("/-/ready"), s.opts.Limit)
}

// Launch starts the program and does not wait.
func (s *Sluice) Launch(t testing.TB) {
	t.Helper()
	c := Command{Name: "sluice", Path: s.path, Args: s.flags(), Env: s.opts.Env, Dir: filepath.Dir(s.File)}
	if s.limit > 0 {
		// The shell gives the limit, in blocks of 512 bytes, to the program that takes
		// its place.
		script := fmt.Sprintf(`ulimit -f %d; exec "$0" "$@"`, s.limit/512)
		c.Args = append([]string{"-c", script, c.Path}, c.Args...)
		c.Path = "/bin/sh"
	}
	if s.Process != nil {
		s.past = true
	}
	s.Process = StartProcess(t, c)
}

// LimitFileSize makes the kernel fail writes of the program beyond so many bytes of a
// file, from the next start on; 0 takes the limit away. It stands for a failing disk.
func (s *Sluice) LimitFileSize(bytes int64) { s.limit = bytes }

func (s *Sluice) flags() []string {
	args := []string{"--web.listen-address=" + s.Address, "--storage.path=" + s.Data, "--log.level=debug"}
	if s.opts.Config != "" {
		args = append(args, "--config.file="+s.File)
	}
	return append(args, s.opts.Args...)
}

// Program is the path of the built program.
func (s *Sluice) Program() string { return s.path }

// URL is the program's URL with the path.
func (s *Sluice) URL(path string) string { return "http://" + s.Address + path }

// WriteURL is where senders write to.
func (s *Sluice) WriteURL() string { return s.URL("/api/v1/write") }

// Metrics scrapes the program.
func (s *Sluice) Metrics(t testing.TB) Metrics {
	t.Helper()
	m, err := ScrapeMetrics(s.URL("/metrics"))
	require.NoError(t, err, "%s", lastLines(s.Log(), 20))
	return m
}

// Reload asks for a reload and returns status and text of the answer.
func (s *Sluice) Reload(t testing.TB) (status int, body string) {
	t.Helper()
	status, body, err := Post(s.URL("/-/reload"))
	require.NoError(t, err)
	return status, body
}

// AwaitEmpty waits until nothing of the backend is left in the journal.
func (s *Sluice) AwaitEmpty(t testing.TB, backend string, limit time.Duration) {
	t.Helper()
	Await(t, limit, "the journal holds nothing for "+backend, func() string {
		m, err := ScrapeMetrics(s.URL("/metrics"))
		if err != nil {
			return err.Error()
		}
		v, ok := m.Sum("sluice_in_journal", "backend", backend)
		switch {
		case !ok:
			return "sluice_in_journal is not exported for it"
		case v != 0:
			return fmt.Sprintf("it still holds %v", v)
		}
		return ""
	})
}
