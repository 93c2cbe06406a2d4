package exporter_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// letter is a line of a file of dead letters, as its reader sees it.
type letter struct {
	Time    string            `json:"time"`
	Backend string            `json:"backend"`
	Reason  string            `json:"reason"`
	Status  int               `json:"status"`
	Message string            `json:"message"`
	Labels  map[string]string `json:"labels"`
	Samples []struct {
		Time  int64  `json:"t"`
		Value string `json:"v"`
	} `json:"samples"`
	Histograms []int64 `json:"histogram_timestamps"`
	Exemplars  int     `json:"exemplars"`
}

// readLetters reads a file of dead letters; a missing one is empty.
func readLetters(t testing.TB, path string) []letter {
	t.Helper()
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, err)
	var list []letter
	for text := range strings.Lines(string(b)) {
		require.True(t, strings.HasSuffix(text, "\n"))
		var l letter
		require.NoError(t, json.Unmarshal([]byte(text), &l), "%q", text)
		list = append(list, l)
	}
	return list
}
