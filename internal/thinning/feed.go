package thinning

import (
	"context"
	"errors"
	"log/slog"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal"
)

// feed reads a stretch of the journal once more. It uses the series ids of all that it
// read until it is closed.
type feed struct {
	reader journal.Reader
	picker Picker
	logger *slog.Logger
	from   journal.Position // where it began
	ahead  *journal.Record  // read, and not given to anybody yet
}

func (t *Thinner) open(from journal.Position) (*feed, error) {
	r, err := t.o.Journal.OpenReader(t.o.Backend, from)
	if err != nil {
		return nil, err
	}
	return &feed{reader: r, picker: t.o.Picker(), logger: t.o.Logger, from: from}, nil
}

// use is what is done with a record of which the backend takes something; the record's
// batch is borrowed.
type use func(rec *journal.Record, set series.Set) error

// until gives all records before limit to do, in order. It returns before limit at the end
// of ctx, at the tail, and with the first error: of do, of the reader, which is a
// *journal.GoneError where records are no more, after which it may be called again.
func (f *feed) until(ctx context.Context, limit journal.Position, do use) error {
	for ctx.Err() == nil {
		rec := f.ahead
		f.ahead = nil
		if rec == nil {
			next, ok, err := f.reader.Next()
			if err != nil || !ok {
				return err
			}
			rec = &next
		}
		if !rec.Start.Before(limit) {
			f.ahead = rec
			return nil
		}
		err := f.give(rec, do)
		rec.Batch.Release()
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// give passes over what the backend takes nothing of, and what cannot be read: the lane
// does the same.
func (f *feed) give(rec *journal.Record, do use) error {
	set, n, err := f.picker.Pick(rec.Batch)
	if err != nil {
		f.logger.Warn("A journal record cannot be read", "position", rec.Start, "err", err)
		return nil
	}
	if n == 0 && set != nil {
		return nil
	}
	return do(rec, set)
}

func (f *feed) close() error {
	if f.ahead != nil {
		f.ahead.Batch.Release()
		f.ahead = nil
	}
	return f.reader.Close()
}

// gone is the stretch that an error says is no more in the journal.
func gone(err error) (*journal.GoneError, bool) {
	var e *journal.GoneError
	ok := errors.As(err, &e)
	return e, ok
}
