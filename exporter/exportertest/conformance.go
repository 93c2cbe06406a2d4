package exportertest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
)

// Fixture is a backend under test with what is behind it.
type Fixture struct {
	Backend exporter.Backend
	// Stored returns the samples and histograms that the storage behind it has. Of an
	// Arrival's fields, Value is 0 for histograms.
	Stored func(t testing.TB) []Arrival
	// Fail makes the next n attempts fail in a way that a repetition mends, before any of
	// them has written anything.
	Fail func(n int)
}

// base is a time that every storage takes, Unix ms.
const base = int64(1_700_000_000_000)

var versions = []series.Version{series.V1, series.V2}

// Run is the suite that every kind of backend has to pass. open makes a backend with an
// empty storage, which ends with the test. The caller checks for goroutines that are left.
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	for name, test := range map[string]func(*suite, *testing.T){
		"whole batches":               (*suite).whole,
		"selections":                  (*suite).selections,
		"several parts":               (*suite).parts,
		"nothing to send":             (*suite).nothing,
		"failed attempts":             (*suite).failures,
		"ended context":               (*suite).ended,
		"several samples of a series": (*suite).rounds,
		"side by side":                (*suite).sideBySide,
		"broken bodies":               (*suite).broken,
		"closed without an attempt":   (*suite).unsent,
		"probe":                       (*suite).probe,
	} {
		t.Run(name, func(t *testing.T) { test(&suite{Fixture: open(t)}, t) })
	}
}

type suite struct {
	Fixture
	ids Ids
}

func (s *suite) batch(t *testing.T, v series.Version, list ...Series) *series.Batch {
	t.Helper()
	return Batch(t, v, Message(t, v, list...), s.ids.Of)
}

// send prepares the parcel, makes attempts until one succeeds, at most tries, and checks
// that every tally accounts for what the parcel takes. It returns what was sent and not
// refused, by part. The batches are overwritten afterwards: nobody may read them any more.
func (s *suite) send(t *testing.T, p *exporter.Parcel, tries int) []series.Counts {
	t.Helper()
	d, err := s.Backend.Prepare(p)
	require.NoError(t, err)
	before := tallies(d, p)
	failed := 0
	for ; ; failed++ {
		if _, err = d.Send(t.Context(), failed); err == nil || failed+1 == tries {
			break
		}
		requireRetriable(t, err)
	}
	require.NoError(t, err)
	require.Equal(t, tries-1, failed, "attempts that failed")
	require.Equal(t, before, tallies(d, p), "a tally is fixed when Prepare returns")
	var got []series.Counts
	for k := range p.Parts {
		tally := d.Tally(k)
		all := tally.Sent
		for _, drop := range tally.Dropped {
			require.NotEmpty(t, drop.Reason)
			require.False(t, drop.Counts.Zero())
			all.Add(drop.Counts)
		}
		require.Equal(t, taken(t, &p.Parts[k]), all, "part %d: sent and dropped are what is taken", k)
		sent := tally.Sent
		if r, ok := d.(exporter.Refuser); ok {
			for _, drop := range r.Refused(k) {
				require.NotEmpty(t, drop.Reason)
				sent.Sub(drop.Counts)
			}
			require.LessOrEqual(t, sent.Samples, tally.Sent.Samples)
			require.LessOrEqual(t, sent.Histograms, tally.Sent.Histograms)
			require.LessOrEqual(t, sent.Exemplars, tally.Sent.Exemplars)
		}
		got = append(got, sent)
	}
	d.Close()
	for _, part := range p.Parts {
		for i := range part.Batch.Body {
			part.Batch.Body[i] = 0xff
		}
	}
	return got
}

func tallies(d exporter.Delivery, p *exporter.Parcel) []exporter.Tally {
	var list []exporter.Tally
	for k := range p.Parts {
		list = append(list, d.Tally(k))
	}
	return list
}

func requireRetriable(t *testing.T, err error) {
	t.Helper()
	var e *exporter.Error
	if errors.As(err, &e) {
		require.Contains(t, []exporter.Class{exporter.Retry, exporter.Throttled}, e.Class, "%v", err)
	}
}

