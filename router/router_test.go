package router_test

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
	"github.com/sluice-metrics/sluice/router"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const seed = 7

// content is one series of a request.
type content struct {
	labels                         []prompb.Label // as they are spelled
	samples, histograms, exemplars int
}

func (c *content) counts() series.Counts {
	return series.Counts{Samples: uint64(c.samples), Histograms: uint64(c.histograms), Exemplars: uint64(c.exemplars)}
}

// canonical is what the labels mean.
func (c *content) canonical() labels.Labels {
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, l := range c.labels {
		if l.Value != "" {
			b.Set(l.Name, l.Value)
		}
	}
	return b.Labels()
}

// encode writes the series as a request.
func encode(t require.TestingT, v series.Version, list []content) []byte {
	if v == series.V1 {
		var req prompb.WriteRequest
		for _, c := range list {
			req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
				Labels: c.labels, Samples: fill(c.samples, prompb.Sample{Value: 1, Timestamp: 1}),
				Histograms: fill(c.histograms, prompb.Histogram{Timestamp: 1}),
				Exemplars:  fill(c.exemplars, prompb.Exemplar{Timestamp: 1}),
			})
		}
		b, err := req.Marshal()
		require.NoError(t, err)
		return b
	}
	var req writev2.Request
	table := writev2.NewSymbolTable()
	for _, c := range list {
		ts := writev2.TimeSeries{
			Samples: fill(c.samples, writev2.Sample{Value: 1, Timestamp: 1}), Histograms: fill(c.histograms, writev2.Histogram{Timestamp: 1}),
			Exemplars: fill(c.exemplars, writev2.Exemplar{Timestamp: 1}),
		}
		for _, l := range c.labels {
			ts.LabelsRefs = append(ts.LabelsRefs, table.Symbolize(l.Name), table.Symbolize(l.Value))
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Symbols = table.Symbols()
	b, err := req.Marshal()
	require.NoError(t, err)
	return b
}

func fill[E any](n int, e E) []E {
	list := make([]E, n)
	for i := range list {
		list[i] = e
	}
	return list
}

func index(t require.TestingT, v series.Version, list []content) *remotewrite.Message {
	var m remotewrite.Message
	require.NoError(t, m.Index(v, encode(t, v, list), seed))
	return &m
}

// batch is the series as a batch from the journal, with the ids of res or without.
func batch(t require.TestingT, v series.Version, list []content, res *router.Resolution) *series.Batch {
	plain := encode(t, v, list)
	body := snappy.Encode(nil, plain)
	buf := series.NewBuffer(len(body))
	buf.B = append(buf.B, body...)
	b := series.NewBatch(buf)
	b.Version, b.Decoded, b.Series = v, len(plain), len(list)
	for i := range list {
		b.Counts.Add(list[i].counts())
	}
	if res != nil {
		b.IDs, b.Epoch, b.Routed = append([]series.ID(nil), res.IDs...), res.Epoch, res.Routed
	}
	return b
}

func pairs(s ...string) (ls []prompb.Label) {
	for i := 0; i < len(s); i += 2 {
		ls = append(ls, prompb.Label{Name: s[i], Value: s[i+1]})
	}
	return ls
}

func one(name, job string) content {
	return content{labels: pairs("__name__", name, "job", job), samples: 1}
}

func match(t labels.MatchType, name, value string) *labels.Matcher {
	return labels.MustNewMatcher(t, name, value)
}

func backend(name string, selectors ...[]*labels.Matcher) router.Backend {
	return router.Backend{Name: name, Selectors: selectors}
}

func newRouter(t require.TestingT, table *series.Table, backends ...router.Backend) *router.Router {
	r := router.New(table, seed)
	_, err := r.SetBackends(backends)
	require.NoError(t, err)
	return r
}

// A series is looked at once, in whatever spelling it comes, until the backends change.
func TestResolve_DecidesOncePerSeries(t *testing.T) {
	table := series.NewTable(1000)
	r := newRouter(t, table, backend("api", []*labels.Matcher{match(labels.MatchRegexp, "job", "a.*")}))
	list := []content{one("a", "api"), one("b", "db"), one("c", "api")}
	var res router.Resolution
	for _, v := range []series.Version{series.V1, series.V2} {
		r.Resolve(index(t, v, list), &res)
		require.Equal(t, 3, res.New, v)
		for range 3 {
			r.Resolve(index(t, v, list), &res)
			require.Zero(t, res.New, v)
			require.Equal(t, []series.Counts{{Samples: 2}}, res.Routed, v)
		}
	}
	require.Equal(t, 3, table.Len(), "one id for both versions")

	_, err := r.SetBackends([]router.Backend{backend("rest", []*labels.Matcher{match(labels.MatchNotRegexp, "job", "a.*")})})
	require.NoError(t, err)
	r.Resolve(index(t, series.V1, list), &res)
	require.Equal(t, 3, res.New)
	require.Equal(t, []series.Counts{{Samples: 1}}, res.Routed)
	require.Equal(t, 3, table.Len(), "series keep their ids")
}

// The same series in one request twice, in two spellings, has one id.
func TestResolve_OneIDForAllSpellings(t *testing.T) {
	r := newRouter(t, series.NewTable(10), backend("all"))
	list := []content{
		{labels: pairs("__name__", "a", "b", "1"), samples: 1},
		{labels: pairs("b", "1", "__name__", "a"), samples: 1},
		{labels: pairs("__name__", "a", "x", "", "b", "1"), samples: 1},
	}
	var res router.Resolution
	for _, v := range []series.Version{series.V2, series.V1} {
		for range 2 {
			r.Resolve(index(t, v, list), &res)
			require.Equal(t, []int{1, 2}, res.Respell)
			require.Equal(t, res.IDs[0], res.IDs[1])
			require.Equal(t, res.IDs[0], res.IDs[2])
			require.False(t, res.IDs[0].Shared())
			require.Nil(t, res.Routed, "all takes everything")
		}
	}
}

func TestResolve_Invalid(t *testing.T) {
	r := newRouter(t, series.NewTable(10), backend("all"), backend("some", []*labels.Matcher{match(labels.MatchEqual, "job", "")}))
	list := []content{
		{labels: pairs("__name__", "ok"), samples: 1},
		{labels: pairs("job", "x"), samples: 1},
		{labels: pairs("__name__", "a", "b", "1", "b", "2"), samples: 1},
		{labels: pairs("__name__", "nön-legacy"), samples: 2},
	}
	var res router.Resolution
	for range 2 {
		r.Resolve(index(t, series.V2, list), &res)
		require.Equal(t, []router.Invalid{{Series: 1, Reason: remotewrite.ReasonMissingName}, {Series: 2, Reason: remotewrite.ReasonDuplicateLabel}}, res.Invalid)
		require.True(t, res.NonLegacy)
		require.Equal(t, []series.Counts{{Samples: 3}, {Samples: 3}}, res.Routed)
	}
	r.Resolve(index(t, series.V2, list[:1]), &res)
	require.False(t, res.NonLegacy)
}

func TestSetBackends_TooMany(t *testing.T) {
	r := router.New(series.NewTable(10), seed)
	list := make([]router.Backend, router.MaxBackends)
	for i := range list {
		list[i] = backend(fmt.Sprint(i), []*labels.Matcher{match(labels.MatchEqual, "n", fmt.Sprint(i))})
	}
	table, err := r.SetBackends(list)
	require.NoError(t, err)
	_, err = r.SetBackends(append(list, backend("one too many")))
	require.ErrorContains(t, err, "at most 64")
	require.Same(t, table, r.Table(), "the list in force stays")
	var res router.Resolution
	r.Resolve(index(t, series.V1, []content{{labels: pairs("__name__", "a", "n", "63"), samples: 1}}), &res)
	for i, c := range res.Routed {
		require.Equal(t, i == 63, c == series.Counts{Samples: 1}, i)
	}
}

// drawSelector draws matchers of all types over the names and values of drawContent.
func drawSelector(t *rapid.T) []*labels.Matcher {
	var sel []*labels.Matcher
	for range rapid.IntRange(1, 3).Draw(t, "matchers") {
		typ := rapid.SampledFrom([]labels.MatchType{labels.MatchEqual, labels.MatchNotEqual, labels.MatchRegexp, labels.MatchNotRegexp}).Draw(t, "type")
		name := rapid.SampledFrom([]string{"__name__", "a", "b", "c"}).Draw(t, "name")
		values := []string{"", "x", "y", "zz"}
		if typ == labels.MatchRegexp || typ == labels.MatchNotRegexp {
			values = append(values, "x|y", ".*", ".+", "z?", "[xy].*")
		}
		sel = append(sel, match(typ, name, rapid.SampledFrom(values).Draw(t, "value")))
	}
	return sel
}

func drawContent(t *rapid.T) content {
	c := content{
		labels:     pairs("__name__", rapid.SampledFrom([]string{"x", "y", "zz"}).Draw(t, "metric")),
		samples:    rapid.IntRange(0, 3).Draw(t, "samples"),
		histograms: rapid.IntRange(0, 2).Draw(t, "histograms"),
		exemplars:  rapid.IntRange(0, 2).Draw(t, "exemplars"),
	}
	for _, name := range []string{"a", "b", "c"} {
		if rapid.Bool().Draw(t, "has "+name) {
			c.labels = append(c.labels, prompb.Label{Name: name, Value: rapid.SampledFrom([]string{"", "x", "y", "zz"}).Draw(t, name)})
		}
	}
	c.labels = rapid.Permutation(c.labels).Draw(t, "order")
	return c
}

// takes is which series each backend takes, by Prometheus' own matching.
func takes(backends []router.Backend, list []content) (counts []series.Counts, sets [][]bool) {
	for _, b := range backends {
		var sum series.Counts
		set := make([]bool, len(list))
		for i := range list {
			ls := list[i].canonical()
			set[i] = len(b.Selectors) == 0
			for _, sel := range b.Selectors {
				all := true
				for _, m := range sel {
					all = all && m.Matches(ls.Get(m.Name))
				}
				set[i] = set[i] || all
			}
			if set[i] {
				sum.Add(list[i].counts())
			}
		}
		counts, sets = append(counts, sum), append(sets, set)
	}
	return counts, sets
}

// Whatever comes, whatever the size of the table and however often the backends
// change: counts and sets are those of matching every series by itself.
func TestRouting_EqualsBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := series.NewTable(rapid.SampledFrom([]int{0, 3, 1000}).Draw(t, "table"))
		r := router.New(table, seed)
		var res router.Resolution
		var earlier []*series.Batch // with ids of earlier epochs
		var earlierList [][]content
		for range rapid.IntRange(1, 4).Draw(t, "epochs") {
			var backends []router.Backend
			for i := range rapid.IntRange(1, 4).Draw(t, "backends") {
				b := router.Backend{Name: fmt.Sprint(i)}
				for range rapid.IntRange(0, 3).Draw(t, "selectors") {
					b.Selectors = append(b.Selectors, drawSelector(t))
				}
				backends = append(backends, b)
			}
			_, err := r.SetBackends(backends)
			require.NoError(t, err)
			pickers := make([]*router.Picker, len(backends))
			for i := range pickers {
				pickers[i] = router.NewPicker(r, fmt.Sprint(i), nil)
			}
			for range rapid.IntRange(1, 3).Draw(t, "requests") {
				v := rapid.SampledFrom([]series.Version{series.V1, series.V2}).Draw(t, "version")
				list := rapid.SliceOfN(rapid.Custom(drawContent), 0, 8).Draw(t, "series")
				m := index(t, v, list)
				r.Resolve(m, &res)
				require.Empty(t, res.Invalid)
				counts, sets := takes(backends, list)
				if res.Routed == nil {
					for i := range counts {
						require.Equal(t, m.Counts, counts[i])
					}
				} else {
					require.Equal(t, counts, res.Routed)
				}
				with, without := batch(t, v, list, &res), batch(t, v, list, nil)
				for i, p := range pickers {
					set, n := res.Takes(r.Table(), uint(i))
					same(t, sets[i], set, n)
					for _, b := range []*series.Batch{with, without} {
						set, n, err := p.Pick(b)
						require.NoError(t, err)
						same(t, sets[i], set, n)
						require.Equal(t, len(list), len(b.IDs))
						if len(list) > 0 {
							require.Equal(t, res.IDs, b.IDs)
						}
						c, err := p.Count(b)
						require.NoError(t, err)
						require.Equal(t, counts[i], c)
					}
				}
				earlier, earlierList = append(earlier, with), append(earlierList, list)
			}
			for k, b := range earlier {
				counts, sets := takes(backends, earlierList[k])
				for i, p := range pickers {
					set, n, err := p.Pick(b)
					require.NoError(t, err)
					same(t, sets[i], set, n)
					c, err := p.Count(b)
					require.NoError(t, err)
					require.Equal(t, counts[i], c)
				}
			}
		}
	})
}

