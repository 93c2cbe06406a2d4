package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/config"
)

// pages are the documents that people write, from this folder.
func pages() []string {
	return []string{"../README.md", "../CONTRIBUTING.md", "../CHANGELOG.md", "../bench/README.md", "design.md", "sampling.md", "lag.md", "locks.md", "ha.md", "dashboards.md", "runbook.md", "fidelity.md"}
}

func page(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

func TestLinksLeadToFiles(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
	found := 0
	for _, p := range pages() {
		for _, m := range link.FindAllStringSubmatch(page(t, p), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			found++
			_, err := os.Stat(filepath.Join(filepath.Dir(p), m[1]))
			require.NoError(t, err, p)
		}
	}
	require.Greater(t, found, 8)
}

// TestConfigurationOfTheReadme reads the configuration that the README shows.
func TestConfigurationOfTheReadme(t *testing.T) {
	m := regexp.MustCompile(`(?m)^    backends:\n(?:    .*\n)+`).FindString(page(t, "../README.md"))
	require.NotEmpty(t, m)
	text := strings.ReplaceAll("\n"+m, "\n    ", "\n")
	c, err := config.Parse("README.md", []byte(text))
	require.NoError(t, err)
	require.Len(t, c.Backends, 2)
}

// TestNamedTestsExist looks for the tests by which docs/design.md shows its claims, and
// for the files that it names.
func TestNamedTestsExist(t *testing.T) {
	text := page(t, "design.md")
	tests := map[string]bool{}
	require.NoError(t, filepath.WalkDir("..", func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(page(t, path), -1) {
			tests[m[1]] = true
		}
		return nil
	}))
	named := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`).FindAllString(text, -1)
	require.Greater(t, len(named), 20)
	for _, name := range named {
		require.Contains(t, tests, name)
	}
	for _, m := range regexp.MustCompile("`((?:cmd|config|exporter|internal|journal|receiver|router|web)(?:/[a-z]+)*(?:/[a-z_]+\\.go)?)`").FindAllStringSubmatch(text, -1) {
		_, err := os.Stat(filepath.Join("..", m[1]))
		require.NoError(t, err)
	}
}

func TestMakeTargetsExist(t *testing.T) {
	known := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(page(t, "../Makefile"), -1) {
		known[m[1]] = true
	}
	for _, p := range append(pages(), "metrics.md", "../.ci/run", "../Dockerfile") {
		for _, m := range regexp.MustCompile("(?m)(?:`|^    |RUN )make ([a-z-]+)").FindAllStringSubmatch(page(t, p), -1) {
			require.True(t, known[m[1]], "%s: the Makefile has no target %s", p, m[1])
		}
	}
	for _, needed := range []string{"run", "build", "test", "race", "lint", "bench", "fuzz"} {
		require.True(t, known[needed], needed)
	}
}
