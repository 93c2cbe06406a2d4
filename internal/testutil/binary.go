package testutil

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// RaceEnv names the environment variable that makes BuildSluice build with the race
// detector, when it is set to anything.
const RaceEnv = "SLUICE_TEST_RACE"

// build is the one build of a test process. A test binary has no owner above its
// tests that could hold it.
var build struct {
	once sync.Once
	path string
	err  error
}

// BuildSluice builds ./cmd/adapter of this repository, once in a test process, and
// returns the program's path. RemoveSluice removes it.
func BuildSluice(t testing.TB) string {
	t.Helper()
	build.once.Do(func() { build.path, build.err = buildSluice() })
	require.NoError(t, build.err)
	return build.path
}

// RemoveSluice removes what BuildSluice built. Called by TestMain after the tests.
func RemoveSluice() {
	if build.path != "" {
		_ = os.RemoveAll(filepath.Dir(build.path))
	}
}

func buildSluice() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "sluice-test-")
	if err != nil {
		return "", fmt.Errorf("make a folder for the built program: %w", err)
	}
	path := filepath.Join(dir, "sluice")
	args := []string{"build", "-o", path}
	if os.Getenv(RaceEnv) != "" {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/adapter")...)
	cmd.Dir = root
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		_ = os.RemoveAll(dir)
		return "", fmt.Errorf("build ./cmd/adapter in %s: %w\n%s", root, err, out.String())
	}
	return path, nil
}

// Root is the repository's folder: the nearest one upwards that has a go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("find the repository: no go.mod above the working directory")
		}
		dir = parent
	}
}

// Tool returns the path of a program that scripts/install-test-programs installs
// ("prometheus", "promtool"). A missing one fails the test and names the script.
func Tool(t testing.TB, name string) string {
	t.Helper()
	root, err := Root()
	require.NoError(t, err)
	path := filepath.Join(root, ".tools", "prometheus", "usr", "bin", name)
	if _, err := os.Stat(path); err != nil {
		require.FailNow(t, "a test program is missing",
			"%s is not installed in .tools; run scripts/install-test-programs in the repository's folder (%v)", name, err)
	}
	return path
}
