package thinning

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/zeebo/xxh3"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

const (
	// companion is the series by which readers are told that a target is thinned: how many
	// seconds apart its samples are, for series of class normal. It is there when, and
	// only when, they are further apart than the target is scraped.
	companion = "sluice_sampling_interval_seconds"
	// tellEvery is how often it is written, which must be well below any lookback.
	tellEvery = 15 * time.Second
	// targetIdle is how long after its last sample a target is thinned no more.
	targetIdle = 5 * time.Minute
	// maxTargets bounds the targets whose labels are remembered.
	maxTargets = 100_000
)

// targets are the labels of targets, as their series show them.
type targets struct {
	names []string // of the labels, sorted
	by    map[uint64][]prompb.Label
}

func newTargets(names []string) *targets {
	return &targets{names: slices.Sorted(slices.Values(names)), by: map[uint64][]prompb.Label{}}
}

// note remembers the labels of the target of a series.
func (t *targets) note(target uint64, list []remotewrite.Label) {
	if t == nil || t.by[target] != nil || len(t.by) >= maxTargets {
		return
	}
	own := []prompb.Label{{Name: "__name__", Value: companion}}
	for i := range list {
		if name := string(list[i].Name); slices.Contains(t.names, name) {
			own = append(own, prompb.Label{Name: name, Value: string(list[i].Value)})
		}
	}
	slices.SortFunc(own, func(a, b prompb.Label) int { return cmp.Compare(a.Name, b.Name) })
	if len(own) > 1 {
		t.by[target] = own
	}
}

// told are the labels of the targets of which readers were told last that they are thinned.
type told map[uint64][]prompb.Label

// keepTold writes the companion series.
func (t *Thinner) keepTold(ctx context.Context, lane Lane) {
	every(ctx, tellEvery, func() {
		request, now := t.tell(t.o.Now())
		err := insert(ctx, lane, request)
		if err == nil {
			t.mu.Lock()
			t.told = now
			t.mu.Unlock()
		}
		if err != nil && ctx.Err() == nil {
			t.o.Logger.Debug("Readers of the backend are not told this time how far apart samples are", "err", err)
		}
	})
}

// EndTold ends the companion series where there is no Thinner to do so: sampling was
// switched off. It tries until the backend has it, or ctx ends.
func (s Steering) EndTold(ctx context.Context, lane Lane, now func() time.Time) {
	if len(s.told) == 0 {
		return
	}
	ctx, done := context.WithCancel(ctx)
	defer done()
	every(ctx, time.Second, func() {
		w := &prompb.WriteRequest{}
		end(w, s.told, nil, now().UnixMilli())
		if insert(ctx, lane, w) == nil {
			done()
		}
	})
}

func insert(ctx context.Context, lane Lane, w *prompb.WriteRequest) error {
	if len(w.Timeseries) == 0 {
		return nil
	}
	b, err := batchOf(w)
	if err != nil {
		return err
	}
	defer b.Release()
	return lane.Insert(ctx, b)
}

// end adds a staleness marker for each target of before that is thinned no more.
func end(w *prompb.WriteRequest, before, thinned told, at int64) {
	for target, list := range before {
		if thinned[target] == nil {
			w.Timeseries = append(w.Timeseries, prompb.TimeSeries{Labels: list, Samples: []prompb.Sample{{Value: math.Float64frombits(value.StaleNaN), Timestamp: at}}})
		}
	}
}

// tell makes the samples of the companion series, with a staleness marker for each target
// of before that is thinned no more. It returns the targets that are.
func (t *Thinner) tell(now time.Time) (w *prompb.WriteRequest, thinned told) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := now.UnixMilli()
	w = &prompb.WriteRequest{}
	thinned = told{}
	if s := t.session; s != nil && !t.shadow {
		s.sampler.Intervals(at-targetIdle.Milliseconds(), func(target uint64, seconds, cadence float64) {
			list := s.splicer.targets.by[target]
			if list == nil || seconds <= cadence {
				return
			}
			thinned[target] = list
			w.Timeseries = append(w.Timeseries, prompb.TimeSeries{Labels: list, Samples: []prompb.Sample{{Value: seconds, Timestamp: at}}})
		})
	}
	end(w, t.told, thinned, at)
	return w, thinned
}

// batchOf is a request as a batch. Its series have overflow ids: they are never in the
// series table.
func batchOf(w *prompb.WriteRequest) (*series.Batch, error) {
	plain, err := w.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", companion, err)
	}
	buf := series.NewBuffer(snappy.MaxEncodedLen(len(plain)))
	buf.B = append(buf.B, snappy.Encode(nil, plain)...)
	b := series.NewBatch(buf)
	b.Version, b.Decoded, b.Legacy = series.V1, len(plain), true
	b.Series = len(w.Timeseries)
	b.Counts.Samples = uint64(len(w.Timeseries))
	b.MinTime, b.MaxTime = math.MaxInt64, math.MinInt64
	for i := range w.Timeseries {
		s := &w.Timeseries[i]
		b.MinTime, b.MaxTime = min(b.MinTime, s.Samples[0].Timestamp), max(b.MaxTime, s.Samples[0].Timestamp)
		var text []byte
		for _, l := range s.Labels {
			text = append(append(text, l.Value...), 0xff)
		}
		b.IDs = append(b.IDs, series.SharedID(series.Key{Hi: xxh3.Hash(text)}))
	}
	b.Received = b.MaxTime
	return b, nil
}
