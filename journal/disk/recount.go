package disk

import (
	"context"
	"errors"
	"fmt"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// recount gives the record of r.head to count. A damaged body holds nothing.
func (c *cursor) recount(s *segment, r *reader, count func(*series.Batch) (series.Counts, error)) (series.Counts, error) {
	b, err := r.batch()
	if errors.Is(err, errDamaged) {
		return series.Counts{}, nil
	}
	if err != nil {
		return series.Counts{}, err
	}
	defer b.Release()
	counts, err := count(b)
	if err != nil {
		return counts, fmt.Errorf("count a journal record in segment %s for cursor %q: %w", s.path, c.stored.name, err)
	}
	return counts, nil
}

// Recount implements journal.Cursor.
func (c *cursor) Recount(ctx context.Context, count func(*series.Batch) (series.Counts, error)) error {
	c.using.Lock()
	defer c.using.Unlock()
	if c.isClosed() {
		return journal.ErrClosed
	}
	j := c.journal
	j.mu.Lock()
	want, listed := digest(j.backends, c.stored.name)
	read := c.read
	var others []*segment
	var limits []int64
	for _, s := range j.segments {
		has, ok := digest(s.backends, c.stored.name)
		if s.id >= read.Segment && (has != want || ok != listed) {
			others = append(others, s)
			limits = append(limits, s.end)
		}
	}
	j.mu.Unlock()
	sums := map[uint64]series.Counts{}
	for i, s := range others {
		from := s.first
		if s.id == read.Segment {
			from = max(from, read.Offset)
		}
		r, err := c.readerOf(s)
		if err != nil {
			return err
		}
		var sum series.Counts
		_, err = r.scan(from, limits[i], limits[i], func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			counts, err := c.recount(s, r, count)
			sum.Add(counts)
			return err
		})
		if err != nil {
			return err
		}
		sums[s.id] = sum
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	c.count, c.recounted = count, sums
	if _, ok := sums[read.Segment]; ok {
		c.passed.counts = series.Counts{}
	}
	return nil
}
