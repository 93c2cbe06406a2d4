package gateway

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/config"
	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/journal/disk"
)

func TestBacklogInForce(t *testing.T) {
	j := disk.DefaultConfig()
	j.MaxDisk = 8 << 30
	dropping := j
	dropping.OnFull = disk.OnFullDropOldest
	set := exporter.Backlog{Bytes: 1 << 20}
	for _, c := range []struct {
		name       string
		configured exporter.Backlog
		backends   int
		journal    disk.Config
		want       exporter.Backlog
	}{
		{"the only backend may fill the journal", exporter.Backlog{}, 1, j, exporter.Backlog{}},
		{"one of several may not", exporter.Backlog{}, 2, j, exporter.Backlog{Bytes: 6 << 30}},
		{"what is configured holds", set, 2, j, set},
		{"a journal that drops refuses nobody", exporter.Backlog{}, 2, dropping, exporter.Backlog{}},
	} {
		require.Equal(t, c.want, backlog(c.configured, c.backends, &c.journal), c.name)
	}
}

func TestNeedsRestart(t *testing.T) {
	old, next := config.Default(), config.Default()
	next.Backends = nil
	next.OrphanRetention++
	require.NoError(t, needsRestart(old, next))
	next.Receiver.MaxInFlight++
	next.Journal.MaxDisk++
	next.Series.Max++
	next.OwnMetrics = nil
	require.EqualError(t, needsRestart(old, next), `receiver: a change takes a restart
journal: a change takes a restart
series: a change takes a restart
own_metrics: a change takes a restart`)
}
