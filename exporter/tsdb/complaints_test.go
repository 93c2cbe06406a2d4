package tsdb

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
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
		time.Sleep(1)
		about(tooOld)
		require.Contains(t, log.String(), "not_logged=2")
		require.Equal(t, 3, asked)
	})
}
