package probe_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/probe"
)

func TestParsePosition(t *testing.T) {
	for text, want := range map[string]map[string]uint64{
		"0/16B3748":       {"": 0x16B3748},
		"A/0":             {"": 0xA << 32},
		"42":              {"": 42},
		"0-1-100":         {"0": 100},
		"0-1-100, 7-2-5":  {"0": 100, "7": 5},
		"0-1-100,0-2-105": {"0": 105},
	} {
		got, err := probe.ParsePosition(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "x", "1/", "/1", "1/2/3", "0/100000000", "-5", "1-2", "1-2-x", "1-2-3-4", "0-1-1,", "18446744073709551616"} {
		_, err := probe.ParsePosition(text)
		require.ErrorIs(t, err, probe.ErrPosition, text)
		require.ErrorContains(t, err, text)
	}
}

func FuzzParsePosition(f *testing.F) {
	for _, text := range []string{"0/16B3748", "42", "0-1-100, 7-2-5", "1/2/3", ",,"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		least, err := probe.ParsePosition(text)
		require.Equal(t, err != nil, len(least) == 0)
	})
}
