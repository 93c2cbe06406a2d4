package main

import (
	"bytes"
	"regexp"
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
		"check --help":                     {"config.file"},
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
