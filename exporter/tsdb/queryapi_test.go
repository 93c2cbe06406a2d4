package tsdb

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	promapi "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/sluice-metrics/sluice/internal/remotewrite"
	"github.com/sluice-metrics/sluice/internal/series"
)

// families is a MetadataStore.
type families []remotewrite.Metadata

func (f families) Get(family []byte) (remotewrite.Metadata, bool) {
	for _, md := range f {
		if string(md.Family) == string(family) {
			return md, true
		}
	}
	return remotewrite.Metadata{}, false
}

func (f families) All(int) []remotewrite.Metadata { return f }

// filled is a store with a few series, served at the root and under a prefix.
func filled(t *testing.T) (b *Backend, server *httptest.Server) {
	b = store(t, t.TempDir(), func(o *Options) {
		o.Metadata = families{
			{Family: []byte("up_total"), Type: remotewrite.MetricCounter, Help: []byte("How often up."), Unit: []byte("times")},
			{Family: []byte("odd"), Type: 99},
		}
	})
	require.Empty(t, deliver(t, b, whole((&table{}).request(t, series.V2,
		row{labels: named("up_total", "job", "a"), points: []point{{t: base, v: 1}, {t: base + 15_000, v: 2}, {t: base + 30_000, v: stale()}}},
		row{
			labels: named("up_total", "job", "b"), points: []point{{t: base, v: 10}, {t: base + 15_000, v: 20}, {t: base + 30_000, v: 30}},
			exemplars: []exemplar.Exemplar{trace("abc", base+15_000, 20)},
		},
		row{labels: named("sizes", "job", "b"), points: []point{{t: base, h: tsdbutil.GenerateTestHistogram(1)}, {t: base + 15_000, h: tsdbutil.GenerateTestHistogram(2)}}},
	))))
	mux := http.NewServeMux()
	mux.Handle("/api/v1/", b.Handler(""))
	mux.Handle("/backends/local/api/v1/", b.Handler("/backends/local"))
	server = httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return b, server
}

var prefixes = []string{"", "/backends/local"}

func TestQueryEndpoints(t *testing.T) {
	_, server := filled(t)
	at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
	for _, c := range []struct {
		method, path string
		form         url.Values
		code         int
		want         string // part of the body
	}{
		{"GET", "query", url.Values{"query": {"sum(up_total)"}, "time": {at(base + 15_000)}}, 200, `"value":[1700000015,"22"]`},
		{"POST", "query", url.Values{"query": {"up_total"}, "time": {at(base + 31_000)}}, 200, `"result":[{"metric":{"__name__":"up_total","job":"b"},"value":[1700000031,"30"]}]`},
		{"GET", "query", url.Values{"query": {"histogram_count(sizes)"}, "time": {at(base)}}, 200, `"21"`},
		{"GET", "query", url.Values{"query": {"sum("}}, 400, `"errorType":"bad_data"`},
		{"GET", "query", url.Values{"query": {"up_total"}, "time": {"x"}}, 400, `"errorType":"bad_data"`},
		{"GET", "query_range", url.Values{"query": {"sum(up_total)"}, "start": {at(base)}, "end": {at(base + 30_000)}, "step": {"15"}}, 200, `"values":[[1700000000,"11"],[1700000015,"22"],[1700000030,"30"]]`},
		{"POST", "query_range", url.Values{"query": {"up_total"}, "start": {at(base)}, "end": {at(base - 1000)}, "step": {"15"}}, 400, "end timestamp must not be before start time"},
		{"GET", "query_exemplars", url.Values{"query": {"up_total"}, "start": {at(base)}, "end": {at(base + 60_000)}}, 200, `"exemplars":[{"labels":{"trace_id":"abc"},"value":"20","timestamp":1700000015}]`},
		{"GET", "format_query", url.Values{"query": {"a+b"}}, 200, `"data":"a + b"`},
		{"GET", "parse_query", url.Values{"query": {"a"}}, 200, `"type":"vectorSelector"`},
		{"GET", "labels", nil, 200, `["__name__","job"]`},
		{"POST", "labels", url.Values{"match[]": {"nothing"}}, 200, `"data":[]`},
		{"GET", "label/job/values", nil, 200, `["a","b"]`},
		{"GET", "label/j%20b/values", nil, 200, `"data":[]`},
		{"GET", "series", url.Values{"match[]": {`{job="a"}`}, "start": {at(base)}, "end": {at(base + 60_000)}}, 200, `[{"__name__":"up_total","job":"a"}]`},
		{"GET", "series", nil, 400, "no match[] parameter provided"},
		{"GET", "metadata", nil, 200, `"up_total":[{"type":"counter","unit":"times","help":"How often up."}]`},
		{"GET", "metadata", url.Values{"metric": {"odd"}}, 200, `{"odd":[{"type":"unknown","unit":"","help":""}]}`},
		{"GET", "metadata", url.Values{"metric": {"none"}}, 200, `"data":{}`},
		{"GET", "rules", nil, 200, `"groups":[]`},
		{"GET", "alerts", nil, 200, `"alerts":[]`},
		{"GET", "status/buildinfo", nil, 200, `"version":"` + prometheusVersion + `"`},
		{"GET", "status/tsdb", nil, 200, `"numSeries":3`},
		{"POST", "read", nil, 400, ""},
		{"OPTIONS", "query", nil, 204, ""},

		{"GET", "targets", nil, 404, `"errorType":"not_found"`},
		{"GET", "status/config", nil, 404, `"errorType":"not_found"`},
		{"GET", "notifications", nil, 404, `"errorType":"not_found"`},
		{"GET", "openapi.yaml", nil, 404, `"errorType":"not_found"`},
		{"POST", "write", nil, 404, `"errorType":"not_found"`},
		{"POST", "admin/tsdb/delete_series", url.Values{"match[]": {"up_total"}}, 404, `"errorType":"not_found"`},
		{"GET", "nonsense", nil, 404, ""},
	} {
		for _, prefix := range prefixes {
			t.Run(c.method+prefix+"/"+c.path+"?"+c.form.Encode(), func(t *testing.T) {
				address := server.URL + prefix + "/api/v1/" + c.path
				var body io.Reader
				if c.method == "POST" {
					body = strings.NewReader(c.form.Encode())
				} else if c.form != nil {
					address += "?" + c.form.Encode()
				}
				req, err := http.NewRequest(c.method, address, body)
				require.NoError(t, err)
				if c.method == "POST" {
					req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				}
				req.Header.Set("Origin", "http://grafana.example")
				resp, err := server.Client().Do(req)
				require.NoError(t, err)
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.Equal(t, c.code, resp.StatusCode, "%s", text)
				require.Contains(t, string(text), c.want)
				if c.code == 200 || c.code == 204 {
					require.Equal(t, "*", resp.Header.Get("Access-Control-Allow-Origin"))
				}
				if c.want != "" {
					require.True(t, json.Valid(text), "%s", text)
				}
			})
		}
	}
}

