package tsdb

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// olderChunks gives out chunks in the encodings that every release of Prometheus
// reads. Remote read sends the chunks of the store to its clients as they are, and
// those with start timestamps are younger than most clients. Samples are read from
// the store unchanged.
type olderChunks struct{ storage.Queryable }

// ChunkQuerier implements storage.ChunkQueryable.
func (o olderChunks) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := o.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	return olderChunkQuerier{q}, nil
}

// olderChunkQuerier encodes what a sample querier finds.
type olderChunkQuerier struct{ samples storage.Querier }

// Select implements storage.ChunkQuerier.
func (q olderChunkQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	return storage.NewSeriesSetToChunkSet(unstartedSet{q.samples.Select(ctx, sorted, hints, ms...)})
}

// LabelValues implements storage.LabelQuerier.
func (q olderChunkQuerier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.samples.LabelValues(ctx, name, hints, ms...)
}

// LabelNames implements storage.LabelQuerier.
func (q olderChunkQuerier) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.samples.LabelNames(ctx, hints, ms...)
}

// Close implements storage.LabelQuerier.
func (q olderChunkQuerier) Close() error { return q.samples.Close() }

// unstartedSet is a set of series without start timestamps.
type unstartedSet struct{ storage.SeriesSet }

func (s unstartedSet) At() storage.Series { return unstartedSeries{s.SeriesSet.At()} }

type unstartedSeries struct{ storage.Series }

func (s unstartedSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	if u, ok := it.(unstarted); ok {
		it = u.Iterator
	}
	return unstarted{s.Series.Iterator(it)}
}

type unstarted struct{ chunkenc.Iterator }

func (unstarted) AtST() int64 { return 0 }
