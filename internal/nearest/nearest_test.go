package nearest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNearest(t *testing.T) {
	known := []string{"url", "protocol", "max_disk", "max_backoff", "min_backoff", "timeout", "tls_config"}
	for _, c := range []struct{ word, want string }{
		{"urll", "url"},
		{"ulr", "url"},
		{"URL", "url"},
		{"maxDisk", "max_disk"},
		{"max-backof", "max_backoff"},
		{"mn_backoff", "min_backoff"},
		{"tls", ""},
		{"time_out", "timeout"},
		{"protocl", "protocol"},
		{"x", ""},
		{"", ""},
		{"retention", ""},
	} {
		require.Equal(t, c.want, Word(c.word, known), c.word)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"a", "", 1},
		{"", "ab", 2},
		{"abc", "abc", 0},
		{"abc", "acb", 1},
		{"abc", "abd", 1},
		{"kitten", "sitting", 3},
		{"é", "e", 1},
	} {
		require.Equal(t, c.want, distance(c.a, c.b), "%s %s", c.a, c.b)
		require.Equal(t, c.want, distance(c.b, c.a), "%s %s", c.b, c.a)
	}
}
