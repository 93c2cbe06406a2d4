package tsdb

import (
	"context"
	"errors"
	"math"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/exporter"
	"github.com/sluice-metrics/sluice/internal/series"
)

var versions = []series.Version{series.V1, series.V2}

// base is a time whose hour is not over for a while in the store's two-hour blocks.
const base = int64(1_700_000_000_000)

// everyKind is one row of each kind of sample, two rounds each.
func everyKind(v series.Version) []row {
	second := base + 15_000
	rows := []row{
		floats(named("plain", "job", "a"), float64(base), 1, float64(second), 2.5),
		{labels: named("odd"), points: []point{
			{t: base, v: math.Inf(-1)},
			{t: second, v: math.Float64frombits(0x7ff8000000000001)},
			{t: second + 1, v: stale()},
		}},
		{labels: named("ints"), points: []point{
			{t: base, h: tsdbutil.GenerateTestHistogram(1)},
			{t: second, h: tsdbutil.GenerateTestHistogram(2)},
			{t: second + 1, h: &histogram.Histogram{Sum: stale()}},
		}},
		{labels: named("gauge_ints"), points: []point{{t: base, h: tsdbutil.GenerateTestGaugeHistogram(3)}}},
		{labels: named("parts"), points: []point{
			{t: base, fh: tsdbutil.GenerateTestFloatHistogram(1)},
			{t: second, fh: tsdbutil.GenerateTestFloatHistogram(4)},
		}},
		{labels: named("ütf8.näme", "lábel", "☃"), points: []point{{t: base, v: 7}}},
	}
	if v == series.V2 {
		rows = append(rows,
			row{labels: named("custom"), points: []point{
				{t: base, h: tsdbutil.GenerateTestCustomBucketsHistogram(1)},
				{t: second, h: tsdbutil.GenerateTestCustomBucketsHistogram(2)},
			}},
			row{labels: named("custom_parts"), points: []point{{t: base, fh: tsdbutil.GenerateTestCustomBucketsFloatHistogram(1)}}},
			row{labels: named("started_total"), points: []point{
				{t: base, start: base - 60_000, v: 1},
				{t: second, start: base - 60_000, v: 2},
			}},
			row{labels: named("started_ints"), points: []point{{t: base, start: base - 60_000, h: tsdbutil.GenerateTestHistogram(1)}}},
		)
	}
	return rows
}

func TestWhatIsSentIsStored(t *testing.T) {
	for _, v := range versions {
		for _, shared := range []bool{false, true} {
			t.Run(v.String()+map[bool]string{true: " with shared ids"}[shared], func(t *testing.T) {
				dir := t.TempDir()
				b := store(t, dir, nil)
				ids := &table{none: shared}
				rows := everyKind(v)
				require.Empty(t, deliver(t, b, whole(ids.request(t, v, rows...))))
				check := func(b *Backend) {
					got := stored(t, b)
					require.Len(t, got, len(rows))
					for _, r := range rows {
						requirePoints(t, r.points, got[r.labels.String()])
					}
				}
				check(b)

				// The same again is no error and changes nothing.
				require.Empty(t, deliver(t, b, whole(ids.request(t, v, rows...))))
				check(b)

				// A restart reads it back from the log.
				require.NoError(t, b.Close())
				check(store(t, dir, nil))
			})
		}
	}
}

func TestStartTimestampsCanBeTurnedOff(t *testing.T) {
	b := store(t, t.TempDir(), func(o *Options) { o.Config.StartTimestamps = false })
	r := row{labels: named("a_total"), points: []point{{t: base, start: base - 1, v: 1}}}
	require.Empty(t, deliver(t, b, whole((&table{}).request(t, series.V2, r))))
	requirePoints(t, []point{{t: base, v: 1}}, stored(t, b)[r.labels.String()])
	require.EqualValues(t, 1, counterValue(t, b.metrics.startsDropped))
}