// same compares a set with what it should hold.
func same(t require.TestingT, want []bool, set series.Set, n int) {
	sum := 0
	for i, w := range want {
		require.Equal(t, w, set.Has(i), i)
		if w {
			sum++
		}
	}
	require.Equal(t, sum, n)
	if n == len(want) {
		require.Nil(t, set, "a set of all is the nil set")
	}
}

func TestPicker_UnknownBackend(t *testing.T) {
	r := newRouter(t, series.NewTable(10), backend("a"))
	p := router.NewPicker(r, "b", nil)
	_, _, err := p.Pick(batch(t, series.V1, []content{one("x", "y")}, nil))
	require.ErrorContains(t, err, "backend b")
	_, err = p.Count(batch(t, series.V1, nil, nil))
	require.Error(t, err)
}

func TestPicker_DamagedBody(t *testing.T) {
	r := newRouter(t, series.NewTable(10), backend("a", []*labels.Matcher{match(labels.MatchEqual, "job", "x")}))
	p := router.NewPicker(r, "a", nil)
	b := batch(t, series.V1, []content{one("x", "y")}, nil)
	b.Body = b.Body[:len(b.Body)-1]
	_, _, err := p.Pick(b)
	require.ErrorContains(t, err, "journal body")
	_, err = p.Count(b)
	require.ErrorContains(t, err, "journal body")
}

