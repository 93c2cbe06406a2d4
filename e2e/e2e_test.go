package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sluice-metrics/sluice/internal/testutil"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(cleaning{m})
}

// cleaning removes the built program after the tests.
type cleaning struct{ m *testing.M }

func (c cleaning) Run() int {
	defer testutil.RemoveSluice()
	defer testutil.RemovePostgres()
	return c.m.Run()
}

// memoryLimit is what a Sluice under the loads of these tests may use at its peak. It
// is far above what it needs and far below what unbounded buffering would take.
const memoryLimit = 300 << 20

// backend is one entry of the list of backends.
type backend struct {
	name  string
	url   string
	extra string // further settings of the kind, as "key: value, "
	more  string // further settings of the backend, one a line, indented by four spaces
}

// configText is the text of a configuration file: sections as they are, then the backends.
func configText(sections string, backends ...backend) string {
	var b strings.Builder
	b.WriteString(sections)
	b.WriteString("\nbackends:\n")
	for _, k := range backends {
		fmt.Fprintf(&b, "  - name: %s\n    remote_write: {url: %q, max_backoff: 1s, %s}\n%s", k.name, k.url, k.extra, k.more)
	}
	return b.String()
}

// value reads one metric of the program.
func value(t testing.TB, s *testutil.Sluice, name string, pairs ...string) float64 {
	t.Helper()
	v, ok := s.Metrics(t).Sum(name, pairs...)
	require.True(t, ok, "%s%v is not exported", name, pairs)
	return v
}

// requireSettled waits until nothing is left in the journal for the backends, and then
// requires that their books balance.
func requireSettled(t testing.TB, s *testutil.Sluice, backends ...string) {
	t.Helper()
	for _, b := range backends {
		s.AwaitEmpty(t, b, 30*time.Second)
		testutil.RequireConservation(t, s.Metrics(t), b)
	}
}

// requireMemory fails the test when the program used more than memoryLimit at its peak,
// and logs what it used.
func requireMemory(t testing.TB, s *testutil.Sluice) {
	t.Helper()
	_, peak := s.Memory(t)
	t.Logf("peak memory: %d MiB", peak>>20)
	if os.Getenv(testutil.RaceEnv) == "" {
		require.Less(t, peak, int64(memoryLimit))
	}
}

// findText looks for the text in the files under dir, and returns the first file that
// has it.
func findText(dir, text string) string {
	var found string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || found != "" || filepath.Ext(path) == ".seg" {
			return nil //nolint:nilerr // a file that goes away while the program runs
		}
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), text) {
			found = path
		}
		return nil
	})
	return found
}
