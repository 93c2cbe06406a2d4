package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMessages holds the whole text of the mistakes that a file can have. A file of
// testdata/errors is the input, a line "----", and what the error prints;
// UPDATE_GOLDEN=1 writes the latter anew.
func TestMessages(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			input, want, _ := strings.Cut(string(data), "----\n")
			_, err = Parse("sluice.yaml", []byte(input))
			require.Error(t, err)
			got := err.Error() + "\n"
			require.NotContains(t, got, "hunter2", "the password of all inputs")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				require.NoError(t, os.WriteFile(file, []byte(input+"----\n"+got), 0o644))
				return
			}
			require.Equal(t, want, got)
		})
	}
}