// Metadata in bodies that are read after a restart is not lost to RW 2.0 backends.
func TestPicker_ObservesMetadata(t *testing.T) {
	r := newRouter(t, series.NewTable(10), backend("a"))
	cache := remotewrite.NewMetadataCache(remotewrite.MetadataCacheOptions{})
	p := router.NewPicker(r, "a", cache)
	req := prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{{Labels: pairs("__name__", "up"), Samples: []prompb.Sample{{Timestamp: 1}}}},
		Metadata:   []prompb.MetricMetadata{{MetricFamilyName: "up", Help: "Up."}},
	}
	plain, err := req.Marshal()
	require.NoError(t, err)
	buf := series.NewBuffer(100)
	buf.B = append(buf.B, snappy.Encode(nil, plain)...)
	b := series.NewBatch(buf)
	b.Version, b.Series, b.Decoded = series.V1, 1, len(plain)
	set, n, err := p.Pick(b)
	require.NoError(t, err)
	require.Nil(t, set)
	require.Equal(t, 1, n)
	md, ok := cache.Get([]byte("up"))
	require.True(t, ok)
	require.Equal(t, "Up.", string(md.Help))
}

// Backends change places while requests are resolved and batches picked: each answer
// is that of one list, never of a mixture.
func TestRouting_ConcurrentChanges(t *testing.T) {
	for _, size := range []int{1000, 2} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			// The backends' names say what they take, their places change.
			a := backend("a", []*labels.Matcher{match(labels.MatchEqual, "job", "a")})
			b := backend("b", []*labels.Matcher{match(labels.MatchEqual, "job", "b")})
			other := backend("other", []*labels.Matcher{match(labels.MatchEqual, "job", "c")})
			lists := [][]router.Backend{{a, b}, {b, a}, {other, a, b}, {b, other, a}}
			table := series.NewTable(size)
			r := newRouter(t, table, lists[0]...)
			list := []content{one("x", "a"), one("y", "b"), one("y", "b"), one("z", "a"), one("w", "a")}
			want := map[string]series.Counts{"a": {Samples: 3}, "b": {Samples: 2}, "other": {}}
			wantSet := map[string][]bool{"a": {true, false, false, true, true}, "b": {false, true, true, false, false}}

			stop := make(chan struct{})
			var changes, work sync.WaitGroup
			changes.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := r.SetBackends(lists[i%len(lists)]); err != nil {
						t.Error(err)
						return
					}
					table.Tick(uint32(i))
					table.Len()
				}
			})
			batches := make(chan *series.Batch, 16)
			for range 2 {
				work.Go(func() {
					var res router.Resolution
					m := index(t, series.V2, list)
					for range 1500 {
						r.Resolve(m, &res)
						if len(res.Routed) != 2 && len(res.Routed) != 3 {
							t.Errorf("counts for %d backends", len(res.Routed))
							return
						}
						if table := r.Table(); table.Epoch == res.Epoch {
							for i, b := range table.Backends {
								if res.Routed[i] != want[b.Name] {
									t.Errorf("backend %s: %v", b.Name, res.Routed[i])
									return
								}
							}
						}
						select {
						case batches <- batch(t, series.V2, list, &res):
						default:
						}
					}
				})
			}
			for _, name := range []string{"a", "b"} {
				work.Go(func() {
					p := router.NewPicker(r, name, nil)
					for range 1500 {
						var b *series.Batch
						select {
						case b = <-batches:
						default:
							b = batch(t, series.V2, list, nil)
						}
						set, n, err := p.Pick(b)
						if err != nil {
							t.Error(err)
							return
						}
						same(t, wantSet[name], set, n)
						if c, err := p.Count(b); err != nil || c != want[name] {
							t.Error(c, err)
							return
						}
					}
				})
			}
			work.Wait()
			close(stop)
			changes.Wait()
		})
	}
}

