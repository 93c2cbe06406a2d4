package config

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-metrics/sluice/exporter"
	remotewritebackend "github.com/sluice-metrics/sluice/exporter/remotewrite"
	"github.com/sluice-metrics/sluice/exporter/tsdb"
	"github.com/sluice-metrics/sluice/internal/remotewrite"
)

const kindTSDB = "tsdb"

// kinds lists the kinds of backends: the key in the file, the defaults, and how to open
// one. No other package imports them.
func kinds() []kind {
	return []kind{
		newKind("remote_write", remotewritebackend.DefaultConfig, remoteWriteLane, openRemoteWrite),
		newKind(kindTSDB, tsdb.DefaultConfig, tsdbLane, openTSDB),
	}
}

// KindConfig is the section of one kind of backends: a pointer to the Config of its
// package. A section with names of files also has SetDirectory(dir string).
type KindConfig interface {
	Validate() error
	// OutOfOrderWindow is how far behind the newest sample of a series the backend takes
	// samples; 0 is not at all.
	OutOfOrderWindow() time.Duration
}

// OpenOptions is what a backend gets from the gateway.
type OpenOptions struct {
	// Dir is where stores live, each in a directory of its backend's name.
	Dir string
	// Instance is what the gateway calls itself to backends.
	Instance string
	// Process names the process of the gateway; see remotewrite.ProcessHeader.
	Process string
	// Metadata is what is known of metric families.
	Metadata *remotewrite.MetadataCache
	Logger   *slog.Logger
	// Registerer takes the metrics of all backends. It may be nil in tests.
	Registerer prometheus.Registerer
}

// kind is one kind of backends.
type kind struct {
	key      string
	standard func() KindConfig
	lane     func(KindConfig) exporter.LaneConfig
	open     func(c KindConfig, name string, o OpenOptions) (exporter.Backend, error)
}

// newKind makes a kind of the functions of a package, whose Config type is C.
func newKind[C any, P interface {
	*C
	KindConfig
}](key string, standard func() C, lane func(*C) exporter.LaneConfig, open func(*C, string, OpenOptions) (exporter.Backend, error),
) kind {
	return kind{
		key: key,
		standard: func() KindConfig {
			c := standard()
			return P(&c)
		},
		lane: func(c KindConfig) exporter.LaneConfig { return lane(c.(P)) },
		open: func(c KindConfig, name string, o OpenOptions) (exporter.Backend, error) {
			return open(c.(P), name, o)
		},
	}
}
