package exporter

import (
	"errors"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sluice-metrics/sluice/internal/bytesize"
	"github.com/sluice-metrics/sluice/internal/fielderror"
)

// LaneConfig is how a lane collects, sends and retries. Kinds of backends embed it in
// their configuration with defaults of their own.
type LaneConfig struct {
	// Most samples in one request to the backend. A batch that holds more by itself
	// goes as it is.
	MaxSamplesPerSend int `yaml:"max_samples_per_send"`
	// Most bytes in one request, before compression. Prometheus refuses more than
	// 32MiB.
	MaxBytesPerSend bytesize.Size `yaml:"max_bytes_per_send"`
	// Fewest requests in flight at a time that the lane keeps room for.
	MinShards int `yaml:"min_shards"`
	// Most requests in flight at a time, at most 64. Between the two the lane grows with its
	// backlog and shrinks when it idles or the backend throttles.
	MaxShards int `yaml:"max_shards"`
	// First pause before a request is sent again; it doubles with each attempt, with
	// jitter.
	MinBackoff model.Duration `yaml:"min_backoff"`
	// Longest pause before a request is sent again.
	MaxBackoff model.Duration `yaml:"max_backoff"`
}

// DefaultLaneConfig is what remote-write backends start from.
func DefaultLaneConfig() LaneConfig {
	return LaneConfig{
		MaxSamplesPerSend: 10000,
		MaxBytesPerSend:   16 << 20,
		MinShards:         1,
		MaxShards:         16,
		MinBackoff:        model.Duration(100 * time.Millisecond),
		MaxBackoff:        model.Duration(5 * time.Second),
	}
}

// Validate reports every value that is out of range.
func (c *LaneConfig) Validate() error {
	var errs []error
	check := func(ok bool, path, format string, args ...any) {
		if !ok {
			errs = append(errs, fielderror.Errorf(path, format, args...))
		}
	}
	check(c.MaxSamplesPerSend >= 1, "max_samples_per_send", "must be at least 1")
	check(c.MaxBytesPerSend >= 64<<10, "max_bytes_per_send", "must be at least 64KiB")
	check(c.MinShards >= 1, "min_shards", "must be at least 1")
	check(c.MaxShards >= c.MinShards && c.MaxShards <= maxShards, "max_shards", "must be between min_shards and %d", maxShards)
	check(c.MinBackoff > 0, "min_backoff", "must be longer than 0s")
	check(c.MaxBackoff >= c.MinBackoff, "max_backoff", "must be at least min_backoff")
	return errors.Join(errs...)
}

// Backlog bounds what one backend may leave undelivered in the journal. Beyond it the
// backend's oldest data is given up and counted.
type Backlog struct {
	// Most bytes of the journal behind the backend's cursor. 0 does not bound.
	Bytes bytesize.Size `yaml:"bytes"`
	// Greatest age of the oldest undelivered data, by time of receipt. 0s does not
	// bound.
	Age model.Duration `yaml:"age"`
}