// The routes of ids are those of the list in force. Who still holds the one before must
// not read them with its bits.
func TestTakesOf_TableOfBefore(t *testing.T) {
	a := backend("a", []*labels.Matcher{match(labels.MatchEqual, "job", "a")})
	b := backend("b", []*labels.Matcher{match(labels.MatchEqual, "job", "b")})
	r := newRouter(t, series.NewTable(10), a, b)
	list := []content{one("x", "a"), one("y", "b")}
	var res router.Resolution
	m := index(t, series.V1, list)
	r.Resolve(m, &res)
	before := r.Table()
	old := batch(t, series.V1, list, &res)
	set, n, ok := r.TakesOf(before, 0, old)
	require.True(t, ok)
	same(t, []bool{true, false}, set, n)

	_, err := r.SetBackends([]router.Backend{b, a})
	require.NoError(t, err)
	r.Resolve(m, &res)
	_, _, ok = r.TakesOf(before, 0, old)
	require.False(t, ok)
	_, _, ok = r.TakesOf(r.Table(), 0, old)
	require.False(t, ok, "the batch was resolved for the list before")
	set, n, ok = r.TakesOf(r.Table(), 0, batch(t, series.V1, list, &res))
	require.True(t, ok)
	same(t, []bool{false, true}, set, n)
}

