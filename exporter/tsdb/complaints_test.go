package tsdb

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

func TestComplaintsAreRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := complaints{logger: slog.New(slog.NewTextHandler(&log, nil))}
		asked := 0
		about := func(r reason) {
			c.about(r, base, errFuture, func() string { asked++; return `{__name__="a"}` })
		}
		about(tooOld)
		about(tooOld)
		about(outOfOrder)
		time.Sleep(complainEvery - 1)
		about(tooOld)
		require.Equal(t, 2, strings.Count(log.String(), "\n"))
		require.Contains(t, log.String(), "reason=too_old")
		require.Contains(t, log.String(), `series="{__name__=\"a\"}"`)
		require.Contains(t, log.String(), "timestamp=2023-11-14T22:13:20.000Z")
		log.Reset()
		time.Sleep(time.Nanosecond)
		about(tooOld)
		require.Contains(t, log.String(), "not_logged=2")
		require.Equal(t, 3, asked)
	})
}

func TestTheStoreLogsItsWorkAtDebug(t *testing.T) {
	for _, c := range []struct {
		level slog.Level
		store bool // lines of the store show
	}{{slog.LevelInfo, false}, {slog.LevelDebug, true}} {
		var log bytes.Buffer
		dir := t.TempDir()
		for range 2 {
			b := store(t, dir, func(o *Options) {
				o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: c.level}))
			})
			require.Empty(t, deliver(t, b, whole((&table{}).request(t, series.V1, floats(named("a"), float64(base), 1)))))
			require.NoError(t, b.Close())
		}
		require.Equal(t, 2, strings.Count(log.String(), "Embedded store opened"))
		require.Equal(t, c.store, strings.Contains(log.String(), "component=tsdb"))
		require.Contains(t, log.String(), "backend=local")
		require.Contains(t, log.String(), "series=1 ")
	}
	require.Equal(t, slog.LevelWarn, demoted(slog.LevelWarn))
	require.Equal(t, slog.LevelError, demoted(slog.LevelError))

	var log bytes.Buffer
	slog.New(quieter{slog.NewTextHandler(&log, nil)}).WithGroup("g").With("a", 1).Warn("kept")
	require.Contains(t, log.String(), "g.a=1")
}
