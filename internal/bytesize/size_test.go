package bytesize

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"
)

func TestSizeText(t *testing.T) {
	for text, want := range map[string]Size{
		"0":                   0,
		"512":                 512,
		"7B":                  7,
		"64KiB":               64 << 10,
		"64KB":                64e3,
		"64 MB":               64e6,
		"10GiB":               10 << 30,
		"3TB":                 3e12,
		"9223372036854775807": 1<<63 - 1,
	} {
		var s Size
		require.NoError(t, s.UnmarshalText([]byte(text)), text)
		require.Equal(t, want, s, text)

		written, err := s.MarshalText()
		require.NoError(t, err)
		var again Size
		require.NoError(t, again.UnmarshalText(written))
		require.Equal(t, s, again, "%s came back from %s", text, written)
	}
	require.Equal(t, "1536KiB", Size(1536<<10).String())
	require.Equal(t, "1GiB", GiB.String())
	require.Equal(t, "1000", Size(1000).String())
}

func TestSizeRefuses(t *testing.T) {
	for _, text := range []string{"", "MiB", "-1", "1.5GiB", "10kb", "1 0", "9223372036854775808", "9007199254740993TiB", "1GiBB"} {
		s := Size(42)
		require.Error(t, s.UnmarshalText([]byte(text)), "%q", text)
		require.Equal(t, Size(42), s, "%q changed the value", text)
	}
}

func TestSizeYAML(t *testing.T) {
	var c struct {
		A, B Size
	}
	require.NoError(t, yaml.Unmarshal([]byte("a: 512\nb: 64MiB\n"), &c))
	require.Equal(t, Size(512), c.A)
	require.Equal(t, 64*MiB, c.B)
}
