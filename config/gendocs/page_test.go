package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/config"
)

func TestReferenceIsUpToDate(t *testing.T) {
	want, err := page("../..")
	require.NoError(t, err)
	got, err := os.ReadFile("../../docs/config.md")
	require.NoError(t, err)
	require.Equal(t, want, string(got), "run: go generate ./config")
}

func TestSchemaIsUpToDate(t *testing.T) {
	want, err := schema("../..")
	require.NoError(t, err)
	require.Equal(t, want, config.Schema(), "run: go generate ./config")
}

// TestReferenceHasEveryKeyAndDefault compares with the text of the configuration in
// force, which is made without this package.
func TestReferenceHasEveryKeyAndDefault(t *testing.T) {
	text, err := page("../..")
	require.NoError(t, err)
	both, err := config.Parse("both.yaml", []byte("own_metrics: {}\nbackends: [{name: a, tsdb: {}}, {name: b, remote_write: {url: 'http://h'}}]"))
	require.NoError(t, err)

	line := regexp.MustCompile(`^[ -]*([a-z_0-9]+): ?(.*?)(?: # default)?$`)
	keys := 0
	for _, l := range strings.Split(strings.TrimSpace(both.String()), "\n") {
		m := line.FindStringSubmatch(l)
		require.NotNil(t, m, l)
		row := "| `" + m[1] + "` | "
		require.Contains(t, text, row)
		if strings.HasSuffix(l, "# default") {
			found := false
			for _, r := range strings.Split(text, "\n") {
				found = found || strings.HasPrefix(r, row) && strings.Contains(r, "| `"+m[2]+"` |")
			}
			require.True(t, found, "no row of the reference has the default of %q", l)
		}
		keys++
	}
	require.Greater(t, keys, 40)
}

func TestListInOneTextIsDescribedAsText(t *testing.T) {
	text, err := page("../..")
	require.NoError(t, err)
	require.Contains(t, text, "| `severity` | text | ")
	require.Contains(t, text, "| `files` | list of texts | ")
}

func TestLinksOfTheReferenceLeadSomewhere(t *testing.T) {
	text, err := page("../..")
	require.NoError(t, err)
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^### `(.*)`$").FindAllStringSubmatch(text, -1) {
		headings[anchor(m[1])] = true
	}
	links := regexp.MustCompile(`\]\(#(.*?)\)`).FindAllStringSubmatch(text, -1)
	require.Greater(t, len(links), 8)
	for _, m := range links {
		require.True(t, headings[m[1]], m[1])
	}
}
