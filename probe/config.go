package probe

import (
	"errors"
	"regexp"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sluice-metrics/sluice/internal/fielderror"
)

// Config is what a cluster has beside the section of its kind. Start from DefaultConfig.
type Config struct {
	// Name of the cluster in metrics, logs and the API. Letters, digits, '_', '-' and
	// '.', unique. Required.
	Name string `yaml:"name"`
	// Interval is the time between two probes of a target, and with that the precision
	// of lag.
	Interval model.Duration `yaml:"interval"`
	// Timeout bounds one probe, from the connection to the end of the answer.
	Timeout model.Duration `yaml:"timeout"`
	// MaxLag is beyond which lag a replica is not to be read from. It comes back after
	// three probes under 0.7 of it.
	MaxLag model.Duration `yaml:"max_lag"`
}

// DefaultConfig returns what holds for keys that the file does not set; only Name has no
// default.
func DefaultConfig() Config {
	return Config{
		Interval: model.Duration(time.Second),
		Timeout:  model.Duration(time.Second),
		MaxLag:   model.Duration(10 * time.Second),
	}
}

var clusterName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// Validate reports every bad value as a *fielderror.Error, joined into one error.
func (c *Config) Validate() error {
	var errs []error
	check := func(ok bool, path, format string, args ...any) {
		if !ok {
			errs = append(errs, fielderror.Errorf(path, format, args...))
		}
	}
	if c.Name == "" {
		check(false, "name", "is missing; it names the cluster in metrics and for the backends that wait for it")
	} else {
		check(clusterName.MatchString(c.Name), "name", "%q has other characters than letters, digits, '_', '-' and '.', or more than 64", c.Name)
	}
	check(c.Interval >= model.Duration(100*time.Millisecond), "interval", "must be at least 100ms, so that probes cost little")
	check(c.Interval <= model.Duration(time.Minute), "interval", "must be at most 1m; lag is known to one interval only")
	check(c.Timeout > 0 && c.Timeout <= model.Duration(time.Minute), "timeout", "must be longer than 0s and at most 1m")
	check(c.MaxLag > 0, "max_lag", "must be longer than 0s")
	return errors.Join(errs...)
}
