package redisclient_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/redisclient"
	"github.com/sluice-metrics/sluice/internal/testutil"
)

// TestNothingIsPrinted has a logger in place of the one that the library prints with.
func TestNothingIsPrinted(t *testing.T) {
	printed := &counting{}
	redis.SetLogger(printed)
	c := redisclient.New(&redis.Options{Addr: testutil.FreeAddress(t), MaxRetries: -1, DialerRetries: 1})
	require.ErrorContains(t, c.Ping(context.Background()).Err(), "connection refused")
	require.NoError(t, c.Close())
	require.Zero(t, printed.lines)
}

type counting struct{ lines int }

func (c *counting) Printf(context.Context, string, ...any) { c.lines++ }

var otherWays = regexp.MustCompile(`redis\.New(Failover|Cluster|Universal|FailoverCluster|Sentinel)?Client\(&|redis\.NewRing\(|redis\.SetLogger\(`)

// TestNobodyElseMakesClients looks at the sources of the module.
func TestNobodyElseMakesClients(t *testing.T) {
	root, seen := filepath.Join("..", ".."), 0
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && path != root || name == filepath.Join("internal", "redisclient") || name == filepath.Join("internal", "testutil") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		seen++
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Empty(t, otherWays.FindString(string(data)), "%s: use redisclient.New", name)
		return nil
	}))
	require.Greater(t, seen, 100)
}