// taken counts what a part takes.
func taken(t *testing.T, p *exporter.Part) series.Counts {
	t.Helper()
	var d delivery
	d.tallies, d.series = make([]exporter.Tally, 1), map[string]bool{}
	require.NoError(t, d.add(0, p))
	return d.counts
}

// requireStored compares what is stored with what was sent: no less, no more, nothing twice.
func (s *suite) requireStored(t *testing.T, want []Arrival) {
	t.Helper()
	require.Equal(t, spelled(want), spelled(s.Stored(t)))
}

// spelled is a sorted list that compares NaN by its bits.
func spelled(list []Arrival) []string {
	out := make([]string, 0, len(list))
	for _, x := range list {
		out = append(out, fmt.Sprintf("%s %s %d %x", x.Series, x.Kind, x.Time, math.Float64bits(x.Value)))
	}
	slices.Sort(out)
	return out
}

// arrivals is what a storage has of the series afterwards.
func arrivals(list ...Series) []Arrival {
	var out []Arrival
	for _, x := range list {
		for _, p := range x.Samples {
			out = append(out, Arrival{x.Labels.String(), "sample", p.Time, p.Value})
		}
		for _, h := range x.Histograms {
			out = append(out, Arrival{x.Labels.String(), "histogram", h.Time, 0})
		}
	}
	return out
}

func plain(name string, n int, at int64) []Series {
	var list []Series
	for i := range n {
		list = append(list, Series{Labels: Named(name, "i", fmt.Sprint(i)), Samples: []Sample{{at, float64(i)}}})
	}
	return list
}

func (s *suite) whole(t *testing.T) {
	var want []Arrival
	for k, v := range versions {
		list := EveryKind(base + int64(k)*1000)
		b := s.batch(t, v, list...)
		got := s.send(t, Whole(b), 1)
		require.Equal(t, series.Counts{Samples: b.Counts.Samples, Histograms: b.Counts.Histograms, Exemplars: got[0].Exemplars}, got[0])
		b.Release()
		want = append(want, arrivals(list...)...)
	}
	s.requireStored(t, want)
}

func (s *suite) selections(t *testing.T) {
	var want []Arrival
	at := base
	for _, v := range versions {
		n := len(EveryKind(at))
		for _, ordinals := range [][]int{{0}, {n - 1}, {1, 3}, {0, 2, 4}, {2, 3, 4, 5}} {
			at += 1000
			list := EveryKind(at)
			b := s.batch(t, v, list...)
			s.send(t, &exporter.Parcel{Parts: []exporter.Part{{Batch: b, Take: Take(b, ordinals...)}}}, 1)
			b.Release()
			for _, i := range ordinals {
				want = append(want, arrivals(list[i])...)
			}
		}
	}
	s.requireStored(t, want)
}

func (s *suite) parts(t *testing.T) {
	var want []Arrival
	p := &exporter.Parcel{}
	for k := range 8 {
		list := EveryKind(base + int64(k)*1000)
		b := s.batch(t, versions[k/2%2], list...)
		defer b.Release()
		part := exporter.Part{Batch: b}
		switch k % 4 {
		case 1:
			part.Take = Take(b, 0, 3)
			list = []Series{list[0], list[3]}
		case 3:
			part.Take = Take(b)
			list = nil
		}
		p.Parts = append(p.Parts, part)
		want = append(want, arrivals(list...)...)
	}
	got := s.send(t, p, 1)
	require.True(t, got[3].Zero())
	require.Equal(t, uint64(1), got[1].Histograms)
	s.requireStored(t, want)
}

func (s *suite) nothing(t *testing.T) {
	var batches []*series.Batch
	batches = append(batches, Batch(t, series.V1, Metadata(t, "a_total", "b_total"), s.ids.Of))
	for _, v := range versions {
		batches = append(batches, s.batch(t, v))
	}
	for _, b := range batches {
		require.Zero(t, s.send(t, Whole(b), 1)[0])
		b.Release()
	}
	b := s.batch(t, series.V1, plain("m", 3, base)...)
	require.Zero(t, s.send(t, &exporter.Parcel{Parts: []exporter.Part{{Batch: b, Take: Take(b)}, {Batch: b, Take: Take(b)}}}, 1)[0])
	b.Release()
	s.requireStored(t, nil)
}