// What Send has taken outlives the process: a copy of the files, made without closing
// the store, holds it.
func TestACrashKeepsWhatWasSent(t *testing.T) {
	dir := t.TempDir()
	b := store(t, dir, nil)
	ids := &table{}
	rows := everyKind(series.V2)
	require.Empty(t, deliver(t, b, whole(ids.request(t, series.V2, rows...))))
	late := floats(named("late"), float64(base+60_000), 2)
	require.Empty(t, deliver(t, b, whole(ids.request(t, series.V2, late))))
	require.Empty(t, deliver(t, b, whole(ids.request(t, series.V2, floats(named("late"), float64(base), 1)))))

	crashed := t.TempDir()
	require.NoError(t, os.CopyFS(crashed, os.DirFS(dir)))
	got := stored(t, store(t, crashed, nil))
	require.Len(t, got, len(rows)+1)
	for _, r := range rows {
		requirePoints(t, r.points, got[r.labels.String()])
	}
	requirePoints(t, []point{{t: base, v: 1}, {t: base + 60_000, v: 2}}, got[named("late").String()])
}

// Lanes send parcels that share no series side by side, while others query and ids are
// forgotten.
func TestParallelDeliveries(t *testing.T) {
	b := store(t, t.TempDir(), nil)
	const senders, rounds, each = 4, 20, 20
	ids := &table{}
	var parcels [senders][rounds]*exporter.Parcel
	for s := range senders {
		for r := range rounds {
			var rows []row
			for i := range each {
				rows = append(rows, row{
					labels:    named("m", "i", strconv.Itoa(s*each+i)),
					points:    []point{{t: base + int64(r)*1000, v: float64(r)}},
					exemplars: []exemplar.Exemplar{trace("x", base+int64(r)*1000, float64(r))},
				})
			}
			parcels[s][r] = whole(ids.request(t, versions[r%2], rows...))
		}
	}
	var idle []series.ID
	for i := range 2 * chunkSize {
		idle = append(idle, series.Overflow+series.ID(1000+i))
	}
	api := b.Handler("")
	var senderGroup, others sync.WaitGroup
	done := make(chan struct{})
	for n := range 2 {
		others.Go(func() {
			mine := idle[n*chunkSize : (n+1)*chunkSize]
			for {
				select {
				case <-done:
					return
				default:
				}
				w := httptest.NewRecorder()
				api.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/query?query=sum(rate(m[1m]))&time=1700000020", nil))
				if w.Code != 200 {
					t.Errorf("query: %s", w.Body)
				}
				b.refs.at(mine[len(mine)-1])
				b.Forget(mine)
			}
		})
	}
	for s := range senders {
		senderGroup.Go(func() {
			for _, p := range parcels[s] {
				d, err := b.Prepare(p)
				if err == nil {
					_, err = d.Send(context.Background(), 0)
				}
				if err != nil || d.(exporter.Refuser).Refused(0) != nil {
					t.Errorf("send: %v, refused %v", err, d.(exporter.Refuser).Refused(0))
				}
				d.Close()
			}
		})
	}
	senderGroup.Wait()
	close(done)
	others.Wait()
	got := stored(t, b)
	require.Len(t, got, senders*each)
	for ls, points := range got {
		require.Len(t, points, rounds, ls)
	}
	require.Len(t, storedExemplars(t, b), senders*each)
}

func TestPartsAndSelections(t *testing.T) {
	b := store(t, t.TempDir(), nil)
	ids := &table{}
	one := ids.request(t, series.V1,
		floats(named("a"), float64(base), 1), floats(named("b"), float64(base), 1), floats(named("c"), float64(base), 1))
	two := ids.request(t, series.V2, floats(named("a"), float64(base+1), 2), floats(named("b"), float64(base+1), 2))
	take := series.NewSet(3)
	take.Add(0)
	take.Add(2)
	p := &exporter.Parcel{Parts: []exporter.Part{{Batch: one, Take: take}, {Batch: two}}}

	d, err := b.Prepare(p)
	require.NoError(t, err)
	require.Equal(t, series.Counts{Samples: 2}, d.Tally(0).Sent)
	require.Equal(t, series.Counts{Samples: 2}, d.Tally(1).Sent)
	d.Close()

	require.Empty(t, deliver(t, b, p))
	got := stored(t, b)
	require.Len(t, got, 3)
	requirePoints(t, []point{{t: base, v: 1}, {t: base + 1, v: 2}}, got[named("a").String()])
	requirePoints(t, []point{{t: base + 1, v: 2}}, got[named("b").String()])
	requirePoints(t, []point{{t: base, v: 1}}, got[named("c").String()])
}

