package tsdb

import (
	"context"
	"errors"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
)

var errDisk = errors.New("no space left on device")

// brittle fails its n-th call, commits and appends counted together.
type brittle struct {
	appendable
	left int
}

func (b *brittle) fail() bool {
	b.left--
	return b.left == 0
}

func (b *brittle) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return brittleSamples{b.appendable.AppenderV2(ctx), b}
}

func (b *brittle) Appender(ctx context.Context) storage.Appender {
	return brittleExemplars{b.appendable.Appender(ctx), b}
}

type brittleSamples struct {
	storage.AppenderV2
	b *brittle
}

func (a brittleSamples) Append(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o storage.AOptions) (storage.SeriesRef, error) {
	if a.b.fail() {
		return 0, errDisk
	}
	return a.AppenderV2.Append(ref, ls, st, t, v, h, fh, o)
}

func (a brittleSamples) Commit() error {
	if a.b.fail() {
		return errors.Join(errDisk, a.Rollback())
	}
	return a.AppenderV2.Commit()
}

type brittleExemplars struct {
	storage.Appender
	b *brittle
}

func (a brittleExemplars) GetRef(ls labels.Labels, hash uint64) (storage.SeriesRef, labels.Labels) {
	return a.Appender.(storage.GetRef).GetRef(ls, hash)
}

func (a brittleExemplars) Commit() error {
	if a.b.fail() {
		return errors.Join(errDisk, a.Rollback())
	}
	return a.Appender.Commit()
}

// Whichever call to the store fails, what it had taken is not appended again, nothing
// is left out, and what it refused is counted once.
func TestEveryFailureIsTakenUpWhereItHappened(t *testing.T) {
	ids := &table{}
	a, b := named("a"), named("b")
	parcel := func() *exporter.Parcel {
		return whole(
			ids.request(t, series.V2,
				row{
					labels: a, points: []point{{t: base, v: 1}, {t: base + 2, v: 2}, {t: base + 1, v: 9}, {t: base + 3, v: 3}},
					exemplars: []exemplar.Exemplar{trace("x", base+1, 1), trace("y", base, 1), trace("z", base+2, 1)},
				},
				floats(b, float64(base), 1)),
			ids.request(t, series.V2, floats(a, float64(base+4), 4), floats(b, float64(base), 1, float64(base+1), 2)),
			ids.request(t, series.V2, floats(b, float64(base+1), 5),
				row{labels: a, points: []point{{t: base + 5, v: 5}}, exemplars: []exemplar.Exemplar{trace("w", base+1, 1)}}),
		)
	}
	calls := 0
	for failed := true; failed; {
		calls++
		failed = false
		s := store(t, t.TempDir(), func(o *Options) { o.Config.OutOfOrderTimeWindow = 0 })
		whole := s.into
		s.into = &brittle{appendable: whole, left: calls}
		p := parcel()
		d, err := s.Prepare(p)
		require.NoError(t, err)
		if _, err = d.Send(context.Background(), 0); err != nil {
			failed = true
			var e *exporter.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, exporter.Retry, e.Class)
			require.True(t, e.Unknown)
			require.ErrorIs(t, err, errDisk)
			s.into = whole
			_, err = d.Send(context.Background(), 1)
			require.NoError(t, err)
		}
		require.Equal(t, map[string]series.Counts{
			ReasonOutOfOrder:         {Samples: 1},
			ReasonDuplicateTimestamp: {Samples: 1},
			ReasonOutOfOrderExemplar: {Exemplars: 2},
		}, refusedBy(d, len(p.Parts)), "call %d", calls)
		d.Close()

		got := stored(t, s)
		requirePoints(t, []point{{t: base, v: 1}, {t: base + 2, v: 2}, {t: base + 3, v: 3}, {t: base + 4, v: 4}, {t: base + 5, v: 5}}, got[a.String()])
		requirePoints(t, []point{{t: base, v: 1}, {t: base + 1, v: 2}}, got[b.String()])
		require.Equal(t, []exemplar.Exemplar{trace("x", base+1, 1), trace("z", base+2, 1)}, storedExemplars(t, s)[a.String()])
		require.NoError(t, s.Close())
	}
	require.Greater(t, calls, 15, "hardly anything failed")
}

// Two stores cannot share a directory.
func TestSecondStoreInTheDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	store(t, dir, nil)
	_, err := Open(Options{Name: "other", Config: DefaultConfig(), Dir: dir + "/local"})
	require.ErrorContains(t, err, dir+"/local")
	require.ErrorContains(t, err, "tsdb.path")
	_, err = Open(Options{Name: "other", Config: DefaultConfig()})
	require.ErrorContains(t, err, "no directory")
}