func (s *suite) failures(t *testing.T) {
	var want []Arrival
	for k, v := range versions {
		for _, selected := range []bool{false, true} {
			at := base + int64(k)*10_000
			if selected {
				at += 5000
			}
			list := EveryKind(at)
			b := s.batch(t, v, list...)
			p := Whole(b)
			if selected {
				p.Parts[0].Take = Take(b, 0, 1)
				list = list[:2]
			}
			s.Fail(2)
			s.send(t, p, 3)
			b.Release()
			want = append(want, arrivals(list...)...)
		}
	}
	s.requireStored(t, want)
}

func (s *suite) ended(t *testing.T) {
	list := plain("m", 3, base)
	b := s.batch(t, series.V1, list...)
	defer b.Release()
	d, err := s.Backend.Prepare(Whole(b))
	require.NoError(t, err)
	defer d.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	_, err = d.Send(ctx, 0)
	require.Error(t, err)
	requireRetriable(t, err)
	require.Less(t, time.Since(began), 5*time.Second)
	_, err = d.Send(t.Context(), 1)
	require.NoError(t, err)
	s.requireStored(t, arrivals(list...))
}

func (s *suite) rounds(t *testing.T) {
	var want []Arrival
	p := &exporter.Parcel{}
	for k := range 6 {
		list := plain("m", 4, base+int64(k)*1000)
		if k%2 == 1 {
			slices.Reverse(list)
		}
		b := s.batch(t, versions[k%2], list...)
		defer b.Release()
		p.Parts = append(p.Parts, exporter.Part{Batch: b})
		want = append(want, arrivals(list...)...)
	}
	for _, c := range s.send(t, p, 1) {
		require.Equal(t, uint64(4), c.Samples)
	}
	s.requireStored(t, want)
}

func (s *suite) sideBySide(t *testing.T) {
	const senders, each = 6, 15
	var want []Arrival
	parcels := make([][]*exporter.Parcel, senders)
	for i := range parcels {
		for k := range each {
			list := plain(fmt.Sprintf("m%d", i), 20, base+int64(k)*1000)
			b := s.batch(t, versions[(i+k)%2], list...)
			defer b.Release()
			p := Whole(b)
			if k%3 == 0 {
				p.Parts[0].Take = Take(b, 1, 2, 3)
				list = list[1:4]
			}
			parcels[i] = append(parcels[i], p)
			want = append(want, arrivals(list...)...)
		}
	}
	errs := make([]error, senders)
	var wg sync.WaitGroup
	for i := range parcels {
		wg.Go(func() {
			for _, p := range parcels[i] {
				d, err := s.Backend.Prepare(p)
				if err == nil {
					_, err = d.Send(context.Background(), 0)
					d.Close()
				}
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	s.requireStored(t, want)
}

func (s *suite) broken(t *testing.T) {
	for _, v := range versions {
		b := s.batch(t, v, plain("m", 3, base)...)
		for i := range b.Body {
			b.Body[i] = 0xff
		}
		d, err := s.Backend.Prepare(&exporter.Parcel{Parts: []exporter.Part{{Batch: b, Take: Take(b, 1)}}})
		if err == nil {
			_, err = d.Send(t.Context(), 0)
			var e *exporter.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, exporter.Rejected, e.Class)
			d.Close()
		}
		require.Error(t, err)
		b.Release()
	}
	s.requireStored(t, nil)
}

func (s *suite) unsent(t *testing.T) {
	for _, v := range versions {
		for _, take := range []bool{false, true} {
			b := s.batch(t, v, EveryKind(base)...)
			p := Whole(b)
			if take {
				p.Parts[0].Take = Take(b, 1, 2)
			}
			d, err := s.Backend.Prepare(p)
			require.NoError(t, err)
			d.Close()
			b.Release()
		}
	}
	s.requireStored(t, nil)
}

func (s *suite) probe(t *testing.T) {
	require.NoError(t, s.Backend.Probe(t.Context()))
	s.requireStored(t, nil)
}