func TestRequestsWithoutSamples(t *testing.T) {
	b := store(t, t.TempDir(), nil)
	ids := &table{}
	require.Empty(t, deliver(t, b, whole(ids.request(t, series.V1), ids.request(t, series.V2))))
	require.Empty(t, deliver(t, b, &exporter.Parcel{}))
	require.Empty(t, stored(t, b))
}

func minutes(n int) float64 { return float64(base) + float64(n)*60_000 }

func TestRefusals(t *testing.T) {
	const window = time.Hour
	a, other := named("a"), named("other")
	bad := &histogram.Histogram{Count: 5, PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []int64{1}}
	for _, c := range []struct {
		name   string
		window time.Duration
		rows   [][]row // requests, one delivery each
		want   map[string]series.Counts
		points []point // of series a
	}{
		{
			name: "out of order inside of the window", window: window,
			rows:   [][]row{{floats(a, minutes(30), 1)}, {floats(a, minutes(10), 2)}, {floats(a, minutes(20), 3)}},
			points: []point{{t: int64(minutes(10)), v: 2}, {t: int64(minutes(20)), v: 3}, {t: int64(minutes(30)), v: 1}},
		},
		{
			name: "too old for the window", window: window,
			rows:   [][]row{{floats(other, minutes(100), 1), floats(a, minutes(99), 1)}, {floats(a, minutes(39), 2)}},
			want:   map[string]series.Counts{ReasonTooOld: {Samples: 1}},
			points: []point{{t: int64(minutes(99)), v: 1}},
		},
		{
			name:   "out of order without a window",
			rows:   [][]row{{floats(a, minutes(30), 1)}, {floats(a, minutes(29), 2)}},
			want:   map[string]series.Counts{ReasonOutOfOrder: {Samples: 1}},
			points: []point{{t: int64(minutes(30)), v: 1}},
		},
		{
			name:   "out of bounds without a window",
			rows:   [][]row{{floats(other, minutes(100), 1)}, {floats(a, minutes(39), 2)}},
			want:   map[string]series.Counts{ReasonOutOfBounds: {Samples: 1}},
			points: nil,
		},
		{
			name: "another value at the same time", window: window,
			rows:   [][]row{{floats(a, minutes(1), 1)}, {floats(a, minutes(1), 2)}, {floats(a, minutes(1), 1)}},
			want:   map[string]series.Counts{ReasonDuplicateTimestamp: {Samples: 1}},
			points: []point{{t: int64(minutes(1)), v: 1}},
		},
		{
			name:   "another value at the same time, in one request",
			rows:   [][]row{{floats(a, minutes(1), 1, minutes(1), 2, minutes(1), 1, minutes(2), 3)}},
			want:   map[string]series.Counts{ReasonDuplicateTimestamp: {Samples: 1}},
			points: []point{{t: int64(minutes(1)), v: 1}, {t: int64(minutes(2)), v: 3}},
		},
		{
			name:   "backwards in one request without a window",
			rows:   [][]row{{floats(a, minutes(3), 3, minutes(2), 2, minutes(4), 4), floats(a, minutes(1), 1)}},
			want:   map[string]series.Counts{ReasonOutOfOrder: {Samples: 2}},
			points: []point{{t: int64(minutes(3)), v: 3}, {t: int64(minutes(4)), v: 4}},
		},
		{
			name: "backwards in one request inside of the window", window: window,
			rows:   [][]row{{floats(a, minutes(3), 3, minutes(2), 2, minutes(4), 4), floats(a, minutes(1), 1)}},
			points: []point{{t: int64(minutes(1)), v: 1}, {t: int64(minutes(2)), v: 2}, {t: int64(minutes(3)), v: 3}, {t: int64(minutes(4)), v: 4}},
		},
		{
			name: "a histogram that contradicts itself", window: window,
			rows: [][]row{{floats(other, minutes(1), 1), {labels: a, points: []point{{t: int64(minutes(1)), h: bad}}}}},
			want: map[string]series.Counts{ReasonInvalidHistogram: {Histograms: 1}},
		},
		{
			name: "a histogram out of order", window: 0,
			rows: [][]row{
				{{labels: a, points: []point{{t: int64(minutes(2)), h: tsdbutil.GenerateTestHistogram(1)}}}},
				{{labels: a, points: []point{{t: int64(minutes(1)), h: tsdbutil.GenerateTestHistogram(1)}, {t: int64(minutes(2)), h: tsdbutil.GenerateTestHistogram(2)}}}},
			},
			want:   map[string]series.Counts{ReasonOutOfOrder: {Histograms: 1}, ReasonDuplicateTimestamp: {Histograms: 1}},
			points: []point{{t: int64(minutes(2)), h: tsdbutil.GenerateTestHistogram(1)}},
		},
	} {
		for _, v := range versions {
			for _, shared := range []bool{false, true} {
				t.Run(c.name+" "+v.String()+map[bool]string{true: " with shared ids"}[shared], func(t *testing.T) {
					b := store(t, t.TempDir(), func(o *Options) { o.Config.OutOfOrderTimeWindow = duration(c.window) })
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
					requirePoints(t, c.points, stored(t, b)[a.String()])
				})
			}
		}
	}
}

