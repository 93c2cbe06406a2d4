package disk_test

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/journal/disk"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

const childDir = "SLUICE_TEST_JOURNAL_DIR"

func openOS(dir string) (*disk.Journal, error) {
	return disk.Open(disk.Options{Dir: dir, Config: disk.DefaultConfig(), FS: vfs.OS{}, Logger: slog.New(slog.DiscardHandler)})
}

// lockedByChild is the second process of TestSecondProcess: it opens the journal and
// prints what came of it. It is false in the first process.
func lockedByChild() bool {
	dir := os.Getenv(childDir)
	if dir == "" {
		return false
	}
	j, err := openOS(dir)
	if err != nil {
		fmt.Print(err)
		return true
	}
	fmt.Print("opened")
	if err := j.Close(); err != nil {
		fmt.Print(err)
	}
	return true
}

func TestSecondProcess(t *testing.T) {
	dir := t.TempDir()
	second := func() string {
		self, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	j, err := openOS(dir)
	require.NoError(t, err)
	require.Contains(t, second(), "data directory "+dir+" is in use by another process")
	require.Contains(t, second(), "--storage.path")
	_, err = openOS(dir)
	require.ErrorIs(t, err, vfs.ErrLocked, "the same process must not open it twice either")
	require.NoError(t, j.Close())
	require.Equal(t, "opened", second())
}
