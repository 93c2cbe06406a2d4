package exporter_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter/exportertest"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

func TestEverythingArrives(t *testing.T) {
	for _, v := range []series.Version{series.V1, series.V2} {
		bubble(t, func(t *testing.T) {
			s := open(t, vfs.NewMem(), nil, "a", `b {__name__="up"}`)
			defer s.close()
			a := s.lane("a", exportertest.NewBackend(nil), nil)
			b := s.lane("b", exportertest.NewBackend(nil), nil)
			for at := range int64(20) {
				require.NoError(t, s.append(v, round("up", 50, at+1)...))
				require.NoError(t, s.append(v, round("down", 30, at+1)...))
			}
			require.Equal(t, samples(20*80), a.rest(t, time.Minute).Totals.Delivered)
			require.Equal(t, samples(20*50), b.rest(t, time.Minute).Totals.Delivered)
			different, repeats := a.backend.Count()
			require.Equal(t, 1600, different)
			require.Zero(t, repeats)
			require.Len(t, b.backend.Stored(nameOf("up", 7)), 20)
			require.Empty(t, b.backend.Stored(nameOf("down", 7)))
		})
	}
}