func TestSamplesFromTheFutureAreRefused(t *testing.T) {
	b := store(t, t.TempDir(), nil)
	now := time.Now()
	in := func(d time.Duration) float64 { return float64(now.Add(d).UnixMilli()) }
	refused := deliver(t, b, whole((&table{}).request(t, series.V1,
		floats(named("a"), in(-time.Minute), 1, in(9*time.Minute), 2, in(11*time.Minute), 3),
		floats(named("b"), in(24*time.Hour), 1),
		floats(named("c"), in(0), 1),
	)))
	require.Equal(t, map[string]series.Counts{ReasonTooFarInFuture: {Samples: 2}}, refused)
	require.Len(t, stored(t, b), 2)
}

func TestStaleMarkerOfHistogramsIsIdempotent(t *testing.T) {
	for _, h := range []point{{t: base, h: tsdbutil.GenerateTestHistogram(1)}, {t: base, fh: tsdbutil.GenerateTestFloatHistogram(1)}} {
		b := store(t, t.TempDir(), func(o *Options) { o.Config.OutOfOrderTimeWindow = 0 })
		ids := &table{}
		r := row{labels: named("a"), points: []point{h}}
		end := row{labels: named("a"), points: []point{{t: base + 1, v: stale()}}}
		require.Empty(t, deliver(t, b, whole(ids.request(t, series.V1, r))))
		require.Empty(t, deliver(t, b, whole(ids.request(t, series.V1, end))))
		require.Empty(t, deliver(t, b, whole(ids.request(t, series.V1, end))))
		require.Len(t, stored(t, b)[named("a").String()], 2)
	}
}

func TestReferencesAreNotedAndForgotten(t *testing.T) {
	b := store(t, t.TempDir(), nil)
	ids := &table{}
	send := func(ls labels.Labels, at int64, v float64) {
		t.Helper()
		require.Empty(t, deliver(t, b, whole(ids.request(t, series.V1, row{labels: ls, points: []point{{t: at, v: v}}}))))
	}
	old, young := named("old"), named("young")
	send(old, base, 1)
	require.EqualValues(t, 1, counterValue(t, b.metrics.lookups))
	send(old, base+1, 2)
	require.EqualValues(t, 1, counterValue(t, b.metrics.lookups), "a known series is looked up again")

	// The id passes on to another series.
	b.Forget([]series.ID{ids.id(old), ids.id(old) + 5*chunkSize, 3})
	ids.ids[young.String()] = ids.id(old)
	send(young, base+2, 3)
	require.EqualValues(t, 2, counterValue(t, b.metrics.lookups))
	got := stored(t, b)
	requirePoints(t, []point{{t: base, v: 1}, {t: base + 1, v: 2}}, got[old.String()])
	requirePoints(t, []point{{t: base + 2, v: 3}}, got[young.String()])
}

