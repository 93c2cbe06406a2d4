package main

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A command's help has those flags of the program alone that the command uses.
func TestHelpShowsFlagsThatAreUsed(t *testing.T) {
	everything := []string{"config.file", "web.listen-address", "web.config.file", "storage.path", "log.level", "log.format"}
	flag := regexp.MustCompile(`(?m)^ +--((?:config\.file|web\.|storage\.path|log\.)[a-z.-]*)`)
	for args, want := range map[string][]string{
		"--help":                           everything,
		"help":                             everything,
		"run --help":                       everything,
		"check --help":                     {"config.file", "storage.path"},
		"config show --help":               {"config.file"},
		"config init --help":               nil,
		"config --help":                    nil,
		"tap --help":                       nil,
		"classes --help":                   {"config.file"},
		"probe --help":                     {"config.file"},
		"probe once --help":                {"config.file"},
		"help probe once":                  {"config.file"},
		"ledger --help":                    {"storage.path"},
		"demo --help":                      {"web.listen-address", "storage.path", "log.level", "log.format"},
		"explain -h":                       nil,
		"fidelity --help":                  nil,
		"replay --help":                    nil,
		"mixin --help":                     nil,
		"lockbench --help":                 nil,
		"help lockbench":                   nil,
		"--config.file=x lockbench --help": nil,
	} {
		t.Run(args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			require.Equal(t, exitOK, run(strings.Fields(args), &stdout, &stderr))
			require.Empty(t, stderr.String())
			require.Contains(t, stdout.String(), "usage: sluice")
			seen := map[string]bool{}
			var shown []string
			for _, m := range flag.FindAllStringSubmatch(stdout.String(), -1) {
				if !seen[m[1]] {
					shown = append(shown, m[1])
				}
				seen[m[1]] = true
			}
			require.Equal(t, want, shown)
		})
	}
}

// The help of the program fits on a screen and has every command.
func TestHelpFitsOnAScreen(t *testing.T) {
	var short, stderr bytes.Buffer
	require.Equal(t, exitOK, run([]string{"--help"}, &short, &stderr))
	lines := strings.Split(strings.TrimSpace(short.String()), "\n")
	require.GreaterOrEqual(t, len(lines), 24)
	require.LessOrEqual(t, len(lines), 40)
	for _, l := range lines {
		require.LessOrEqual(t, len(l), 80, l)
	}
	var listed []string
	for _, s := range summaries() {
		require.Contains(t, short.String(), "\n  "+s[0]+" ")
		listed = append(listed, s[0])
	}
	_, commands := commandLine(&flags{})
	require.ElementsMatch(t, slices.Collect(maps.Keys(commands)), listed)
}

func TestHelpOfACommandThatIsNone(t *testing.T) {
	var stdout, stderr bytes.Buffer
	require.Equal(t, exitUsage, run([]string{"help", "nonsense"}, &stdout, &stderr))
	require.Contains(t, stderr.String(), `"nonsense"`)
}

// An empty value, as of a variable that is not set, is not the same as no flag.
func TestFlagsGivenButEmpty(t *testing.T) {
	t.Chdir(t.TempDir()) // where a gateway that starts after all keeps its data
	for _, args := range [][]string{
		{"--config.file="},
		{"--config.file", ""},
		{"run", "--web.config.file="},
		{"--web.listen-address="},
		{"--storage.path="},
		{"check", "--config.file= "},
	} {
		code, out, errs := sluice(t, append(args, "--log.level=error")...)
		require.Equal(t, exitUsage, code, "%q: %s", args, errs)
		require.Empty(t, out)
		require.Regexp(t, `^sluice: --(config\.file|web\.config\.file|web\.listen-address|storage\.path) is given, but empty; `, errs)
	}
}
