package receiver_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/receiver"
)

// script is a Pairs that puts another request in the place of each.
type script struct {
	t            *testing.T
	body         []byte
	deduplicated series.Counts
	refuse       error // by Admit
	check        error

	ended []bool // what Done was told
}

func (s *script) Admit(r receiver.PairRequest) (receiver.PairAdmission, error) {
	require.NoError(s.t, r.Message.Scan(r.Version, r.Plain), "a Message to read the request with")
	if s.refuse != nil {
		return nil, s.refuse
	}
	if s.body == nil {
		return nil, nil
	}
	return s, nil
}

func (s *script) Body() []byte                { return s.body }
func (s *script) Deduplicated() series.Counts { return s.deduplicated }
func (s *script) Check() error                { return s.check }
func (s *script) Done(appended bool)          { s.ended = append(s.ended, appended) }

func paired(t *testing.T, s *script) *gate {
	s.t = t
	return newGate(t, func(c *setup) { c.pairs = s })
}

func TestPairs_OtherRequestsGoOnAsTheyAre(t *testing.T) {
	s := &script{}
	g := paired(t, s)
	require.Equal(t, http.StatusNoContent, g.sendV1(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: named("up"), Samples: sampleV1(1)}}}).status)
	require.Equal(t, series.Counts{Samples: 1}, g.booked())
	require.Empty(t, s.ended)
}

// The journal has what was accepted, and the sender is told that all was written.
func TestPairs_DeduplicatedCountsAsWritten(t *testing.T) {
	left := newV2().sample(1, "__name__", "up", "job", "test").done()
	accepted, err := left.Marshal()
	require.NoError(t, err)
	s := &script{body: accepted, deduplicated: series.Counts{Samples: 2, Histograms: 3}}
	g := paired(t, s)
	sent := newV2().sample(1, "__name__", "up", "job", "test", "replica", "a").sample(1, "__name__", "up", "job", "test", "replica", "b").done()
	a := g.sendV2(sent)
	require.Equal(t, http.StatusNoContent, a.status)
	require.Equal(t, [3]int{3, 3, 0}, a.written(t))
	require.Equal(t, series.Counts{Samples: 1}, g.booked())
	require.Equal(t, seriesV2(t, left), seriesV2(t, g.keptOne().v2))
	require.Equal(t, []bool{true}, s.ended)
}

func TestPairs_NothingIsLeft(t *testing.T) {
	s := &script{body: []byte{}, deduplicated: series.Counts{Samples: 1}}
	g := paired(t, s)
	a := g.sendV2(newV2().sample(1, "__name__", "up").done())
	require.Equal(t, http.StatusNoContent, a.status)
	require.Equal(t, [3]int{1, 0, 0}, a.written(t))
	require.Zero(t, g.booked())
	require.Equal(t, []bool{true}, s.ended)
}

func TestPairs_RefusedSeriesAreToldOf(t *testing.T) {
	body, err := newV2().sample(1, "__name__", "up").sample(1, "no", "name").done().Marshal()
	require.NoError(t, err)
	s := &script{body: body, deduplicated: series.Counts{Samples: 1}}
	g := paired(t, s)
	a := g.sendV2(newV2().sample(1, "__name__", "up").done())
	require.Equal(t, http.StatusBadRequest, a.status)
	require.Contains(t, a.text, "1 of 3 samples rejected")
	require.Equal(t, [3]int{2, 0, 0}, a.written(t))
	require.Equal(t, []bool{true}, s.ended)
}

func TestPairs_LaterIsAnsweredSo(t *testing.T) {
	later := &receiver.Refusal{Status: http.StatusServiceUnavailable, Err: errors.New("who is elected is not known")}
	accepted, err := newV2().sample(1, "__name__", "up").done().Marshal()
	require.NoError(t, err)
	for name, s := range map[string]*script{
		"not admitted":     {refuse: later},
		"lost in the mean": {body: accepted, check: later},
	} {
		t.Run(name, func(t *testing.T) {
			g := paired(t, s)
			a := g.sendV2(newV2().sample(1, "__name__", "up").done())
			require.Equal(t, http.StatusServiceUnavailable, a.status)
			require.Contains(t, a.text, "who is elected is not known")
			require.NotEmpty(t, a.header.Get("Retry-After"))
			require.Zero(t, g.booked())
			require.NotContains(t, s.ended, true)
		})
	}
}

func TestPairs_JournalTakesNothing(t *testing.T) {
	accepted, err := newV2().sample(1, "__name__", "up").done().Marshal()
	require.NoError(t, err)
	s := &script{t: t, body: accepted}
	g := newGate(t, func(c *setup) {
		c.pairs = s
		c.wrap = func(receiver.Journal) receiver.Journal { return fullJournal{} }
	})
	require.Equal(t, http.StatusServiceUnavailable, g.sendV2(newV2().sample(1, "__name__", "up").done()).status)
	require.Equal(t, []bool{false}, s.ended)
}

type fullJournal struct{}

func (fullJournal) Append(context.Context, *series.Batch) error { return errors.New("full") }