// Known series cost nothing but their look-up.
func TestResolve_Allocations(t *testing.T) {
	r := newRouter(t, series.NewTable(10_000), backend("all"))
	var list []content
	for i := range 2000 {
		list = append(list, one(fmt.Sprint("m", i), "x"))
	}
	m := index(t, series.V1, list)
	var res router.Resolution
	r.Resolve(m, &res)
	require.Zero(t, testing.AllocsPerRun(20, func() { r.Resolve(m, &res) }))
}

func BenchmarkResolve(b *testing.B) {
	var list []content
	for i := range 2000 {
		list = append(list, content{labels: pairs("__name__", fmt.Sprint("m", i), "job", fmt.Sprint("job", i%2)), samples: 1})
	}
	for name, backends := range map[string][]router.Backend{
		"all":       {backend("all")},
		"selective": {backend("all"), backend("one", []*labels.Matcher{match(labels.MatchEqual, "job", "job1")})},
	} {
		for _, v := range []series.Version{series.V1, series.V2} {
			for _, hit := range []bool{true, false} {
				b.Run(fmt.Sprintf("%s/%s/hit=%t", name, v, hit), func(b *testing.B) {
					r := newRouter(b, series.NewTable(100_000), backends...)
					m := index(b, v, list)
					var res router.Resolution
					r.Resolve(m, &res)
					b.ReportAllocs()
					for b.Loop() {
						if !hit {
							if _, err := r.SetBackends(backends); err != nil {
								b.Fatal(err)
							}
						}
						r.Resolve(m, &res)
					}
					ns := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / float64(len(list))
					b.ReportMetric(math.Round(ns*10)/10, "ns/series")
				})
			}
		}
	}
}