// The client that promtool and many others are made of.
func TestPrometheusClient(t *testing.T) {
	_, server := filled(t)
	for _, prefix := range prefixes {
		client, err := api.NewClient(api.Config{Address: server.URL + prefix, Client: server.Client()})
		require.NoError(t, err)
		p := promapi.NewAPI(client)
		ctx := context.Background()
		first, last := time.UnixMilli(base), time.UnixMilli(base+30_000)

		v, warnings, _, err := p.Query(ctx, `up_total{job="b"}`, last)
		require.NoError(t, err)
		require.Empty(t, warnings)
		require.Equal(t, `up_total{job="b"} => 30 @[1700000030]`, v.String())

		v, _, _, err = p.QueryRange(ctx, `sum(up_total)`, promapi.Range{Start: first, End: last, Step: 15 * time.Second})
		require.NoError(t, err)
		require.Equal(t, "{} =>\n11 @[1700000000]\n22 @[1700000015]\n30 @[1700000030]", v.String())

		v, _, _, err = p.Query(ctx, "sizes", first)
		require.NoError(t, err)
		require.EqualValues(t, 21, v.(model.Vector)[0].Histogram.Count)

		names, _, _, err := p.LabelNames(ctx, nil, first, last)
		require.NoError(t, err)
		require.Equal(t, model.LabelNames{"__name__", "job"}, names)
		values, _, _, err := p.LabelValues(ctx, "job", []string{"sizes"}, first, last)
		require.NoError(t, err)
		require.Equal(t, model.LabelValues{"b"}, values)
		sets, _, _, err := p.Series(ctx, []string{"sizes"}, first, last)
		require.NoError(t, err)
		require.Equal(t, []model.LabelSet{{"__name__": "sizes", "job": "b"}}, sets)
		md, err := p.Metadata(ctx, "up_total", "")
		require.NoError(t, err)
		require.Equal(t, map[string][]promapi.Metadata{"up_total": {{Type: "counter", Help: "How often up.", Unit: "times"}}}, md)
		es, err := p.QueryExemplars(ctx, "up_total", first, last)
		require.NoError(t, err)
		require.Len(t, es, 1)
		info, err := p.Buildinfo(ctx)
		require.NoError(t, err)
		require.Equal(t, prometheusVersion, info.Version)
		rules, err := p.Rules(ctx, nil)
		require.NoError(t, err)
		require.Empty(t, rules.Groups)
		stats, err := p.TSDB(ctx)
		require.NoError(t, err)
		require.Equal(t, 3, stats.HeadStats.NumSeries)

		_, _, _, err = p.Query(ctx, "sum(", last)
		var e *promapi.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, promapi.ErrBadData, e.Type)
	}
}

