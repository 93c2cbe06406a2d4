package mysql

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseGTIDs(t *testing.T) {
	for text, want := range map[string]map[string]uint64{
		"":                      {},
		"AAAA:1":                {"aaaa": 1},
		"aaaa:1-5:7":            {"aaaa": 6},
		"a:1-5,\nb:1-3:9-10":    {"a": 5, "b": 5},
		"a:1-5:2-9":             {"a": 9}, // overlapping: each counts once
		"a:1-3:blue:1-5:7, b:1": {"a": 3, "a:blue": 6, "b": 1},
		"a:green:4":             {"a:green": 1},
		"a:9:1-2":               {"a": 3},
	} {
		set, err := parseGTIDs(text)
		require.NoError(t, err, text)
		got := map[string]uint64{}
		for source := range set {
			got[source] = set.count(source)
		}
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"a:1-", "a:5-1", "a", "a:1-99999999999999999999", "a::"} {
		_, err := parseGTIDs(text)
		require.ErrorContains(t, err, "no set of global transaction ids", text)
	}
}

// Sets that are joined have each transaction once.
func TestCountIsThatOfASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := map[uint64]bool{}
		sets := []gtids{}
		for range rapid.IntRange(1, 4).Draw(t, "sets") {
			var words []string
			for range rapid.IntRange(1, 6).Draw(t, "intervals") {
				first := rapid.Uint64Range(1, 60).Draw(t, "first")
				last := first + rapid.Uint64Range(0, 9).Draw(t, "length")
				words = append(words, fmt.Sprintf("%d-%d", first, last))
				for n := first; n <= last; n++ {
					members[n] = true
				}
			}
			set, err := parseGTIDs("a:" + strings.Join(words, ":"))
			require.NoError(t, err)
			sets = append(sets, set)
		}
		joined := gtids{}
		for _, s := range sets {
			joined.add(s)
		}
		require.Equal(t, uint64(len(members)), joined.count("a"))
	})
}
