package tsdb

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/series"
)

func trace(id string, t int64, v float64) exemplar.Exemplar {
	return exemplar.Exemplar{Labels: labels.FromStrings("trace_id", id), Ts: t, Value: v}
}

// storedExemplars returns what the store has, by the text of the labels, but for HasTs,
// which its log does not keep.
func storedExemplars(t testing.TB, b *Backend) map[string][]exemplar.Exemplar {
	t.Helper()
	q, err := b.db.ExemplarQuerier(context.Background())
	require.NoError(t, err)
	found, err := q.Select(0, math.MaxInt64, []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*")})
	require.NoError(t, err)
	all := map[string][]exemplar.Exemplar{}
	for _, r := range found {
		es := slices.Clone(r.Exemplars)
		for i := range es {
			es[i].HasTs = false
		}
		all[r.SeriesLabels.String()] = es
	}
	return all
}

func TestExemplars(t *testing.T) {
	a := named("a")
	at := func(n int) point { return point{t: base + int64(n)*1000, v: float64(n)} }
	e := func(id string, n int, v float64) exemplar.Exemplar { return trace(id, base+int64(n)*1000, v) }
	long := exemplar.Exemplar{Labels: labels.FromStrings("x", strings.Repeat("y", 128)), Ts: base + 5000, HasTs: true}
	for _, c := range []struct {
		name   string
		window time.Duration
		kept   int // max_exemplars
		rows   [][]row
		want   map[string]series.Counts
		have   []exemplar.Exemplar
	}{
		{
			name: "in order", kept: 10,
			rows: [][]row{
				{{labels: a, points: []point{at(1)}, exemplars: []exemplar.Exemplar{e("p", 1, 1), e("q", 1, 2)}}},
				{{labels: a, points: []point{at(2)}, exemplars: []exemplar.Exemplar{e("r", 2, 1)}}},
			},
			have: []exemplar.Exemplar{e("p", 1, 1), e("q", 1, 2), e("r", 2, 1)},
		},
		{
			name: "of a histogram", kept: 10,
			rows: [][]row{{{labels: a, points: []point{{t: base, h: tsdbutil.GenerateTestHistogram(1)}}, exemplars: []exemplar.Exemplar{e("p", 1, 1), e("q", 1, 2)}}}},
			have: []exemplar.Exemplar{e("p", 1, 1), e("q", 1, 2)},
		},
		{
			name: "twice", kept: 10,
			rows: [][]row{
				{{labels: a, points: []point{at(1)}, exemplars: []exemplar.Exemplar{e("p", 1, 1), e("p", 1, 1)}}},
				{{labels: a, points: []point{at(1)}, exemplars: []exemplar.Exemplar{e("p", 1, 1)}}},
			},
			have: []exemplar.Exemplar{e("p", 1, 1)},
		},
		{
			name: "out of order without a window", kept: 10,
			rows: [][]row{
				{{labels: a, points: []point{at(2)}, exemplars: []exemplar.Exemplar{e("p", 2, 1)}}},
				{{labels: a, points: []point{at(3)}, exemplars: []exemplar.Exemplar{e("q", 1, 1), e("r", 3, 1)}}},
			},
			want: map[string]series.Counts{ReasonOutOfOrderExemplar: {Exemplars: 1}},
			have: []exemplar.Exemplar{e("p", 2, 1), e("r", 3, 1)},
		},
		{
			name: "out of order in one request without a window", kept: 10,
			rows: [][]row{{{labels: a, points: []point{at(2)}, exemplars: []exemplar.Exemplar{e("p", 2, 1), e("q", 1, 1), e("r", 3, 1)}}}},
			want: map[string]series.Counts{ReasonOutOfOrderExemplar: {Exemplars: 1}},
			have: []exemplar.Exemplar{e("p", 2, 1), e("r", 3, 1)},
		},
		{
			name: "out of order inside of the window", kept: 10, window: time.Hour,
			rows: [][]row{{{labels: a, points: []point{at(2)}, exemplars: []exemplar.Exemplar{e("p", 2, 1), e("q", 1, 1), e("r", 3, 1)}}}},
			have: []exemplar.Exemplar{e("q", 1, 1), e("p", 2, 1), e("r", 3, 1)},
		},
		{
			name: "too many characters", kept: 10,
			rows: [][]row{{{labels: a, points: []point{at(1)}, exemplars: []exemplar.Exemplar{e("p", 1, 1), long}}}},
			want: map[string]series.Counts{ReasonExemplarTooLarge: {Exemplars: 1}},
			have: []exemplar.Exemplar{e("p", 1, 1)},
		},
		{
			name: "none are kept", kept: 0,
			rows: [][]row{{{labels: a, points: []point{at(1)}, exemplars: []exemplar.Exemplar{e("p", 1, 1), e("q", 2, 1)}}}},
			want: map[string]series.Counts{ReasonExemplarsDisabled: {Exemplars: 2}},
		},
	} {
		for _, v := range versions {
			for _, shared := range []bool{false, true} {
				t.Run(c.name+" "+v.String()+map[bool]string{true: " with shared ids"}[shared], func(t *testing.T) {
					dir := t.TempDir()
					change := func(o *Options) {
						o.Config.OutOfOrderTimeWindow = duration(c.window)
						o.Config.MaxExemplars = c.kept
					}
					b := store(t, dir, change)
					ids := &table{none: shared}
					got := map[string]series.Counts{}
					for _, rows := range c.rows {
						for reason, n := range deliver(t, b, whole(ids.request(t, v, rows...))) {
							sum := got[reason]
							sum.Add(n)
							got[reason] = sum
						}
					}
					if c.want == nil {
						c.want = map[string]series.Counts{}
					}
					require.Equal(t, c.want, got)
					require.Equal(t, c.have, storedExemplars(t, b)[a.String()])
					require.NotEmpty(t, stored(t, b)[a.String()])

					require.NoError(t, b.Close())
					require.Equal(t, c.have, storedExemplars(t, store(t, dir, change))[a.String()], "after a restart")
				})
			}
		}
	}
}

// Prometheus sends each exemplar as a series of its own by RW 1.0.
func TestM3_ExemplarsAlone(t *testing.T) {
	for _, shared := range []bool{false, true} {
		b := store(t, t.TempDir(), nil)
		ids := &table{none: shared}
		a := named("a")
		lone := row{labels: a, exemplars: []exemplar.Exemplar{trace("x", base, 1)}}

		require.Equal(t, map[string]series.Counts{ReasonExemplarWithoutSeries: {Exemplars: 1}},
			deliver(t, b, whole(ids.request(t, series.V1, lone))))
		_, known := b.db.Head().AppendableMinValidTime()
		require.False(t, known, "an exemplar set the time of an empty store")

		// Before, with and after the sample of its series.
		require.Empty(t, deliver(t, b, whole(ids.request(t, series.V1, lone, floats(a, float64(base), 1)))))
		lone.exemplars = []exemplar.Exemplar{trace("y", base+1, 1)}
		require.Empty(t, deliver(t, b, whole(ids.request(t, series.V1, lone))))
		require.Equal(t, []exemplar.Exemplar{trace("x", base, 1), trace("y", base+1, 1)}, storedExemplars(t, b)[a.String()])
	}
}

func TestExemplarsOfSelectedSeriesOnly(t *testing.T) {
	b := store(t, t.TempDir(), nil)
	batch := (&table{}).request(t, series.V2,
		row{labels: named("a"), points: []point{{t: base, v: 1}}, exemplars: []exemplar.Exemplar{trace("x", base, 1)}},
		row{labels: named("b"), points: []point{{t: base, v: 1}}, exemplars: []exemplar.Exemplar{trace("y", base, 1)}},
	)
	p := whole(batch)
	p.Parts[0].Take = series.NewSet(2)
	p.Parts[0].Take.Add(1)
	require.Empty(t, deliver(t, b, p))
	require.Equal(t, map[string][]exemplar.Exemplar{named("b").String(): {trace("y", base, 1)}}, storedExemplars(t, b))
}