func TestRemoteRead(t *testing.T) {
	_, server := filled(t)
	for _, prefix := range prefixes {
		for _, kind := range []prompb.ReadRequest_ResponseType{prompb.ReadRequest_SAMPLES, prompb.ReadRequest_STREAMED_XOR_CHUNKS} {
			address, err := url.Parse(server.URL + prefix + "/api/v1/read")
			require.NoError(t, err)
			client, err := remote.NewReadClient("test", &remote.ClientConfig{
				URL:                   &config.URL{URL: address},
				Timeout:               model.Duration(time.Minute),
				HTTPClientConfig:      config.DefaultHTTPClientConfig,
				ChunkedReadLimit:      1 << 20,
				AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{kind},
			})
			require.NoError(t, err)
			q, err := remote.ToQuery(base, base+20_000, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "job", "b")}, nil)
			require.NoError(t, err)
			set, err := client.Read(context.Background(), q, true)
			require.NoError(t, err)
			got := map[string]int{}
			for set.Next() {
				it := set.At().Iterator(nil)
				for it.Next() != chunkenc.ValNone {
					got[set.At().Labels().Get("__name__")]++
				}
				require.NoError(t, it.Err())
			}
			require.NoError(t, set.Err())
			require.Equal(t, map[string]int{"up_total": 2, "sizes": 2}, got, kind)
		}
	}
}

// Clients of remote read get no chunk encodings that are younger than they may be.
func TestRemoteReadChunkEncodings(t *testing.T) {
	b := store(t, t.TempDir(), nil)
	rows := everyKind(series.V2)
	require.Empty(t, deliver(t, b, whole((&table{}).request(t, series.V2, rows...))))
	q, err := b.query.api().Queryable.ChunkQuerier(0, base*2)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*"))
	samples := map[string]int{}
	for set.Next() {
		chunks := set.At().Iterator(nil)
		for chunks.Next() {
			c := chunks.At().Chunk
			require.Contains(t, []chunkenc.Encoding{chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram}, c.Encoding())
			samples[set.At().Labels().String()] += c.NumSamples()
		}
		require.NoError(t, chunks.Err())
	}
	require.NoError(t, set.Err())
	require.Len(t, samples, len(rows))
	for _, r := range rows {
		require.Equal(t, len(r.points), samples[r.labels.String()], r.labels)
	}
	names, _, err := q.LabelNames(context.Background(), nil)
	require.NoError(t, err)
	require.Contains(t, names, "__name__")
	values, _, err := q.LabelValues(context.Background(), "__name__", nil)
	require.NoError(t, err)
	require.Len(t, values, len(rows))
}

// Queries that run when the store closes are cancelled and waited for; later ones are
// told so.
func TestCloseUnderQueries(t *testing.T) {
	b, server := filled(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				resp, err := server.Client().Get(server.URL + "/api/v1/query_range?query=sum(up_total)&start=1700000000&end=1700000600&step=1")
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode == http.StatusServiceUnavailable {
					return
				}
			}
		})
	}
	resp, err := server.Client().Get(server.URL + "/api/v1/labels")
	require.NoError(t, err)
	resp.Body.Close()
	require.NoError(t, b.Close())
	wg.Wait()
	resp, err = server.Client().Get(server.URL + "/api/v1/query?query=1")
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.JSONEq(t, `{"status":"error","errorType":"unavailable","error":"the embedded store is closed"}`, string(text))
}

