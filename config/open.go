package config

import (
	"cmp"
	"path/filepath"

	"github.com/sluice-metrics/sluice/exporter"
	remotewritebackend "github.com/sluice-metrics/sluice/exporter/remotewrite"
	"github.com/sluice-metrics/sluice/exporter/tsdb"
)

func remoteWriteLane(c *remotewritebackend.Config) exporter.LaneConfig { return c.Lane }

func openRemoteWrite(c *remotewritebackend.Config, name string, o OpenOptions) (exporter.Backend, error) {
	return remotewritebackend.New(remotewritebackend.Options{
		Config:     *c,
		Name:       name,
		Instance:   o.Instance,
		Process:    o.Process,
		Metadata:   o.Metadata,
		Logger:     o.Logger,
		Registerer: o.Registerer,
	})
}

// tsdbLane keeps to one request at a time and another that is being prepared: the
// store writes its log under one lock.
func tsdbLane(*tsdb.Config) exporter.LaneConfig {
	lane := exporter.DefaultLaneConfig()
	lane.MaxShards = 2
	return lane
}

// storeDir is the directory of the store of a backend; dir is that of stores without a path
// of their own.
func storeDir(c *tsdb.Config, name, dir string) string {
	return cmp.Or(c.Path, filepath.Join(dir, name))
}

func openTSDB(c *tsdb.Config, name string, o OpenOptions) (exporter.Backend, error) {
	options := tsdb.Options{
		Config:     *c,
		Name:       name,
		Dir:        storeDir(c, name, o.Dir),
		Logger:     o.Logger,
		Registerer: o.Registerer,
	}
	if o.Metadata != nil {
		options.Metadata = o.Metadata
	}
	return tsdb.Open(options)
}
