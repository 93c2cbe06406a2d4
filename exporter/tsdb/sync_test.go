package tsdb

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

func TestSyncCoversBothLogs(t *testing.T) {
	b := store(t, t.TempDir(), nil)
	require.NoError(t, b.Sync(), "an empty store")

	ids := &table{}
	up := named("up")
	deliver(t, b, whole(ids.batch(t, series.V1, floats(up, minutes(2), 1))))
	deliver(t, b, whole(ids.batch(t, series.V1, floats(up, minutes(1), 1)))) // late: the other log
	require.NoError(t, b.Sync())

	// A segment that cannot be synced is not passed over in silence; full ones that
	// were synced before are not looked at again.
	for _, name := range []string{"wal", "wbl"} {
		dir := filepath.Join(b.dir, name)
		require.Contains(t, b.syncer.last, dir)
		loop := filepath.Join(dir, "00000099")
		require.NoError(t, os.Symlink(loop, loop))
		require.Error(t, b.Sync(), name)
		b.syncer.last[dir] = 100
		require.NoError(t, b.Sync(), name)
		require.NoError(t, os.Remove(loop))
	}
}
