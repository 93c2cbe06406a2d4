package e2e

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/testutil"
	"github.com/sluice-metrics/sluice/web"
)

// TestQuickStart does what a newcomer does: starts the program without a file in an
// empty folder. Its output says where to point remote_write, and its own metrics can be
// queried within twenty seconds. The address is given only so that the test can run
// beside another Sluice; that the documented one is the default is seen in the help.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	dir, address := t.TempDir(), testutil.FreeAddress(t)
	help := testutil.StartProcess(t, testutil.Command{Name: "sluice", Path: testutil.BuildSluice(t), Args: []string{"--help"}, Dir: dir})
	require.Equal(t, 0, help.Wait(t, 10*time.Second))
	require.Contains(t, help.Log(), "127.0.0.1:9201")

	begun := time.Now()
	p := testutil.StartProcess(t, testutil.Command{
		Name: "sluice", Path: testutil.BuildSluice(t), Args: []string{"--web.listen-address=" + address}, Dir: dir,
	})
	base := "http://" + address
	testutil.AwaitReady(t, p, base+"/-/ready", 20*time.Second)
	testutil.Await(t, 20*time.Second-time.Since(begun), "own metrics in the query API", func() string {
		got, err := testutil.Ask(base, testutil.Query{Expr: `sluice_build_info{job="sluice"}`, End: time.Now()})
		if err != nil {
			return err.Error()
		}
		if len(got) != 1 || !strings.Contains(got[0], `"instance":"`) {
			return strings.Join(got, "\n") + " (not yet)"
		}
		return ""
	})
	t.Logf("own metrics after %v", time.Since(begun))
	require.Contains(t, p.Log(), "remote_write")
	require.Contains(t, p.Log(), base+"/api/v1/write")
	_, err := os.Stat(filepath.Join(dir, "data", "journal"))
	require.NoError(t, err)

	load := testutil.StartLoad(t, testutil.LoadOptions{URL: base + "/api/v1/write", Rounds: 5, Start: time.Now().Add(-2 * time.Second)})
	load.Wait(t, 10*time.Second)
	testutil.Await(t, 10*time.Second, "what was written in the query API", func() string {
		got, err := testutil.Ask(base, testutil.Query{Expr: `count(count_over_time({job="load"}[1m]))`, End: time.Now()})
		if err != nil {
			return err.Error()
		}
		if len(got) != 1 || !strings.Contains(got[0], `"200"`) {
			return strings.Join(got, "\n") + " (not yet)"
		}
		return ""
	})
	// Where it went, and who sent it.
	var own web.Explanation
	getJSON(t, base+"/api/v1/explain?"+url.Values{"series": {`up{job="sluice",instance="` + address + `"}`}}.Encode(), &own)
	require.NotNil(t, own.LastSent)
	require.Equal(t, "this gateway itself", own.LastSent.By())
	var told web.Explanation
	getJSON(t, base+"/api/v1/explain?"+url.Values{"series": {load.Keys()[0]}}.Encode(), &told)
	require.Len(t, told.Routes, 1)
	require.True(t, told.Routes[0].Takes)
	require.NotNil(t, told.LastSent)
	require.Equal(t, "127.0.0.1 (sluice-test, rw1)", told.LastSent.By())
	require.WithinDuration(t, time.Now(), told.LastSent.At, time.Minute)
	require.Equal(t, 0, p.Stop(t, 40*time.Second))
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}
