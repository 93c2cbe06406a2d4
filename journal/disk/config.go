package disk

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sluice-metrics/sluice/internal/bytesize"
)

// Durability is what an append waits for before it is answered.
type Durability string

const (
	// DurabilityWrite waits for the write: what was acknowledged survives the death of
	// the process.
	DurabilityWrite Durability = "write"
	// DurabilityFsync also waits for the sync, shared by all appends that wait
	// together: what was acknowledged survives a power loss.
	DurabilityFsync Durability = "fsync"
)

// OnFull is what happens when the disk budget is used up.
type OnFull string

const (
	// OnFullRefuse refuses appends until backends have caught up.
	OnFullRefuse OnFull = "refuse"
	// OnFullDropOldest makes the slowest backends give up their oldest data.
	OnFullDropOldest OnFull = "drop_oldest"
)

// minSegments is how many segments must fit into the budget: one that is written, two
// of slack for drop_oldest, and one that can be dropped.
const minSegments = 4

// Config is the part of the configuration file about the journal.
type Config struct {
	// Durability is what an append waits for before it is acknowledged: write (survives
	// the death of the process) or fsync (survives a power loss).
	Durability Durability `yaml:"durability"`
	// SegmentSize is the size of a segment file, the unit in which disk space is given
	// back.
	SegmentSize bytesize.Size `yaml:"segment_size"`
	// MaxDisk is the bound for all segment files together.
	MaxDisk bytesize.Size `yaml:"max_disk"`
	// OnFull is what happens at MaxDisk: refuse (senders get 503 and try again) or
	// drop_oldest (the slowest backends give up their oldest data, counted).
	OnFull OnFull `yaml:"on_full"`
	// RetainBehind is for how long data is kept after all backends have it.
	RetainBehind model.Duration `yaml:"retain_behind"`
	// TailBytes bounds the newest requests kept in memory, from which backends that
	// keep up are served.
	TailBytes bytesize.Size `yaml:"tail_bytes"`
}

// DefaultConfig returns the configuration of an empty file.
func DefaultConfig() Config {
	return Config{
		Durability:   DurabilityWrite,
		SegmentSize:  64 * bytesize.MiB,
		MaxDisk:      10 * bytesize.GiB,
		OnFull:       OnFullRefuse,
		RetainBehind: model.Duration(5 * time.Minute),
		TailBytes:    16 * bytesize.MiB,
	}
}

// Validate returns all problems at once, each beginning with the name of its field.
func (c *Config) Validate() error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Durability != DurabilityWrite && c.Durability != DurabilityFsync {
		problem("durability: %q is neither %s nor %s", c.Durability, DurabilityWrite, DurabilityFsync)
	}
	if c.OnFull != OnFullRefuse && c.OnFull != OnFullDropOldest {
		problem("on_full: %q is neither %s nor %s", c.OnFull, OnFullRefuse, OnFullDropOldest)
	}
	if c.SegmentSize <= 0 {
		problem("segment_size: must be more than 0")
	} else if c.MaxDisk/c.SegmentSize < minSegments {
		problem("max_disk: %s is less than %d segments of %s: raise it or lower segment_size", c.MaxDisk, minSegments, c.SegmentSize)
	}
	if c.RetainBehind < 0 {
		problem("retain_behind: must not be negative")
	}
	if c.TailBytes < 0 {
		problem("tail_bytes: must not be negative")
	}
	return errors.Join(errs...)
}
