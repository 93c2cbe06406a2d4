package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProbeOnceSaysWhatIsWrong(t *testing.T) {
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{nil, exitUsage, "say with --config.file which file has the clusters; try --help"},
		{[]string{"--config.file=" + t.TempDir() + "/none"}, exitError, "no such file"},
		{[]string{"--format=xml"}, exitUsage, "must be one of table,json"},
	} {
		code, out, errs := sluice(t, append([]string{"probe", "once"}, test.args...)...)
		require.Equal(t, test.code, code, errs)
		require.Contains(t, errs, test.says)
		require.Empty(t, out)
	}
}