// A client that asks for much and reads nothing does not keep the store from closing.
func TestCloseUnderAStuckClient(t *testing.T) {
	b := store(t, t.TempDir(), nil)
	b.query.grace = time.Millisecond
	var rows []row
	for i := range 200 {
		rows = append(rows, row{labels: named("wide", "i", strings.Repeat("x", 1000)+strconv.Itoa(i)), points: []point{{t: base, v: 1}}})
	}
	require.Empty(t, deliver(t, b, whole((&table{}).request(t, series.V1, rows...))))
	blocked := make(chan struct{})
	var once sync.Once
	api := b.Handler("")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api.ServeHTTP(&noticing{w, func() { once.Do(func() { close(blocked) }) }}, r)
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	// 200 series of 10,000 points: about 40 MB of answer, more than sockets buffer.
	_, err = io.WriteString(conn, "GET /api/v1/query_range?query=wide&start=1700000000&end=1700000200&step=0.02 HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	<-blocked
	require.NoError(t, b.Close())
}

// noticing calls notice at the first byte of an answer.
type noticing struct {
	http.ResponseWriter
	notice func()
}

func (w *noticing) Write(p []byte) (int, error) {
	w.notice()
	return w.ResponseWriter.Write(p)
}

func (w *noticing) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestQueriesWaitForAPlace(t *testing.T) {
	ts := newTurnstile(1)
	_, err := ts.Insert(context.Background(), "first")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = ts.Insert(ctx, "second")
	require.ErrorIs(t, err, context.Canceled)
	ctx, cancel = context.WithTimeout(context.Background(), 0)
	defer cancel()
	_, err = ts.Insert(ctx, "second")
	require.IsType(t, promql.ErrQueryTimeout(""), err)
	ts.Delete(0)
	_, err = ts.Insert(context.Background(), "third")
	require.NoError(t, err)
	require.Equal(t, 1, ts.GetMaxConcurrent())
	require.NoError(t, ts.Close())
}

func TestQueryLimits(t *testing.T) {
	for _, c := range []struct {
		change func(*QueryConfig)
		code   int
		want   string
	}{
		{func(*QueryConfig) {}, 200, `"values":`},
		{func(c *QueryConfig) { c.MaxSamples = 3 }, 422, "too many samples"},
		{func(c *QueryConfig) { c.Timeout = 1 }, 503, "query timed out"},
		{func(c *QueryConfig) { c.LookbackDelta = duration(900 * time.Millisecond) }, 200, `"result":[]`},
	} {
		b := store(t, t.TempDir(), func(o *Options) { c.change(&o.Config.Query) })
		require.Empty(t, deliver(t, b, whole((&table{}).request(t, series.V1, floats(named("a"), float64(base), 1, float64(base+1), 1, float64(base+2), 1, float64(base+3), 1)))))
		get := func(query string) (int, string) {
			w := httptest.NewRecorder()
			b.Handler("").ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/query?query="+query+"&time=1700000001", nil))
			return w.Code, w.Body.String()
		}
		query := "a[1m]"
		if c.want == `"result":[]` {
			query = "a"
		}
		code, text := get(query)
		require.Equal(t, c.code, code, text)
		require.Contains(t, text, c.want)
	}
}

// The version told to clients is the one that is linked.
func TestPrometheusVersionIsThatOfTheModule(t *testing.T) {
	text, err := os.ReadFile("../../go.mod")
	require.NoError(t, err)
	m := regexp.MustCompile(`github.com/prometheus/prometheus v0\.(\d)(\d\d)\.(\d+)\n`).FindStringSubmatch(string(text))
	require.Len(t, m, 4)
	minor := strings.TrimPrefix(m[2], "0")
	require.Equal(t, prometheusVersion, m[1]+"."+minor+"."+m[3])
}

// A store of the same name may be opened again, and stores of two names side by side.
func TestMetricsComeAndGo(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	dir := t.TempDir()
	open := func(name string) *Backend {
		b, err := Open(Options{Name: name, Config: DefaultConfig(), Dir: dir + "/" + name, Registerer: reg})
		require.NoError(t, err)
		w := httptest.NewRecorder()
		b.Handler("").ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/query?query=1", nil))
		require.Equal(t, 200, w.Code)
		return b
	}
	one, two := open("one"), open("two")
	require.Empty(t, deliver(t, one, whole((&table{}).request(t, series.V1, floats(named("a"), float64(base), 1)))))
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP sluice_tsdb_commits_total Groups of samples written to the log of the embedded store. More than one for a parcel when a series comes back in it with an older timestamp.
# TYPE sluice_tsdb_commits_total counter
sluice_tsdb_commits_total{backend="one"} 1
sluice_tsdb_commits_total{backend="two"} 0
# HELP sluice_tsdb_query_requests_total Requests to the query API of the embedded store.
# TYPE sluice_tsdb_query_requests_total counter
sluice_tsdb_query_requests_total{backend="one",code="200",handler="/query"} 1
sluice_tsdb_query_requests_total{backend="two",code="200",handler="/query"} 1
`), "sluice_tsdb_commits_total", "sluice_tsdb_query_requests_total"))
	n, err := testutil.GatherAndCount(reg, "prometheus_tsdb_head_series", "prometheus_engine_queries")
	require.NoError(t, err)
	require.Equal(t, 4, n)

	require.NoError(t, one.Close())
	require.NoError(t, two.Close())
	left, err := reg.Gather()
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, open("one").Close())
}
