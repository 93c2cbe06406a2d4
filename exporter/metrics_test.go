package exporter_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/exporter/exportertest"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/journal/disk/vfs"
)

func TestLagAndQueueLength(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		r := s.lane("a", exportertest.NewBackend(nil), nil)
		lag := func() float64 { return r.metric(t, "remote_write_destination_lag_seconds", "backend", "a") }
		queue := func() float64 { return r.metric(t, "remote_write_queue_length", "backend", "a") }
		require.True(t, isNaN(lag()), "absent before the first acknowledgement")
		require.Zero(t, queue())

		taken := time.Now()
		time.Sleep(3 * time.Second) // the sample is three seconds old when it is received
		s.feed("m", 5, taken.UnixMilli())
		pause(10 * time.Millisecond)
		require.InDelta(t, 3, lag(), 0.1)
		require.Zero(t, queue(), "settled is not waiting, committed or not")
		require.Zero(t, r.metric(t, "sluice_in_journal_bytes"))
		pause(time.Minute)
		require.InDelta(t, 3, lag(), 0.1, "holds while nothing waits")

		r.backend.Play(fail(exporter.Retry, 503))
		for range 4 {
			s.feed("m", 5, time.Now().UnixMilli())
			time.Sleep(10 * time.Second)
		}
		require.EqualValues(t, 4, queue())
		require.InDelta(t, 103, lag(), 1, "grows while something waits")
		require.InDelta(t, 40, r.metric(t, "sluice_in_journal_age_seconds"), 1)
		require.Positive(t, r.metric(t, "sluice_in_journal_bytes"))
		require.EqualValues(t, 20, r.metric(t, "sluice_in_journal", "kind", "samples"))

		r.backend.Play(nil)
		r.rest(t, time.Minute)
		require.Zero(t, queue())
		require.Zero(t, r.metric(t, "sluice_in_journal_age_seconds"))
		require.Less(t, lag(), 16.0)

		// Metadata alone says nothing about samples.
		before := lag()
		pause(time.Minute)
		require.NoError(t, s.appendMessage(series.V1, exportertest.Metadata(t, "up")))
		pause(time.Second)
		require.Equal(t, before, lag())
	})
}

// Out of order: what is settled behind something that is not does not wait any more.
func TestQueueLengthBehindAStuckParcel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		r := s.lane("a", exportertest.NewBackend(func(ctx context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
			if a.Arrivals[0].Series == nameOf("stuck", 0) {
				return fail(exporter.Retry, 503)(ctx, a)
			}
			return accept(ctx, a)
		}), shards(2, 2))
		s.feed("stuck", 1, 1)
		pause(time.Second)
		for at := range int64(10) {
			s.feed("m", 3, at+1)
		}
		pause(10 * time.Second)
		b := r.check(t)
		require.EqualValues(t, 1, b.Batches)
		require.Equal(t, samples(1), b.InJournal)
		require.InDelta(t, 11, time.Since(b.Oldest).Seconds(), 0.5)
		r.backend.Play(nil)
		r.rest(t, time.Minute)
	})
}

// R5: a backend that answers 2xx and says that it wrote less.
func TestR5_WrittenShortfall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		r := s.connect("a", exportertest.NewBackend(func(_ context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
			w := a.Counts
			w.Samples -= min(w.Samples, 7)
			w.Exemplars = 0
			return exporter.Receipt{Told: true, Written: w}, nil
		}), nil)
		s.feed("m", 5, 1)
		require.NoError(t, s.append(series.V2, exportertest.EveryKind(1000)...))
		r.run()
		b := r.rest(t, time.Minute)
		require.Equal(t, map[string]series.Counts{exporter.ReasonNotWritten: {Samples: 7, Exemplars: 1}}, b.Totals.Rejected)
		require.Equal(t, series.Counts{Samples: 5, Histograms: 1}, b.Totals.Delivered)
		for at := range int64(30) {
			s.feed("m", 5, at+2)
			r.rest(t, time.Minute)
		}
		require.Equal(t, 1, s.log.lines("did not write everything"))
	})
	bubble(t, func(t *testing.T) { // what may have been there before may not be written again
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		r := s.lane("a", exportertest.NewBackend(sequence(
			func(_ context.Context, a *exportertest.Attempt) (exporter.Receipt, error) {
				a.Write()
				return exporter.Receipt{}, &exporter.Error{Class: exporter.Retry, Unknown: true}
			},
			func(context.Context, *exportertest.Attempt) (exporter.Receipt, error) {
				return exporter.Receipt{Told: true}, nil
			})), nil)
		s.feed("m", 5, 1)
		b := r.rest(t, time.Minute)
		require.Equal(t, samples(5), b.Totals.Delivered)
		require.Empty(t, b.Totals.Rejected)
	})
}

// choosy is a backend that tells of each sample, and cannot express exemplars.
type choosy struct{ *exportertest.Backend }

type choosyDelivery struct{ exporter.Delivery }

func (b choosy) Prepare(p *exporter.Parcel) (exporter.Delivery, error) {
	d, err := b.Backend.Prepare(p)
	return choosyDelivery{d}, err
}

func (d choosyDelivery) Tally(k int) exporter.Tally {
	t := d.Delivery.Tally(k)
	if t.Sent.Exemplars > 0 {
		t.Dropped = []exporter.Drop{{Reason: "no_exemplars", Counts: series.Counts{Exemplars: t.Sent.Exemplars}}}
		t.Sent.Exemplars = 0
	}
	return t
}

func (d choosyDelivery) Refused(k int) []exporter.Drop {
	if d.Delivery.Tally(k).Sent.Samples < 3 {
		return nil
	}
	return []exporter.Drop{{Reason: "first", Counts: samples(2)}, {Reason: "second", Counts: samples(1)}}
}

func TestRefuserAndDropped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, vfs.NewMem(), nil, "a")
		defer s.close()
		backend := exportertest.NewBackend(nil)
		r := s.connect("a", backend, func(o *exporter.Options) { o.Backend = choosy{backend} })
		s.feed("m", 5, 1)
		require.NoError(t, s.append(series.V2, exportertest.EveryKind(1000)...))
		r.run()
		b := r.rest(t, time.Minute)
		require.Equal(t, map[string]series.Counts{
			"first": samples(4), "second": samples(2), "no_exemplars": {Exemplars: 1},
		}, b.Totals.Rejected)
		require.Equal(t, series.Counts{Samples: 5 + 7 - 6, Histograms: 1}, b.Totals.Delivered)
		require.EqualValues(t, 4, r.metric(t, "sluice_rejected_total", "reason", "first"))
	})
}

// A store that says of each sample whether it took it refuses as old, after a restart, what
// it may well have had before it.
func TestRefuserAfterARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fs := vfs.NewMem()
		s := open(t, fs, nil, "a")
		backend := exportertest.NewBackend(nil)
		r := s.lane("a", backend, nil)
		s.feed("m", 5, 1)
		r.rest(t, time.Minute)
		killed := fs.KillClone() // sent, not committed
		s.close()

		s = open(t, killed, nil, "a")
		defer s.close()
		r = s.lane("a", backend, func(o *exporter.Options) { o.Backend = choosy{backend} })
		b := r.rest(t, time.Minute)
		require.Equal(t, map[string]series.Counts{exporter.ReasonRedeliveredRefused: samples(3)}, b.Totals.Rejected)
		require.Equal(t, samples(2), b.Totals.Delivered)
		require.Equal(t, samples(2), b.Totals.Redelivered)
	})
}
