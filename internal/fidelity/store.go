package fidelity

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// store is a Prometheus TSDB that lives as long as a comparison: without a log, never
// compacted, strict about the order within a series.
type store struct {
	db     *tsdb.DB
	app    storage.AppenderV2 // the open group; nil when there is none
	series []stored           // by the id of the replay
}

type stored struct {
	ref  storage.SeriesRef
	last int64 // time of the newest sample
}

// openStore opens a store in dir, which is empty and belongs to the caller.
func openStore(dir string) (*store, error) {
	o := tsdb.DefaultOptions()
	o.WALSegmentSize = -1
	o.StripeSize = 1 << 10
	o.RetentionDuration = (100 * 365 * 24 * time.Hour).Milliseconds()
	db, err := tsdb.Open(dir, slog.New(slog.DiscardHandler), nil, o, nil)
	if err != nil {
		return nil, fmt.Errorf("open a store for comparison in %s (TMPDIR names another place): %w", dir, err)
	}
	db.DisableCompactions()
	return &store{db: db}, nil
}

func (s *store) close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close the store for comparison in %s: %w", s.db.Dir(), err)
	}
	return nil
}

// append adds one sample; taken tells that it is newer than what its series holds. h and
// fh are nil for a float.
func (s *store) append(id uint32, ls labels.Labels, v value) (taken bool, err error) {
	for uint32(len(s.series)) <= id {
		s.series = append(s.series, stored{last: math.MinInt64})
	}
	at := &s.series[id]
	if v.t <= at.last {
		return false, nil
	}
	if s.app == nil {
		s.app = s.db.AppenderV2(context.Background())
	}
	ref, err := s.app.Append(at.ref, ls, 0, v.t, v.f, v.h, v.fh, storage.AppendV2Options{})
	if err != nil {
		return false, fmt.Errorf("store %s at %d: %w", ls, v.t, err)
	}
	at.ref, at.last = ref, v.t
	return true, nil
}

// commit ends the group of appends since the last commit.
func (s *store) commit() error {
	if s.app == nil {
		return nil
	}
	err := s.app.Commit()
	s.app = nil
	if err != nil {
		return fmt.Errorf("commit to the store for comparison: %w", err)
	}
	return nil
}

// rollback gives up what was not committed.
func (s *store) rollback() error {
	if s.app == nil {
		return nil
	}
	err := s.app.Rollback()
	s.app = nil
	return err
}

// value is what a sample holds: a float unless one of the histograms is set.
type value struct {
	t  int64 // Unix ms
	f  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}
