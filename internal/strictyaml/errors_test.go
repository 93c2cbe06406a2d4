package strictyaml

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMessages holds the whole text of every kind of mistake. A file of testdata/errors
// is the input, a line "----", and what Error prints; UPDATE_GOLDEN=1 writes the latter anew.
func TestMessages(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			input, want, _ := strings.Cut(string(data), "----\n")
			_, err = decode(input)
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

// TestBytesThatAreNotText covers input that a text file of testdata cannot hold.
func TestBytesThatAreNotText(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"not UTF-8", "name: a\xffb\n", "plant.yaml:1:8: not UTF-8 text"},
		{"UTF-16", "\xff\xfen\x00", "plant.yaml:1:1: not UTF-8 text"},
		{"control", "name: x\npump: é\x00\n", "plant.yaml:2:8: a control character"},
		{"carriage returns", "name: x\r\npumpe: y\r\n", "plant.yaml:2:1: pumpe: unknown field; did you mean \"pump\"?\n  2 | pumpe: y\n    | ^^^^^"},
		{"byte order mark", "\ufeffpumpe: y\n", "plant.yaml:1:1: pumpe: unknown field; did you mean \"pump\"?\n  1 | pumpe: y\n    | ^^^^^"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := decode(c.text)
			require.Error(t, err)
			require.True(t, strings.HasPrefix(err.Error(), c.want), err.Error())
		})
	}
}

// TestManySecretsInOneLine has a line as a program may write it: nothing of it is shown, and
// that does not take long.
func TestManySecretsInOneLine(t *testing.T) {
	var b strings.Builder
	for i := range 3_000 {
		fmt.Fprintf(&b, "x%d_token: hunter2, ", i)
	}
	start := time.Now()
	_, err := decode("bogus: {" + b.String() + "}\nlabels: {" + b.String() + "a: [hunter2]}\n")
	require.ErrorContains(t, err, "  1 | <secret>\n")
	require.ErrorContains(t, err, "labels.a: expected a text, got a list\n  2 | <secret>\n")
	require.NotContains(t, err.Error(), "hunter2")
	require.Less(t, time.Since(start), 10*time.Second)
}