func TestSeriesThatLeftTheHeadAreMadeAnew(t *testing.T) {
	b := store(t, t.TempDir(), func(o *Options) { o.Config.OutOfOrderTimeWindow = 0 })
	ids := &table{}
	gone, stays := named("gone"), named("stays")
	hour := int64(time.Hour / time.Millisecond)
	put := func(at int64, rows ...labels.Labels) {
		t.Helper()
		var rs []row
		for _, ls := range rows {
			rs = append(rs, row{
				labels: ls, points: []point{{t: at, v: float64(at)}},
				exemplars: []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "x"), Ts: at, Value: float64(at)}},
			})
		}
		require.Empty(t, deliver(t, b, whole(ids.request(t, series.V2, rs...))))
	}
	put(base, gone, stays)
	ref := b.refs.at(ids.id(gone)).ref
	require.NotZero(t, ref)
	put(base+7*hour, stays)
	require.NoError(t, b.db.Compact(context.Background()))
	require.EqualValues(t, 1, b.db.Head().NumSeries(), "the series is still in the head: the test proves nothing")

	put(base+7*hour+1, gone)
	require.NotEqual(t, ref, b.refs.at(ids.id(gone)).ref)
	requirePoints(t, []point{{t: base, v: float64(base)}, {t: base + 7*hour + 1, v: float64(base + 7*hour + 1)}}, stored(t, b)[gone.String()])
}

// An exemplar that comes alone must find its series by the labels when the noted
// reference is stale.
func TestExemplarOfASeriesThatLeftTheHead(t *testing.T) {
	b := store(t, t.TempDir(), nil)
	ids := &table{}
	gone, stays := named("gone"), named("stays")
	hour := float64(time.Hour / time.Millisecond)
	require.Empty(t, deliver(t, b, whole(ids.request(t, series.V1, floats(gone, float64(base), 1)))))
	require.Empty(t, deliver(t, b, whole(ids.request(t, series.V1, floats(stays, float64(base)+7*hour, 1)))))
	require.NoError(t, b.db.Compact(context.Background()))
	lone := ids.request(t, series.V1, row{labels: gone, exemplars: []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "x"), Ts: base + 1, Value: 1}}})
	require.Equal(t, map[string]series.Counts{ReasonExemplarWithoutSeries: {Exemplars: 1}}, deliver(t, b, whole(lone)))
	require.Empty(t, deliver(t, b, whole((&table{none: true}).request(t, series.V1, floats(gone, float64(base)+7*hour+1, 1)))))
	require.Empty(t, deliver(t, b, whole(lone)))
}

func TestBrokenRequestsAreRejected(t *testing.T) {
	b := store(t, t.TempDir(), nil)
	ids := &table{}
	broken := ids.request(t, series.V1, floats(named("a"), float64(base), 1))
	broken.Body[len(broken.Body)-1] ^= 0xff
	broken.Body[0] = 0xff

	_, err := b.Prepare(&exporter.Parcel{Parts: []exporter.Part{{Batch: broken, Take: series.Set{1}}}})
	require.ErrorContains(t, err, "decompress")

	d, err := b.Prepare(whole(ids.request(t, series.V1, floats(named("b"), float64(base), 1)), broken))
	require.NoError(t, err)
	defer d.Close()
	_, err = d.Send(context.Background(), 0)
	var e *exporter.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, exporter.Rejected, e.Class)
	require.Empty(t, stored(t, b)[named("b").String()], "part of a rejected parcel was kept")
}

func TestSendStopsWithItsContext(t *testing.T) {
	b := store(t, t.TempDir(), nil)
	d, err := b.Prepare(whole((&table{}).request(t, series.V1, floats(named("a"), float64(base), 1))))
	require.NoError(t, err)
	defer d.Close()
	why := errors.New("stopping")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	_, err = d.Send(ctx, 0)
	var e *exporter.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, exporter.Retry, e.Class)
	require.ErrorIs(t, err, why)
	require.Empty(t, stored(t, b))
}

func TestClosedStoreAsksForARetry(t *testing.T) {
	b := store(t, t.TempDir(), nil)
	d, err := b.Prepare(whole((&table{}).request(t, series.V1, floats(named("a"), float64(base), 1))))
	require.NoError(t, err)
	defer d.Close()
	require.NoError(t, b.Probe(context.Background()))
	require.NoError(t, b.Close())
	require.NoError(t, b.Close())
	require.ErrorIs(t, b.Probe(context.Background()), errClosed)
	_, err = d.Send(context.Background(), 0)
	var e *exporter.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, exporter.Retry, e.Class)
	require.False(t, e.Unknown)
}
