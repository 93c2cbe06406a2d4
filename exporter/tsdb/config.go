package tsdb

import (
	"errors"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/fielderror"
)

// Config is the section `tsdb` of a backend.
type Config struct {
	// Path is the directory of the store. Default: a directory with the backend's
	// name under the storage path. Two processes cannot use one directory.
	Path string `yaml:"path,omitempty"`
	// Retention is how long samples are kept. Whole blocks are deleted, so that some
	// are kept for up to a tenth longer.
	Retention model.Duration `yaml:"retention,omitempty"`
	// RetentionSize bounds the bytes of the store's blocks on disk; the oldest block
	// goes first. 0 bounds by time only. The store's own log, which holds the last
	// two to three hours, is not counted.
	RetentionSize bytesize.Size `yaml:"retention_size,omitempty"`
	// OutOfOrderTimeWindow is how far behind the newest sample of the whole store a
	// sample may be that is older than the newest of its series. Samples further
	// behind are refused (too_old). With 0 every sample has to be newer than the one
	// before it in its series (out_of_order) and at most an hour behind the newest of
	// the store (out_of_bounds), and nothing that was withheld is given back later.
	OutOfOrderTimeWindow model.Duration `yaml:"out_of_order_time_window"`
	// MaxExemplars is how many exemplars are kept, in memory, the newest of all
	// series; 64 bytes each are set aside, and their labels come on top. 0 keeps none:
	// they are counted as refused (exemplars_disabled).
	MaxExemplars int `yaml:"max_exemplars"`
	// StartTimestamps keeps the start timestamps that come with RW 2.0 samples. The
	// blocks are then written in an encoding that Prometheus reads from 3.15 on; turn
	// it off when an older one shall open the directory.
	StartTimestamps bool `yaml:"start_timestamps"`
	// Query bounds what the query API may use.
	Query QueryConfig `yaml:"query,omitempty"`
}

// QueryConfig bounds what the query API of one store may use. The defaults are those
// of Prometheus.
type QueryConfig struct {
	// Timeout is how long one query may take, its wait for a place included.
	Timeout model.Duration `yaml:"timeout,omitempty"`
	// MaxSamples is how many samples one query may hold in memory at a time, at 16
	// bytes each. A remote read may answer as many.
	MaxSamples int `yaml:"max_samples,omitempty"`
	// MaxConcurrency is how many queries run at a time; more wait.
	MaxConcurrency int `yaml:"max_concurrency,omitempty"`
	// LookbackDelta is how old the newest sample of a series may be to count as its
	// present value.
	LookbackDelta model.Duration `yaml:"lookback_delta,omitempty"`
}

// DefaultConfig is what holds for keys that the file does not set.
func DefaultConfig() Config {
	return Config{
		Retention:            model.Duration(15 * 24 * time.Hour),
		OutOfOrderTimeWindow: model.Duration(time.Hour),
		MaxExemplars:         100_000,
		StartTimestamps:      true,
		Query: QueryConfig{
			Timeout:        model.Duration(2 * time.Minute),
			MaxSamples:     50_000_000,
			MaxConcurrency: 20,
			LookbackDelta:  model.Duration(5 * time.Minute),
		},
	}
}

// maxExemplarsLimit is 640 MB of places. It keeps a slip of the finger from being an
// out-of-memory at start.
const maxExemplarsLimit = 10_000_000

// OutOfOrderWindow is OutOfOrderTimeWindow.
func (c *Config) OutOfOrderWindow() time.Duration { return time.Duration(c.OutOfOrderTimeWindow) }

// Validate reports every bad value as a *fielderror.Error, joined into one error.
func (c *Config) Validate() error {
	var errs []error
	refuse := func(path, format string, args ...any) {
		errs = append(errs, fielderror.Errorf(path, format, args...))
	}
	if c.Retention <= 0 {
		refuse("retention", "%s: must be more than 0", c.Retention)
	}
	if c.RetentionSize < 0 {
		refuse("retention_size", "must not be negative; 0 bounds by time only")
	}
	switch {
	case c.OutOfOrderTimeWindow < 0:
		refuse("out_of_order_time_window", "must not be negative; 0 takes samples in order only")
	case c.Retention > 0 && c.OutOfOrderTimeWindow > c.Retention:
		refuse("out_of_order_time_window", "%s is more than the retention of %s: what it lets in would be deleted at once", c.OutOfOrderTimeWindow, c.Retention)
	}
	if c.MaxExemplars < 0 || c.MaxExemplars > maxExemplarsLimit {
		refuse("max_exemplars", "%d: must be from 0 (keep none) to %d", c.MaxExemplars, maxExemplarsLimit)
	}
	if c.Query.Timeout <= 0 {
		refuse("query.timeout", "must be more than 0")
	}
	if c.Query.MaxSamples <= 0 {
		refuse("query.max_samples", "%d: must be more than 0", c.Query.MaxSamples)
	}
	if c.Query.MaxConcurrency <= 0 {
		refuse("query.max_concurrency", "%d: must be more than 0", c.Query.MaxConcurrency)
	}
	if c.Query.LookbackDelta <= 0 {
		refuse("query.lookback_delta", "must be more than 0")
	}
	return errors.Join(errs...)
}
