//go:build !race

package disk_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// The race detector makes sync.Pool forget at random, so there are no ceilings to keep
// under it.

// Ceilings of the hot functions.
func TestAllocations(t *testing.T) {
	ctx := context.Background()
	batch := newBatch(1, benchBody)
	defer batch.Release()
	j := openBench(t)
	c := openCursor(t, j, "a")
	through := func() {
		require.NoError(t, j.Append(ctx, batch))
		rec, _, err := c.Next(ctx, true)
		require.NoError(t, err)
		rec.Batch.Release()
	}
	for range 100 {
		through()
	}
	require.LessOrEqual(t, testing.AllocsPerRun(200, through), 0.5, "append, and read from the tail")

	dir := t.TempDir()
	behind := openBenchIn(t, dir, noTail)
	c = openCursor(t, behind, "a")
	for range 300 {
		require.NoError(t, behind.Append(ctx, batch))
	}
	read := func() {
		rec, ok, err := c.Next(ctx, false)
		require.NoError(t, err)
		require.True(t, ok)
		rec.Batch.Release()
	}
	for range 50 {
		read()
	}
	require.LessOrEqual(t, testing.AllocsPerRun(200, read), 2.5, "read from the disk: the batch and its ids, which the journal remembers")
	require.NoError(t, behind.stop())
	behind = openBenchIn(t, dir, noTail)
	defer func() { require.NoError(t, behind.stop()) }()
	c = openCursor(t, behind, "a")
	for range 50 {
		read()
	}
	require.LessOrEqual(t, testing.AllocsPerRun(200, read), 1.5, "read from the disk after a start: the batch")
}
